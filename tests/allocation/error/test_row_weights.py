from functools import partial

import numpy as np
import pytest
import torch
from matrices import random_matrix
from torch import nn

import hmatrix as hm
import hmatrix.nn as hnn
from hmatrix.allocation.error.row_weights import with_rows_scaled
from hmatrix.errors import ArgumentError
from hmatrix.lowrank.factors import LowRank
from hmatrix.nn.network.calibration import collect_inputs
from hmatrix.nn.network.frequencies import frequencies
from hmatrix.nn.network.running import run_batch
from hmatrix.nn.network.targets import LayerSettings, everything, find_targets
from hmatrix.packed.packing import PackedLeaf

M, N = 200, 60
ONES = partial(np.ones, dtype=np.float32)
WEIGHTS = np.exp(2 * np.random.default_rng(0).standard_normal(M))


def weighted(A, E):
    return np.sqrt((WEIGHTS[:, None] * E**2).sum() / (WEIGHTS[:, None] * A**2).sum())


@pytest.mark.parametrize("calibrated", [False, True])
def test_the_weighted_error_is_measured_and_less(calibrated):
    A = random_matrix(M, N, np.float32)
    X = random_matrix(4000, N, np.float32, seed=1) if calibrated else None
    # Of so small a matrix the order of the rows takes a twelfth of the budget.
    plain = hm.allocate(A, hm.Budget(storage=0.2), calibration=X)
    other = hm.allocate(A, hm.Budget(storage=0.2), calibration=X, row_weights=WEIGHTS)
    errors = [weighted(A, A - allocation.matrix.to_dense()) for allocation in (plain, other)]
    assert errors[1] < 0.7 * errors[0]
    # Inputs of equal variance are as good as none, but for chance.
    assert other.measured_error == pytest.approx(errors[1], rel=0.05 if calibrated else 1e-4)
    assert max(plain.matrix.storage().total, other.matrix.storage().total) <= 0.2 * A.nbytes


def test_weights_that_are_all_the_same_change_nothing():
    A = random_matrix(M, N, np.float32)
    found = [hm.allocate(A, hm.Budget(storage=0.2), row_weights=given).matrix.to_dense() for given in (None, [3.0] * M)]
    np.testing.assert_array_equal(*found)


def test_the_bias_correction_is_the_mean_that_is_lacking():
    A = random_matrix(M, N, np.float32)
    X = random_matrix(50, N, np.float32, seed=1) + 1
    found = hm.allocate(A, hm.Budget(storage=0.1), calibration=X, row_weights=WEIGHTS)
    lacking = (A - found.matrix.to_dense()) @ X.mean(axis=0)
    np.testing.assert_allclose(found.bias_correction, lacking, atol=1e-3 * np.abs(lacking).max())


@pytest.mark.parametrize("block", [ONES((2, 3)), LowRank(ONES((2, 1)), ONES((3, 1)))], ids=["dense", "low rank"])
@pytest.mark.parametrize("precision", [hm.Precision.FLOAT32, hm.Precision.INT8])
def test_rows_of_leaves_of_all_kinds_are_scaled(block, precision):
    factors = np.array([1, 1, 0.25, 2], np.float32)
    first, last = PackedLeaf(slice(0, 2), slice(0, 3), block), PackedLeaf(slice(2, 4), slice(0, 3), block, precision)
    matrix = hm.HMatrix.from_leaves((4, 3), [first, with_rows_scaled(last, factors)])
    np.testing.assert_allclose(matrix.to_dense(), [[1] * 3, [1] * 3, [0.25] * 3, [2] * 3], rtol=1e-2)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0], "row_weights: has 1 entries; give one a row, 200"),
        ([0.0] * M, "row_weights: has 0 in it; give positive numbers"),
        ([np.nan] * M, "row_weights"),
    ],
)
def test_wrong_weights(weights, message):
    with pytest.raises(ArgumentError, match=message):
        hm.allocate(random_matrix(M, N, np.float32), hm.Budget(storage=0.5), row_weights=weights)


def test_frequencies():
    np.testing.assert_allclose(frequencies(np.array([1, 3])), [0.25, 0.75])
    # One of ten was seen once: a tenth of what comes was not seen yet.
    np.testing.assert_allclose(frequencies(np.array([1, 9, 0, 0])), [0.09, 0.81, 0.05, 0.05])
    np.testing.assert_allclose(frequencies(np.array([10, 0])), [0.9, 0.1])
    np.testing.assert_allclose(frequencies(np.array([1, 1, 0, 0])), [0.25] * 4)


def test_rows_of_an_embedding_count_as_often_as_they_are_selected():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(400, 24), nn.Linear(24, 24))
    tokens = torch.randint(0, 40, (30, 8))
    small, report = hnn.compress(
        model, hm.Budget(storage=0.15), calibration=list(tokens.split(10)), select=lambda name, _: name == "0"
    )
    weight, found = model[0].weight.detach(), small[0].weight.matrix.to_dense()
    errors = (weight - torch.from_numpy(found)).norm(dim=1) / weight.norm(dim=1)
    assert errors[:40].mean() < 0.1 * errors[40:].mean()
    counts = np.bincount(tokens.reshape(-1), minlength=400)
    d = frequencies(counts)[:, None]
    expected = np.sqrt((d * (weight.numpy() - found) ** 2).sum() / (d * weight.numpy() ** 2).sum())
    assert report.layers[0].measured_error == pytest.approx(expected, rel=1e-3)


def test_rows_are_counted_where_nothing_but_embeddings_has_the_weight():
    model = nn.Sequential(nn.Embedding(30, 24), nn.Linear(24, 30, bias=False))
    tokens = torch.tensor([[3, 4], [3, 29]])

    def counts():
        targets = find_targets(model, everything, {}, LayerSettings())
        return collect_inputs(
            model, targets, [tokens], forward=run_batch, rows=8, probe_samples=1, seed=0, progress=False
        ).counts

    of_embedding, of_linear = counts()
    assert of_linear is None
    np.testing.assert_array_equal(of_embedding, np.bincount(tokens.reshape(-1), minlength=30))
    model[1].weight = model[0].weight
    assert counts() == [None]


class Masked(nn.Module):
    """Takes batches as transformers' networks do."""

    def __init__(self, padding_idx=None):
        super().__init__()
        self.embedding = nn.Embedding(30, 24, padding_idx=padding_idx)
        self.linear = nn.Linear(24, 24)

    def forward(self, input_ids, attention_mask=None):  # noqa: ARG002
        return self.linear(self.embedding(input_ids))


TOKENS = torch.tensor([[3, 4, 5, 0], [3, 29, 0, 0]])


def collected(model, batch):
    return collect_inputs(
        model,
        find_targets(model, everything, {}, LayerSettings()),
        [batch],
        forward=run_batch,
        rows=8,
        probe_samples=1,
        seed=0,
        progress=False,
    )


def test_a_token_of_padding_is_not_counted():
    counts = collected(Masked(padding_idx=0), {"input_ids": TOKENS}).counts[0]
    np.testing.assert_array_equal(np.flatnonzero(counts), [3, 4, 5, 29])
    assert collected(Masked(), {"input_ids": TOKENS}).counts[0][0] == 3


def test_positions_that_a_mask_leaves_out_are_no_inputs():
    model = Masked()
    batch = {"input_ids": TOKENS, "attention_mask": torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])}
    found = collected(model, batch)
    np.testing.assert_array_equal(found.counts[0], np.bincount([3, 4, 5, 3], minlength=30))
    kept = model.embedding.weight.detach()[[3, 4, 5, 3]].numpy()
    assert sorted(map(tuple, found.samples[1])) == sorted(map(tuple, kept))
    without = collected(model, {"input_ids": TOKENS})
    assert len(without.samples[1]) == 8
    other = collected(model, {"input_ids": TOKENS, "attention_mask": torch.ones(2, 1, 4, 4)})
    assert len(other.samples[1]) == 8
