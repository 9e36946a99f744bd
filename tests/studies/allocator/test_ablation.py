"""studies/allocator/ablation.py reaches into the allocator: it must keep up with it."""

import pytest
from matrices import random_matrix

import hmatrix as hm
from hmatrix.allocation.search.candidates import Candidates
from hmatrix.codes.precision import Precision
from studies.allocator import ablation


@pytest.fixture(autouse=True)
def _all_forms_afterwards(monkeypatch):
    monkeypatch.setattr(Candidates, "errors", Candidates.errors)


def precisions(weight):
    found = hm.Allocator(weight, splitter=hm.Cardinality(20)).allocate(hm.Budget(storage=0.14))
    return {leaf.precision for leaf in found.matrix.leaves() if leaf.rank != 0}


def test_what_is_off_is_not_chosen():
    weight = random_matrix(60, 200)
    assert Precision.TRELLIS4P in precisions(weight)
    ablation.restrict(ablation.VARIANTS["evenly spaced values only"])
    assert not any(precision.trellis for precision in precisions(weight))
    ablation.restrict(ablation.VARIANTS["float32 only"])
    assert precisions(weight) == {Precision.FLOAT32}
