"""Alternatives for a user: products of a dense layer by other libraries, where they are installed."""

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from hmatrix._support.typing import FloatArray

Product: TypeAlias = Callable[[], object]
Maker: TypeAlias = Callable[[FloatArray, FloatArray, int], Product]

BLOCK = 128
"""Columns that share a scale in ONNX Runtime's MatMulNBits."""


def torch_dynamic_int8(weight: FloatArray, x: FloatArray, threads: int) -> Product:  # noqa: ARG001
    """Quantise dynamically with torch: int8 weights by channel, int8 activations."""
    W = torch.from_numpy(weight)
    scales = (W.abs().amax(dim=1).clamp(min=1e-30) / 127).double()
    quantized = torch.quantize_per_channel(W, scales, torch.zeros(len(W), dtype=torch.long), 0, torch.qint8)
    packed = torch.ops.quantized.linear_prepack(quantized, None)
    vectors = torch.from_numpy(x)
    return lambda: torch.ops.quantized.linear_dynamic(vectors, packed)


def torchao_int8(weight: FloatArray, x: FloatArray, threads: int) -> Product:  # noqa: ARG001
    """Quantise with torchao: int8 weights and int8 activations, not compiled."""
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    linear = _linear(weight)
    quantize_(linear, Int8DynamicActivationInt8WeightConfig())
    return _module(linear, x)


def two_linears(weight: FloatArray, x: FloatArray, threads: int) -> Product:  # noqa: ARG001
    """Multiply by two torch layers of float32, a truncated SVD with a quarter of the coefficients."""
    m, n = weight.shape
    rank = max(1, m * n // (4 * (m + n)))
    U, s, Vt = np.linalg.svd(weight, full_matrices=False)
    factors = (np.ascontiguousarray(Vt[:rank]), np.ascontiguousarray(U[:, :rank] * s[:rank]))
    return _module(torch.nn.Sequential(*map(_linear, factors)), x)


def onnxruntime_float32(weight: FloatArray, x: FloatArray, threads: int) -> Product:
    """Multiply with ONNX Runtime in float32."""
    return _session(_onnx_model(weight).SerializeToString(), x, threads)


def onnxruntime_dynamic_int8(weight: FloatArray, x: FloatArray, threads: int) -> Product:
    """Quantise dynamically with ONNX Runtime: int8 weights by channel, uint8 activations."""
    import onnx
    from onnxruntime.quantization import quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        onnx.save(_onnx_model(weight), source)
        quantize_dynamic(source, target, per_channel=True)
        return _session(target.read_bytes(), x, threads)


def onnxruntime_nbits(bits: int) -> Maker:
    """Return the maker of ONNX Runtime's MatMulNBits, in blocks of 128 columns, with int8 activations."""

    def make(weight: FloatArray, x: FloatArray, threads: int) -> Product:
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

        model = _onnx_model(weight)
        quantizer = MatMulNBitsQuantizer(model, bits=bits, block_size=BLOCK, is_symmetric=True, accuracy_level=4)
        quantizer.process()
        return _session(quantizer.model.model.SerializeToString(), x, threads)

    return make


MAKERS: dict[str, Maker] = {
    "torch, dynamic int8": torch_dynamic_int8,
    "torchao int8, eager": torchao_int8,
    "torch, two Linears (SVD, 25 %)": two_linears,
    "ONNX Runtime float32": onnxruntime_float32,
    "ONNX Runtime, dynamic int8": onnxruntime_dynamic_int8,
    "ONNX Runtime MatMulNBits int8": onnxruntime_nbits(8),
    "ONNX Runtime MatMulNBits int4": onnxruntime_nbits(4),
}


def peers(weight: FloatArray, x: FloatArray, threads: int) -> tuple[dict[str, Product], list[str]]:
    """Return the products of the libraries that are installed and work, and the reasons why others are missing.

    Parameters
    ----------
    weight
        ``(m, n)``, float32.
    x
        ``(batch, n)``, float32.
    threads
        Threads of each product.
    """
    products: dict[str, Product] = {}
    missing: list[str] = []
    for name, make in MAKERS.items():
        try:
            with _quiet():
                products[name] = make(weight, x, threads)
        except Exception as error:  # other libraries may raise anything; it is told, and costs their line alone
            missing.append(f"{name} ({type(error).__name__}: {error})")
    return products, missing


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep other libraries' advice about their own future off the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _linear(weight: FloatArray) -> torch.nn.Linear:
    m, n = weight.shape
    linear = torch.nn.Linear(n, m, bias=False)
    linear.weight = torch.nn.Parameter(torch.from_numpy(weight), requires_grad=False)
    return linear


def _module(module: torch.nn.Module, x: FloatArray) -> Product:
    vectors = torch.from_numpy(x)
    return lambda: module(vectors)


def _onnx_model(weight: FloatArray) -> Any:
    """Return the model ``y = x W^T``."""
    from onnx import TensorProto, helper, numpy_helper

    m, n = weight.shape
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", n])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", m])],
        [numpy_helper.from_array(np.ascontiguousarray(weight.T), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def _session(model: bytes, x: FloatArray, threads: int) -> Product:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options)
    return lambda: session.run(None, {"x": x})
