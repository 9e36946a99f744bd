import importlib.util
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from hmatrix import _core
from hmatrix.codes.encoding import decode, encode
from hmatrix.codes.precision import Precision, from_words, to_words

PATH = Path(__file__).parents[2] / "studies/allocator/trellis_values.py"

every_trellis = pytest.mark.parametrize(
    "precision", [precision for precision in Precision if precision.trellis], ids=lambda precision: precision.name
)


@pytest.fixture(scope="module")
def study():
    """The Viterbi algorithm once more, in NumPy."""
    spec = importlib.util.spec_from_file_location("trellis_study", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def normal(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def cost(trellis, target, windows, owed=None, root=None):
    errors = target.astype(float) - trellis.values[windows]
    weighted = errors if owed is None else owed + errors @ root
    return np.square(weighted).sum(axis=1)


@every_trellis
def test_words_are_read_as_rings(precision):
    trellis, bits = precision.trellis, precision.bits
    assert bits == trellis.ring + trellis.parallel
    codes = np.random.default_rng(0).integers(0, 2**bits, (5, 2 * trellis.visits + 3)).astype(np.uint8)
    values = precision.values(codes)
    words = to_words(codes, precision)
    np.testing.assert_array_equal(from_words(words, precision, codes.shape[1]), codes)
    ring, parallel = trellis.ring, trellis.parallel
    for i, j in np.ndindex(codes.shape):
        block, column = divmod(j, trellis.visits)
        first, *others = (int(word) for word in words[i].reshape(-1, 1 + trellis.parallel_words)[block])
        place = 8 * (j % 4) + ring * (column // 4)
        window = (first >> place | first << (32 - place)) << parallel
        if parallel:
            word, column = divmod(column, 32 // parallel)
            window |= others[word] >> (8 * (j % 4) + parallel * (column // 4)) & ((1 << parallel) - 1)
        assert values[i, j] == trellis.values[window % len(trellis.values)]


@every_trellis
def test_values_are_odd(precision):
    values = precision.trellis.values
    np.testing.assert_array_equal(values, -values[::-1])
    assert np.abs(values).max() == 127


@every_trellis
def test_values_are_means_of_what_they_stand_for(precision, study):
    """Lloyd's iteration ends there."""
    trellis = precision.trellis
    integers = trellis.values.astype(float)
    words = normal((4000, trellis.visits), 1).astype(float)
    means, error = study.iterate(integers * trellis.unit, study.CODES[precision.name.lower()], words, 8)
    left = {"TRELLIS1": 0.2924, "TRELLIS2": 0.0820, "TRELLIS3": 0.0203, "TRELLIS4": 0.0065, "TRELLIS4P": 0.00568}
    assert error == pytest.approx(left[precision.name], rel=0.02)
    assert np.abs(means / trellis.unit - integers).max() < 3


@every_trellis
def test_the_best_path_is_found(precision, study):
    trellis = precision.trellis
    target = normal((150, trellis.visits)) / trellis.unit
    every = np.ones(trellis.visits, bool)
    code = study.CODES[precision.name.lower()]
    best = cost(trellis, target, study.best_windows(trellis.values, code, target.astype(float)))
    found = cost(trellis, target, trellis.encode(target, every, tries=32))
    np.testing.assert_allclose(found, best, rtol=1e-5)
    few = cost(trellis, target, trellis.encode(target, every))
    assert (few >= best * (1 - 1e-6)).all()
    assert few.sum() <= 1.02 * best.sum()
    # Windows of neighbouring visits share their bits.
    windows = trellis.encode(target, every).astype(int)
    np.testing.assert_array_equal(code.target(windows), code.source(np.roll(windows, -1, axis=1)))
    codes = np.empty_like(windows, dtype=np.uint8)
    codes[:, trellis.columns] = trellis.codes(windows.astype(np.uint8))
    np.testing.assert_array_equal(precision.values(codes)[:, trellis.columns], trellis.values[windows])


def every_code(trellis, count):
    """All words of which only the first `count` columns are present, by column."""
    return np.array(list(product(range(2**trellis.bits), repeat=count)), np.uint8)


@every_trellis
def test_what_is_not_present_has_the_code_zero(precision):
    trellis = precision.trellis
    count = 12 // trellis.bits - 1
    columns = normal((40, count), 2) / trellis.unit
    tried = precision.values(every_code(trellis, count))
    best = np.square(columns[:, None].astype(float) - tried).sum(axis=2).min(axis=1)
    found = trellis.nearest(columns, tries=32)
    assert found.shape == columns.shape
    np.testing.assert_allclose(np.square(columns - precision.values(found)).sum(axis=1), best, rtol=1e-5)


@every_trellis
def test_debts_are_made_up_for(precision):
    """Of few columns, against all words; a path remembers one past, so that it need not be the very best."""
    trellis = precision.trellis
    count = 12 // trellis.bits - 1
    present = trellis.present(count)
    places = np.flatnonzero(present)
    random = np.random.default_rng(3)
    root = np.zeros((trellis.visits, trellis.visits), np.float32)
    root[np.ix_(places, places)] = np.triu(random.uniform(-0.5, 0.5, (count, count)), 1) + np.eye(count)
    target, owed = np.zeros((2, 60, trellis.visits), np.float32)
    target[:, places] = normal((60, count), 4) / trellis.unit
    owed[:, places] = normal((60, count), 5) / trellis.unit
    windows = trellis.encode(target, present, owed, root, tries=32)
    codes = every_code(trellis, count)
    whole = np.zeros((len(codes), trellis.visits), np.float32)
    whole[:, trellis.columns < count] = precision.values(codes)[:, trellis.columns[trellis.columns < count]]
    errors = target[:, None].astype(float) - whole
    best = np.square(owed[:, None] + np.where(present, errors, 0) @ root).sum(axis=2).min(axis=1)
    error = np.where(present, target.astype(float) - trellis.values[windows], 0)
    found = np.square(owed + error @ root).sum(axis=1)
    plain = np.where(present, target - trellis.values[trellis.encode(target, present, tries=32)], 0)
    assert (found >= best * (1 - 1e-5)).all()
    assert found.sum() <= 1.15 * best.sum()
    assert found.sum() < 0.7 * np.square(owed + plain @ root).sum()


@every_trellis
def test_all_instruction_sets_find_the_same(precision):
    trellis = precision.trellis
    visits = trellis.visits
    target, owed = normal((45, visits), 6) / trellis.unit, normal((45, visits), 7)
    root = np.triu(normal((visits, visits), 8))
    every = np.ones(visits, bool)
    for debts in ((), (owed, root)):
        found = [trellis.encode(target, every, *debts, instruction_set=name) for name in _core.instruction_sets()]
        for other in found[1:]:
            np.testing.assert_array_equal(other, found[0])


@every_trellis
def test_rows_of_all_sizes_are_encoded(precision):
    block = normal((9, 77), 9)
    block[1] = 0
    block[2] *= 1e-30
    block[3] *= 1e30
    block[4] = 1
    block[5, 1:] = 0
    held = decode(encode(block, precision))
    assert np.isfinite(held).all()
    assert not held[1].any()
    most = {"TRELLIS1": 0.65, "TRELLIS2": 0.36, "TRELLIS3": 0.18, "TRELLIS4": 0.11, "TRELLIS4P": 0.1}[precision.name]
    for i in (0, 2, 3, 4, 6, 7, 8):
        row = block[i].astype(float)
        assert np.linalg.norm(row - held[i]) <= most * np.linalg.norm(row)


def test_wrong_words_are_refused():
    trellis = Precision.TRELLIS2.trellis
    with pytest.raises(ValueError, match="shapes of words"):
        trellis.encode(np.zeros((3, 15), np.float32), np.ones(16, bool))
    with pytest.raises(ValueError, match="shapes of words"):
        trellis.encode(np.zeros((3, 16), np.float32), np.ones(16, bool), np.zeros((3, 16), np.float32))
    for number in (3, len(Precision), 255):
        with pytest.raises(ValueError, match="no trellis"):
            _core.encode_words(
                "portable",
                number,
                *[np.zeros((1, 16), np.float32)] * 3,
                np.ones(16, np.uint8),
                1,
                np.zeros((1, 16), np.uint8),
            )
    for number in (3, len(Precision), 255):
        with pytest.raises(ValueError, match="no codebook"):
            _core.codebook(number)
