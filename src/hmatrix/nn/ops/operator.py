"""Products of layers as operators of torch: ``torch.ops.hmatrix.linear``, ``product`` and ``rows``.

Their arguments are the tensors of the packed form, so that compilers, exporters and devices see them. On the
CPU the product is the kernel's, elsewhere batched products of the same words.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hmatrix.errors import ArgumentError
from hmatrix.nn.ops import batched
from hmatrix.nn.ops.coefficients import Coefficients
from hmatrix.nn.ops.prepared import Prepared, known, prepared_of
from hmatrix.nn.ops.rows import Far, Near, select_rows
from hmatrix.nn.ops.stacks import ProductStructure, Stack


def multiply_on_host(prepared: Prepared, x: Tensor, bias: Tensor | None, *, transposed: bool = False) -> Tensor:
    """Return ``x A^T + bias``, or ``x A + bias``, for x ``(..., n)`` on the CPU, in the type of the product."""
    for name, tensor in (("x", x), ("bias", bias)):
        if tensor is not None and tensor.numel() and not tensor.data_ptr():
            raise ArgumentError(name, "has no memory", "give a tensor whose storage was not freed")
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
    structure: ProductStructure, coefficients: Sequence[Sequence[Coefficients]], x: Tensor, *, transposed: bool = False
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


_PACKED = (
    "Tensor words, Tensor leaves, Tensor quantized, Tensor? row_permutation, Tensor? column_permutation, "
    "int rows, int columns"
)
_library = torch.library.Library("hmatrix", "DEF")  # type: ignore[no-untyped-call]


def _operator(name: str, arguments: str, fake: Callable[..., Tensor], **kernels: Callable[..., Tensor]) -> Any:
    """Define an operator with its kernels by dispatch key, and its shapes without data; no argument has a default."""
    schema = f"{name}({arguments}) -> Tensor"
    _library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))  # type: ignore[no-untyped-call]
    for key, kernel in kernels.items():
        _library.impl(name, kernel, key)  # type: ignore[no-untyped-call]
    torch.library.register_fake(f"hmatrix::{name}", fake, lib=_library)
    return getattr(torch.ops.hmatrix, name).default


def _prepared(*packed: Any) -> Prepared:
    words, leaves, quantized, row_permutation, column_permutation, rows, columns = packed
    return prepared_of(words, leaves, quantized, row_permutation, column_permutation, (rows, columns))


def _check(x: Tensor, size: int) -> None:
    if x.shape[-1:] != (size,):
        raise ArgumentError("x", f"has the shape {tuple(x.shape)}", f"give (..., {size})")


def _linear_on_host(x: Tensor, bias: Tensor | None, transposed: bool, *packed: Any) -> Tensor:
    _check(x, packed[-2] if transposed else packed[-1])
    return multiply_on_host(_prepared(*packed), x, bias, transposed=transposed)


def _linear_elsewhere(x: Tensor, bias: Tensor | None, transposed: bool, *packed: Any) -> Tensor:
    _check(x, packed[-2] if transposed else packed[-1])
    structure = _prepared(*packed).structure
    y = multiply_by_torch(structure, batched.coefficients_of(structure, packed[0]), x, transposed=transposed)
    return y if bias is None else y + bias


def _shape_of_linear(x: Tensor, bias: Tensor | None, transposed: bool, words: Tensor, *rest: Any) -> Tensor:
    *_, rows, columns = rest
    _check(x, rows if transposed else columns)
    types = (x.dtype, words.dtype, None if bias is None else bias.dtype)
    dtype = torch.float64 if torch.float64 in types else torch.float32
    return x.new_empty((*x.shape[:-1], columns if transposed else rows), dtype=dtype)


linear = _operator(
    "linear",
    f"Tensor x, Tensor? bias, bool transposed, {_PACKED}",
    _shape_of_linear,
    CPU=_linear_on_host,
    CompositeExplicitAutograd=_linear_elsewhere,
)
"""``x A^T + bias``, or ``x A`` where `transposed`."""


def _product(x: Tensor, bias: Tensor | None, words: Tensor, rows: int, columns: int) -> Tensor:  # noqa: ARG001
    _check(x, columns)
    return multiply_on_host(known(words), x, bias)


def _shape_of_product(x: Tensor, bias: Tensor | None, words: Tensor, rows: int, columns: int) -> Tensor:
    return _shape_of_linear(x, bias, False, words, rows, columns)


product = _operator(
    "product", "Tensor x, Tensor? bias, Tensor words, int rows, int columns", _shape_of_product, CPU=_product
)
"""``x A^T + bias`` on the CPU without gradients, for compilers: each tensor that a graph is given, and an operator with
gradients, would cost them more time than a small product takes. The packed form is found by its words."""


def _rows_on_host(indices: Tensor, *packed: Any) -> Tensor:
    prepared = _prepared(*packed)
    if prepared.rows_at is None:
        if indices.numel() and (indices.min() < 0 or indices.max() >= prepared.rows):
            raise _out_of_range(indices, prepared.rows)
        return _rows_elsewhere(indices, *packed)
    wanted = indices.to(torch.int64).contiguous()
    y: Tensor = packed[0].new_empty((*indices.shape, prepared.columns), dtype=prepared.dtype)
    try:
        prepared.rows_at(wanted.data_ptr(), y.data_ptr(), wanted.numel())
    except IndexError as error:
        raise _out_of_range(indices, prepared.rows) from error
    return y


def _out_of_range(indices: Tensor, rows: int) -> ArgumentError:
    came = f"reach from {int(indices.min())} to {int(indices.max())}"
    return ArgumentError("indices", came, f"stay within 0 to {rows - 1}")


def _rows_elsewhere(indices: Tensor, *packed: Any) -> Tensor:
    words, prepared = packed[0], _prepared(*packed)
    structure = prepared.structure
    near: list[Near] = [partial(_near_rows, group.factors[-1], words) for group in structure.groups]
    far: list[Far | None] = [
        group.factors[0].coefficients(words).values if len(group.factors) == 2 else None for group in structure.groups
    ]
    return select_rows(structure, prepared.row_tables, near, far, indices)


def _near_rows(stack: Stack, words: Tensor, leaf: Tensor, row: Tensor) -> Tensor:
    return stack.rows(words, leaf, row).values()


def _shape_of_rows(indices: Tensor, words: Tensor, *rest: Any) -> Tensor:
    dtype = torch.float64 if words.dtype == torch.float64 else torch.float32
    return indices.new_empty((*indices.shape, rest[-1]), dtype=dtype)


rows_of = _operator(
    "rows",
    f"Tensor indices, {_PACKED}",
    _shape_of_rows,
    CPU=_rows_on_host,
    CompositeExplicitAutograd=_rows_elsewhere,
)
"""The rows of A with some indices."""


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    x, bias, transposed, *tensors, rows, columns = inputs
    ctx.save_for_backward(*tensors)
    ctx.bias = None if bias is None else (bias.dtype, bias.shape)
    ctx.transposed = transposed
    ctx.shape = rows, columns
    ctx.dtype = x.dtype


def _gradient(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    """Return the derivative of a product: the transposed product, as often as one likes."""
    of_x = of_bias = None
    if ctx.needs_input_grad[0]:
        of_x = linear(gradient, None, not ctx.transposed, *ctx.saved_tensors, *ctx.shape).to(ctx.dtype)
    if ctx.bias is not None and ctx.needs_input_grad[1]:
        dtype, shape = ctx.bias
        of_bias = gradient.reshape(-1, *shape).sum(dim=0).to(dtype)
    return of_x, of_bias, *(None,) * 8


def _batched(operator: Any, info: Any, in_dims: tuple[Any, ...], x: Tensor, *rest: Any) -> tuple[Tensor, int]:  # noqa: ARG001
    if any(dim is not None for dim in in_dims[1:]):
        raise ArgumentError("vmap", "goes over the packed matrix", "map over the input alone")
    return operator(x.movedim(in_dims[0], 0), *rest), 0


torch.library.register_autograd("hmatrix::linear", _gradient, setup_context=_keep, lib=_library)
for _mapped in (linear, product):
    torch.library.register_vmap(_mapped, partial(_batched, _mapped), lib=_library)
