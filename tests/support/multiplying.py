"""Products with packed matrices, by any kernel, for the tests of kernels."""

import numpy as np
import pytest

from hmatrix import _core
from hmatrix.codes.precision import Precision
from hmatrix.packed.kernels import REFERENCE, ReferenceProduct, native_product

KERNELS = (*_core.instruction_sets(), REFERENCE)
every_kernel = pytest.mark.parametrize("kernel", KERNELS)
every_type = pytest.mark.parametrize("dtype", [np.float32, np.float64])
CODES = [precision for precision in Precision if precision.is_integer]
FLOATS32 = [Precision.FLOAT32, Precision.BFLOAT16]
every_code = pytest.mark.parametrize("precision", CODES)


def product(packed, kernel):
    return ReferenceProduct(packed) if kernel == REFERENCE else native_product(packed, kernel)


def guarded(shape, dtype, inside):
    """An array with NaN before and after it in memory, and what surrounds it."""
    size = int(np.prod(shape))
    memory = np.full(size + 256, np.nan, dtype)
    array = memory[128 : 128 + size].reshape(shape)
    array[:] = inside
    return array, (memory[:128], memory[128 + size :])


def multiply(packed, kernel, x, transposed):
    """``x A^T``, or ``x A`` where `transposed`, with NaN around x and y."""
    name = f"multiply{'_transposed' * transposed}{'_batch' * (x.ndim == 2)}"
    source, _ = guarded(x.shape, packed.dtype, x)
    target, outside = guarded((*x.shape[:-1], packed.shape[transposed]), packed.dtype, np.nan)
    getattr(product(packed, kernel), name)(source, target)
    np.testing.assert_array_equal(source, x)
    assert all(np.isnan(memory).all() for memory in outside)
    return target
