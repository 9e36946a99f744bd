"""Products with a progressive head: the native kernel, or the same in NumPy."""

from typing import Protocol

from hmatrix import _core
from hmatrix._support.typing import FloatArray, Integers64
from hmatrix.heads.packed_head import PackedHead
from hmatrix.heads.reference import ReferenceHead
from hmatrix.packed.kernels import REFERENCE, backend, native_product


class HeadProduct(Protocol):
    """The outputs of one head, on contiguous arrays of float32."""

    def multiply(self, x: FloatArray, y: FloatArray) -> None:
        """Set y ``(m,)`` to the outputs of x ``(n,)``."""
        ...

    def multiply_batch(self, x: FloatArray, y: FloatArray) -> None:
        """Set y ``(batch, m)`` to the outputs of x ``(batch, n)``."""
        ...

    def largest_one(self, x: FloatArray, values: FloatArray, indices: Integers64) -> None:
        """Set values and indices ``(k,)`` to the largest outputs of x ``(n,)``."""
        ...

    def largest(self, x: FloatArray, values: FloatArray, indices: Integers64, counts: Integers64 | None) -> None:
        """Set values and indices ``(batch, k)`` to the largest outputs, and counts ``(batch,)`` to refined rows."""
        ...


def prepare_head(packed: PackedHead) -> HeadProduct:
    """Return the product with `packed` by the kernel that `backend` names."""
    name = backend().name
    return ReferenceHead(packed) if name == REFERENCE else native_head(packed, name)


def native_head(packed: PackedHead, instruction_set: str) -> HeadProduct:
    """Return the product with `packed` by the native kernel of one instruction set."""
    matrix = None if packed.matrix is None else native_product(packed.matrix, instruction_set)
    product: HeadProduct = _core.ProgressiveHead(instruction_set, packed.own_arrays(), matrix)
    return product
