"""Progressive heads whose coarse part is an H-matrix."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pytest
from heads import check_agreement, largest, layer, outputs
from matrices import assembled, permutation, random_leaves, stored
from multiplying import KERNELS, every_kernel

import hmatrix as hm
from hmatrix.files import write_arrays
from hmatrix.head import PREFIX, PackedHead
from hmatrix.head_kernels import REFERENCE, native_head
from hmatrix.head_reference import ReferenceHead
from hmatrix.progressive import KEY, VERSION, ProgressiveHead

M, N = 200, 90
FLOAT32 = hm.Precision.FLOAT32
INTEGERS = ["uniform", "allocated", "mixed"]
EXACT = ["exact", "floats", "overlapping"]


def noisy(weight, rows, columns):
    """A leaf table's worth of blocks of a permuted weight: low rank beside dense, in a partition of four."""
    tree = weight[np.ix_(rows, columns)]
    leaves = []
    for top, bottom in ((0, 70), (70, len(tree))):
        for left, right, rank in ((0, 50, 6), (50, tree.shape[1], None)):
            U, s, Vt = np.linalg.svd(tree[top:bottom, left:right], full_matrices=False)
            block = tree[top:bottom, left:right] if rank is None else hm.LowRank(U[:, :rank] * s[:rank], Vt[:rank].T)
            leaves.append(hm.packing.PackedLeaf(slice(top, bottom), slice(left, right), block))
    return leaves


@cache
def coarse_of(name):
    """H-matrices of the weight of `layer`, of all kinds."""
    weight = layer()[0]
    rows, columns = permutation(M, 1), permutation(N, 2)
    mixed = [hm.Precision.INT4, hm.Precision.INT2, hm.Precision.INT8, hm.Precision.INT1]
    match name:
        case "uniform":
            H = hm.build(weight, splitter=hm.Cardinality(30), truncation=hm.Truncation(max_rank=4))
            return H.astype("int8", activations="int8")
        case "allocated":
            return hm.allocate(weight, hm.Budget(storage=0.15), activations="int8").matrix
        case "mixed":
            leaves = stored(noisy(weight, rows, columns), mixed, (0, 13))
            return hm.HMatrix.from_leaves((M, N), leaves, rows, columns, activations="int8")
        case "exact":
            return hm.allocate(weight, hm.Budget(storage=0.15)).matrix
        case "floats":
            kinds = [hm.Precision.BFLOAT16, hm.Precision.FLOAT32, hm.Precision.INT8]
            return hm.HMatrix.from_leaves((M, N), stored(noisy(weight, rows, columns), kinds), rows, columns)
        case "overlapping":
            leaves = stored(random_leaves((M, N), dtype=np.float32, most=5), [hm.Precision.FLOAT32])
            again = stored(noisy(weight, rows, columns), [hm.Precision.INT8])
            return hm.HMatrix.from_leaves((M, N), leaves + again, rows, None)


@cache
def head_of(name, agreement=0.9, **options):
    weight, bias, X, _ = layer()
    return hm.progressive(weight, bias, calibration=X, agreement=agreement, coarse=coarse_of(name), **options)


def remainder(head):
    """What H leaves of the fine rows, in float64."""
    return head.pack().rows_of(np.arange(len(head.pack().fine_scales))).astype(float) - head.coarse.to_dense()


@every_kernel
@pytest.mark.parametrize("rule", [hm.Margin(), hm.FixedRows(80)], ids=lambda rule: type(rule).__name__)
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("name", INTEGERS)
def test_kernels_agree_with_the_reference(kernel, rule, precision, name):
    weight, _, _, held_out = layer()
    head = head_of(name, agreement=0.6, rule=rule, precisions=(precision,))
    assert (head.precision.name.lower(), head.rank) == (precision, 0)
    check_agreement(head, kernel, weight, held_out[:50], (1, 3))


@every_kernel
@pytest.mark.parametrize("name", INTEGERS)
def test_coarse_outputs_of_integers_have_the_bits_of_the_reference(kernel, name):
    held_out = layer()[3][:50]
    head = head_of(name, precisions=("int8",))
    np.testing.assert_array_equal(outputs(head, kernel, held_out), outputs(head, REFERENCE, held_out))
    own, expected = largest(head, kernel, held_out, 5), largest(head, REFERENCE, held_out, 5)
    for found, other in zip(own, expected, strict=True):
        np.testing.assert_array_equal(found, other)


@every_kernel
@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("rule", [hm.Margin(), hm.Rigorous()], ids=lambda rule: type(rule).__name__)
def test_floating_point_sums_agree_but_for_rows_at_the_threshold(kernel, name, rule):
    """Each output is the reference's fine one, or its coarse one (below the largest), up to rounding."""
    weight, bias, _, held_out = layer()
    held_out = held_out[:50]
    head = head_of(name, rule=rule, precisions=("float32",))
    fine = held_out.astype(float) @ head.pack().rows_of(np.arange(M)).astype(float).T + bias
    coarse = held_out.astype(float) @ head.coarse.to_dense().astype(float).T + bias
    y = outputs(head, kernel, held_out)
    size = 1e-5 * np.linalg.norm(weight, axis=1).max() * np.linalg.norm(held_out, axis=1).max()
    refined = np.abs(y - fine) <= size
    kept = np.abs(y - np.minimum(coarse, y.max(axis=1, keepdims=True))) <= size
    assert (refined | kept).all()
    np.testing.assert_allclose(y.max(axis=1), np.where(refined, y, -np.inf).max(axis=1))
    # Rows whose coarse output is further from the threshold than rounding are refined by both, or by neither.
    counts = [largest(head, kind, held_out, 1)[2] for kind in (kernel, REFERENCE)]
    reference = ReferenceHead(head.pack())
    lower, upper = (a[:, :M] for a in reference.look(head.pack().places, reference.take_in(held_out)))
    first = np.take_along_axis(fine, lower.argmax(axis=1)[:, None], axis=1)
    near = np.abs(upper - first + reference.slack(reference.take_in(held_out))[:, None]) <= 4 * size
    assert (np.abs(counts[0] - counts[1]) <= near.sum(axis=1)).all()
    assert near.sum(axis=1).mean() < 1


@every_kernel
@pytest.mark.parametrize("name", INTEGERS + EXACT)
def test_more_outputs_than_the_rule_refines(kernel, name):
    weight, bias, _, held_out = layer()
    held_out = held_out[:30]
    head = head_of(name, agreement=0.5, precisions=("float32",))
    assert head.most < M
    dense = held_out @ weight.T + bias
    for k in (head.most + 1, M):
        values, indices, counts = largest(head, kernel, held_out, k)
        assert (counts >= k).all()
        np.testing.assert_allclose(values, np.take_along_axis(dense, indices, axis=1), atol=1e-3)
    np.testing.assert_array_equal(np.sort(indices, axis=1), np.tile(np.arange(M), (len(held_out), 1)))


@every_kernel
@pytest.mark.parametrize("name", ["mixed", "floats"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_inputs_that_are_not_finite_or_overflow(kernel, name, value):
    head = head_of(name)
    x = layer()[3][:3].copy()
    # The rows are of both signs: a column of large entries makes outputs overflow in both directions.
    x[1] = value if value != 3e38 else np.sign(x[1]) * value
    y = outputs(head, kernel, x)
    np.testing.assert_array_equal(np.isnan(y), [[False] * M, [True] * M, [False] * M])
    values, indices, counts = largest(head, kernel, x, 3)
    assert np.isnan(values[1]).all()
    assert indices[1].tolist() == [0, 1, 2]
    assert counts[1] == 0 < min(counts[[0, 2]])


@every_kernel
@pytest.mark.parametrize("m", [1, 15, 16, 17])
def test_rows_that_do_not_fill_strips_and_batches_of_none(kernel, m):
    rng = np.random.default_rng(m)
    weight, X = rng.standard_normal((m, 20)).astype(np.float32), rng.standard_normal((60, 20)).astype(np.float32)
    # All outputs are far below zero: what fills up strips must not be larger.
    bias = np.full(m, -1000, np.float32)
    head = hm.progressive(weight, bias, calibration=X, agreement=0.9, coarse=hm.quantize(weight, "int4"))
    values, indices, _ = largest(head, kernel, X, m)
    assert (values < -900).all()
    np.testing.assert_array_equal(np.sort(indices, axis=1), np.tile(np.arange(m), (60, 1)))
    assert outputs(head, kernel, X[:0]).shape == (0, m)
    assert largest(head, kernel, X[:0], 1)[0].shape == (0, 1)


@pytest.mark.parametrize("agreement", [0.8, 0.95, 0.99])
def test_agreement_on_held_out_inputs(agreement):
    weight, bias, X, held_out = layer(noise=0.5, samples=4000)
    H = hm.allocate(weight, hm.Budget(storage=0.1), activations="int8").matrix
    head = hm.progressive(weight, bias, calibration=X, agreement=agreement, coarse=H)
    agreed = np.mean(head.topk(held_out)[1][:, 0] == (held_out @ weight.T + bias).argmax(axis=1))
    # Three standard deviations of a proportion of 2,000, and of the calibrated quantile of as many.
    assert agreed >= agreement - 3 * np.sqrt(2 * agreement * (1 - agreement) / 2000)
    assert head.refined(held_out).mean() < M


def adversarial(weight, H, X):
    """Rows of the remainder, differences of rows, which nearly tie two outputs, and inputs of all sizes."""
    rest, differences = weight - H.to_dense(), weight[:50] - weight[50:100]
    return np.concatenate([X, 10 * rest, differences, 1e-20 * X, 1e10 * X, np.sign(X)]).astype(np.float32)


@every_kernel
@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_the_rigorous_largest_are_those_of_the_fine_rows(kernel, name, precision):
    weight, bias, _, X = layer()
    head = hm.progressive(weight, bias, rule=hm.Rigorous(), precisions=[precision], coarse=coarse_of(name))
    fine = head.pack().rows_of(np.arange(M)).astype(float)
    bad = adversarial(weight, coarse_of(name), X)
    for k in (1, 5):
        dense = np.sort(bad.astype(float) @ fine.T + bias, axis=1)[:, : -k - 1 : -1]
        values = largest(head, kernel, bad, k)[0]
        norms = np.linalg.norm(bad.astype(float), axis=1)[:, None]
        size = 1e-5 * (np.linalg.norm(fine, axis=1).max() * norms + 4)
        if precision == "int8":
            # What is lost of x where rows are codes.
            size += head.pack().places.bound.rounding * norms
        assert (np.abs(values - dense) <= size).all()


@pytest.mark.parametrize("name", EXACT)
def test_the_rigorous_bound_holds(name):
    weight, bias, _, X = layer()
    head = hm.progressive(weight, bias, rule=hm.Rigorous(), precisions=["bfloat16"], coarse=coarse_of(name))
    packed, bad = head.pack(), adversarial(weight, coarse_of(name), X)
    fine = bad.astype(float) @ packed.rows_of(np.arange(M)).astype(float).T + bias
    reference = ReferenceHead(packed)
    lower, upper = (a[:, :M].astype(float) for a in reference.look(packed.places, reference.take_in(bad)))
    slack = 1e-6 * np.abs(fine).max(axis=1, keepdims=True)
    assert (fine <= upper + slack).all()
    assert (fine >= lower - (upper - lower) - slack).all()


@pytest.mark.parametrize("name", EXACT)
def test_rounding_errors_of_the_coarse_product_stay_within_their_bound(name):
    bias = np.zeros(M, np.float32)
    head = hm.progressive(layer()[0], bias, rule=hm.Rigorous(), precisions=["float32"], coarse=coarse_of(name))
    packed, H = head.pack(), coarse_of(name)
    X = np.random.default_rng(5).standard_normal((50, N)).astype(np.float32)
    exact = X.astype(float) @ H.to_dense().astype(float).T
    relative = packed.places.bound.relative
    bound = relative * packed.reach[:M] * np.linalg.norm(X, axis=1)[:, None]
    for kernel in KERNELS[:-1]:
        y = np.empty((50, M), np.float32)
        hm.kernels.native_product(H.pack(), kernel).multiply_batch(X, y)
        assert (np.abs(y - exact) <= bound).all()
    # The bound is of use: far below what the remainders leave.
    assert (relative * packed.reach).max() < 0.001 * np.linalg.norm(layer()[0], axis=1).max()


@pytest.mark.parametrize("name", INTEGERS + EXACT)
def test_remainders_are_those_of_the_stored_rows(name):
    weight, bias, _, _ = layer()
    head = hm.progressive(weight, bias, rule=hm.FixedRows(M), precisions=["int8"], coarse=coarse_of(name))
    rest = remainder(head)
    exact = hm.coarse_matrix.remainders(head.pack().matrix, head.pack().rows_of)[0]
    np.testing.assert_allclose(exact, np.linalg.norm(rest, axis=1), rtol=1e-5)
    fine = head.pack().rows_of(np.arange(M)).astype(float)
    np.testing.assert_allclose(head.coarse_error(), np.linalg.norm(rest) / np.linalg.norm(fine), rtol=1e-5)


def test_reach_is_the_sum_of_the_leaves():
    rows, columns = permutation(M, 1), permutation(N, 2)
    leaves = random_leaves((M, N), dtype=np.float32, most=9)
    H = hm.HMatrix.from_leaves((M, N), leaves, rows, columns)
    expected = np.zeros(M)
    for leaf in leaves:
        block = leaf.block
        if isinstance(block, hm.LowRank):
            expected[rows[leaf.rows]] += np.linalg.norm(block.U, axis=1) * np.linalg.norm(block.V)
        else:
            expected[rows[leaf.rows]] += np.linalg.norm(block, axis=1)
    dense = assembled((M, N), leaves, rows, columns)
    rest, reach = hm.coarse_matrix.remainders(H.pack(), lambda chosen: np.zeros((len(chosen), N), np.float32))
    np.testing.assert_allclose(reach, expected, rtol=1e-5)
    np.testing.assert_allclose(rest, np.linalg.norm(dense, axis=1), rtol=1e-5)


def test_rows_are_decoded_a_few_at_a_time(monkeypatch):
    H, weight = coarse_of("floats").pack(), layer()[0]
    whole = hm.coarse_matrix.remainders(H, lambda chosen: weight[chosen])
    monkeypatch.setattr(hm.coarse_matrix, "CHUNK", 33)
    for own, other in zip(hm.coarse_matrix.remainders(H, lambda chosen: weight[chosen]), whole, strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-12)


@pytest.mark.parametrize("name", ["mixed", "floats"])
def test_threads_change_no_bit(name):
    held_out = layer(samples=600)[3]
    head = head_of(name)
    before = hm.backend().threads
    try:
        hm.set_num_threads(1)
        alone, found = head(held_out), head.topk(held_out, 3)
        hm.set_num_threads(3)
        np.testing.assert_array_equal(head(held_out), alone)
        for own, other in zip(head.topk(held_out, 3), found, strict=True):
            np.testing.assert_array_equal(own, other)
        for x, y in zip(held_out[:20], alone, strict=False):
            np.testing.assert_array_equal(head(x), y)
    finally:
        hm.set_num_threads(before)


def test_a_large_coarse_product_is_shared_by_threads():
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((3000, 300)).astype(np.float32)
    H = hm.quantize(weight, "int8", activations="int8")
    head = hm.progressive(weight, rule=hm.FixedRows(5), precisions=["int8"], coarse=H)
    X = rng.standard_normal((40, 300)).astype(np.float32)
    before = hm.backend().threads
    try:
        hm.set_num_threads(1)
        alone = head(X)
        hm.set_num_threads(4)
        np.testing.assert_array_equal(head(X), alone)
        np.testing.assert_array_equal(head(X[7]), alone[7])
    finally:
        hm.set_num_threads(before)


@pytest.mark.parametrize("name", ["mixed", "floats"])
def test_calls_from_many_threads_at_once(name):
    held_out = layer(samples=600)[3]
    head = head_of(name)
    expected = head(held_out)
    before = hm.backend().threads
    try:
        hm.set_num_threads(3)
        with ThreadPoolExecutor(4) as pool:
            for y in pool.map(head, [held_out] * 12):
                np.testing.assert_array_equal(y, expected)
            for y, other in zip(pool.map(head, held_out), expected, strict=True):
                np.testing.assert_array_equal(y, other)
    finally:
        hm.set_num_threads(before)


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ranks": [8]}, "ranks: is given beside coarse"),
        ({"coarse_precisions": ["int8"]}, "coarse_precisions: is given beside coarse"),
        ({"cluster_rows": [0]}, "cluster_rows: is given beside coarse"),
        ({"coarse": np.ones((M, N))}, "coarse: is a ndarray"),
        ({"coarse": hm.quantize(np.ones((M, N)), "float64")}, "coarse: is of float64; .*astype"),
        ({"coarse": hm.quantize(np.ones((N, M)), "int8")}, "coarse: has the shape"),
        ({"rule": hm.Rigorous()}, "coarse: has int8 activations"),
        ({"calibration": None}, "calibration: is missing"),
        ({"calibration": None, "rule": hm.FixedRows(3)}, "calibration: is missing"),
        ({"rule": hm.FixedRows(1), "agreement": 0.999}, "coarse, precisions and rule: do not agree"),
        ({"precisions": []}, "precisions: are"),
    ],
)
def test_wrong_arguments(arguments, message):
    weight, bias, X, _ = layer()
    given = {"calibration": X, "coarse": coarse_of("mixed")} | arguments
    with pytest.raises(hm.HMatrixError, match=message):
        hm.progressive(weight, bias, **given)


def test_the_cost_of_an_h_matrix_is_that_of_its_bytes():
    cost, m, n = hm.Cost(), 1000, 1280
    bare = cost.seconds(n, 0, 0, m, m, 20.0, 8)
    assert cost.seconds(n, 0, 0, m, m, 20.0, 8, stored=10**5) == pytest.approx(bare + 1e5 * cost.coarse)
    large = cost.seconds(n, 0, 0, m, m, 20.0, 8, stored=10**7)
    outside = cost.seconds(n, 0, 0, m, m, 20.0, 8, stored=10**7 + 10**6)
    assert outside - large == pytest.approx(1e6 * cost.far)


def test_the_precision_of_the_rows_is_the_cheapest_that_agrees():
    assert head_of("mixed").precision is hm.Precision.INT8
    bytes_are_free = hm.Cost(fine=0.0)
    assert head_of("mixed", precisions=("float32", "int8"), cost=bytes_are_free).precision is FLOAT32


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
