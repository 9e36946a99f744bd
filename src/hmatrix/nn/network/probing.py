"""A network measured before and after its layers are replaced."""

from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor, nn

from hmatrix.errors import NetworkError
from hmatrix.nn.network.replacing import Successors, exchange
from hmatrix.nn.network.running import Forward, outputs
from hmatrix.nn.network.sensitivity import change


@dataclass(frozen=True, eq=False)
class Probes:
    """Batches on which a network is measured, and what it gave for them as it was.

    Parameters
    ----------
    batches
        The batches; there may be none.
    reference
        The network's output for each of them.
    forward
        The function that runs a network on a batch.
    """

    batches: list[Any]
    reference: list[Tensor]
    forward: Forward

    @classmethod
    def of(cls, model: nn.Module, batches: list[Any], forward: Forward) -> Self:
        """Run a network as it is."""
        return cls(batches, outputs(model, batches, forward), forward)

    def effect(self, model: nn.Module, made: Successors) -> float:
        """Return the `change` of the network's output by successors of some layers, which leave no trace."""
        exchange(model, made)
        try:
            return change(self.reference, outputs(model, self.batches, self.forward))
        finally:
            exchange(model, {successor: module for module, successor in made.items()})

    def change(self, compressed: nn.Module) -> float | None:
        """Return the `change` of the output by compressing the network; ``None`` without batches.

        Raises
        ------
        NetworkError
            If the compressed network does not run, or its output is not finite.
        """
        try:
            found = outputs(compressed, self.batches, self.forward)
        except Exception as error:  # anything that the network's code may raise
            came = f"the compressed network does not run ({type(error).__name__}: {error})"
            mend = "leave out layers whose weight is read elsewhere, by `overrides`"
            raise NetworkError("network", came, mend) from error
        if not all(bool(tensor.isfinite().all()) for tensor in found):
            raise NetworkError("network", "the compressed network's output holds NaN or infinity", "allow more storage")
        return change(self.reference, found) if found else None
