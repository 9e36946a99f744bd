"""The product with a packed matrix by torch alone: batched products of leaves of equal shape.

It runs wherever torch does, can be differentiated in the input, traced, and exported to standard operators. With int8
activations the arithmetic is the kernel's: codes meet codes in sums of integers, which float32 holds exactly. The
remaining floating-point sums are added in another order than by the kernel.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from hmatrix.codes.precision import Precision
from hmatrix.nn.ops.coefficients import Coefficients, Columns
from hmatrix.nn.ops.stacks import ProductStructure
from hmatrix.packed.kernels import LEAST_LARGEST, PLAIN_LARGEST, RAISING

EXACT_COLUMNS = 1024
"""Columns whose products of codes float32 sums exactly: 1024 * 127 * 127 stays below 2^24."""


Product: TypeAlias = Callable[[Tensor], Tensor]
"""Multiplies ``(leaves, batch, columns)`` by the factors of a stack, to ``(leaves, batch, rows)``, or back."""


def coefficients_of(structure: ProductStructure, words: Tensor) -> list[list[Coefficients]]:
    """Return the coefficients of each factor of each group of leaves, as they are stored."""
    return [[stack.coefficients(words) for stack in group.factors] for group in structure.groups]


def multiply(structure: ProductStructure, products: Sequence[Sequence[Product]], x: Tensor) -> Tensor:
    """Return ``x A^T``, ``(batch, m)``, for x ``(batch, n)``, by the products of each group of leaves."""
    source = x if structure.column_order is None else x.index_select(1, structure.column_order.original)
    y = x.new_zeros(x.shape[0], structure.shape[0])
    for group, factors in zip(structure.groups, products, strict=True):
        part = _taken(source, group.columns)
        for product in factors:
            part = product(part)
        y = _added(y, group.rows, part)
    return y if structure.row_order is None else y.index_select(1, structure.row_order.tree)


def multiply_transposed(structure: ProductStructure, products: Sequence[Sequence[Product]], x: Tensor) -> Tensor:
    """Return ``x A``, ``(batch, n)``, for x ``(batch, m)``, by the transposed products, which go backwards."""
    source = x if structure.row_order is None else x.index_select(1, structure.row_order.original)
    y = x.new_zeros(x.shape[0], structure.shape[1])
    for group, factors in zip(structure.groups, products, strict=True):
        part = _taken(source, group.rows)
        for product in reversed(factors):
            part = product(part)
        y = _added(y, group.columns, part)
    return y if structure.column_order is None else y.index_select(1, structure.column_order.tree)


def assemble(structure: ProductStructure, blocks: Sequence[Tensor], zeros: Tensor) -> Tensor:
    """Return the matrix of blocks ``(leaves, rows, columns)``, those of each group of leaves, on zeros ``(m, n)``."""
    n = structure.shape[1]
    flat = zeros.flatten()
    for group, block in zip(structure.groups, blocks, strict=True):
        rows = group.rows if structure.row_order is None else structure.row_order.original[group.rows]
        columns = group.columns if structure.column_order is None else structure.column_order.original[group.columns]
        addresses = n * rows[:, :, None] + columns[:, None, :]
        flat = flat.scatter_add(0, addresses.flatten(), block.to(zeros.dtype).flatten())
    return flat.view(structure.shape)


def product_with(factor: Coefficients, *, quantized: bool) -> Product:
    """Return the product with stored factors; `quantized` where activations that meet codes are int8."""
    if quantized and factor.scales is not None:
        return partial(_multiply_codes, factor, factor.scales)
    return lambda x: x @ factor.values().mT


def transposed_product_with(factor: Coefficients) -> Product:
    """Return the transposed product with stored factors; activations are always exact."""
    return lambda x: x @ factor.values()


def quantize(x: Tensor, columns: Columns) -> tuple[Tensor, Tensor]:
    """Quantise each run of the last dimension symmetrically to int8, as the kernel does.

    Returns
    -------
    codes
        ``(..., n)``, integers from -127 to 127 in float32; 0 in a run that is not finite.
    steps
        ``(..., runs)``, float32; NaN for a run that is not finite.
    """
    largest = torch.cat([x[..., run].abs().amax(dim=-1, keepdim=True) for run, _ in columns.runs()], dim=-1)
    # Infinity and NaN alone differ from themselves by something else than zero.
    finite = largest - largest == 0
    usable = finite & (largest >= float(LEAST_LARGEST))
    safe = torch.where(usable, largest, 1)
    powers = torch.where(safe < float(PLAIN_LARGEST), float(RAISING), 1.0)
    factors = torch.where(usable, 127 / (safe * powers), 0)
    steps = torch.where(finite, torch.where(usable, safe / 127, 0), torch.nan)
    raised = torch.where(columns.by_run(finite), x, 0) * columns.by_run(powers)
    codes = torch.round(raised * columns.by_run(factors))
    return codes, steps


def _multiply_codes(factor: Coefficients, scales: Tensor, x: Tensor) -> Tensor:
    """Multiply quantised x ``(leaves, batch, n)`` by codes, in the kernel's order."""
    integers = factor.integers()
    codes, steps = quantize(x, factor.columns)
    if factor.columns.precision in (Precision.INT2, Precision.INT1):
        # Twice the value is an integer.
        integers, steps = 2 * integers, 0.5 * steps
    of_groups: dict[int, Tensor] = {}
    for number, (run, group) in enumerate(factor.columns.runs()):
        part = _exact(codes[..., run], integers[..., run]) * steps[..., number, None]
        of_groups[group] = of_groups[group] + part if group in of_groups else part
    parts = [part * scales[:, None, :, group] for group, part in of_groups.items()]
    return sum(parts[1:], start=parts[0])


def _exact(x: Tensor, integers: Tensor) -> Tensor:
    """Return the sums of products of integers ``(leaves, batch, rows)``, rounded once, to float32."""
    if x.shape[-1] <= EXACT_COLUMNS:
        return x @ integers.mT
    chunks = zip(torch.split(x, EXACT_COLUMNS, dim=-1), torch.split(integers, EXACT_COLUMNS, dim=-1), strict=True)
    sums = [(chunk @ others.mT).to(torch.int32) for chunk, others in chunks]
    return sum(sums[1:], start=sums[0]).float()


def _taken(source: Tensor, index: Tensor) -> Tensor:
    """Return entries ``(leaves, batch, columns)`` of ``(batch, all)``."""
    leaves, columns = index.shape
    if columns == source.shape[1]:
        return source.expand(leaves, *source.shape)
    return torch.unflatten(source.index_select(1, index.flatten()), 1, (leaves, columns)).transpose(0, 1)


def _added(y: Tensor, index: Tensor, part: Tensor) -> Tensor:
    """Add entries ``(leaves, batch, rows)`` where they belong in ``(batch, all)``."""
    if index.shape == (1, y.shape[1]):
        return y + part[0]
    # Not by index_add, which the older ONNX exporter does not know for every input.
    return y.scatter_add(1, index.flatten().expand(y.shape[0], -1), part.transpose(0, 1).flatten(1))
