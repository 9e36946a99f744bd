from itertools import pairwise

import numpy as np
import pytest
from matrices import random_leaves, random_matrix
from threadpoolctl import threadpool_info, threadpool_limits

import hmatrix as hm
from hmatrix.allocation.search import timecost
from hmatrix.allocation.search.depths import Depth
from hmatrix.allocation.search.leaf_forms import Form
from hmatrix.allocation.search.timecost import TimeCost, dense_seconds, time_cost
from hmatrix.codes.precision import Activations, Precision
from hmatrix.errors import CacheWarning

COST = TimeCost(
    1e-6, 2e-8, 3e-9, (1e-10, 2e-10, 3e-10, 4e-10, 5e-10, 6e-10, 7e-10, 8e-10, 9e-10, 10e-10, 11e-10, 12e-10)
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "hmatrix" / "times"


def test_seconds_of_a_matrix():
    H = hm.quantize(random_matrix(100, 64, np.float32), "int8")
    # Two panels of one run each; 16 words and one scale a row.
    packed = H.pack()
    expected = 1e-6 + 2 * 2e-8 + 2 * 3e-9 + 100 * 17 * 3e-10
    assert COST.of_matrix(packed.leaves, packed.schedule) == pytest.approx(expected)
    assert COST.of_permutations(50) == pytest.approx(50e-10)
    assert COST.unit == pytest.approx(12e-10 / 4)


def test_forms_cost_what_a_matrix_of_them_costs():
    A = random_matrix(100, 64, np.float32)
    for matrix, form in (
        (hm.quantize(A, "trellis4"), Form(Depth.FAST_FOUR)),
        (hm.quantize(A, "trellis4p"), Form(Depth.FOUR)),
        (hm.quantize(A, "trellis3"), Form(Depth.THREE)),
        (hm.quantize(A, "bfloat16"), Form(Precision.BFLOAT16)),
        (hm.global_svd(A, hm.Truncation(max_rank=7)).astype("int8"), Form(None, 7, Precision.INT8)),
    ):
        packed = matrix.pack()
        found = float(COST.of_form(form, np.array(100), np.array(64)))
        # The panels of the rows, and the call, are those of the whole matrix.
        assert found + 1e-6 + 2 * 2e-8 == pytest.approx(COST.of_matrix(packed.leaves, packed.schedule))
    assert COST.of_form(Form(), np.array(100), np.array(64)) == 0


@pytest.fixture
def smaller(monkeypatch):
    """Let the matrices of the model be smaller, which are quickly made."""
    timecost._known.cache_clear()
    monkeypatch.setattr(timecost, "_SHAPE", (500, 640))
    yield
    timecost._known.cache_clear()


@pytest.mark.slow
@pytest.mark.usefixtures("smaller")
def test_coefficients_are_fitted(monkeypatch):
    def measured(calls):
        matrices = [call.args[0] for call in calls]
        return [COST.of_matrix(matrix.pack().leaves, matrix.pack().schedule) for matrix in matrices]

    monkeypatch.setattr(timecost, "_measured", measured)
    found = timecost._fitted(Activations.EXACT)
    assert found.word == pytest.approx(COST.word, rel=1e-4)
    for rank in (1, 5):
        packed = hm.HMatrix.from_leaves((90, 90), random_leaves((90, 90), ranks=(None, rank), dtype=np.float32)).pack()
        wanted = COST.of_matrix(packed.leaves, packed.schedule)
        assert found.of_matrix(packed.leaves, packed.schedule) == pytest.approx(wanted, rel=1e-3)


def test_the_model_is_fitted_once_and_kept(cache, monkeypatch):
    fits = []
    monkeypatch.setattr(timecost, "_fitted", lambda activations: fits.append(activations) or COST)
    assert time_cost(Activations.INT8) == COST
    assert time_cost(Activations.INT8) == COST
    assert fits == [Activations.INT8]
    assert time_cost(Activations.EXACT) == COST
    assert len(fits) == 2
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"machine": 3}', b"cut", b"changed"])
def test_what_is_damaged_is_fitted_again_and_told(cache, monkeypatch, damage):
    fits = []
    monkeypatch.setattr(timecost, "_fitted", lambda activations: fits.append(activations) or COST)
    time_cost(Activations.INT8)
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    path.write_bytes({b"cut": whole[:-9], b"changed": whole[:-9] + b"x" + whole[-8:]}.get(damage, damage))
    with pytest.warns(CacheWarning, match="is damaged"):
        assert time_cost(Activations.INT8) == COST
    assert len(fits) == 2
    assert path.read_bytes() == whole
    assert time_cost(Activations.INT8) == COST
    assert len(fits) == 2


@pytest.mark.parametrize(("name", "value"), [("cpu_name", "another"), ("code_digest", "other code")])
def test_the_model_of_another_machine_or_of_other_code_is_fitted_again(cache, monkeypatch, name, value):
    fits = []
    monkeypatch.setattr(timecost, "_fitted", lambda activations: fits.append(activations) or COST)
    time_cost(Activations.INT8)
    monkeypatch.setattr(timecost, name, lambda *_: value)
    for _ in range(2):
        assert time_cost(Activations.INT8) == COST
    assert len(fits) == 2
    assert len(list(cache.iterdir())) == 1


def test_no_place_to_keep_it(cache, monkeypatch):
    cache.parent.mkdir(exist_ok=True)
    cache.write_text("a file, where a folder should be", encoding="utf-8")
    monkeypatch.setattr(timecost, "_fitted", lambda activations: COST)  # noqa: ARG005
    assert time_cost(Activations.INT8) == COST


@pytest.mark.slow
@pytest.mark.usefixtures("smaller")
def test_real_times(monkeypatch):
    monkeypatch.setattr(timecost, "_ROUNDS", 2)
    monkeypatch.setattr(timecost, "_ROUND_SECONDS", 1e-4)
    before = hm.backend().threads
    found = time_cost(Activations.INT8)
    assert hm.backend().threads == before
    assert all(np.isfinite(found.word))
    assert found.call >= 0
    sizes = [dense_seconds((50, n), found, Activations.INT8) for n in (10, 20000)]
    assert all(a < b for a, b in pairwise(sizes))


def test_all_products_are_timed_with_one_thread(monkeypatch, threads):
    def of_all():
        pools = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
        return {hm.backend().threads, *pools}

    def measured(calls):
        found.append(of_all())
        return [1e-5] * len(calls)

    found = []
    monkeypatch.setattr(timecost, "_measured", measured)
    threads(2)
    with threadpool_limits(2, user_api="blas"):
        assert of_all() == {2}
        dense_seconds((30, 20), COST, Activations.INT8)
        assert of_all() == {2}
    assert found == [{1}]


@pytest.mark.parametrize("now", [0.5, 1.0, 2.0])
def test_the_dense_product_is_told_as_when_the_model_was_fitted(monkeypatch, now):
    def measured(calls):
        # NumPy's, on a machine that takes `now` times as long as it did.
        products = [call.args[0].pack() for call in calls[2:]]
        return [now * seconds for seconds in (8e-5, 6e-5, *(COST.of_matrix(p.leaves, p.schedule) for p in products))]

    monkeypatch.setattr(timecost, "_measured", measured)
    assert dense_seconds((30, 20), COST, Activations.INT8) == pytest.approx(6e-5)
