"""Heads with a coarse H-matrix: their bytes, files, copies and modules."""

import copy
import pickle

import numpy as np
import pytest
from coarse_heads import M, N, coarse_of, head_of
from heads import layer
from multiplying import KERNELS

import hmatrix as hm
from hmatrix._support.array_files import write_arrays
from hmatrix.heads.head import ProgressiveHead
from hmatrix.heads.head_file import KEY, VERSION
from hmatrix.heads.native import native_head
from hmatrix.heads.packed_head import PREFIX, PackedHead


def test_storage_counts_all_bytes():
    head, H = head_of("mixed"), coarse_of("mixed")
    storage, own = head.storage(), H.storage()
    arrays = sum(array.nbytes for array in head.pack().arrays().values())
    assert storage.total == arrays + H.pack().schedule.nbytes
    assert storage.far_field == own.near_field + own.far_field + 4 * 208
    assert storage.near_field == head.pack().fine.nbytes + 4 * M
    assert storage.index >= own.index


@pytest.mark.parametrize("name", ["mixed", "allocated", "floats"])
def test_saved_copied_and_pickled(tmp_path, name):
    held_out = layer()[3]
    head = head_of(name)
    head.save(tmp_path / "head")
    others = ProgressiveHead.load(tmp_path / "head"), copy.deepcopy(head), pickle.loads(pickle.dumps(head))
    for other in others:
        np.testing.assert_array_equal(other(held_out), head(held_out))
        assert repr(other) == repr(head)
        assert other.coarse.activations is coarse_of(name).activations
        np.testing.assert_array_equal(other.coarse.to_dense(), coarse_of(name).to_dense())
    low = hm.progressive(*layer()[:2], rule=hm.FixedRows(9), ranks=[5], precisions=["int8"])
    assert low.coarse is None
    assert not [array for array in low.pack().arrays() if array.startswith(PREFIX)]
    assert "rank 5 in int8, at most 9 rows in int8" in repr(low)
    assert "an H-matrix of 4 leaves in" in repr(head_of("mixed"))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("data", lambda a: a[:-1], "data"),
        ("data", lambda a: a.astype(np.int64), "data"),
        ("data", lambda _: None, "arrays: are"),
        ("leaves", lambda a: a * 2, "leaves|data"),
        ("leaves", lambda a: a[:-1], "leaves|data"),
        ("sizes", lambda a: a[:2], "sizes: are"),
        ("sizes", lambda a: a * np.array([1, 1, 7], np.int32), "sizes: are"),
        ("sizes", lambda a: a.astype(np.int64), "sizes: are"),
        ("row_permutation", lambda a: a * 0, "row_permutation: is no permutation"),
        ("column_permutation", lambda a: a[:-1], "column_permutation"),
        ("more", lambda _: np.zeros(3, np.float32), "arrays: are"),
    ],
)
def test_damaged_files(tmp_path, name, change, message):
    arrays = head_of("mixed").pack().arrays()
    arrays[PREFIX + name] = change(arrays.get(PREFIX + name))
    kept = {key: array for key, array in arrays.items() if array is not None}
    write_arrays(kept, tmp_path / "head", KEY, {"version": VERSION})
    with pytest.raises(hm.HMatrixError, match=message):
        ProgressiveHead.load(tmp_path / "head")


def test_a_matrix_that_does_not_fit_the_head(tmp_path):
    arrays = head_of("mixed").pack().arrays()
    own = {name: array for name, array in arrays.items() if not name.startswith(PREFIX)}
    low = hm.progressive(*layer()[:2], rule=hm.FixedRows(9), ranks=[5], precisions=["int8"]).pack().arrays()
    clustered = hm.progressive(*layer()[:2], rule=hm.Rigorous(), ranks=[0], precisions=["int8"], cluster_rows=[50])
    small, double = hm.quantize(np.ones((M, 3)), "int8"), hm.quantize(layer()[0], "float64")
    mixed = coarse_of("mixed")
    for others, matrix in ((own, small), (own, double), (low, mixed), (clustered.pack().arrays(), mixed)):
        prefixed = {PREFIX + name: array for name, array in matrix.pack().arrays().items()}
        write_arrays(others | prefixed, tmp_path / "head", KEY, {"version": VERSION})
        with pytest.raises(hm.HMatrixError, match="matrix: is float"):
            ProgressiveHead.load(tmp_path / "head")
    # The kernel checks again.
    packed = PackedHead.of_arrays(low)
    object.__setattr__(packed, "matrix", mixed.pack())
    with pytest.raises(ValueError, match="neither factors nor clusters"):
        native_head(packed, KERNELS[0])


def test_module_and_saved_network(tmp_path):
    torch = pytest.importorskip("torch")
    import hmatrix.nn as hnn

    weight, bias, X, held_out = layer()
    x = torch.from_numpy(held_out)
    low = hm.progressive(weight, bias, calibration=X, agreement=0.9, ranks=[16])
    heads = [head_of("mixed"), head_of("exact"), low]
    for given in heads:
        for before in heads:
            module, other = hnn.ProgressiveLinear(given), hnn.ProgressiveLinear(before)
            np.testing.assert_array_equal(module(x).numpy(), given(held_out))
            torch.save(module.state_dict(), tmp_path / "state")
            other.load_state_dict(torch.load(tmp_path / "state"))
            assert other.state_dict().keys() == module.state_dict().keys()
            np.testing.assert_array_equal(other(x).numpy(), given(held_out))
            np.testing.assert_array_equal(copy.deepcopy(other)(x).numpy(), given(held_out))
    assert "coarse=" in repr(hnn.ProgressiveLinear(heads[0]))
    module = hnn.ProgressiveLinear(low)
    broken = hnn.ProgressiveLinear(heads[0]).state_dict()
    del broken[PREFIX + "leaves"]
    with pytest.raises(RuntimeError, match="arrays: are"):
        module.load_state_dict(broken)
    np.testing.assert_array_equal(module(x).numpy(), low(held_out))

    linear = torch.nn.Linear(N, M)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(weight)), linear.bias.copy_(torch.from_numpy(bias))
    model = torch.nn.Sequential(torch.nn.Identity(), linear)
    changed, report = hnn.progressive_head(
        model, [torch.from_numpy(X)], agreement=0.9, coarse=coarse_of("mixed"), progress=False
    )
    assert "an H-matrix of 4 leaves" in str(report)
    hnn.save(changed, tmp_path / "file")
    loaded = hnn.load(tmp_path / "file", torch.nn.Sequential(torch.nn.Identity(), torch.nn.Linear(N, M)))
    assert torch.equal(loaded(x), changed(x))
    np.testing.assert_array_equal(changed(x).numpy(), head_of("mixed")(held_out))
    assert loaded[1].head.coarse.activations is hm.Activations.INT8
