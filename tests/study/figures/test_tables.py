import csv
import io
from dataclasses import fields, replace

import pytest
from study_records import (
    BASELINE_CORRECT,
    DENSE,
    ENVIRONMENT,
    METHODS,
    RANKS,
    SAMPLES,
    point,
    study,
    without_accuracy,
    without_times,
)

from hmatrix.errors import ArgumentError
from hmatrix.study.config.settings import Method
from hmatrix.study.figures.tables import Row, table_note, table_rows, to_csv, to_markdown, to_text
from hmatrix.study.measure.records import HMATRIX, AccuracyEvidence, TimeEvidence
from hmatrix.study.measure.statistics import paired_interval


def timed(name, median):
    return TimeEvidence(name, 100, 10, median, median, median)


def cells(line):
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def test_order_is_dense_then_method_then_rank():
    rows = table_rows(study()[::-1])
    expected = [(Method.DENSE, None)] + [(m, k) for m in (*METHODS, Method.GLOBAL_SVD) for k in RANKS]
    assert [(row.method, row.rank) for row in rows] == expected


def test_numbers_of_one_row():
    # 30 µs against 40 µs of the fastest dense product of the same run: a quarter is saved.
    record = replace(
        point(Method.SVD, 30),
        accuracy=AccuracyEvidence(samples=200, correct=130, baseline_correct=140, lost=14, gained=4),
        times=(timed("torch", 60e-6), timed(HMATRIX, 30e-6), timed("numpy", 40e-6)),
    )
    (row,) = table_rows([record])
    assert (row.dense_product, row.dense_seconds, row.hmatrix_seconds) == ("numpy", 40e-6, 30e-6)
    assert row.time_saved_percent == pytest.approx(25)
    assert row.top1_percent == 65
    assert row.lost_points == 5
    assert row.lost_relative_percent == pytest.approx(100 * 10 / 140)
    lower, upper = paired_interval(200, 14, 4)
    assert (row.lost_lower_points, row.lost_upper_points) == (100 * lower, 100 * upper)
    assert (row.storage_bytes, row.storage_percent) == (record.storage.total, 100 * record.storage.ratio)
    assert row.relative_error == record.relative_error


def test_blocks_are_counted():
    record = replace(
        point(Method.SVD, 30), leaves=((0, 500, 0, 1024, -1), (500, 1000, 0, 512, 7), (500, 1000, 512, 1024, 0))
    )
    (row,) = table_rows([record])
    assert (row.near_field_blocks, row.far_field_blocks, row.largest_rank) == (1, 2, 7)


def test_slower_than_dense_is_negative():
    record = replace(point(Method.SVD, 30), times=(timed(HMATRIX, 80e-6), timed("numpy", 40e-6)))
    assert table_rows([record])[0].time_saved_percent == pytest.approx(-100)


def test_the_fastest_dense_product_is_that_of_the_same_run():
    fast_elsewhere = replace(DENSE, times=(timed("native", 10e-6),))
    record = replace(point(Method.SVD, 30), times=(timed(HMATRIX, 30e-6), timed("numpy", 40e-6)))
    assert table_rows([fast_elsewhere, record])[1].time_saved_percent == pytest.approx(25)


def test_the_baseline_has_no_loss_of_its_own():
    (row,) = table_rows([DENSE])
    assert (row.rank, row.top1_percent, row.dense_product) == (None, 100 * BASELINE_CORRECT / SAMPLES, "native")
    assert (row.lost_points, row.lost_lower_points, row.lost_relative_percent) == (None, None, None)
    assert (row.hmatrix_seconds, row.time_saved_percent) == (None, None)


def test_what_was_not_measured_is_empty():
    (row,) = table_rows(without_times(without_accuracy([point(Method.SVD, 30)])))
    missing = {field.name for field in fields(Row) if getattr(row, field.name) is None}
    assert missing == {
        "hmatrix_seconds",
        "dense_seconds",
        "dense_product",
        "time_saved_percent",
        "samples",
        "top1_percent",
        "lost_points",
        "lost_lower_points",
        "lost_upper_points",
        "lost_relative_percent",
    }
    assert cells(to_markdown([row]).splitlines()[2])[4:] == [""] * 8
    (read,) = csv.DictReader(io.StringIO(to_csv([row])))
    assert {name for name, cell in read.items() if cell == ""} == missing


def test_relative_loss_of_a_baseline_without_any_hit_is_empty():
    record = replace(point(Method.SVD, 30), accuracy=AccuracyEvidence(10, 1, 0, 0, 1))
    (row,) = table_rows([record])
    assert (row.lost_points, row.lost_relative_percent) == (-10, None)


def test_records_of_two_layers_are_refused():
    with pytest.raises(ArgumentError, match="2 layers"):
        table_rows([DENSE, replace(DENSE, layer="other")])
    with pytest.raises(ArgumentError, match="2 layers"):
        table_note([DENSE, replace(DENSE, network="other")])


def test_csv_keeps_every_number():
    rows = table_rows(study())
    read = list(csv.DictReader(io.StringIO(to_csv(rows))))
    assert len(read) == len(rows)
    for row, line in zip(rows, read, strict=True):
        for field in fields(Row):
            value = getattr(row, field.name)
            if isinstance(value, float):
                assert float(line[field.name]) == value
            else:
                assert line[field.name] == ("" if value is None else str(value))


def test_markdown_is_a_table_with_its_note():
    rows = table_rows(study())
    lines = to_markdown(rows, "A note.").splitlines()
    assert lines[-2:] == ["", "A note."]
    table = [cells(line) for line in lines[:-2]]
    assert {len(line) for line in table} == {12}
    assert len(table) == len(rows) + 2
    svd30 = next(line for line in table if line[:2] == ["svd", "30"])
    row = next(row for row in rows if (row.method, row.rank) == (Method.SVD, 30))
    assert float(svd30[2]) == pytest.approx(row.storage_percent, abs=0.05)
    assert float(svd30[4]) == pytest.approx(1e6 * row.hmatrix_seconds, abs=0.05)
    assert float(svd30[7]) == pytest.approx(row.time_saved_percent, abs=0.05)
    assert svd30[10] == f"[{row.lost_lower_points:.2f}, {row.lost_upper_points:.2f}]"


def test_the_global_svd_shows_its_own_rank():
    record = point(Method.GLOBAL_SVD, 30)
    own = record.leaves[0][4]
    assert cells(to_markdown(table_rows([record])).splitlines()[2])[:2] == ["global-svd", f"30 ({own})"]
    dense = replace(record, leaves=((0, 1000, 0, 1024, -1),))
    assert cells(to_markdown(table_rows([dense])).splitlines()[2])[1] == "30 (dense)"


def test_no_negative_zero():
    record = replace(point(Method.SVD, 30), times=(timed(HMATRIX, 40.001e-6), timed("numpy", 40e-6)))
    assert cells(to_markdown(table_rows([record])).splitlines()[2])[7] == "0.0"


@pytest.mark.parametrize("methods", [METHODS, [m for m in Method if m not in (Method.DENSE, Method.GLOBAL_SVD)]])
def test_text_fits_a_terminal(methods):
    records = study(methods)
    text = to_text(table_rows(records), table_note(records))
    assert max(map(len, text.splitlines())) <= 110
    assert not any(line != line.rstrip() for line in text.splitlines())


def test_text_is_aligned_and_complete():
    rows = table_rows(study())
    lines = to_text(rows).splitlines()
    assert len(lines) == len(rows) + 3
    end = lines[0].index("storage") + len("storage")
    assert [line[:end].split()[-1] for line in lines[3:]] == [f"{row.storage_percent:.1f}" for row in rows]
    assert all(line[end : end + 2] == "  " for line in lines[3:])


def test_text_leaves_out_columns_without_numbers():
    head = to_text(table_rows(without_times(without_accuracy(study())))).splitlines()[0]
    assert head.split() == ["method", "rank", "storage", "error"]


def test_no_rows():
    assert table_rows([]) == []
    assert table_note([]) == ""
    assert to_csv([]).count("\n") == 1
    assert len(to_markdown([]).splitlines()) == 2
    assert len(to_text([]).splitlines()) == 3


def test_note_names_the_circumstances():
    note = table_note(study())
    for part in ("googlenet fc", "1000 × 1024", "(native)", "1 thread", ENVIRONMENT["cpu"], "kernel avx512_vnni"):
        assert part in note
    assert f"{SAMPLES} images" in note
    assert "global-svd" in note


def test_note_says_only_what_is_known():
    records = [replace(record, environment={}) for record in without_times(without_accuracy(study()))]
    note = table_note([record for record in records if record.method is Method.SVD])
    assert note == "googlenet fc, 1000 × 1024."


def test_note_names_every_machine():
    other = replace(point(Method.SVD, 30), environment={"cpu": "another CPU", "threads": 2, "kernel": "reference"})
    note = table_note([DENSE, other])
    assert "1 / 2 threads; kernel avx512_vnni / reference; AMD EPYC 9R14 96-Core Processor / another CPU" in note
