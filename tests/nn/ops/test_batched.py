"""Products by torch alone against the kernel's."""

import numpy as np
import pytest
from matrices import leaf, permutation, random_leaves, stored

import hmatrix as hm
from hmatrix.codes.precision import Precision, to_words
from hmatrix.packed.kernels import quantize_activations
from hmatrix.packed.packing import pack

torch = pytest.importorskip("torch")
pytest.importorskip("hmatrix.nn")
from hmatrix.nn.ops import batched  # noqa: E402
from hmatrix.nn.ops.coefficients import Coefficients, Columns  # noqa: E402
from hmatrix.nn.ops.operator import linear, multiply_by_torch  # noqa: E402
from hmatrix.nn.ops.prepared import PackedTensors  # noqa: E402
from hmatrix.nn.ops.stacks import structure_of  # noqa: E402

MIXED = list(Precision)[1:]
KINDS = {precision.name.lower(): [precision] for precision in Precision} | {"mixed": MIXED}
CPU = torch.device("cpu")


def matrix(kind, quantized, group=0, shape=(150, 90), seed=0, ranks=(None, 0, 1, 5, 40)):
    leaves = stored(random_leaves(shape, seed=seed, ranks=ranks), KINDS[kind], (group,))
    permutations = [permutation(size, seed) if seed % 2 else None for size in shape]
    return hm.HMatrix(pack(shape, leaves, *permutations, quantized=quantized))


def close(actual, expected, flips=0.0):
    """Equal but for rounding; `flips` more, relative to the largest entry."""
    largest = np.abs(expected).max(initial=0.0)
    assert actual.dtype == torch.from_numpy(expected).dtype
    assert np.abs(actual.numpy() - expected).max(initial=0.0) <= (3e-6 + flips) * largest


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("group", [0, 13])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_product_is_the_kernels(kind, quantized, group, seed):
    H = matrix(kind, quantized, group, seed=seed)
    tensors, structure = PackedTensors.of(H), structure_of(H.pack(), CPU)
    x = np.random.default_rng(seed).standard_normal((5, 90)).astype(H.dtype)
    y = H.apply(x)
    # An entry of t that lies between two codes may be rounded otherwise: one step of 1 / 127.
    flips = 0.01 if quantized else 0.0
    close(
        multiply_by_torch(structure, batched.coefficients_of(structure, tensors.words), torch.from_numpy(x)), y, flips
    )
    close(
        multiply_by_torch(
            structure, batched.coefficients_of(structure, tensors.words), torch.from_numpy(y), transposed=True
        ),
        H.T.apply(y),
    )


@pytest.mark.parametrize("precision", [p for p in Precision if p.is_integer])
@pytest.mark.parametrize("columns", [1, 31, batched.EXACT_COLUMNS + 1, 3000])
def test_integers_are_exact(precision, columns):
    """One dense leaf: nothing but integers and one product of floats is left."""
    rng = np.random.default_rng(0)
    H = hm.HMatrix(pack((40, columns), stored([leaf((0, 40), (0, columns), None, rng)], [precision]), quantized=True))
    x = rng.standard_normal((3, columns)).astype(np.float32)
    structure = structure_of(H.pack(), CPU)
    y = multiply_by_torch(structure, batched.coefficients_of(structure, PackedTensors.of(H).words), torch.from_numpy(x))
    np.testing.assert_array_equal(y, H.apply(x))


@pytest.mark.parametrize("precision", [p for p in Precision if p.is_integer])
def test_codes_are_packed_and_read_as_elsewhere(precision):
    """Run by run, since words begin where runs do."""
    columns = Columns(precision, (5, 64, 45, 1), (0, 0, 1, 2))
    codes = np.random.default_rng(0).integers(0, 2**precision.bits, (2, 30, columns.count)).astype(np.uint8)
    coefficients = Coefficients.of(columns, torch.from_numpy(codes))
    for leaf_codes, units, values in zip(codes, coefficients.units, coefficients.integers(), strict=True):
        words = [to_words(leaf_codes[:, run], precision) for run, _ in columns.runs()]
        np.testing.assert_array_equal(units.numpy().view(np.uint32), np.concatenate(words, axis=1))
        for run, _ in columns.runs():
            np.testing.assert_array_equal(values[:, run], precision.values(leaf_codes[:, run]))


def test_leaves_of_equal_shape_are_stacked():
    H = hm.build(np.random.default_rng(0).standard_normal((256, 256)), truncation=hm.Truncation(max_rank=4))
    groups = structure_of(H.pack(), CPU).groups
    assert len(groups) < 10 < sum(1 for _ in H.leaves())
    assert sorted(number for group in groups for number in group.leaves) == list(range(len(list(H.leaves()))))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_in_its_run(bad):
    x = np.random.default_rng(0).standard_normal((2, 20)).astype(np.float32)
    x[0, 3] = bad
    x[1, :7] = 1e-38
    codes, steps = batched.quantize(torch.from_numpy(x), Columns(Precision.INT8, (7, 13), (0, 0)))
    for number, run in enumerate((slice(0, 7), slice(7, 20))):
        expected, of_run = quantize_activations(x[:, run])
        np.testing.assert_array_equal(codes[:, run], expected)
        np.testing.assert_array_equal(steps[:, number], of_run)


@pytest.mark.parametrize("kind", ["float64", "bfloat16", "int4", "trellis2", "mixed"])
@pytest.mark.parametrize("transposed", [False, True])
def test_nothing_asks_for_values(kind, transposed):
    """On the meta device there are none, and on a GPU to ask for one would wait for it."""
    H = matrix(kind, quantized=True, seed=1)
    structure = structure_of(H.pack(), torch.device("meta"))
    words = PackedTensors.of(H).words.to("meta")
    x = torch.empty(2, 3, 150 if transposed else 90, device="meta")
    y = multiply_by_torch(structure, batched.coefficients_of(structure, words), x, transposed=transposed)
    assert (y.shape, y.device.type) == ((2, 3, 90 if transposed else 150), "meta")
    assert y.dtype == torch.from_numpy(np.empty(0, H.dtype)).dtype


def test_other_devices_run_it():
    """The implementation that is registered for them, on the CPU; it does not keep the coefficients on the host."""
    H = matrix("mixed", quantized=False, seed=1)
    x = torch.randn(3, 90)
    for device in ("CUDA", "XPU", "MPS"):
        assert torch._C._dispatch_has_computed_kernel_for_dispatch_key("hmatrix::linear", device)
    from hmatrix.nn.ops.operator import _linear_elsewhere

    packed = (None, False, *PackedTensors.of(H), 150, 90)
    close(_linear_elsewhere(x, *packed), linear(x, *packed).numpy())
