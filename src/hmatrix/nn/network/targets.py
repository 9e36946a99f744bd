"""The layers of a network that are compressed: chosen by a function, by name, and by shared weights."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import nn

from hmatrix._support.typing import FloatArray
from hmatrix.allocation import Budget
from hmatrix.assembly import Sides
from hmatrix.codes.precision import Activations
from hmatrix.errors import ArgumentError, NetworkError
from hmatrix.nn.layers.weight import HWeight
from hmatrix.nn.network.kinds import Kind, kind_of, matrix_of, shape_of

Select = Callable[[str, nn.Module], bool]

_PATTERN = "re:"

_LISTED = 8
"""Names that a message shows."""


@dataclass(frozen=True)
class LayerSettings:
    """Settings of the compression of one layer.

    Parameters
    ----------
    budget
        A budget of its own, apart from that of the network; ``None`` for its share of that.
    activations
        Treatment of a product's input where it meets integer codes: int8 for speed.
    coordinates
        Coordinates of rows and columns, see `hmatrix.Allocator`.
    unbiased
        Whether outputs keep their size, see `hmatrix.Allocator.allocate`; otherwise the layer's error is least.

    Examples
    --------
    >>> hnn.LayerSettings(budget=hm.Budget(storage=0.5), unbiased=False).budget.storage
    0.5
    """

    budget: Budget | None = None
    activations: Activations = Activations.INT8
    coordinates: Sides | None = None
    unbiased: bool = True

    def __post_init__(self) -> None:
        if self.budget is not None and self.budget.max_drop is not None:
            raise ArgumentError("overrides", "give a layer max_drop", "give that to the whole network")


Override = Budget | LayerSettings | None
"""An exception for one layer: its budget, all of its settings, or ``None`` to leave it as it is."""


@dataclass(eq=False)
class Target:
    """A weight that is compressed, and the layers that have it.

    Parameters
    ----------
    layers
        Their names and modules; more than one where weights are tied, or a module is used under several names.
    settings
        Settings of its compression.
    """

    layers: dict[str, nn.Module]
    settings: LayerSettings
    kinds: dict[str, Kind] = field(init=False)

    def __post_init__(self) -> None:
        self.kinds = {name: kind for name, module in self.layers.items() if (kind := kind_of(module)) is not None}

    @property
    def name(self) -> str:
        """The name of the first layer."""
        return next(iter(self.layers))

    @property
    def module(self) -> nn.Module:
        """The first layer."""
        return next(iter(self.layers.values()))

    @property
    def modules(self) -> dict[str, nn.Module]:
        """Each module once, under its first name."""
        found: dict[nn.Module, str] = {}
        for name, module in self.layers.items():
            found.setdefault(module, name)
        return {name: module for module, name in found.items()}

    @property
    def weight(self) -> FloatArray:
        """The weight as a matrix ``(m, n)``, float32."""
        matrix: FloatArray = matrix_of(self.module).numpy()
        return matrix

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the matrix, ``(m, n)``."""
        return shape_of(self.module)

    @property
    def dense_bytes(self) -> int:
        """Bytes of the weight in float32."""
        return 4 * self.shape[0] * self.shape[1]


def everything(name: str, module: nn.Module) -> bool:  # noqa: ARG001
    """Select all layers that can be compressed."""
    return True


def matching(pattern: str) -> Select:
    """Return a selection by exact name, or by a regular expression after ``re:`` that the whole name matches.

    Examples
    --------
    >>> select = hnn.matching("re:encoder.*")
    >>> select("encoder.fc", torch.nn.Linear(2, 2)), select("head", torch.nn.Linear(2, 2))
    (True, False)
    """
    matches = _matcher(pattern)
    return lambda name, module: matches(name)  # noqa: ARG005


def last_linear(model: nn.Module) -> Select:
    """Return the selection of a network's last `torch.nn.Linear`.

    Raises
    ------
    NetworkError
        If there is none.

    Examples
    --------
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))
    >>> select = hnn.last_linear(model)
    >>> select("0", model[0]), select("1", model[1])
    (False, True)
    """
    names = [name for name, module in model.named_modules() if type(module) is nn.Linear]
    if not names:
        raise NetworkError("network", "has no nn.Linear", "choose other layers")
    return lambda name, module: name == names[-1]  # noqa: ARG005


def find_targets(
    model: nn.Module, select: Select, overrides: Mapping[str, Override], defaults: LayerSettings
) -> list[Target]:
    """Find the weights to compress, in the order of the network.

    Raises
    ------
    ArgumentError
        If a name in `overrides` fits no layer, or only some of the layers that share a weight are chosen.
    NetworkError
        If no layer is chosen.
    """
    rules = [(pattern, _matcher(pattern), override) for pattern, override in overrides.items()]
    unused = {pattern for pattern, _, _ in rules}
    users: dict[int, dict[str, nn.Module]] = {}
    settings: dict[int, LayerSettings] = {}
    left: dict[int, str] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        for weight in module.parameters(recurse=False):
            known = users.setdefault(id(weight), {})
            known[name] = module
        kind = kind_of(module)
        if kind is None:
            continue
        override: Override = defaults if select(name, module) else None
        for pattern, matches, given in rules:
            if matches(name):
                unused.discard(pattern)
                override = given
                break
        key = id(module.weight)
        if override is None:
            left[key] = name
        else:
            settings[key] = _settings(override, defaults)
    if unused:
        mend = f"there are {_listed(model)}"
        raise ArgumentError("overrides", f"{', '.join(sorted(unused))} fits no layer", mend)
    for key in settings.keys() & left.keys():
        chosen = ", ".join(name or "the network" for name in users[key])
        raise ArgumentError(
            "select", f"leaves {left[key]} out, of {chosen}, which share a weight", "choose all or none"
        )
    targets = [
        Target(users[key], setting)
        for key, setting in settings.items()
        # A weight that something else reads, too, must stay what it is.
        if all(kind_of(module) is not None for module in users[key].values())
    ]
    if not targets:
        mend = "choose nn.Linear, nn.Conv2d or nn.Embedding layers"
        if listed := _listed(model):
            mend += f", here {listed}"
        if any(isinstance(module, HWeight) for module in model.modules()):
            mend += "; this network is compressed already, in part at least: give it as it was before"
        raise NetworkError("network", "no layer that can be compressed is chosen", mend)
    return targets


def _listed(model: nn.Module) -> str:
    """Return the names of the layers that can be compressed."""
    names = [name for name, module in model.named_modules() if kind_of(module) is not None]
    return ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")


def _settings(override: Budget | LayerSettings, defaults: LayerSettings) -> LayerSettings:
    if isinstance(override, Budget):
        return LayerSettings(override, defaults.activations, defaults.coordinates)
    if not isinstance(override, LayerSettings):
        raise ArgumentError("overrides", f"got {override!r}", "give a Budget, LayerSettings, or None to leave a layer")
    return override


def _matcher(pattern: str) -> Callable[[str], bool]:
    if not pattern.startswith(_PATTERN):
        return lambda name: name == pattern
    try:
        compiled = re.compile(pattern.removeprefix(_PATTERN))
    except re.error as error:
        raise ArgumentError("pattern", f"{pattern} is no regular expression ({error})", "mend it") from error
    return lambda name: compiled.fullmatch(name) is not None
