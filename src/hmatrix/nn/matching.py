"""Two networks with layers of the same names, and the outputs of these layers while the networks run."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from hmatrix.errors import NetworkError
from hmatrix.nn.running import first_tensor

Recorded = dict[str, list[Tensor]]
"""For each layer its outputs, in the order of its calls."""

Seen = Callable[[str, Tensor], Tensor | None]
"""Is told a layer's name and its output, and may return what goes on in the place of that."""


class Pair:
    """A compressed network, and the original.

    Parameters
    ----------
    student, teacher
        The two.
    kinds
        Types of the student's layers that are compared.

    Raises
    ------
    NetworkError
        If the teacher lacks one of these layers.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module, kinds: tuple[type[nn.Module], ...]) -> None:
        self.student = student
        self.teacher = teacher
        # Of a module with several names the first.
        self.student_layers = {name: module for name, module in student.named_modules() if isinstance(module, kinds)}
        originals = dict(teacher.named_modules(remove_duplicate=False))
        if missing := [name for name in self.student_layers if name not in originals]:
            came = f"has no layer {', '.join(missing)}"
            raise NetworkError("teacher", came, "give the network that was compressed, as it was before")
        self.teacher_layers = {name: originals[name] for name in self.student_layers}


@contextmanager
def watching(layers: Mapping[str, nn.Module], seen: Seen) -> Iterator[None]:
    """Tell a function the outputs of layers as they are computed."""

    def hook(name: str) -> Any:
        return lambda module, arguments, output: seen(name, first_tensor(output))  # noqa: ARG005

    hooks = [module.register_forward_hook(hook(name)) for name, module in layers.items()]
    try:
        yield
    finally:
        for handle in hooks:
            handle.remove()


@contextmanager
def recording(layers: Mapping[str, nn.Module]) -> Iterator[Recorded]:
    """Record the outputs of layers."""
    recorded: Recorded = {name: [] for name in layers}

    def seen(name: str, output: Tensor) -> None:
        recorded[name].append(output)

    with watching(layers, seen):
        yield recorded
