"""What is prepared for the buffers of a layer, when these are changed."""

import gc

import numpy as np
import pytest

import hmatrix as hm
from hmatrix.errors import ArgumentError

torch = pytest.importorskip("torch")
HLinear = pytest.importorskip("hmatrix.nn").HLinear
from operands import batch, dense, m, matrix, n  # noqa: E402

from hmatrix.nn.ops import prepared  # noqa: E402
from hmatrix.nn.ops.operator import linear  # noqa: E402
from hmatrix.nn.ops.prepared import PackedTensors  # noqa: E402


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_words_changed_in_place_count_at_once(precision):
    layer, x = HLinear(matrix(precision)), batch(2, n)
    other = HLinear(matrix(precision, seed=0).astype(precision))
    doubled = hm.HMatrix(matrix(precision).pack())
    layer(x)
    words = layer.weight.words
    if precision == "float32":
        words.view(torch.float32).mul_(2)
        # Factors are doubled twice.
        expected = HLinear(doubled)(x)
        assert not torch.allclose(layer(x), other(x))
        torch.testing.assert_close(layer(x), x @ dense(layer).T)
        assert expected.shape == layer(x).shape
    else:
        words.zero_()
        assert torch.equal(layer(x), torch.zeros(2, m))


def test_what_cannot_be_written_to_is_copied():
    H, x = matrix(), batch(2, n)
    H.pack().data.flags.writeable = False
    layer = HLinear(H)
    np.testing.assert_array_equal(layer(x), H.apply(x.numpy()))
    layer.weight.words.zero_()
    assert torch.equal(layer(x), torch.zeros(2, m))
    assert H.to_dense().any()


def test_words_of_another_storage_are_prepared_anew():
    layer, other, x = HLinear(matrix(seed=0)), HLinear(matrix(seed=0)), batch(2, n)
    other.weight.words.view(torch.float32).mul_(-1)
    expected = other(x)
    layer(x)
    layer.weight.words.data = other.weight.words.clone()
    assert torch.equal(layer(x), expected)
    layer.weight.words = other.weight.words
    assert torch.equal(layer(x), expected)


@pytest.mark.parametrize("through", ["layer", "operator"])
def test_indices_changed_in_place_are_checked(through):
    layer, x = HLinear(matrix()), batch(2, n)
    weight = layer.weight

    def product():
        if through == "layer":
            return layer(x)
        return linear(x, None, False, *(getattr(weight, name) for name in PackedTensors._fields), m, n)

    before = product()
    weight.row_permutation.copy_(weight.row_permutation.roll(1))
    after = product()
    assert not torch.equal(after, before)
    torch.testing.assert_close(after, x @ dense(layer).T)
    for name, value in (("row_permutation", 10**6), ("column_permutation", -1), ("leaves", 99)):
        buffer = getattr(weight, name)
        kept = buffer.clone()
        buffer[0] = value
        with pytest.raises(ArgumentError, match=name if name != "leaves" else "data|leaves"):
            product()
        buffer.copy_(kept)
        assert torch.equal(product(), after)


def test_the_flag_changed_in_place_counts():
    layer, x = HLinear(matrix("int8", "exact", permuted=False)), batch(2, n)
    tensors = PackedTensors.of(hm.quantize(np.ones((m, n)), "int8"))
    one_run = HLinear(hm.quantize(np.random.default_rng(0).standard_normal((m, n)), "int8"))
    exact = one_run(x)
    one_run.weight.quantized.fill_(True)
    assert not torch.equal(one_run(x), exact)
    assert one_run.matrix.activations is hm.Activations.INT8
    assert not tensors.quantized
    assert layer.matrix.activations is hm.Activations.EXACT


def test_tensors_of_inference_mode_are_never_trusted():
    """They do not tell whether they were changed."""
    x = batch(2, n)
    with torch.inference_mode():
        tensors = PackedTensors(*(None if t is None else t.clone() for t in PackedTensors.of(matrix())))
        expected = linear(x, None, False, *tensors, m, n)
        tensors.row_permutation.copy_(tensors.row_permutation.roll(1))
        assert not torch.equal(linear(x, None, False, *tensors, m, n), expected)
        tensors.row_permutation[0] = 10**6
        with pytest.raises(ArgumentError, match="row_permutation"):
            linear(x, None, False, *tensors, m, n)
        layer = HLinear(matrix())
        assert not layer.weight.words.is_inference()
        y = layer(x)
    assert torch.equal(layer(x), y)


def test_nothing_is_kept_longer_than_its_words():
    gc.collect()
    before = set(prepared._known)
    tensors = PackedTensors.of(matrix())
    linear(batch(2, n), None, False, *tensors, m, n)
    layer = HLinear(matrix())
    assert len(set(prepared._known) - before) == 2
    del tensors, layer
    gc.collect()
    assert set(prepared._known) <= before
