import json
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from damages import edited, generators, seeds
from hypothesis import given, settings
from hypothesis import strategies as st
from study_records import DENSE, point, study, times_of

from hmatrix._support.files import make_folder
from hmatrix.errors import FormatError, OutputError
from hmatrix.matrix import Storage
from hmatrix.study.config.settings import Method
from hmatrix.study.figures.tables import table_note, table_rows, to_csv, to_text
from hmatrix.study.measure.records import (
    HMATRIX,
    AccuracyEvidence,
    Record,
    RecordFile,
    TimeEvidence,
)

floats = st.floats(allow_nan=False, allow_infinity=False)
not_negative = st.floats(0, allow_infinity=False)
positive_floats = st.floats(0, exclude_min=True, allow_infinity=False)
counts = st.integers(0, 10**15)
positive = st.integers(1, 10**15)
names = st.text(max_size=30)
json_values = st.recursive(
    st.none() | st.booleans() | counts | floats | names,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(names, values, max_size=3),
    max_leaves=8,
)


@st.composite
def accuracies(draw):
    both, lost, gained, neither = (draw(counts) for _ in range(4))
    samples = max(both + lost + gained + neither, 1)
    return AccuracyEvidence(samples, both + gained, both + lost, lost, gained)


@st.composite
def ranked(draw):
    """A method, and its rank, which the uncompressed layer alone has not."""
    method = draw(st.sampled_from(Method))
    return {"method": method, "rank": None if method is Method.DENSE else draw(counts)}


@st.composite
def times(draw):
    quartiles = sorted(draw(st.lists(positive_floats, min_size=3, max_size=3)))
    return TimeEvidence(draw(names), draw(positive), draw(positive), quartiles[1], quartiles[0], quartiles[2])


@st.composite
def shaped(draw):
    """A shape, and leaves in it."""
    rows, columns = draw(positive), draw(positive)
    leaves = []
    for _ in range(draw(st.integers(0, 4))):
        (r0, r1), (c0, c1) = (sorted((draw(st.integers(0, n - 1)), draw(st.integers(1, n)))) for n in (rows, columns))
        leaves.append((r0, r1 + (r0 == r1), c0, c1 + (c0 == c1), draw(st.integers(-1, 4096))))
    fitting = [leaf for leaf in leaves if leaf[1] <= rows and leaf[3] <= columns]
    return {"rows": rows, "columns": columns, "leaves": tuple(fitting)}


records = st.builds(
    lambda shape, method, **fields: Record(**shape, **method, **fields),
    shape=shaped(),
    method=ranked(),
    key=names,
    network=names,
    layer=names,
    settings=st.dictionaries(names, json_values, max_size=4),
    storage=st.builds(Storage, counts, counts, counts, positive),
    relative_error=not_negative,
    accuracy=st.none() | accuracies(),
    times=st.lists(times(), max_size=3).map(tuple),
    build_seconds=not_negative,
    environment=st.dictionaries(names, json_values, max_size=4),
)


@settings(deadline=None)
@given(records)
def test_a_record_comes_back_as_it_was(record):
    line = record.to_json()
    assert "\n" not in line
    assert "\r" not in line
    assert Record.from_json(line) == record


@settings(deadline=None)
@given(st.lists(records, max_size=4, unique_by=lambda record: record.key))
def test_a_file_gives_back_what_was_appended(written):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "records.jsonl"
        file = RecordFile(path)
        for record in written:
            file.append(record)
        for reader in (file, RecordFile(path)):
            assert [reader[record.key] for record in written] == written
        assert len(path.read_bytes().splitlines()) == len(written)


@given(not_negative)
def test_floats_keep_every_bit(value):
    record = replace(DENSE, relative_error=value)
    assert Record.from_json(record.to_json()).relative_error.hex() == value.hex()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_json_cannot_hold_is_refused(value):
    with pytest.raises(ValueError, match="JSON"):
        replace(DENSE, relative_error=value).to_json()


def test_storage_adds_up():
    storage = Storage(near_field=30, far_field=15, index=5, uncompressed=200)
    assert (storage.total, storage.ratio) == (50, 0.25)


def test_accuracies_are_fractions():
    accuracy = AccuracyEvidence(samples=200, correct=120, baseline_correct=150, lost=40, gained=10)
    assert (accuracy.top1, accuracy.baseline_top1) == (0.6, 0.75)


def test_times_are_told_apart():
    record = replace(DENSE, times=times_of(9e-6)[::-1])
    assert record.hmatrix_time.contender == HMATRIX
    assert record.dense_time.contender == "native"
    assert DENSE.hmatrix_time is None
    assert (replace(DENSE, times=()).hmatrix_time, replace(DENSE, times=()).dense_time) == (None, None)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "results" / "records.jsonl"


def filled(path, count=3):
    file = RecordFile(path)
    for record in study()[:count]:
        file.append(record)
    return study()[:count]


def test_a_new_file_is_empty(path):
    file = RecordFile(path)
    assert path.read_bytes() == b""
    assert DENSE.key not in file
    with pytest.raises(KeyError):
        file[DENSE.key]


def test_reopening_keeps_and_goes_on(path):
    written = filled(path)
    file = RecordFile(path)
    assert all(record.key in file for record in written)
    file.append(point(Method.QR, 7))
    reopened = RecordFile(path)
    assert [reopened[record.key] for record in (*written, point(Method.QR, 7))] == [*written, point(Method.QR, 7)]


def test_a_record_is_on_the_disk_at_once(path):
    RecordFile(path).append(DENSE)
    assert Record.from_json(path.read_text()) == DENSE


def test_the_last_of_two_records_with_one_key_counts(path):
    file = RecordFile(path)
    file.append(DENSE)
    file.append(replace(DENSE, build_seconds=9.0))
    assert file[DENSE.key].build_seconds == 9.0
    assert RecordFile(path)[DENSE.key].build_seconds == 9.0


@pytest.mark.parametrize("cut", [1, 2, 200])
def test_a_line_that_a_crash_cut_short_is_dropped(path, cut):
    written = filled(path)
    content = path.read_bytes()
    path.write_bytes(content[:-cut])
    file = RecordFile(path)
    assert [record.key in file for record in written] == [True, True, False]
    assert path.read_bytes() == b"".join(content.splitlines(keepends=True)[:2])
    file.append(written[2])
    assert path.read_bytes() == content


def test_a_cut_inside_a_character_is_dropped(path):
    written = filled(path)
    content = path.read_bytes()
    path.write_bytes(content + '{"key": "ü'.encode()[:-1])
    assert all(record.key in RecordFile(path) for record in written)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "line",
    [
        "",
        "not JSON",
        "3",
        "null",
        "[]",
        "{}",
        json.dumps({**json.loads(DENSE.to_json()), "method": "cholesky"}),
        json.dumps({**json.loads(DENSE.to_json()), "extra": 1}),
        json.dumps({**json.loads(DENSE.to_json()), "storage": None}),
        json.dumps({**json.loads(DENSE.to_json()), "leaves": [1]}),
        json.dumps({**json.loads(DENSE.to_json()), "times": [{"contender": "numpy"}]}),
        json.dumps({k: v for k, v in json.loads(DENSE.to_json()).items() if k != "key"}),
    ],
)
def test_a_corrupt_line_is_named(path, line):
    filled(path)
    lines = path.read_text().splitlines()
    lines[1] = line
    path.write_text("".join(f"{line}\n" for line in lines))
    with pytest.raises(FormatError) as caught:
        RecordFile(path)
    assert caught.value.subject == f"{path}, line 2"
    assert "remove the line" in caught.value.mend


@pytest.mark.parametrize("seed", seeds(40, 4000))
def test_an_edited_line_is_named_or_makes_a_table(path, seed):
    written = [DENSE, point(Method.SVD, 7), point(Method.GLOBAL_SVD, 7)]
    for rng in generators(seed):
        number = rng.randrange(3)
        lines = [record.to_json() for record in written]
        lines[number] = json.dumps(edited(json.loads(lines[number]), rng))
        make_folder(path.parent)
        path.write_text("".join(f"{line}\n" for line in lines))
        try:
            file = RecordFile(path)
        except FormatError as error:
            assert error.subject == f"{path}, line {number + 1}"  # noqa: PT017
        else:
            found = [file[json.loads(line)["key"]] for line in lines]
            same = [replace(record, network="one", layer="fc") for record in found]
            assert to_text(table_rows(same), table_note(same))
            assert to_csv(table_rows(same))


IMPOSSIBLE = {
    "samples": {"accuracy": AccuracyEvidence(0, 0, 0, 0, 0)},
    "images counted twice": {"accuracy": AccuracyEvidence(10, 8, 8, 3, 3)},
    "another baseline": {"accuracy": AccuracyEvidence(10, 5, 5, 1, 0)},
    "nothing timed": {"times": (TimeEvidence("numpy", 0, 0, 1.0, 1.0, 1.0),)},
    "no time": {"times": (TimeEvidence("numpy", 1, 1, 0.0, 0.0, 0.0),)},
    "quartiles in another order": {"times": (TimeEvidence("numpy", 1, 1, 1.0, 2.0, 3.0),)},
    "no matrix": {"storage": Storage(0, 0, 0, 0)},
    "negative bytes": {"storage": Storage(-1, 2, 0, 8)},
    "a leaf outside": {"leaves": ((0, 1001, 0, 1, 1),)},
    "an empty leaf": {"leaves": ((3, 3, 0, 1, 1),)},
    "no rows": {"rows": 0, "leaves": ()},
    "a rank of the dense layer": {"rank": 3},
    "no rank": {"method": Method.SVD},
    "a negative error": {"relative_error": -1.0},
    "negative seconds": {"build_seconds": -1.0},
}


@pytest.mark.parametrize("changes", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_what_cannot_be_is_named(path, changes):
    make_folder(path.parent)
    path.write_text(replace(DENSE, **changes).to_json() + "\n")
    with pytest.raises(FormatError, match=r"records\.jsonl, line 1: is not a record \(its .* cannot be\)"):
        RecordFile(path)


def test_numbers_that_are_none_are_named(path):
    make_folder(path.parent)
    for constant in ("NaN", "Infinity", "1e999"):
        path.write_text(DENSE.to_json().replace('"relative_error": 0.0', f'"relative_error": {constant}') + "\n")
        with pytest.raises(FormatError, match="line 1: is not a record"):
            RecordFile(path)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be made"):
        RecordFile(tmp_path / "file" / "records.jsonl")


def test_a_folder_in_place_of_the_file(tmp_path):
    (tmp_path / "records.jsonl").mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        RecordFile(tmp_path / "records.jsonl")


def test_a_line_that_is_no_text_is_named(tmp_path):
    (tmp_path / "records.jsonl").write_bytes(b"\xff\xfe\n")
    with pytest.raises(FormatError, match="line 1"):
        RecordFile(tmp_path / "records.jsonl")


def test_a_full_disk_is_told(tmp_path):
    file = RecordFile(tmp_path / "records.jsonl")
    (tmp_path / "records.jsonl").unlink()
    (tmp_path / "records.jsonl").mkdir()
    with pytest.raises(OutputError, match=r"records\.jsonl: cannot be written"):
        file.append(study()[0])
