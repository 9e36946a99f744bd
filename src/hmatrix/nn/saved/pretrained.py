"""Networks of Hugging Face's transformers, which is imported for them alone."""

import sys

from torch import nn


def make_ready(network: nn.Module) -> None:
    """Make the compressed layers of a network ready for `save_pretrained`, if it is one of transformers.

    Raises
    ------
    NetworkError
        If it is quantised by another method, too, or transformers is too old.
    """
    known = sys.modules.get("transformers.modeling_utils")
    if known is not None and any(isinstance(module, known.PreTrainedModel) for module in network.modules()):
        from hmatrix.nn import huggingface

        huggingface.carry(network)
