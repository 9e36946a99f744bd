import statistics
from dataclasses import replace

import matplotlib.backends.backend_agg as agg
import pytest
from artists import levels, line
from matplotlib.collections import LineCollection, PolyCollection
from study_records import (
    BASELINE_CORRECT,
    DENSE,
    METHODS,
    RANKS,
    SAMPLES,
    UNCOMPRESSED,
    of,
    point,
    slower,
    study,
    without_accuracy,
    without_times,
)

from hmatrix.study.config.settings import Method
from hmatrix.study.figures.curves import accuracy_of, curves
from hmatrix.study.figures.drawing import LOOKS
from hmatrix.study.figures.rank_plots import accuracy_figure, error_figure, plot_time, storage_figure, time_figure
from hmatrix.study.measure.statistics import paired_interval


def test_time_lines_are_the_records():
    records = study()
    (axes,) = time_figure(records[::-1]).axes
    for method in METHODS:
        expected = [1e6 * record.hmatrix_time.median for record in of(records, method)]
        assert list(line(axes, method).get_xdata()) == list(RANKS)
        assert list(line(axes, method).get_ydata()) == pytest.approx(expected)
    bands = [c for c in axes.collections if isinstance(c, PolyCollection)]
    assert len(bands) == len(METHODS)
    for band, method in zip(bands, METHODS, strict=True):
        times = [record.hmatrix_time for record in of(records, method)]
        ends = {round(1e6 * end, 6) for time in times for end in (time.lower, time.upper)}
        assert ends == set(band.get_paths()[0].vertices[:, 1].round(6))
    assert not [line for line in axes.lines if line.get_label() == LOOKS[Method.GLOBAL_SVD].label]


def test_time_levels_are_the_dense_products():
    records = study()
    medians = {
        name: statistics.median(1e6 * t.median for record in records for t in record.times if t.contender == name)
        for name in ("native", "numpy", "torch")
    }
    figure = time_figure(records)
    (axes,) = figure.axes
    assert levels(axes) == pytest.approx(list(medians.values()))
    labels = [text.get_text() for text in axes.texts]
    assert labels == [f"{name} {median:.1f} µs" for name, median in medians.items()]
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert named == ["SVD", "QR", "ACA", "fastest dense product", "other dense products"]


def test_time_names_products_that_are_off_the_scale():
    (axes,) = time_figure(slower(study(), 1.0)).axes
    assert len(levels(axes)) == 3
    assert axes.get_ylim()[1] < 100
    assert [text.get_text() for text in axes.texts][3:] == ["↑ reference kernel 100000 µs", "↑ interpreted 200000 µs"]


def test_time_scale_reaches_from_zero_to_the_slowest_line():
    records = slower(study(), 40.0)
    (axes,) = time_figure(records).axes
    slowest = max(1e6 * r.hmatrix_time.upper for r in records if r.hmatrix_time)
    assert axes.get_ylim()[0] == 0
    assert slowest < axes.get_ylim()[1] < 1.2 * slowest


def test_time_needs_times(tmp_path):
    records = without_times(study())
    assert time_figure(records) is None
    assert plot_time(records, tmp_path / "time") == []
    assert time_figure([DENSE]) is None


def test_storage_lines_are_the_records():
    records = study()
    figure = storage_figure(records)
    axes = figure.axes[0]
    for method in (*METHODS, Method.GLOBAL_SVD):
        expected = [100 * record.storage.ratio for record in of(records, method)]
        assert list(line(axes, method).get_ydata()) == pytest.approx(expected)
    assert levels(axes) == [100]
    assert axes.texts[0].get_text() == "uncompressed: 4.10 MB"


def test_storage_has_megabytes_on_its_second_axis():
    figure = storage_figure(study())
    agg.FigureCanvasAgg(figure).draw()
    axes = figure.axes[0]
    (second,) = axes.child_axes
    percent, megabytes = axes.get_ylim()[1], second.get_ylim()[1]
    assert megabytes == pytest.approx(percent / 100 * UNCOMPRESSED / 1e6)


def test_storage_shows_the_own_ranks_of_the_global_svd():
    records = study()
    axes = storage_figure(records).axes[0]
    own = {record.rank: str(record.leaves[0][4]) for record in of(records, Method.GLOBAL_SVD)}
    labels = {text.xy[0]: text.get_text() for text in axes.texts[1:]}
    assert len(labels) > 8
    assert labels.items() <= own.items()


def test_accuracy_lines_are_the_records():
    records = study()
    (axes,) = accuracy_figure(records).axes
    for method in (*METHODS, Method.GLOBAL_SVD):
        expected = [100 * record.accuracy.correct / SAMPLES for record in of(records, method)]
        assert list(line(axes, method).get_ydata()) == pytest.approx(expected)
    assert levels(axes) == pytest.approx([100 * BASELINE_CORRECT / SAMPLES])
    assert axes.texts[0].get_text() == "uncompressed: 70.2 %"


def test_accuracy_bands_are_paired_intervals():
    records = study((Method.QR,), (30, 60))
    (axes,) = accuracy_figure([record for record in records if record.method is not Method.GLOBAL_SVD]).axes
    (band,) = [c for c in axes.collections if isinstance(c, PolyCollection)]
    heights = set(band.get_paths()[0].vertices[:, 1].round(9))
    for record in of(records, Method.QR):
        lower, upper = paired_interval(SAMPLES, record.accuracy.lost, record.accuracy.gained)
        baseline = BASELINE_CORRECT / SAMPLES
        assert {round(100 * (baseline - lower), 9), round(100 * (baseline - upper), 9)} <= heights


def test_accuracy_bands_are_the_right_way_up_and_within_the_scale():
    records = study()
    lowest, highest = accuracy_figure(records).axes[0].get_ylim()
    for curve in curves(records, accuracy_of).values():
        for lower, value, upper in zip(curve.lower, curve.values, curve.upper, strict=True):
            # The interval's centre is drawn a little towards no loss at all.
            assert lowest <= lower < value + 0.1 < upper + 0.1 <= highest


def test_accuracy_of_different_images_has_several_baselines():
    records = study()
    other = replace(DENSE, accuracy=replace(DENSE.accuracy, correct=1300, baseline_correct=1300))
    (axes,) = accuracy_figure([other, *records[1:]]).axes
    assert levels(axes) == pytest.approx([65, 70.2])
    assert axes.texts[0].get_text() == "uncompressed: 65.0–70.2 %"


def test_a_lone_matrix_shows_its_error():
    records = without_accuracy(study())
    assert accuracy_figure(records) is None
    (axes,) = error_figure(records).axes
    for method in (*METHODS, Method.GLOBAL_SVD):
        expected = [record.relative_error for record in of(records, method)]
        assert list(line(axes, method).get_ydata()) == pytest.approx(expected)
    assert "relative error" in axes.get_ylabel()
    assert levels(axes) == [1]


def test_an_error_below_that_of_the_zero_matrix_is_not_compared_with_it():
    (axes,) = error_figure(without_accuracy(study((Method.SVD,)))).axes
    assert levels(axes) == []
    assert axes.get_ylim()[1] < 1


def test_no_error_at_all_can_be_drawn():
    (axes,) = error_figure([replace(point(Method.SVD, 30), relative_error=0.0, accuracy=None)]).axes
    assert axes.get_ylim() == (0, 1)


@pytest.mark.parametrize("figure", [storage_figure, accuracy_figure, error_figure])
def test_no_hmatrix_no_figure(figure):
    assert figure([replace(DENSE, accuracy=None)]) is None


def test_ranks_are_the_ticks_where_they_fit():
    ticks = accuracy_figure(study()).axes[0].xaxis.get_major_locator()()
    assert list(ticks) == list(RANKS)
    ticks = accuracy_figure(study(ranks=(1, 2, 4, 8, 16, 32, 64, 128))).axes[0].xaxis.get_major_locator()()
    assert set(ticks) < {1, 2, 4, 8, 16, 32, 64, 128}
    assert ticks[-1] == 128


@pytest.mark.parametrize("make", [time_figure, accuracy_figure])
def test_a_lone_rank_still_shows_its_spread(make):
    (axes,) = make(study((Method.QR,), (30,))).axes
    assert [len(line.get_xdata()) for line in axes.lines if line.get_label() == "QR"] == [1]
    lines = [c for c in axes.collections if isinstance(c, LineCollection)]
    assert lines[0].get_segments()[0][0][0] == 30
