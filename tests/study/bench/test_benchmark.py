import numpy as np
import pytest

import hmatrix as hm
from hmatrix.cli import main
from hmatrix.packed.kernels import read_words
from hmatrix.study.bench import peers
from hmatrix.study.bench.benchmark import INT8, PUBLISHED, bench, blas_by_factor, forms, to_markdown
from hmatrix.study.bench.instructions import SUPPORTED
from hmatrix.study.measure import timing


def test_all_words_are_read():
    words = np.random.default_rng(0).integers(0, 2**32, 100_003, dtype=np.uint32)
    for count in (0, 1, 15, 127, 128, 1000, len(words)):
        assert read_words(words[:count].copy()) == int(words[:count].sum(dtype=np.uint64)) % 2**32


@pytest.mark.parametrize("batch", [1, 3])
def test_every_product_has_a_line(batch):
    weight = np.random.default_rng(0).standard_normal((130, 140)).astype(np.float32)
    matrices = forms(weight)
    lines, _ = bench(weight, matrices, batch=batch, thread_count=1, products=2)
    by_name = {line.name: line for line in lines}
    assert set(matrices) < set(by_name)
    assert {"hmatrix int8, as HLinear", "hmatrix int8, kernel alone"} < set(by_name)
    assert min(by_name[f"{name}, float32"].dense_fraction for name in ("torch", "numpy", "native")) == 1.0
    for name, matrix in matrices.items():
        assert by_name[name].nbytes == matrix.storage().total
        assert (by_name[name].stream_fraction is None) == (batch > 1)
    assert to_markdown(lines).count("\n") == len(lines) + 1


def test_several_threads_are_compared_with_one_in_the_same_run(monkeypatch):
    monkeypatch.setattr(timing, "REST_SECONDS", 0)
    weight = np.random.default_rng(0).standard_normal((130, 140)).astype(np.float32)
    matrices = {INT8: forms(weight)[INT8]}
    lines, _ = bench(weight, matrices, batch=1, thread_count=2, products=2)
    by_name = {line.name: line for line in lines}
    assert not any("one thread" in name for name in by_name)
    assert {name for name, line in by_name.items() if line.single} == {INT8}
    time, single = by_name[INT8].time, by_name[INT8].single
    row = next(row for row in to_markdown(lines).splitlines() if row.startswith(f"| {INT8} |"))
    assert row.endswith(f"| {single.median * 1e6:.1f} | {single.median / time.median:.2f} |")
    assert all(line.single is None for line in bench(weight, matrices, batch=1, thread_count=1, products=2)[0])


@pytest.mark.slow
@pytest.mark.skipif(not SUPPORTED, reason="needs Linux on x86-64")
def test_instructions_and_cold_caches():
    weight = np.random.default_rng(0).standard_normal((30, 40)).astype(np.float32)
    matrices = {INT8: forms(weight)[INT8]}
    lines, _ = bench(weight, matrices, batch=1, thread_count=1, products=1, cold=True, instructions=True)
    assert all(line.instructions > 0 for line in lines)
    assert all(line.time.products == 1 for line in lines)
    assert "| instructions |" in to_markdown(lines)


def test_one_blas_call_a_factor_is_the_same_product():
    rng = np.random.default_rng(0)
    weight, X = rng.standard_normal((130, 140)).astype(np.float32), rng.standard_normal((3, 140)).astype(np.float32)
    matrix = forms(weight)[PUBLISHED]
    np.testing.assert_allclose(blas_by_factor(matrix, X)(), matrix.apply(X), atol=1e-4)


@pytest.mark.parametrize("make", [peers.torch_dynamic_int8, peers.two_linears])
@pytest.mark.filterwarnings("ignore:torch.quantize_per")
def test_peers_multiply_with_the_matrix(make):
    rng = np.random.default_rng(0)
    weight = (rng.standard_normal((60, 5)) @ rng.standard_normal((5, 80))).astype(np.float32)
    x = rng.standard_normal((2, 80)).astype(np.float32)
    result = np.asarray(make(weight, x, 1)())
    # Steps of x, of 7 bits where the processor has no VNNI, and of the weight, of 8: uniform errors, four times.
    of_x = np.ptp(x) / 127 * np.linalg.norm(weight) * np.sqrt(len(x))
    of_weight = 2 * np.abs(weight).max() / 255 * np.linalg.norm(x) * np.sqrt(len(weight))
    assert np.linalg.norm(result - x @ weight.T) <= 4 / np.sqrt(12) * np.hypot(of_x, of_weight)


def test_the_command_prints_a_table(tmp_path, capsys):
    assert main(["bench", "40x50", "--products", "2"]) == 0
    printed = capsys.readouterr().out
    assert "40 x 50, batch 1, 1 thread(s), kernel" in printed
    assert "| hmatrix int8 |" in printed
    weight = np.random.default_rng(0).standard_normal((30, 20))
    hm.save(hm.build(weight, truncation=hm.Truncation(max_rank=2)), tmp_path / "saved.safetensors")
    assert main(["bench", str(tmp_path / "saved.safetensors"), "--products", "2", "--batch", "4"]) == 0
    assert "| hmatrix saved.safetensors |" in capsys.readouterr().out


def test_a_matrix_that_is_none(tmp_path, capsys):
    assert main(["bench", "0x5"]) == 1
    assert "ArgumentError: matrix: got 0x5" in capsys.readouterr().err
    assert main(["bench", str(tmp_path / "none.safetensors")]) == 1
    assert "none.safetensors" in capsys.readouterr().err
