import numpy as np
import pytest
import torch

import hmatrix as hm
from hmatrix._support.machine import threads
from hmatrix.errors import ArgumentError
from hmatrix.study.measure import timing
from hmatrix.study.measure.environment import environment
from hmatrix.study.measure.timing import alternate, dense_products, time_products


def test_all_dense_products_agree():
    rng = np.random.default_rng(0)
    weight, x = rng.standard_normal((70, 90)).astype(np.float32), rng.standard_normal(90).astype(np.float32)
    products = dense_products(weight, x)
    assert set(products) == {"torch", "numpy", "native"}
    for product in products.values():
        np.testing.assert_allclose(np.asarray(product()), weight @ x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("products", [1, 7, 100])
def test_contenders_alternate_and_are_called_as_often_as_asked(products):
    calls = []
    evidence = alternate({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, products)
    for item in evidence:
        assert item.products == products
        assert 0 <= item.lower <= item.median <= item.upper
    # Three calls to estimate the time of one, and one more before each loop, are not counted.
    for item in evidence:
        assert calls.count(item.contender) == products + item.rounds + 4


def test_the_faster_one_is_known():
    x = np.ones(200_000)
    fast, slow = alternate({"fast": lambda: x[:1000].sum(), "slow": lambda: x.sum()})
    assert fast.median < slow.median
    assert fast.rounds == slow.rounds >= 15


def test_other_data_are_read_before_each_cold_call(monkeypatch):
    calls = []
    monkeypatch.setattr(timing, "read_words", lambda words: calls.append(words.nbytes))
    alternate({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2, cold=True)
    assert calls == [timing.COLD_BYTES, "a", timing.COLD_BYTES, "b", timing.COLD_BYTES, "b", timing.COLD_BYTES, "a"]


def test_some_contenders_have_one_thread():
    seen = {"a": set(), "b": set()}
    with threads(2):
        contenders = {name: lambda name=name: seen[name].add(torch.get_num_threads()) for name in seen}
        alternate(contenders, 3, single={"b"})
        assert torch.get_num_threads() == 2
    assert seen == {"a": {2}, "b": {1}}


def test_calls_that_warm_up_are_not_counted(monkeypatch):
    calls, rests = [], []
    monkeypatch.setattr(timing.time, "sleep", rests.append)
    (evidence,) = alternate({"a": lambda: calls.append("a")}, 100, rest=True, warming=0.25)
    assert rests == [timing.REST_SECONDS] * evidence.rounds
    # Beside the four calls of the estimate.
    assert len(calls) == evidence.products + 25 * evidence.rounds + 4


def test_products_must_be_positive():
    with pytest.raises(ArgumentError, match="products"):
        alternate({"a": lambda: None}, 0)


def test_an_hmatrix_is_timed_beside_the_dense_products():
    weight = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    matrix = hm.build(weight, truncation=hm.Truncation(max_rank=2), splitter=hm.Cardinality(16))
    assert [t.contender for t in time_products(matrix, weight, 3)] == ["hmatrix", "torch", "numpy", "native"]
    assert [t.contender for t in time_products(None, weight, 3)] == ["torch", "numpy", "native"]


def test_the_environment_says_what_ran():
    found = environment(3)
    assert found["threads"] == 3
    assert found["kernel"] == hm.backend().name
    assert found["versions"]["hmatrix"] == hm.__version__
    assert found["cpu"]
    assert found["blas"]
