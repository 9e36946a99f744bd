import numpy as np
import pytest
from heads import check_agreement, largest, outputs
from marks import slow
from multiplying import every_kernel

import hmatrix as hm
from hmatrix._support.array_files import write_arrays
from hmatrix.heads.clusters import RowClusters
from hmatrix.heads.head import ProgressiveHead
from hmatrix.heads.head_file import KEY, VERSION
from hmatrix.heads.reference import ReferenceHead
from hmatrix.partitions.cluster import Supports, build_cluster_tree
from hmatrix.partitions.splitters import TwoMeans


def vocabulary(m=1500, n=70, samples=400, seed=0):
    """Rows around centres, biases, and inputs near rows, in two halves."""
    rng = np.random.default_rng(seed)
    spectrum = np.arange(1, n + 1) ** -0.7
    centres = rng.standard_normal((m // 50, n))
    weight = (centres[rng.integers(0, len(centres), m)] + 0.6 * rng.standard_normal((m, n))) * spectrum
    X = weight[rng.integers(0, m, samples)] + 0.3 * spectrum * rng.standard_normal((samples, n))
    X = X.astype(np.float32)
    return weight.astype(np.float32), 0.1 * rng.standard_normal(m).astype(np.float32), X[::2].copy(), X[1::2].copy()


def clustered(rule, agreement=0.9, **options):
    weight, bias, X, held_out = vocabulary()
    options = {"ranks": [16], "precisions": ["float32"], "cluster_rows": [40], **options}
    head = hm.progressive(weight, bias, calibration=X, agreement=agreement, rule=rule, **options)
    assert head.clusters == 2 ** np.ceil(np.log2(1500 / options["cluster_rows"][0]))
    return head, weight, bias, held_out


def test_a_partition_holds_each_row_once():
    points = np.random.default_rng(0).standard_normal((333, 4))
    tree = build_cluster_tree(Supports(points), TwoMeans(10))
    for most in (1, 10, 50, 333):
        clusters = RowClusters.cut(tree, most)
        assert clusters.sizes.max() <= max(most, 10)
        assert clusters.sizes.sum() == 333
        for cluster, rows in enumerate(clusters.table):
            rows = rows[rows >= 0]
            assert (np.diff(rows) > 0).all()
            np.testing.assert_array_equal(np.flatnonzero(clusters.labels == cluster), rows)
            np.testing.assert_allclose(clusters.means(points)[cluster], points[rows].mean(axis=0))
            assert clusters.largest(points[:, 0])[cluster] == points[rows, 0].max()


@pytest.mark.parametrize("rule", [hm.Margin(), hm.Rigorous()], ids=lambda rule: type(rule).__name__)
@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("coarse", ["int8", "int4"])
def test_kernels_agree_with_the_reference(rule, precision, coarse):
    head, _, _, held_out = clustered(rule, precisions=[precision, "float32"], coarse_precisions=[coarse])
    check_agreement(head, held_out, (1, 3, 100))


@every_kernel
@pytest.mark.parametrize("k", [1, 7, slow(1500)])
def test_the_rigorous_rule_finds_the_largest(kernel, k):
    head, weight, bias, held_out = clustered(hm.Rigorous())
    rng = np.random.default_rng(1)
    differences = weight[:30] - weight[30:60]
    x = np.concatenate([held_out[:40], differences, rng.standard_normal((20, 70)), np.sign(differences)])
    x = x.astype(np.float32)
    dense = x.astype(float) @ weight.T.astype(float) + bias
    values, indices, _ = largest(head, kernel, x, k)
    np.testing.assert_allclose(values, -np.sort(-dense, axis=1)[:, :k], atol=1e-4)
    assert all(len(set(rows)) == k for rows in indices.tolist())


def test_bounds_of_clusters_hold():
    head, weight, bias, held_out = clustered(hm.Rigorous())
    packed = head.pack()
    reference = ReferenceHead(packed)
    x = np.concatenate([held_out, 100 * np.random.default_rng(0).standard_normal((50, 70))]).astype(np.float32)
    _, upper = reference.look(packed.clusters, reference.take_in(x))
    dense = x.astype(float) @ weight.T.astype(float) + bias
    clusters = RowClusters(packed.order, packed.starts)
    best = np.stack([clusters.largest(outputs) for outputs in dense])
    assert (best <= upper[:, : head.clusters]).all()
    assert np.median(upper[:, : head.clusters] - best) < np.linalg.norm(weight, axis=1).max() * np.median(
        np.linalg.norm(x, axis=1)
    )


@pytest.mark.parametrize("agreement", [0.8, 0.95])
def test_agreement_on_held_out_inputs(agreement):
    weight, bias, X, held_out = vocabulary(samples=3000)
    head = hm.progressive(
        weight, bias, calibration=X, agreement=agreement, ranks=[8], precisions=["float32"], cluster_rows=[40]
    )
    agreed = np.mean(head.topk(held_out)[1][:, 0] == (held_out @ weight.T + bias).argmax(axis=1))
    # Three standard deviations of a proportion of 1,500, and of the calibrated quantile of as many.
    assert agreed >= agreement - 3 * np.sqrt(2 * agreement * (1 - agreement) / 1500)


def test_clusters_are_skipped():
    head, weight, bias, held_out = clustered(hm.Margin(), 0.9)
    opened = [len(product.refine(1)[2]) for product in ReferenceHead(head.pack())._products(held_out)]
    assert 0 < np.mean(opened) < head.clusters / 3
    y = head(held_out)
    coarse = held_out @ weight.T + bias
    # What is not looked into still has the output of its centre.
    assert np.corrcoef(y.ravel(), coarse.ravel())[0, 1] > 0.9
    np.testing.assert_array_equal(y.argmax(axis=1), head.topk(held_out)[1][:, 0])


@every_kernel
def test_inputs_that_are_not_finite_or_overflow(kernel):
    head, _, _, held_out = clustered(hm.Margin())
    x = held_out[:4].copy()
    x[1, 3] = np.nan
    x[2] = 3e38
    values, indices, counts = largest(head, kernel, x, 3)
    assert np.isnan(values[1]).all()
    assert indices[1].tolist() == [0, 1, 2]
    assert counts[1] == 0
    assert ((indices >= 0) & (indices < 1500)).all()
    assert np.isnan(outputs(head, kernel, x)[1]).all()
    assert np.isfinite(outputs(head, kernel, x)[[0, 3]]).all()


@every_kernel
def test_equal_rows(kernel):
    weight = np.tile(np.random.default_rng(0).standard_normal(40), (200, 1))
    X = np.random.default_rng(1).standard_normal((60, 40)).astype(np.float32)
    head = hm.progressive(weight, calibration=X, agreement=0.9, cluster_rows=[30], ranks=[4])
    values, indices, _ = largest(head, kernel, X, 3)
    np.testing.assert_allclose(values, np.repeat(X @ weight[:1].T.astype(np.float32), 3, axis=1), rtol=0.02, atol=0.1)
    assert all(len(set(rows)) == 3 for rows in indices.tolist())


def test_the_code_chooses_clusters_where_they_pay():
    weight, bias, X, held_out = vocabulary(m=20000, samples=300)
    head = hm.progressive(weight, bias, calibration=X, agreement=0.9, ranks=[16])
    assert head.clusters > 0
    assert hm.progressive(weight[:1000], bias[:1000], calibration=X, agreement=0.9, ranks=[16]).clusters == 0
    assert held_out.shape[1] == 70


def test_saved_and_loaded(tmp_path):
    head, _, _, held_out = clustered(hm.Margin())
    head.save(tmp_path / "head.safetensors")
    loaded = ProgressiveHead.load(tmp_path / "head.safetensors")
    np.testing.assert_array_equal(loaded(held_out), head(held_out))
    assert loaded.clusters == head.clusters


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("sizes", lambda a: a + np.int32(5000) * (np.arange(10) == 7), "1 <= first <= clusters"),
        ("starts", lambda a: a[:-1], "starts"),
        ("starts", lambda a: a[::-1].copy(), "do not increase"),
        ("order", lambda a: a[:-16], "order: has"),
        ("order", lambda a: np.where(a == 7, 8, a), "no order of the rows"),
        ("order", lambda a: np.where(a < 0, -2, a), "no order of the rows"),
        ("bias", lambda a: np.nan_to_num(a), "-inf"),
        ("cluster_bias", lambda a: np.nan_to_num(a), "-inf"),
        ("cluster_reach", lambda a: -a - 1, "negative"),
        ("cluster_factor", lambda a: a[:-1], "entries"),
        ("cluster_limits", lambda a: a[:-1], "seven numbers"),
    ],
)
def test_damaged_arrays(tmp_path, name, change, message):
    arrays = clustered(hm.Margin(), cluster_rows=[200])[0].pack().arrays()
    arrays[name] = change(arrays[name]).astype(arrays[name].dtype)
    write_arrays(arrays, tmp_path / "head", KEY, {"version": VERSION})
    with pytest.raises(hm.HMatrixError, match=message):
        ProgressiveHead.load(tmp_path / "head")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cluster_rows": []}, "cluster_rows"),
        ({"cluster_rows": [-1]}, "cluster_rows: got -1"),
        ({"rule": hm.FixedRows(3), "cluster_rows": [40]}, "cluster_rows"),
    ],
)
def test_wrong_arguments(options, message):
    weight, bias, X, _ = vocabulary()
    with pytest.raises(hm.HMatrixError, match=message):
        hm.progressive(weight, bias, calibration=X, agreement=0.9, **options)
