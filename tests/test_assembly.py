import re
import warnings

import numpy as np
import pytest
from matrices import deficient, equal_bits, inverse_distance, kernel, random_matrix, relative

import hmatrix as hm
from hmatrix.errors import AccuracyWarning, ArgumentError
from hmatrix.lowrank.factors import LowRank

EXACT = [hm.TruncatedSVD(), hm.PivotedQR()]
MATRICES = {
    "random": random_matrix(200, 260),
    "smooth": kernel(np.linspace(0, 1, 300), np.linspace(0, 1, 240)),
}
RANK_3 = hm.Truncation(max_rank=3)


@pytest.mark.parametrize("compressor", EXACT, ids=lambda c: type(c).__name__)
@pytest.mark.parametrize("A", MATRICES.values(), ids=MATRICES.keys())
@pytest.mark.parametrize("rtol", [0.5, 1e-1, 1e-2, 1e-4, 1e-8, 0.0])
@pytest.mark.parametrize("admissibility", [hm.Strong(), hm.Weak()])
def test_global_bound(compressor, A, rtol, admissibility):
    H = hm.build(
        A,
        coordinates=hm.ScaledIndex(),
        splitter=hm.Cardinality(20),
        admissibility=admissibility,
        compressor=compressor,
        truncation=hm.Truncation(rtol=rtol),
    )
    assert relative(A, H.to_dense()) <= rtol + 1e-13


@pytest.mark.parametrize("compressor", [*EXACT, hm.RandomizedSVD(), hm.FullACA(), hm.PartialACA()], ids=repr)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_all_compressors_on_a_smooth_kernel(compressor, dtype):
    A = MATRICES["smooth"].astype(dtype)
    H = hm.build(A, splitter=hm.Cardinality(20), compressor=compressor, truncation=hm.Truncation(rtol=1e-4))
    assert H.dtype == dtype
    assert relative(A, H.to_dense()) <= 1e-4
    assert H.storage().ratio < 0.6


def test_absolute_bound_holds_for_each_block():
    A = MATRICES["random"]
    H = hm.build(A, splitter=hm.Cardinality(20), truncation=hm.Truncation(atol=7.0))
    assert any(leaf.rank > 1 for leaf in H.far_field)
    for leaf in H.far_field:
        assert np.linalg.norm(A[leaf.rows, leaf.columns] - leaf.block.to_dense()) <= 7.0


@pytest.mark.parametrize("rank", [1, 10, 30])
def test_storage_is_what_the_ranks_say(rank):
    A = MATRICES["random"]
    tree = hm.partition(A.shape, splitter=hm.Cardinality(20))
    H = hm.build(A, splitter=hm.Cardinality(20), truncation=hm.Truncation(max_rank=rank))
    low_rank = dense = 0
    for leaf in tree.leaves():
        size, sides = leaf.rows.size * leaf.columns.size, leaf.rows.size + leaf.columns.size
        pays = leaf.admissible and rank * sides < size
        low_rank += rank * sides * pays
        dense += size * (not pays)
    assert (H.storage().far_field, H.storage().near_field) == (8 * low_rank, 8 * dense)


@pytest.mark.parametrize("truncation", [hm.Truncation(max_rank=25), hm.Truncation(rtol=1e-3)])
def test_where_low_rank_does_not_pay_the_block_is_dense(truncation):
    A = MATRICES["random"]
    H = hm.build(A, splitter=hm.Cardinality(40), truncation=truncation)
    tree = hm.partition(A.shape, splitter=hm.Cardinality(40))
    assert len(H.near_field) > len(tree.near_field)
    for leaf in H.near_field:
        assert equal_bits(leaf.block, A[leaf.rows, leaf.columns])
    for leaf in H.far_field:
        m, n = leaf.block.shape
        assert leaf.rank * (m + n) < m * n


def test_rank_at_which_it_just_pays():
    # Of 4 x 4, rank 1 takes 8 coefficients; rank 2 takes 16, as many as the block.
    A = random_matrix(4, 4)
    one, two = (hm.build(A, admissibility=hm.Everywhere(), truncation=hm.Truncation(max_rank=rank)) for rank in (1, 2))
    assert [leaf.rank for leaf in one.leaves()] == [1]
    assert [leaf.rank for leaf in two.leaves()] == [None]


@pytest.mark.parametrize(("rank", "stored"), [(1, 1), (2, None)])
def test_accuracy_at_which_it_just_pays(rank, stored):
    H = hm.build(deficient(4, 4, rank), admissibility=hm.Everywhere(), truncation=hm.Truncation(rtol=1e-10))
    assert [leaf.rank for leaf in H.leaves()] == [stored]


def test_a_zero_matrix():
    H = hm.build(np.zeros((100, 90)), splitter=hm.Cardinality(10), truncation=hm.Truncation(rtol=1e-3))
    assert {leaf.rank for leaf in H.far_field} == {0}
    assert H.storage().far_field == 0
    np.testing.assert_array_equal(H @ np.ones(90), 0.0)


@pytest.mark.parametrize(
    ("weight", "dtype"),
    [
        (np.eye(9, dtype=np.float32), np.float32),
        (np.eye(9, dtype=np.float16), np.float32),
        (np.eye(9, dtype=int), np.float64),
        (np.eye(9, dtype=bool), np.float64),
        (np.eye(9).tolist(), np.float64),
        (np.eye(18)[::2, ::2], np.float64),
        (np.asfortranarray(np.eye(9)), np.float64),
    ],
)
def test_types_of_the_weight(weight, dtype):
    H = hm.build(weight, splitter=hm.Cardinality(2), truncation=hm.Truncation(rtol=0.0))
    assert H.dtype == dtype
    np.testing.assert_array_equal(H.to_dense(), np.asarray(weight))


@pytest.mark.parametrize("compressor", [*EXACT, hm.RandomizedSVD(), hm.FullACA(), hm.PartialACA()], ids=repr)
def test_weight_is_not_changed(compressor):
    A = MATRICES["smooth"].copy()
    A.flags.writeable = False
    hm.build(A, compressor=compressor, truncation=hm.Truncation(rtol=1e-4))
    assert equal_bits(A, MATRICES["smooth"])


@pytest.mark.parametrize("compressor", [*EXACT, hm.RandomizedSVD(), hm.FullACA(), hm.PartialACA()], ids=repr)
def test_entries_give_what_their_array_gives(compressor):
    A = MATRICES["smooth"].astype(np.float32)
    entries = hm.Entries(lambda i, j: A[np.ix_(i, j)], A.shape, np.float32)
    points = hm.Points(np.random.default_rng(0).permutation(300)), hm.Points(np.random.default_rng(1).permutation(240))
    first, second = (
        hm.build(
            source,
            coordinates=points,
            splitter=hm.Cardinality(20),
            compressor=compressor,
            truncation=hm.Truncation(rtol=1e-3),
        ).pack()
        for source in (A, entries)
    )
    for name in ("leaves", "data", "row_permutation", "column_permutation"):
        assert equal_bits(getattr(first, name), getattr(second, name))


def test_partial_aca_need_not_read_the_matrix():
    size, read = 2000, 0
    points = np.linspace(0, 1, size)

    def entries(rows, columns):
        nonlocal read
        read += rows.size * columns.size
        return kernel(points[rows], points[columns])

    H = hm.build(
        hm.Entries(entries, (size, size)),
        coordinates=hm.ScaledIndex(),
        compressor=hm.PartialACA(),
        truncation=hm.Truncation(rtol=1e-4),
    )
    assert read < size**2 / 2
    assert relative(kernel(points, points), H.to_dense()) <= 1e-4


def test_two_sets_of_coordinates():
    rows, columns = hm.Points(np.arange(40) + 100.0), hm.Points(np.arange(30.0))
    (leaf,) = hm.build(inverse_distance(40, 30), coordinates=(rows, columns), truncation=RANK_3).leaves()
    assert leaf.rank == 3
    near = hm.build(inverse_distance(40, 30), coordinates=(columns_of(40), columns), truncation=RANK_3)
    assert len(near.near_field) > 0


def columns_of(size):
    return hm.Points(np.arange(float(size)))


def test_points_recover_a_permuted_matrix():
    rng = np.random.default_rng(0)
    x, y = np.linspace(0, 1, 400), np.linspace(0, 1, 300)
    rows, columns = rng.permutation(400), rng.permutation(300)
    A = kernel(x, y)
    permuted = A[np.ix_(rows, columns)]
    splitter = hm.Cardinality(20)
    truncation = hm.Truncation(max_rank=4)
    ordered = hm.build(A, coordinates=(hm.Points(x), hm.Points(y)), splitter=splitter, truncation=truncation)
    sides = hm.Points(x[rows]), hm.Points(y[columns])
    recovered = hm.build(permuted, coordinates=sides, splitter=splitter, truncation=truncation)
    lost = hm.build(permuted, coordinates=hm.ScaledIndex(), splitter=splitter, truncation=truncation)
    assert relative(permuted, recovered.to_dense()) == pytest.approx(relative(A, ordered.to_dense()), rel=1e-6)
    assert relative(permuted, recovered.to_dense()) < 1e-3 < 0.1 < relative(permuted, lost.to_dense())
    np.testing.assert_array_equal(recovered.pack().leaves, ordered.pack().leaves)
    np.testing.assert_allclose(recovered @ y[columns], permuted @ y[columns], rtol=1e-3)
    np.testing.assert_allclose(recovered.T @ x[rows], permuted.T @ x[rows], rtol=1e-3)


@pytest.mark.parametrize("compressor", [*EXACT, hm.RandomizedSVD(), hm.FullACA()], ids=repr)
def test_a_cap_that_keeps_a_tolerance_from_being_reached(compressor):
    A = MATRICES["random"]
    message = r"truncation: max_rank=2 kept (\d+) of (\d+) admissible blocks .* up to (\S+) times; raise max_rank"
    with pytest.warns(AccuracyWarning, match=message) as caught:
        H = hm.build(A, compressor=compressor, truncation=hm.Truncation(max_rank=2, rtol=1e-3))
    (warning,) = caught
    assert warning.filename == __file__
    missed, blocks, factor = map(float, re.search(message, str(warning.message)).groups())
    errors = [relative(A[leaf.rows, leaf.columns], leaf.block.to_dense()) / 1e-3 for leaf in H.far_field]
    assert missed == len(errors) == sum(error > 1 for error in errors)
    assert blocks == len(hm.partition(A.shape).far_field)
    assert factor == pytest.approx(max(errors), rel=1e-2)


@pytest.mark.parametrize(
    "truncation",
    [hm.Truncation(max_rank=2), hm.Truncation(max_rank=40, rtol=1e-3), hm.Truncation(max_rank=3, rtol=1e-9)],
)
def test_no_warning_where_nothing_was_missed(truncation):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        H = hm.build(deficient(200, 180, 3), splitter=hm.Cardinality(20), truncation=truncation)
    assert {leaf.rank for leaf in H.far_field} == {min(truncation.max_rank, 3)}


def test_a_tolerance_of_zero_that_was_missed():
    with pytest.warns(AccuracyWarning, match="inf times"):
        hm.build(MATRICES["random"], truncation=hm.Truncation(max_rank=2, rtol=0.0))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rank", [1, 7, 40])
def test_global_svd(dtype, rank):
    A = MATRICES["random"].astype(dtype)
    H = hm.global_svd(A, hm.Truncation(max_rank=rank))
    U, s, Vt = np.linalg.svd(A.astype(np.float64), full_matrices=False)
    (leaf,) = H.leaves()
    assert (leaf.rank, H.dtype) == (rank, dtype)
    np.testing.assert_allclose(
        H.to_dense(), U[:, :rank] * s[:rank] @ Vt[:rank], atol=200 * np.finfo(dtype).eps * s[0], rtol=0
    )
    assert H.storage().far_field == rank * sum(A.shape) * A.itemsize


def test_global_svd_of_a_tolerance():
    H = hm.global_svd(MATRICES["smooth"], hm.Truncation(rtol=0.1))
    (leaf,) = H.leaves()
    s = np.linalg.svd(MATRICES["smooth"], compute_uv=False)
    assert np.linalg.norm(s[leaf.rank :]) <= 0.1 * np.linalg.norm(s) < np.linalg.norm(s[leaf.rank - 1 :])


@pytest.mark.parametrize("build", [lambda A: hm.build(A, truncation=RANK_3), lambda A: hm.global_svd(A, RANK_3)])
@pytest.mark.parametrize(
    ("weight", "came"),
    [
        (np.zeros((0, 0)), "got 0"),
        (np.zeros((4, 0)), "got 0"),
        (np.zeros(5), "has 1 dimensions"),
        (3.0, "has 0 dimensions"),
        (np.zeros((2, 2, 2)), "has 3 dimensions"),
        (np.zeros((3, 3), complex), "complex128"),
        (np.full((3, 3), "a"), "<U1"),
        (np.full((3, 3), None), "object"),
        (np.array([[1.0, np.nan], [np.inf, 0.0]]), "has 2 entries that are NaN or infinite"),
        (np.full((3, 3), np.inf, np.float16), "has 9 entries"),
    ],
)
def test_unusable_weights(build, weight, came):
    with pytest.raises(ArgumentError, match=f"weight.*{came}"):
        build(weight)


@pytest.mark.parametrize(
    ("coordinates", "message"),
    [
        ((hm.Index(),), "coordinates: has 1 parts"),
        ((hm.Index(), hm.Index(), hm.Index()), "coordinates: has 3 parts"),
        (columns_of(40), "points: has 40 points; give 30"),
        ((columns_of(30), columns_of(40)), "points: has 30 points; give 40"),
        ((hm.Index(), hm.Points(np.zeros((30, 2)))), "coordinates: .*1.*2"),
        ((hm.Points(np.zeros((40, 3))), hm.Points(np.zeros((30, 2)))), "coordinates: .*3.*2"),
    ],
)
def test_unusable_coordinates(coordinates, message):
    with pytest.raises(ArgumentError, match=message):
        hm.build(random_matrix(40, 30), coordinates=coordinates, truncation=RANK_3)


@pytest.mark.parametrize("shape", [(0, 5), (5,), (5, 5, 5), (5.5, 6), (5, -1), (True, 5)])
def test_unusable_shapes_of_a_partition(shape):
    with pytest.raises(ArgumentError, match=r"^shape"):
        hm.partition(shape)


def test_a_parameter_of_torch_is_told_how():
    torch = pytest.importorskip("torch")
    with pytest.raises(ArgumentError, match=r"weight: is no array .*detach\(\)"):
        hm.build(torch.nn.Linear(3, 3).weight, truncation=RANK_3)


def test_a_truncation_must_be_given():
    with pytest.raises(TypeError, match="truncation"):
        hm.build(np.eye(3))


@pytest.mark.parametrize(
    ("compressor", "message"),
    [
        (lambda block, _: LowRank(np.zeros((1, 1)), np.zeros((block.shape[1], 1))), "leaf: has a block of shape"),
        (
            lambda block, _: LowRank(*(np.zeros((size, 1), np.float32) for size in block.shape)),
            "leaves: mix float64 with other precisions",
        ),
        (lambda block, _: LowRank(*(np.full((size, 1), np.nan) for size in block.shape)), "leaf: has NaN"),
    ],
)
def test_compressors_that_return_something_else(compressor, message):
    with pytest.raises(ArgumentError, match=message):
        hm.build(MATRICES["random"], compressor=compressor, truncation=RANK_3)


def test_a_users_compressor():
    def mean(block, _):
        m, n = block.shape
        return LowRank(np.full((m, 1), block.mean()), np.ones((n, 1)))

    H = hm.build(MATRICES["random"], compressor=mean, truncation=RANK_3)
    for leaf in H.far_field:
        assert np.ptp(leaf.block.to_dense()) == 0
        assert leaf.block.to_dense()[0, 0] == MATRICES["random"][leaf.rows, leaf.columns].mean()


def test_same_bits_again():
    first, second = (
        hm.build(MATRICES["random"], compressor=hm.RandomizedSVD(), truncation=RANK_3).pack().data for _ in range(2)
    )
    assert equal_bits(first, second)


@pytest.mark.parametrize("precision", ["bfloat16", "int8", "int4"])
def test_an_approximation_in_another_precision(precision):
    A = MATRICES["smooth"]
    H = hm.build(A, splitter=hm.Cardinality(20), truncation=hm.Truncation(rtol=1e-4))
    other = H.astype(precision)
    assert relative(A, other.to_dense()) <= {"bfloat16": 4e-3, "int8": 0.03, "int4": 0.3}[precision]
    assert other.storage().far_field < 0.3 * H.storage().far_field
