import numpy as np
import pytest

import hmatrix as hm
from studies.allocator.competitors import PLAIN, Competitors, Contender


@pytest.fixture(scope="module")
def weight():
    return np.random.default_rng(0).standard_normal((70, 90)).astype(np.float32)


@pytest.mark.parametrize("share", [0.1, 0.2, 0.4, 0.9])
def test_nobody_takes_more_than_the_budget_or_could_take_more(weight, share):
    nbytes = int(share * weight.nbytes)
    found = {made.contender: made for made in Competitors(weight).within(nbytes)}
    assert all(made.nbytes <= nbytes for made in found.values())
    for contender, precision in ((Contender.SVD, "float32"), (Contender.SVD_INT4, "int4")):
        made = found[contender]
        rank = int(made.form.removeprefix("rank "))
        if rank == 70:
            continue
        step = hm.global_svd(weight, hm.Truncation(max_rank=1)).astype(precision).storage().total
        # One more rank costs less than a matrix of rank 1, and does not fit.
        assert made.nbytes + step > nbytes


def test_the_global_svd_is_the_best_of_its_rank(weight):
    (made,) = [made for made in Competitors(weight).within(weight.nbytes // 2) if made.contender is Contender.SVD]
    rank = int(made.form.removeprefix("rank "))
    s = np.linalg.svd(weight.astype(np.float64), compute_uv=False)
    assert np.linalg.norm(weight - made.dense) == pytest.approx(np.sqrt(np.square(s[rank:]).sum()), rel=1e-4)


def test_the_plain_precision_is_the_deepest_that_fits(weight):
    sizes = {contender: hm.quantize(weight, precision).storage().total for contender, precision in PLAIN.items()}
    others = Competitors(weight)
    for contender, size in sizes.items():
        plain = [made for made in others.within(size) if made.contender in PLAIN]
        assert [made.contender for made in plain] == [contender]
        assert plain[0].nbytes == size
        np.testing.assert_array_equal(plain[0].dense, hm.quantize(weight, PLAIN[contender]).to_dense())
    assert not [made for made in others.within(min(sizes.values()) - 1) if made.contender in PLAIN]


def test_the_published_structure_has_one_rank():
    weight = np.random.default_rng(0).standard_normal((260, 250)).astype(np.float32)
    made = {made.contender: made for made in Competitors(weight).within(int(0.8 * weight.nbytes))}[Contender.PUBLISHED]
    rank = int(made.form.removeprefix("rank "))
    expected = hm.build(weight, truncation=hm.Truncation(max_rank=rank))
    np.testing.assert_array_equal(made.dense, expected.to_dense())
    assert hm.build(weight, truncation=hm.Truncation(max_rank=rank + 1)).storage().total > 0.8 * weight.nbytes


def test_products_are_those_of_the_dense_matrix(weight):
    X = np.random.default_rng(1).standard_normal((5, 90)).astype(np.float32)
    made = list(Competitors(weight).within(weight.nbytes // 2))
    assert {Contender.INT8, Contender.SVD, Contender.SVD_INT4, Contender.BLAST} <= {one.contender for one in made}
    for one in made:
        np.testing.assert_allclose(one.apply(X), X @ one.dense.T, atol=1e-3)


def test_nothing_fits_into_nothing(weight):
    assert list(Competitors(weight).within(1)) == []
