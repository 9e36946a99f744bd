"""A network, ready to run, and the dense layer of it that is studied."""

from dataclasses import dataclass

import torch
from torch import nn

from hmatrix.errors import NetworkError
from hmatrix.study.config.settings import Network, PreprocessingOverride
from hmatrix.study.networks import digits
from hmatrix.study.networks.architectures import build
from hmatrix.study.networks.preprocessing import Preprocessing as Preprocessing
from hmatrix.study.networks.weights import check_finite, digest_tensors

DIGITS = "digits"
"""Name of the embedded network."""


@dataclass(frozen=True)
class ImageNetwork:
    """A classifier, ready to run.

    Parameters
    ----------
    name
        Name in the settings.
    module
        The network, in evaluation mode.
    preprocessing
        Preprocessing of an image to the network's input; ``None`` for the digits.
    """

    name: str
    module: nn.Module
    preprocessing: Preprocessing | None

    def count_classes(self) -> int:
        """Return the number of the network's outputs, found by running it once.

        Raises
        ------
        NetworkError
            If the network does not map a batch of images to rows of class scores.
        """
        crop = self.preprocessing.crop if self.preprocessing else 0
        shape = (1, 3, crop, crop) if self.preprocessing else (1, digits.PIXELS)
        subject = f"network {self.name}"
        try:
            with torch.inference_mode():
                output = self.module(torch.zeros(shape))
        except Exception as error:  # anything that the network's code may raise
            came = f"cannot process an input of shape {shape} ({error})"
            raise NetworkError(subject, came, "give the crop that it is made for as preprocessing") from error
        if not isinstance(output, torch.Tensor) or output.ndim != 2:
            raise NetworkError(subject, "its output is not one row of class scores", "name a classifier of images")
        return output.shape[1]


@dataclass(frozen=True)
class LoadedNetwork(ImageNetwork):
    """A network whose layer is studied, float32, without gradients.

    Parameters
    ----------
    layer_name, layer
        The layer that is studied.
    digest
        sha256 of all that settles the network's outputs: architecture, constructor's options, and the state dict's
        names, dtypes, shapes and bytes.
    """

    layer_name: str
    layer: nn.Linear
    digest: str


def load_network(network: Network) -> LoadedNetwork:
    """Load a network, find its layer, and check the layer's values.

    Parameters
    ----------
    network
        Network to load. Without ``weights``, the library downloads its own.

    Raises
    ------
    NetworkError
        If the model is unknown, refuses its options, cannot be downloaded, does not fit the weights,
        or has no such layer, or if the layer holds NaN or infinity.
    FormatError
        If the file of weights cannot be read.
    """
    if network.model is None:
        raise NetworkError("network", "no model is named", "name a torchvision or timm model, or digits")
    preprocessing: Preprocessing | None = None
    if network.model == DIGITS:
        architecture, module = DIGITS, _train_digits(network)
    else:
        architecture, module, preprocessing = build(network.model, network)
    module = module.float().requires_grad_(False).eval()
    layer_name, layer = _find_layer(module, network)
    for parameter in layer.parameters():
        check_finite(parameter, f"network {network.model}, layer {layer_name}")
    digest = digest_tensors(module.state_dict(), architecture, repr(sorted(network.options.items())))
    return LoadedNetwork(network.model, module, preprocessing, layer_name, layer, digest)


def _train_digits(network: Network) -> nn.Module:
    if network.weights or network.options or network.preprocessing != PreprocessingOverride():
        came = "weights, options or preprocessing are given"
        raise NetworkError("network digits", came, "leave them out: it is trained on the spot, on pixels as they are")
    return digits.train()


def _find_layer(module: nn.Module, network: Network) -> tuple[str, nn.Linear]:
    modules = dict(module.named_modules())
    layers = {name: layer for name, layer in modules.items() if isinstance(layer, nn.Linear)}
    subject = f"network {network.model}"
    if not layers:
        raise NetworkError(subject, "has no nn.Linear layer", "name a network with a dense layer")
    default = digits.LAYER if network.model == DIGITS else list(layers)[-1]
    name = network.layer or default
    if name not in layers:
        came = f"is a {type(modules[name]).__name__}" if name in modules else "does not exist"
        shapes = ", ".join(f"{key} ({layer.out_features} x {layer.in_features})" for key, layer in layers.items())
        raise NetworkError(f"{subject}, layer {name}", came, f"name an nn.Linear: {shapes}")
    return name, layers[name]
