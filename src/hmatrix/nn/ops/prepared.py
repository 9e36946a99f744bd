"""Packed matrices as tensors, and their products, which are prepared once for each.

The words are read where they are: changed in place, they count at the next product. Leaves, flag and
permutations that were changed in place, or replaced, are checked and prepared anew.
"""

import weakref
from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.weak import TensorWeakRef

from hmatrix import _core
from hmatrix._support.typing import AnyArray
from hmatrix.errors import ArgumentError
from hmatrix.matrix import HMatrix
from hmatrix.nn.ops.modes import outside_modes
from hmatrix.nn.ops.rows import RowTable, row_tables
from hmatrix.nn.ops.shortcut import Shortcut, shortcut_of
from hmatrix.nn.ops.stacks import ProductStructure, structure_of
from hmatrix.packed.packed_blocks import OPTIONAL, PackedBlocks


class PackedTensors(NamedTuple):
    """The arrays of a packed matrix as tensors.

    Parameters
    ----------
    words
        int32 or float64 ``(words,)``: the coefficients.
    leaves
        int32 ``(leaves, 7)``.
    quantized
        bool ``()``: whether activations are int8.
    row_permutation, column_permutation
        int32, or ``None``.
    """

    words: Tensor
    leaves: Tensor
    quantized: Tensor
    row_permutation: Tensor | None
    column_permutation: Tensor | None

    @classmethod
    def of(cls, matrix: HMatrix) -> "PackedTensors":
        """Return tensors that share the coefficients of a matrix, if they may be written to; all else is a copy."""
        packed = matrix.pack()
        # int32, since not everything in torch knows unsigned words.
        words = packed.data if packed.data.dtype == np.float64 else packed.data.view(np.int32)
        # Nothing here asks for the default device.
        with outside_modes():
            return cls(
                torch.from_numpy(words if words.flags.writeable else words.copy()),
                torch.from_numpy(packed.leaves.copy()),
                torch.from_numpy(np.array(packed.quantized)),
                *(
                    None if permutation is None else torch.from_numpy(permutation.copy())
                    for permutation in (packed.row_permutation, packed.column_permutation)
                ),
            )

    def copied(self, device: torch.device) -> "PackedTensors":
        """Return copies on a device."""
        with outside_modes():
            copies: list[Any] = [None if tensor is None else tensor.detach().to(device, copy=True) for tensor in self]
        return PackedTensors(*copies)

    def matrix(self, shape: tuple[int, int]) -> HMatrix:
        """Return the checked matrix ``(m, n)``; on the CPU it shares the coefficients.

        Raises
        ------
        ArgumentError
            If anything does not fit.
        """
        arrays = {
            name: _array(name, tensor)
            for name, tensor in self._asdict().items()
            if tensor is not None or name not in OPTIONAL
        }
        words, quantized = arrays["words"], arrays["quantized"]
        if quantized.shape != ():
            raise ArgumentError("quantized", f"has the shape {quantized.shape}", "give a single truth value")
        data = words.view(np.uint32) if words.dtype == np.int32 else words
        return HMatrix(PackedBlocks(shape, arrays["leaves"], data, bool(quantized), *map(arrays.get, OPTIONAL)))


class Prepared:
    """The product with the packed matrix of some tensors; it holds the memory of the words, but not their tensor.

    On the CPU it has the `matrix`, elsewhere the `structure` alone.

    Parameters
    ----------
    tensors
        The packed form.
    shape
        Shape of the matrix, ``(m, n)``.
    matrix
        The matrix of the tensors, where it is known; used if it shares their coefficients.

    Raises
    ------
    ArgumentError
        If the tensors are no packed matrix of that shape.
    """

    def __init__(self, tensors: PackedTensors, shape: tuple[int, int], matrix: HMatrix | None = None) -> None:
        shared = matrix is not None and tensors.words.data_ptr() == matrix.pack().data.ctypes.data
        checked = matrix if matrix is not None and shared else tensors.matrix(shape)
        self.shape = self.rows, self.columns = shape
        self.dtype = torch.float64 if checked.dtype == np.float64 else torch.float32
        self.on_host = tensors.words.device.type == "cpu"
        if self.on_host:
            self.matrix = checked
        else:
            # The coefficients on the host go.
            self.structure = structure_of(checked.pack(), tensors.words.device)
        self.others = (tensors.leaves, tensors.quantized, tensors.row_permutation, tensors.column_permutation)
        # Tensors made in inference mode do not tell whether they were changed: they are checked at every product.
        self.tracked = not any(tensor.is_inference() for tensor in tensors if tensor is not None)
        self._address = tensors.words.data_ptr() if self.tracked else -1
        self._versions = [0 if tensor is None or not self.tracked else tensor._version for tensor in self.others]

    def fits(
        self,
        words: Tensor,
        leaves: Tensor,
        quantized: Tensor,
        row_permutation: Tensor | None,
        column_permutation: Tensor | None,
    ) -> bool:
        """Whether tensors are still those that this was made of; `words` are the same tensor as then."""
        known_leaves, known_flag, known_rows, known_columns = self.others
        version, of_flag, of_rows, of_columns = self._versions
        return (
            words.data_ptr() == self._address
            and leaves is known_leaves
            and leaves._version == version
            and quantized is known_flag
            and quantized._version == of_flag
            and row_permutation is known_rows
            and (row_permutation is None or row_permutation._version == of_rows)
            and column_permutation is known_columns
            and (column_permutation is None or column_permutation._version == of_columns)
        )

    def adds(self, bias: Tensor | None) -> bool:
        """Whether a bias, ``(m,)`` where it is one, can be given to the native product by its address."""
        return bias is None or (
            bias.dtype is self.dtype
            and bias.is_cpu
            and bias.is_contiguous()
            and bias.numel() == self.rows
            and not bias.is_neg()
        )

    @cached_property
    def multiply_at(self) -> Callable[[int, int, int, int], None] | None:
        """The native product by addresses of x, y, batch and bias; ``None`` where the kernel is not native."""
        plan = self._native
        return None if plan is None else plan.multiply_at

    @cached_property
    def shortcut(self) -> Shortcut | None:
        """The shortest way from tensors on the CPU to the native product, where there is one."""
        if not self.on_host or not self.tracked or (plan := self._native) is None:
            return None
        others = zip(PackedTensors._fields[1:], self.others, self._versions, strict=True)
        return shortcut_of(plan, self._address, tuple(others))

    @cached_property
    def rows_at(self) -> Callable[[int, int, int], None] | None:
        """The native look-up by addresses of indices, y and count; ``None`` where the kernel is not native."""
        plan = self._native
        return None if plan is None else plan.rows_at

    @property
    def _native(self) -> _core.PlanFloat32 | _core.PlanFloat64 | None:
        product: Any = self.matrix._product
        return product if isinstance(product, (_core.PlanFloat32, _core.PlanFloat64)) else None

    @cached_property
    def structure(self) -> ProductStructure:
        """The structure for products by torch."""
        return structure_of(self.matrix.pack(), torch.device("cpu"))

    @cached_property
    def row_tables(self) -> tuple[RowTable, ...]:
        """The tables for looking up rows."""
        return row_tables(self.structure)


_known: dict[int, tuple[TensorWeakRef, Prepared]] = {}
"""Prepared products by the identity of a tensor of words, which removes its entry when it dies."""


def prepared_of(
    words: Tensor,
    leaves: Tensor,
    quantized: Tensor,
    row_permutation: Tensor | None,
    column_permutation: Tensor | None,
    shape: tuple[int, int],
) -> Prepared:
    """Return the product with a packed matrix ``(m, n)``, prepared anew only where its tensors changed.

    Raises
    ------
    ArgumentError
        If the tensors are no packed matrix of that shape.
    """
    entry = _known.get(id(words))
    if (
        entry is not None
        and entry[0]() is words
        and entry[1].shape == shape
        and entry[1].fits(words, leaves, quantized, row_permutation, column_permutation)
    ):
        return entry[1]
    prepared = Prepared(PackedTensors(words, leaves, quantized, row_permutation, column_permutation), shape)
    remember(words, prepared)
    return prepared


def known(words: Tensor) -> Prepared:
    """Return the product that was prepared for a tensor of words, or for one that views the same memory.

    Raises
    ------
    ArgumentError
        If there is none, or the tensors beside the words were changed, and make no packed matrix any more.
    """
    entry = _known.get(id(words))
    if entry is None or entry[0]() is not words:
        entry = next((entry for entry in _known.values() if _same_memory(entry[0](), words)), None)
        if entry is None:
            raise ArgumentError("words", "are a copy", "compile the layer without replacing its buffers by others")
    prepared = entry[1]
    if prepared.fits(words, *prepared.others):
        return prepared
    return prepared_of(words, *prepared.others, prepared.shape)


def _same_memory(first: Tensor | None, second: Tensor) -> bool:
    return first is not None and first.data_ptr() == second.data_ptr() and first.shape == second.shape


def remember(words: Tensor, prepared: Prepared) -> None:
    """Keep the prepared product of a tensor of words as long as that tensor lives."""
    if prepared.tracked:
        key = id(words)
        if key not in _known:
            weakref.finalize(words, _known.pop, key, None).atexit = False
        _known[key] = TensorWeakRef(words), prepared


_TYPES = {"words": (torch.int32, torch.float64), "quantized": (torch.bool,)}
"""Types of the tensors; int32 of all others."""


def _array(name: str, tensor: Any) -> AnyArray:
    """Return a tensor as an array, sharing its memory where it is on the CPU."""
    types = _TYPES.get(name, (torch.int32,))
    if not isinstance(tensor, Tensor) or tensor.dtype not in types or tensor.is_meta:
        came = f"{tensor.dtype} on {tensor.device}" if isinstance(tensor, Tensor) else type(tensor).__name__
        expected = " or ".join(str(dtype) for dtype in types)
        raise ArgumentError(name, f"got {came}", f"give a tensor of {expected}, as a state dict of HLinear has")
    array: AnyArray = tensor.detach().cpu().numpy()
    # The kernel relies on the index arrays, which a user may change.
    return array if name == "words" else array.copy()
