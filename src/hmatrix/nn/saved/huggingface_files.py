"""The files of tensors beside a ``config.json``, checked before transformers reads them."""

from collections.abc import Iterable

from safetensors import SafetensorError, safe_open

from hmatrix._support.digests import check_digests
from hmatrix.errors import FormatError
from hmatrix.nn.saved.huggingface_config import HMatrixConfig
from hmatrix.nn.saved.tensor_digests import digest_of_tensor

_WORDS = ".weight.words"


def check_files(paths: Iterable[str], config: HMatrixConfig) -> None:
    """Check files against the layers that a configuration names, and against its digests.

    Tensors are mapped into memory, one by one. Those that are not in the files are transformers' to miss.

    Raises
    ------
    FormatError
        If a file is damaged, or has an H-matrix of which the configuration does not know.
    """
    layers, digests = config.layers or {}, dict(config.array_digests or {}) if config.verify else {}
    for path in paths:
        subject = f"file {path}"
        try:
            with safe_open(path, framework="pt") as file:
                names = list(file.keys())
                lost = [name.removesuffix(_WORDS) for name in names if name.endswith(_WORDS)]
                if lost := sorted(set(lost) - layers.keys()):
                    came = f"has an H-matrix for {lost[0]}, which quantization_config.layers does not name"
                    raise FormatError(subject, came, "config.json is damaged: save the network again")
                known = [name for name in names if name in digests]
                found = {name: digest_of_tensor(name, file.get_tensor(name)) for name in known}
        except (OSError, SafetensorError) as error:
            raise FormatError(subject, f"cannot be read ({error})", "save the network again") from error
        check_digests(subject, found, {name: digests[name] for name in known})
