from dataclasses import replace

import matplotlib.backends.backend_agg as agg
import numpy as np
import pytest
from artists import line
from matplotlib.collections import LineCollection
from matplotlib.text import Text
from study_records import (
    DENSE,
    METHODS,
    SAMPLES,
    of,
    point,
    study,
    without_accuracy,
    without_times,
)

from hmatrix.study.config.settings import Method
from hmatrix.study.figures.tables import table_rows
from hmatrix.study.figures.tradeoff_plot import tradeoff_figure
from hmatrix.study.measure.records import AccuracyEvidence
from hmatrix.study.measure.statistics import paired_interval


def test_tradeoff_points_are_the_records():
    records = study()
    storage, time = tradeoff_figure(records).axes
    for method in (*METHODS, Method.GLOBAL_SVD):
        expected = [
            (100 - 100 * r.storage.ratio, 100 * (r.accuracy.lost - r.accuracy.gained) / SAMPLES)
            for r in of(records, method)
        ]
        assert line(storage, method).get_xydata() == pytest.approx(np.array(expected))
    for method in METHODS:
        saved = [100 * (1 - r.hmatrix_time.median / r.dense_time.median) for r in of(records, method)]
        assert list(line(time, method).get_xdata()) == pytest.approx(saved)


def test_tradeoff_bars_are_paired_intervals():
    (record,) = of(study((Method.QR,), (30,)), Method.QR)
    storage = tradeoff_figure([record]).axes[0]
    lower, upper = paired_interval(SAMPLES, record.accuracy.lost, record.accuracy.gained)
    (bar,) = [c for c in storage.collections if isinstance(c, LineCollection)]
    assert bar.get_segments()[0][:, 1] == pytest.approx([100 * lower, 100 * upper])


def test_tradeoff_annotates_ranks_at_their_points():
    records = study()
    rows = {(round(100 - row.storage_percent, 6), row.lost_points): row for row in table_rows(records) if row.rank}
    storage = tradeoff_figure(records).axes[0]
    assert len(storage.texts) > 25
    for text in storage.texts:
        row = rows[round(text.xy[0], 6), text.xy[1]]
        assert text.get_text() == str(row.largest_rank if row.method is Method.GLOBAL_SVD else row.rank)


def test_tradeoff_ranks_stay_off_the_bars_where_they_can():
    few = replace(point(Method.QR, 30), accuracy=AccuracyEvidence(100, 66, 70, 9, 5))
    figure = tradeoff_figure([few])
    agg.FigureCanvasAgg(figure).draw()
    for axes in figure.axes:
        (bar,) = [c for c in axes.collections if isinstance(c, LineCollection)]
        (start, end) = axes.transData.transform(bar.get_segments()[0])
        (label,) = [Text.get_window_extent(text) for text in axes.texts]
        assert not any(label.contains(*(start + t * (end - start))) for t in np.linspace(0, 1, 200))


def test_tradeoff_without_accuracy_or_times():
    records = without_times(without_accuracy(study()))
    (axes,) = tradeoff_figure(records).axes
    assert "relative error" in axes.get_ylabel()
    expected = [record.relative_error for record in of(records, Method.ACA)]
    assert list(line(axes, Method.ACA).get_ydata()) == pytest.approx(expected)
    assert tradeoff_figure([DENSE]) is None
