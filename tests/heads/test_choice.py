import numpy as np
import pytest

import hmatrix as hm
from hmatrix.heads.cost import Cost


def test_a_product_costs_what_it_reads():
    cost = Cost(call=1.0, coarse=1e-3, far=1e-1, cache=10_000, jump=0.5, row=2.0, fine=1e-2)
    # 24 bytes of each output besides its coefficients.
    near = cost.seconds(columns=100, rank=4, clusters=0, places=64, looked=64, refined=3, bits=8)
    assert near == pytest.approx(1 + 1e-3 * (400 + 28 * 64) + 3 * (2 + 1e-2 * 100))
    far = cost.seconds(columns=100, rank=4, clusters=10, places=640, looked=32, refined=3, bits=32)
    assert far == pytest.approx(1 + 1e-3 * (400 + 280) + 1e-1 * 28 * 32 + 0.5 * 2 + 3 * (2 + 1e-2 * 400))
    # Codes of four bits are read by the byte, or unpacked one by one, whichever takes longer.
    packed = {"columns": 100, "rank": 4, "clusters": 0, "places": 64, "looked": 64, "refined": 3, "bits": 8}
    quick = Cost(call=0.0, coarse=1e-3, codes=0.0, row=0.0, fine=0.0).seconds(**packed, coarse_bits=4)
    assert quick == pytest.approx(1e-3 * (200 + 26 * 64))
    slow = Cost(call=0.0, coarse=1e-3, codes=2e-3, row=0.0, fine=0.0).seconds(**packed, coarse_bits=4)
    assert slow == pytest.approx(2e-3 * 4 * (100 + 64) + 1e-3 * 24 * 64)


@pytest.mark.parametrize("cheap", ["rank", "rows"])
def test_the_least_cost_is_chosen(cheap):
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((150, 60))
    X = rng.standard_normal((300, 60)).astype(np.float32)
    cost = Cost(coarse=1e-15, row=1.0) if cheap == "rank" else Cost(coarse=1.0, row=1e-15, fine=0.0)
    head = hm.progressive(weight, calibration=X, agreement=0.95, ranks=[0, 8, 16, 32], cost=cost)
    assert head.rank == (32 if cheap == "rank" else 0)
