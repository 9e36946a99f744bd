import copy

import pytest
import torch
from torch import nn

import hmatrix as hm
import hmatrix.nn as hnn
from hmatrix.nn.network.targets import everything


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(12, 40), nn.Tanh(), nn.Linear(40, 60)).eval()


def batches(count=8):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(50, 12, generator=generator) for _ in range(count)]


def test_a_head_agrees_and_is_saved(tmp_path):
    model = network()
    changed, report = hnn.progressive_head(model, batches(), agreement=0.95, progress=False)
    assert isinstance(changed[2], hnn.ProgressiveLinear)
    assert isinstance(model[2], nn.Linear)
    x = torch.randn(500, 12)
    assert (changed(x).argmax(1) == model(x).argmax(1)).float().mean() > 0.9
    assert (report.name, report.shape, report.before, report.samples) == ("2", (60, 40), 9600, 400)
    assert "head     2: 60 x 40, rank" in str(report)
    assert 1 <= report.refined <= 60

    hnn.save(changed, tmp_path / "file")
    assert hnn.read_header(tmp_path / "file").heads == {"2": (60, 40)}
    loaded = hnn.load(tmp_path / "file", network(1))
    assert torch.equal(loaded(x), changed(x))
    with torch.device("meta"):
        bare = network()
    assert torch.equal(hnn.load(tmp_path / "file", bare)(x), changed(x))
    assert torch.equal(copy.deepcopy(changed)(x), changed(x))
    with pytest.raises(hm.HMatrixError, match="there is none"):
        hnn.load(tmp_path / "file", network()[:2])


def test_beside_compressed_layers(tmp_path):
    model, _ = hnn.compress(network(), hm.Budget(storage=0.9), select=hnn.matching("0"), progress=False)
    model, _ = hnn.progressive_head(model, batches(), agreement=0.9, progress=False)
    hnn.save(model, tmp_path / "file")
    x = torch.randn(7, 12)
    assert torch.equal(hnn.load(tmp_path / "file", network(2))(x), model(x))


def test_a_head_alone(tmp_path):
    linear = nn.Linear(30, 50)
    X = torch.randn(200, 30)
    head, _ = hnn.progressive_head(linear, [X], agreement=0.9, rule=hm.Rigorous(), progress=False)
    # The rows may be rounded to a precision that alone agrees in 90 %.
    assert (head(X).argmax(1) == linear(X).argmax(1)).float().mean() > 0.9
    hnn.save(head, tmp_path / "file")
    assert torch.equal(hnn.load(tmp_path / "file", nn.Linear(30, 50))(X), head(X))


def test_inputs_that_are_a_view_of_their_negative():
    linear = nn.Linear(30, 50)
    X = torch.randn(200, 30)
    head, _ = hnn.progressive_head(linear, [X], agreement=0.9, progress=False)
    # The imaginary part of a conjugate: its sign is a bit of the tensor.
    negative = torch.complex(torch.zeros(3, 30), X[:3]).conj().imag
    contiguous = torch._neg_view(X[:3])
    for given in (negative, contiguous):
        assert given.is_neg()
        assert torch.equal(head(given), head(-X[:3]))
        assert torch.equal(head.topk(given, 2)[1], head.topk(-X[:3], 2)[1])


def test_a_skeleton_has_no_head():
    with pytest.raises(hm.HMatrixError, match="has no head yet"):
        hnn.ProgressiveLinear.skeleton((3, 4)).head  # noqa: B018


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.other = nn.Linear(12, 5), nn.Linear(12, 5)

    def forward(self, x):
        return self.used(x)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(12, 12), nn.Linear(12, 12)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.b(self.a(x))


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (network, {"rows": 1}, "rows: got 1"),
        (network, {"agreement": 2.0}, "agreement"),
        (lambda: network().double(), {}, "in torch.float64"),
        (network, {"select": hnn.matching("1")}, "no layer that can be compressed"),
        (network, {"select": everything}, "0, 2 are not one nn.Linear"),
        (Unused, {}, "is never called"),
        (Tied, {"select": everything}, "a, b are not one nn.Linear"),
        (nn.Tanh, {}, "has no nn.Linear"),
    ],
)
def test_what_cannot_be(make, options, message):
    with pytest.raises(hm.HMatrixError, match=message):
        hnn.progressive_head(make().eval(), batches(2), progress=False, **options)


def test_no_calibration_data():
    with pytest.raises(hm.HMatrixError, match="has no batches"):
        hnn.progressive_head(network(), [], progress=False)
