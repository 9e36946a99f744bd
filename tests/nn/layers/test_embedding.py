"""Embeddings against torch's."""

import copy

import numpy as np
import pytest
from marks import slow
from matrices import permutation, random_leaves, stored

import hmatrix as hm
from hmatrix.codes.precision import Precision
from hmatrix.errors import ArgumentError, NetworkError
from hmatrix.packed.packing import pack

torch = pytest.importorskip("torch")
hnn = pytest.importorskip("hmatrix.nn")

m, n = 90, 40
KINDS = {precision.name.lower(): [precision] for precision in Precision} | {"mixed": list(Precision)[1:]}


def matrix(kind, seed=0, permuted=True, group=0):
    leaves = stored(random_leaves((m, n), seed=seed, ranks=(None, 0, 2, 5)), KINDS[kind], (group,))
    permutations = [permutation(size, seed) if permuted else None for size in (m, n)]
    return hm.HMatrix(pack((m, n), leaves, *permutations))


def indices(*shape, dtype=torch.int64):
    return torch.randint(0, m, shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("permuted", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_rows_are_those_of_the_matrix(kind, permuted, seed):
    H = matrix(kind, seed, permuted, group=7)
    dense = torch.from_numpy(H.to_dense())
    layer = hnn.HEmbedding(H)
    for chosen in (torch.arange(m), indices(3, 4), indices(2, 5, dtype=torch.int32), indices(0), indices()):
        rows = layer(chosen)
        assert rows.dtype == dense.dtype
        torch.testing.assert_close(rows, dense[chosen.long()], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "int8", "int4"])
def test_one_dense_leaf_is_exact(precision):
    weight = np.random.default_rng(0).standard_normal((m, n)).astype(np.float32)
    H = hm.quantize(weight, precision)
    assert torch.equal(hnn.HEmbedding(H)(torch.arange(m)), torch.from_numpy(H.to_dense()))


def test_many_leaves_of_equal_shape():
    H = hm.build(np.random.default_rng(0).standard_normal((128, 128)), truncation=hm.Truncation(max_rank=3))
    torch.testing.assert_close(hnn.HEmbedding(H)(torch.arange(128)), torch.from_numpy(H.to_dense()))


@pytest.mark.parametrize("padding", [0, 5, -1])
@pytest.mark.parametrize("zero", [False, True])
def test_padding(padding, zero):
    embedding = torch.nn.Embedding(m, n, padding_idx=padding)
    with torch.no_grad():
        embedding.weight[padding] = 0 if zero else 3
    # int2 has no zero, nor has int1.
    layer = hnn.HEmbedding.from_embedding(embedding, hm.quantize(embedding.weight.detach().numpy(), "int2"))
    assert layer.padding_idx == padding % m
    row = layer(torch.tensor([padding % m, 1]))
    assert (row[0] == 0).all() == zero
    assert (row[1] != 0).all()
    hnn.trainable(layer)
    layer(torch.arange(m)).sum().backward()
    gradient = layer.weight.factors[0][0].latent.grad[0]
    assert (gradient[padding] == 0).all()
    assert (gradient[1] != 0).any()


@pytest.mark.parametrize("kind", ["float64", "int8", "mixed"])
def test_gradients_are_those_of_an_embedding(kind):
    H = matrix(kind)
    layer, chosen = hnn.trainable(hnn.HEmbedding(H)), indices(3, 4)
    layer(chosen).pow(2).sum().backward()
    dense = torch.from_numpy(H.to_dense()).requires_grad_()
    torch.nn.functional.embedding(chosen, dense).pow(2).sum().backward()
    # Against the derivative in the direction of the coefficients themselves: those of the dense leaves once,
    # those of factors twice.
    product = hnn.trainable(hnn.HWeight(H))
    identity = torch.eye(n, dtype=product.dtype)
    (product.multiply(identity).mT * dense.grad).sum().backward()
    largest = max(parameter.grad.abs().max() for parameter in product.parameters())
    for actual, expected in zip(layer.weight.parameters(), product.parameters(), strict=True):
        assert (actual.grad - expected.grad).abs().max() <= 1e-5 * largest


def test_tied_with_an_output_layer():
    embedding = hnn.HEmbedding(matrix("int8"))
    network = torch.nn.Sequential(embedding, hnn.HLinear(embedding.weight))
    chosen, dense = indices(3), torch.from_numpy(embedding.matrix.to_dense())
    torch.testing.assert_close(network(chosen), dense[chosen] @ dense.T, rtol=1e-4, atol=1e-4)
    for change in (copy.deepcopy, hnn.trainable, hnn.freeze):
        network = change(network)
        assert network[0].weight is network[1].weight
        torch.testing.assert_close(network(chosen), dense[chosen] @ dense.T, rtol=1e-4, atol=1e-4)


def test_compiled_exported_and_on_other_devices():
    torch._dynamo.reset()
    layer, chosen = hnn.HEmbedding(matrix("int4"), padding_idx=3), indices(3, 4)
    expected = layer(chosen)
    torch.testing.assert_close(torch.compile(layer, fullgraph=True)(chosen), expected)
    torch.testing.assert_close(torch.export.export(layer, (chosen,)).module()(chosen), expected)
    y = copy.deepcopy(layer).to("meta")(chosen.to("meta"))
    assert (y.shape, y.dtype, y.device.type) == (expected.shape, expected.dtype, "meta")
    from hmatrix.nn.ops.operator import rows_of

    torch.library.opcheck(rows_of, (chosen, *layer.weight.tensors, m, n))


@pytest.mark.parametrize("kind", [slow("float32"), slow("int8"), "int4"])
def test_onnx(kind, tmp_path):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    import warnings

    layer, chosen = hnn.HEmbedding(matrix(kind)), indices(3, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(layer, (chosen,), tmp_path / "rows.onnx", dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "rows.onnx", providers=["CPUExecutionProvider"])
    result = session.run(None, {session.get_inputs()[0].name: chosen.numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(result), layer(chosen), rtol=1e-5, atol=1e-5)


def test_types():
    layer, chosen = hnn.HEmbedding(matrix("int8")), indices(3)
    expected = layer(chosen)
    for dtype in (torch.bfloat16, torch.float16, torch.float64, torch.float32):
        assert torch.equal(layer.to(dtype)(chosen), expected.to(dtype))
    assert set(layer.state_dict()) == {f"weight.{name}" for name, t in layer.weight.tensors._asdict().items()}


@pytest.mark.parametrize("bad", [[-1], [m], [0, 10**9]])
def test_indices_out_of_range(bad):
    with pytest.raises(ArgumentError, match=f"indices: reach from .*; stay within 0 to {m - 1}"):
        hnn.HEmbedding(matrix("int8"))(torch.tensor(bad))


def test_errors():
    H = matrix("int8")
    with pytest.raises(ArgumentError, match=r"indices: have the type torch\.float32"):
        hnn.HEmbedding(H)(torch.zeros(3))
    for padding in (m, -m - 1):
        with pytest.raises(ArgumentError, match=f"padding_idx: got {padding}"):
            hnn.HEmbedding(H, padding)
    with pytest.raises(ArgumentError, match=r"matrix: has the shape .*; give \(5, 40\), as the layer has"):
        hnn.HEmbedding.from_embedding(torch.nn.Embedding(5, n), H)
    with pytest.raises(NetworkError, match=r"embedding: has max_norm=1\.0; choose one without"):
        hnn.HEmbedding.from_embedding(torch.nn.Embedding(m, n, max_norm=1.0), H)
    with pytest.raises(NetworkError, match="embedding: has scale_grad_by_freq"):
        hnn.HEmbedding.from_embedding(torch.nn.Embedding(m, n, scale_grad_by_freq=True), H)


def test_description():
    assert "90, 40, padding_idx=3" in repr(hnn.HEmbedding(matrix("int8"), 3))
