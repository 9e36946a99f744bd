import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from heads import layer

import hmatrix as hm
from hmatrix._support.array_files import write_arrays
from hmatrix.heads.choice import FIRST
from hmatrix.heads.head import ProgressiveHead
from hmatrix.heads.head_file import KEY, VERSION


def test_storage_counts_all_bytes():
    weight, bias, X, _ = layer()
    head = hm.progressive(weight, bias, calibration=X, agreement=0.9)
    assert head.storage().total == sum(array.nbytes for array in head.pack().arrays().values())


def test_saved_and_loaded(tmp_path):
    weight, bias, X, held_out = layer()
    head = hm.progressive(weight, bias, calibration=X, agreement=0.9)
    head.save(tmp_path / "head.safetensors")
    loaded = ProgressiveHead.load(tmp_path / "head.safetensors")
    np.testing.assert_array_equal(loaded(held_out), head(held_out))
    assert (loaded.rank, loaded.most, loaded.precision) == (head.rank, head.most, head.precision)
    with pytest.raises(hm.HMatrixError, match="has no header of an H-matrix"):
        hm.load(tmp_path / "head.safetensors")
    with pytest.raises(hm.HMatrixError, match="cannot be read"):
        ProgressiveHead.load(tmp_path / "none")


def test_a_file_of_version_2_has_a_coarse_part_in_int8(tmp_path):
    weight, bias, X, _ = layer()
    head = hm.progressive(weight, bias, calibration=X, agreement=0.9, coarse_precisions=["int8"])
    arrays = head.pack().arrays()
    write_arrays(arrays | {"sizes": arrays["sizes"][:8]}, tmp_path / "head", KEY, {"version": 2})
    loaded = ProgressiveHead.load(tmp_path / "head")
    assert loaded.coarse_precision is hm.Precision.INT8
    write_arrays(arrays, tmp_path / "head", KEY, {"version": VERSION + 1})
    with pytest.raises(hm.HMatrixError, match="reads versions 2 to 4"):
        ProgressiveHead.load(tmp_path / "head")


@pytest.mark.parametrize("version", [2, 3])
def test_a_file_of_an_older_version_refines_first_what_is_asked_for(tmp_path, version):
    weight, bias, X, held_out = layer()
    head = hm.progressive(weight, bias, calibration=X, agreement=0.9, coarse_precisions=["int8"])
    arrays = head.pack().arrays()
    write_arrays(arrays | {"sizes": arrays["sizes"][: version + 6]}, tmp_path / "head", KEY, {"version": version})
    loaded = ProgressiveHead.load(tmp_path / "head")
    alone = replace(head.pack(), sizes=replace(head.pack().sizes, first=1))
    np.testing.assert_array_equal(loaded(held_out), ProgressiveHead(alone)(held_out))
    assert loaded.refined(held_out).min() < FIRST


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("sizes", lambda a: a * 2, "bias|basis|sizes"),
        ("sizes", lambda a: a[:5], "ten sizes"),
        ("sizes", lambda a: a * [1, 1, 1, 0, 1, 1, 1, 1, 1, 1], "1 <= top"),
        ("sizes", lambda a: a * [1, 1, 1, 1, 1, 1, 1, 1, 1, 0], "top <= first"),
        ("sizes", lambda a: a * [1, 1, 1, 1, 1, 0, 1, 1, 1, 1], "precision"),
        ("sizes", lambda a: a * [1, 1, 1, 1, 1, 1, 1, 1, 0, 1], "coarse precision"),
        ("limits", lambda a: -a - 1, "at least 0"),
        ("bias", lambda a: a * np.float32(np.nan), "NaN"),
        ("bias", lambda a: np.nan_to_num(a), "-inf"),
        ("reach", lambda a: -a - 1, "negative"),
        ("fine", lambda a: a[:-1], "entries"),
        ("fine", lambda a: a.astype(np.int64), "type"),
    ],
)
def test_damaged_arrays(tmp_path, name, change, message):
    weight, bias, X, _ = layer()
    arrays = hm.progressive(weight, bias, calibration=X, agreement=0.9).pack().arrays()
    kept = arrays[name].dtype if change(arrays[name]).dtype != np.int64 or name == "sizes" else np.int64
    arrays[name] = change(arrays[name]).astype(kept)
    write_arrays(arrays, tmp_path / "head", KEY, {"version": VERSION})
    with pytest.raises(hm.HMatrixError, match=message):
        ProgressiveHead.load(tmp_path / "head")


def test_module(tmp_path):
    torch = pytest.importorskip("torch")
    from hmatrix.nn import ProgressiveLinear

    weight, bias, X, held_out = layer()
    heads = [hm.progressive(weight, bias, calibration=X, agreement=a, ranks=[r]) for a, r in ((0.9, 16), (0.8, 32))]
    module, other = (ProgressiveLinear(head) for head in heads)
    x = torch.from_numpy(held_out)
    np.testing.assert_array_equal(module(x).numpy(), heads[0](held_out))
    assert module(x.reshape(2, 100, 90)).shape == (2, 100, 200)
    assert [t.shape for t in module.topk(x.reshape(2, 100, 90), 3)] == [(2, 100, 3)] * 2
    np.testing.assert_array_equal(module(x[0]).numpy(), heads[0](held_out[0]))
    np.testing.assert_array_equal(module(x[:1, None]).numpy(), heads[0](held_out[:1])[:, None])
    np.testing.assert_array_equal(module(x[:1].double()).numpy(), heads[0](held_out[:1]))
    torch.save(module.state_dict(), tmp_path / "state")
    other.load_state_dict(torch.load(tmp_path / "state"))
    np.testing.assert_array_equal(other(x).numpy(), module(x).numpy())
    assert other.head.rank == 16
    assert "rank=16" in repr(module)
    with pytest.raises(RuntimeError, match="Missing"):
        other.load_state_dict({})
    broken = dict(module.state_dict(), bias=torch.zeros(3))
    with pytest.raises(RuntimeError, match="bias"):
        other.load_state_dict(broken)
    small = ProgressiveLinear(hm.progressive(weight[:100], bias[:100], calibration=X, agreement=0.8))
    with pytest.raises(RuntimeError, match="shape"):
        small.load_state_dict(module.state_dict())
    with pytest.raises(hm.HMatrixError, match="cannot be moved"):
        module.double()
    assert module.float() is module
    with pytest.raises(hm.HMatrixError, match="has the shape"):
        module(x[:, 1:])


@pytest.mark.parametrize("rows", [2**27, 2**31 - 1])
def test_a_head_that_says_to_be_huge_takes_no_memory(tmp_path, rows):
    weight, bias, X, _ = layer()
    head = hm.progressive(weight, bias, calibration=X, agreement=0.9, cluster_rows=[16])
    assert head.clusters
    arrays = head.pack().arrays()
    sizes = arrays["sizes"].copy()
    sizes[0] = rows
    write_arrays(arrays | {"sizes": sizes}, tmp_path / "head", KEY, {"version": VERSION})
    tracemalloc.start()
    try:
        with pytest.raises(hm.HMatrixError, match="the file is damaged"):
            ProgressiveHead.load(tmp_path / "head")
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_coarse_matrix_that_says_to_be_huge_takes_no_memory(tmp_path):
    weight, bias, X, _ = layer()
    head = hm.progressive(weight, bias, calibration=X, agreement=0.9, coarse=hm.quantize(weight, "int8"))
    arrays = head.pack().arrays()
    zero = np.array([[0, 2**26, 0, weight.shape[1], 0, 1, 0]], np.int32)
    huge = {"coarse_sizes": np.array([2**26, weight.shape[1], 0], np.int32), "coarse_leaves": zero}
    write_arrays(arrays | huge, tmp_path / "head", KEY, {"version": VERSION})
    with pytest.raises(hm.HMatrixError, match=r"coarse_sizes: are .*give the 200 rows of the fine part"):
        ProgressiveHead.load(tmp_path / "head")


@pytest.mark.parametrize("name", ["basis", "factor", "cluster_factor", "fine"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_what_fills_up_strips_and_words_is_zero(tmp_path, name, precision):
    weight, bias, X, _ = layer()
    choices = {"ranks": [12], "precisions": [precision], "coarse_precisions": ["int8"], "cluster_rows": [16]}
    head = hm.progressive(weight, bias, calibration=X, agreement=0.9, **choices)
    arrays = head.pack().arrays()
    words = arrays[name].copy()
    # The last word is of a column or of a row that is filled up.
    words[-1] ^= np.uint32(1 << 30)
    write_arrays(arrays | {name: words}, tmp_path / "head", KEY, {"version": VERSION})
    with pytest.raises(hm.HMatrixError, match=f"{name}: has codes that belong to no row or column"):
        ProgressiveHead.load(tmp_path / "head")
