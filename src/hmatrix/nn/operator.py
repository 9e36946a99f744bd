"""What layers compute as operators of torch: ``torch.ops.hmatrix.linear`` and ``torch.ops.hmatrix.rows``.

Their arguments are the tensors of the packed form, so that compilers, exporters and devices see them. On the
CPU the product is the kernel's, elsewhere batched products of the same words.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hmatrix.errors import ArgumentError
from hmatrix.nn import batched
from hmatrix.nn.coefficients import Coefficients
from hmatrix.nn.prepared import Prepared, prepared_of
from hmatrix.nn.rows import Far, Near, select_rows
from hmatrix.nn.stacks import Stack, Structure


def multiply_on_host(prepared: Prepared, x: Tensor, bias: Tensor | None, *, transposed: bool = False) -> Tensor:
    """Return ``x A^T + bias``, or ``x A + bias``, for x ``(..., n)`` on the CPU, in the type of the product."""
    if not transposed and prepared.multiply_at is not None and x.dtype is prepared.dtype and prepared.adds(bias):
        if x.is_neg() or not x.is_contiguous():
            x = x.resolve_neg().contiguous()
        y = x.new_empty(*x.shape[:-1], prepared.rows)
        prepared.multiply_at(
            x.data_ptr(), y.data_ptr(), x.numel() // prepared.columns, 0 if bias is None else bias.data_ptr()
        )
        return y
    rows = x.detach().reshape(-1, x.shape[-1]).resolve_neg()
    matrix = prepared.matrix
    product = (matrix.T if transposed else matrix).apply(rows.numpy())
    y = torch.from_numpy(product).reshape(*x.shape[:-1], product.shape[1])
    return y if bias is None else y + bias


def multiply_by_torch(
    structure: Structure, coefficients: Sequence[Sequence[Coefficients]], x: Tensor, *, transposed: bool = False
) -> Tensor:
    """Return ``x A^T``, or ``x A``, for x ``(..., n)`` on the coefficients' device, in the type of the product."""
    flat = x.reshape(-1, x.shape[-1]).to(structure.dtype)
    if transposed:
        products = [[batched.transposed_product_with(factor) for factor in factors] for factors in coefficients]
        y = batched.multiply_transposed(structure, products, flat)
    else:
        quantized = structure.quantized
        products = [
            [batched.product_with(factor, quantized=quantized) for factor in factors] for factors in coefficients
        ]
        y = batched.multiply(structure, products, flat)
    return y.reshape(*x.shape[:-1], y.shape[1]).to(torch.promote_types(x.dtype, structure.dtype))


_SCHEMA = (
    "linear(Tensor x, Tensor words, Tensor leaves, Tensor quantized, Tensor? row_permutation, "
    "Tensor? column_permutation, int rows, int columns, bool transposed=False, Tensor? bias=None) -> Tensor"
)
_ROWS_SCHEMA = (
    "rows(Tensor indices, Tensor words, Tensor leaves, Tensor quantized, Tensor? row_permutation, "
    "Tensor? column_permutation, int rows, int columns) -> Tensor"
)
_library = torch.library.Library("hmatrix", "DEF")  # type: ignore[no-untyped-call]
for _schema in (_SCHEMA, _ROWS_SCHEMA):
    _library.define(_schema, tags=(torch.Tag.pt2_compliant_tag,))  # type: ignore[no-untyped-call]


def _on_host(
    x: Tensor,
    words: Tensor,
    leaves: Tensor,
    quantized: Tensor,
    row_permutation: Tensor | None,
    column_permutation: Tensor | None,
    rows: int,
    columns: int,
    transposed: bool = False,
    bias: Tensor | None = None,
) -> Tensor:
    _check(x, rows if transposed else columns)
    prepared = prepared_of(words, leaves, quantized, row_permutation, column_permutation, (rows, columns))
    return multiply_on_host(prepared, x, bias, transposed=transposed)


def _elsewhere(
    x: Tensor,
    words: Tensor,
    leaves: Tensor,
    quantized: Tensor,
    row_permutation: Tensor | None,
    column_permutation: Tensor | None,
    rows: int,
    columns: int,
    transposed: bool = False,
    bias: Tensor | None = None,
) -> Tensor:
    _check(x, rows if transposed else columns)
    prepared = prepared_of(words, leaves, quantized, row_permutation, column_permutation, (rows, columns))
    structure = prepared.structure
    y = multiply_by_torch(structure, batched.coefficients_of(structure, words), x, transposed=transposed)
    return y if bias is None else y + bias


def _check(x: Tensor, size: int) -> None:
    if x.shape[-1:] != (size,):
        raise ArgumentError("x", f"has the shape {tuple(x.shape)}", f"give (..., {size})")


def _shape_alone(
    x: Tensor,
    words: Tensor,
    leaves: Tensor,  # noqa: ARG001
    quantized: Tensor,  # noqa: ARG001
    row_permutation: Tensor | None,  # noqa: ARG001
    column_permutation: Tensor | None,  # noqa: ARG001
    rows: int,
    columns: int,
    transposed: bool = False,
    bias: Tensor | None = None,
) -> Tensor:
    _check(x, rows if transposed else columns)
    types = (x.dtype, words.dtype, None if bias is None else bias.dtype)
    dtype = torch.float64 if torch.float64 in types else torch.float32
    return x.new_empty((*x.shape[:-1], columns if transposed else rows), dtype=dtype)


def _rows(
    indices: Tensor,
    words: Tensor,
    leaves: Tensor,
    quantized: Tensor,
    row_permutation: Tensor | None,
    column_permutation: Tensor | None,
    rows: int,
    columns: int,
) -> Tensor:
    if indices.is_cpu and indices.numel() and (indices.min() < 0 or indices.max() >= rows):
        came = f"reach from {int(indices.min())} to {int(indices.max())}"
        raise ArgumentError("indices", came, f"stay within 0 to {rows - 1}")
    prepared = prepared_of(words, leaves, quantized, row_permutation, column_permutation, (rows, columns))
    structure = prepared.structure
    near: list[Near] = [partial(_near_rows, group.factors[-1], words) for group in structure.groups]
    far: list[Far | None] = [
        group.factors[0].coefficients(words).values if len(group.factors) == 2 else None for group in structure.groups
    ]
    return select_rows(structure, prepared.row_tables, near, far, indices)


def _near_rows(stack: Stack, words: Tensor, leaf: Tensor, row: Tensor) -> Tensor:
    return stack.rows(words, leaf, row).values()


def _shape_of_rows(
    indices: Tensor,
    words: Tensor,
    leaves: Tensor,  # noqa: ARG001
    quantized: Tensor,  # noqa: ARG001
    row_permutation: Tensor | None,  # noqa: ARG001
    column_permutation: Tensor | None,  # noqa: ARG001
    rows: int,  # noqa: ARG001
    columns: int,
) -> Tensor:
    dtype = torch.float64 if words.dtype == torch.float64 else torch.float32
    return indices.new_empty((*indices.shape, columns), dtype=dtype)


_library.impl("rows", _rows, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
torch.library.register_fake("hmatrix::rows", _shape_of_rows, lib=_library)
_library.impl("linear", _on_host, "CPU")  # type: ignore[no-untyped-call]
_library.impl("linear", _elsewhere, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
torch.library.register_fake("hmatrix::linear", _shape_alone, lib=_library)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    x, *tensors, rows, columns, transposed, bias = inputs
    ctx.save_for_backward(*tensors)
    ctx.bias = None if bias is None else (bias.dtype, bias.shape)
    ctx.rest = rows, columns, not transposed
    ctx.dtype = x.dtype


def _gradient(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    """Return the derivative of a product: the transposed product, as often as one likes."""
    of_bias = None
    if ctx.bias is not None and ctx.needs_input_grad[9]:
        dtype, shape = ctx.bias
        of_bias = gradient.reshape(-1, *shape).sum(dim=0).to(dtype)
    of_x = linear(gradient, *ctx.saved_tensors, *ctx.rest).to(ctx.dtype) if ctx.needs_input_grad[0] else None
    return of_x, *(None,) * 8, of_bias


def _batched(info: Any, in_dims: tuple[Any, ...], x: Tensor, *rest: Any) -> tuple[Tensor, int]:  # noqa: ARG001
    if any(dim is not None for dim in in_dims[1:]):
        raise ArgumentError("vmap", "goes over the packed matrix", "map over the input alone")
    return linear(x.movedim(in_dims[0], 0), *rest), 0


torch.library.register_autograd("hmatrix::linear", _gradient, setup_context=_keep, lib=_library)
torch.library.register_vmap("hmatrix::linear", _batched, lib=_library)

linear = torch.ops.hmatrix.linear.default
"""``x A^T``, or ``x A`` where `transposed`: see the schema."""

rows_of = torch.ops.hmatrix.rows.default
"""The rows of A with some indices: see the schema."""
