"""Two networks with layers of the same names, and the outputs of these layers while the networks run."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from hmatrix.errors import NetworkError
from hmatrix.nn.network.running import first_tensor


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
        # The first name of a module with several.
        self.student_layers = {name: module for name, module in student.named_modules() if isinstance(module, kinds)}
        originals = dict(teacher.named_modules(remove_duplicate=False))
        if missing := [name for name in self.student_layers if name not in originals]:
            came = f"has no layer {', '.join(missing)}"
            raise NetworkError("teacher", came, "give the network that was compressed, as it was before")
        self.teacher_layers = {name: originals[name] for name in self.student_layers}


@contextmanager
def watching(layers: Mapping[str, nn.Module], see: Callable[[str, Tensor], Tensor | None]) -> Iterator[None]:
    """Show the output of layers to a function at each call, with the name; its result takes the output's place."""

    def hook(name: str) -> Any:
        return lambda module, arguments, output: see(name, first_tensor(output))  # noqa: ARG005

    hooks = [module.register_forward_hook(hook(name)) for name, module in layers.items()]
    try:
        yield
    finally:
        for handle in hooks:
            handle.remove()


@contextmanager
def recording(layers: Mapping[str, nn.Module]) -> Iterator[dict[str, list[Tensor]]]:
    """Record the outputs of layers, in the order of their calls.

    Where the next operation works in place, a layer's output is seen as that leaves it.
    """
    recorded: dict[str, list[Tensor]] = {name: [] for name in layers}
    with watching(layers, lambda name, output: recorded[name].append(output)):
        yield recorded
