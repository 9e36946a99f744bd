import itertools

import matplotlib.backends.backend_agg as agg
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from hmatrix.study.figures.drawing import megabytes, significant, style, text_width
from hmatrix.study.figures.labels import LabelRoom, spread

places = st.lists(st.floats(0, 100), min_size=1, max_size=8)


@given(places)
def test_spread_keeps_gap_order_and_ends(wanted):
    got = spread(wanted, 5.0, 0.0, 100.0)
    order = np.argsort(wanted, kind="stable")
    assert all(b - a >= 5.0 - 1e-9 for a, b in itertools.pairwise(np.array(got)[order]))
    assert all(-1e-9 <= place <= 100 + 1e-9 for place in got)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8, unique=True))
def test_spread_leaves_what_is_apart(wanted):
    assert spread([10.0 * w for w in wanted], 9.9, 0.0, 100.0) == pytest.approx([10.0 * w for w in wanted])


def test_spread_moves_a_crowd_evenly():
    assert spread([50.0, 50.0, 50.0], 4.0, 0.0, 100.0) == pytest.approx([46.0, 50.0, 54.0])
    assert spread([99.0, 100.0], 4.0, 0.0, 100.0) == pytest.approx([96.0, 100.0])
    assert spread([1.0, 0.0], 4.0, 0.0, 100.0) == pytest.approx([4.0, 0.0])


def test_spread_gives_up_the_gap_where_there_is_no_room():
    assert spread([5.0, 5.0, 5.0], 100.0, 0.0, 10.0) == pytest.approx([0.0, 5.0, 10.0])
    assert spread([], 1.0, 0.0, 1.0) == []


@pytest.fixture
def axes():
    with style():
        figure = Figure(figsize=(4, 3))
        axes = figure.add_axes((0.1, 0.1, 0.8, 0.8))
        axes.set(xlim=(0, 10), ylim=(0, 10))
        yield axes


def boxes(axes):
    renderer = agg.FigureCanvasAgg(axes.figure).get_renderer()
    return [text.get_window_extent(renderer) for text in axes.texts]


def test_labels_lie_neither_on_each_other_nor_on_lines_nor_outside(axes):
    room = LabelRoom(axes)
    x = np.linspace(0.1, 9.9, 30)
    curves = [x, x + 0.2, 10 - x]
    for y in curves:
        room.keep_clear(x, y)
    for y in curves:
        assert room.place(x, y, [str(100 + i) for i in range(30)], "black")
    labels = boxes(axes)
    assert not any(a.overlaps(b) for a, b in itertools.combinations(labels, 2))
    fine = np.linspace(0.1, 9.9, 2000)
    for y in (fine, np.minimum(fine + 0.2, 10), 10 - fine):
        for px, py in axes.transData.transform(np.column_stack([fine, y])):
            assert not any(box.contains(px, py) for box in labels)
    frame = axes.get_window_extent()
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 for box in labels)


def test_a_lone_point_gets_its_label(axes):
    room = LabelRoom(axes)
    room.keep_clear([5], [5])
    assert room.place([5], [5], ["30"], "black") == [0]
    assert axes.texts[0].get_text() == "30"
    assert axes.texts[0].xy == (5, 5)


def test_ends_come_first_in_a_crowd(axes):
    room = LabelRoom(axes)
    x = np.linspace(4, 6, 40)
    room.keep_clear(x, np.full(40, 5))
    labelled = room.place(x, np.full(40, 5), [str(i) for i in range(40)], "black")
    assert {0, 39} <= set(labelled)
    assert len(labelled) < 40
    assert [text.get_text() for text in axes.texts][:2] == ["0", "39"]


def crosses(axes, height):
    """Whether the only label lies on the level line at that height."""
    (box,) = boxes(axes)
    return box.y0 < axes.transData.transform((0, height))[1] < box.y1


def test_a_label_stands_above_its_point_where_it_can(axes):
    LabelRoom(axes).place([5], [5], ["30"], "black")
    assert crosses(axes, 5.5)


def test_a_long_line_is_kept_clear_between_its_points(axes):
    room = LabelRoom(axes)
    room.keep_clear([0, 10], [5.5, 5.5])
    assert room.place([5], [5], ["30"], "black") == [0]
    assert not crosses(axes, 5.5)


def test_a_marker_is_kept_clear_to_its_rim(axes):
    room = LabelRoom(axes)
    room.keep_clear([5], [5.95])
    assert room.place([5], [5], ["30"], "black") == [0]
    rim = axes.transData.transform((5, 5.95))[1] - 4.0 * axes.figure.dpi / 72
    assert boxes(axes)[0].y1 < rim


def test_a_thin_line_gives_way_only_where_nothing_else_is_free(axes):
    room = LabelRoom(axes)
    room.avoid([0, 10], [5.5, 5.5])
    room.place([5], [5], ["30"], "black")
    assert not crosses(axes, 5.5)
    for height in np.linspace(0, 10, 80):
        room.avoid([0, 10], [height, height])
    assert room.place([2], [2], ["40"], "black") == [0]


def test_text_width_is_that_of_the_renderer(axes):
    for text in ("120", "fastest dense product", "↑ onnxruntime 400 µs", "$1$"):
        artist = axes.text(0, 0, text, fontsize=9, parse_math=False)
        drawn = artist.get_window_extent(agg.FigureCanvasAgg(axes.figure).get_renderer()).width
        assert text_width(text, 9.0) == pytest.approx(drawn * 72 / axes.figure.dpi, rel=0.08)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.000"), (0.0412, "0.0412"), (4.1, "4.10"), (63, "63.0"), (99.96, "100"), (1087.3, "1087")],
)
def test_significant(value, text):
    assert significant(value) == text


def test_megabytes():
    assert [megabytes(n) for n in (512, 99_000, 410_000, 4_096_000, 2e9)] == [
        "0.512 kB",
        "99.0 kB",
        "0.410 MB",
        "4.10 MB",
        "2000 MB",
    ]
