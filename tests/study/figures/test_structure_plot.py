from dataclasses import replace

import matplotlib.backends.backend_agg as agg
import pytest
from matplotlib.collections import PolyCollection
from study_records import (
    COLUMNS,
    DENSE,
    ROWS,
    leaves_of_rank,
    point,
    study,
)

from hmatrix.study.config.settings import Method
from hmatrix.study.figures.structure_plot import structure_figure, structure_record


@pytest.mark.parametrize("rank", [1, 30, 120])
def test_structure_shows_every_leaf(rank):
    record = point(Method.SVD, rank)
    (axes,) = structure_figure(record).axes
    low_rank, dense = (c for c in axes.collections if isinstance(c, PolyCollection))
    drawn = [path.vertices for collection in (low_rank, dense) for path in collection.get_paths()]
    assert len(drawn) == len(record.leaves)
    corners = sorted((v[:, 1].min(), v[:, 1].max(), v[:, 0].min(), v[:, 0].max()) for v in drawn)
    assert corners == sorted(leaf[:4] for leaf in record.leaves)
    assert sum((r1 - r0) * (c1 - c0) for r0, r1, c0, c1 in corners) == ROWS * COLUMNS
    assert len(dense.get_paths()) == sum(leaf[4] == -1 for leaf in record.leaves)


def test_structure_writes_the_rank_into_its_block():
    leaves = ((0, 500, 0, 512, -1), (0, 500, 512, 1024, 7), (500, 1000, 0, 512, 0), (500, 1000, 512, 1024, 123))
    (axes,) = structure_figure(replace(point(Method.SVD, 30), leaves=leaves)).axes
    written = {text.get_text(): text.get_position() for text in axes.texts}
    assert written == {"7": (768, 250), "0": (256, 750), "123": (768, 750)}


NARROW = tuple((0, ROWS, first, first + 16, 100 + first // 16) for first in range(0, COLUMNS, 16))
FLAT = tuple((first, first + 20, 0, COLUMNS, first // 20) for first in range(0, ROWS, 20))


@pytest.mark.parametrize("leaves", [leaves_of_rank(1), leaves_of_rank(30), NARROW, FLAT])
def test_structure_text_stays_inside_its_block(leaves):
    record = replace(point(Method.SVD, 30), leaves=leaves)
    figure = structure_figure(record)
    (axes,) = figure.axes
    low_rank = [leaf for leaf in record.leaves if leaf[4] >= 0]
    assert len(axes.texts) == len(low_rank)
    renderer = agg.FigureCanvasAgg(figure).get_renderer()
    for text, (r0, r1, c0, c1, _) in zip(axes.texts, low_rank, strict=True):
        box = text.get_window_extent(renderer).transformed(axes.transData.inverted())
        assert c0 < box.x0 < box.x1 < c1
        assert r0 < min(box.y0, box.y1) < max(box.y0, box.y1) < r1


def test_structure_leaves_out_only_what_nobody_could_read():
    strips = tuple((i, i + 1, 0, COLUMNS, 1) for i in range(ROWS))
    (axes,) = structure_figure(replace(point(Method.SVD, 1), leaves=strips)).axes
    assert not axes.texts
    assert all(text.get_fontsize() >= 2 for text in structure_figure(point(Method.SVD, 30)).axes[0].texts)


def test_structure_is_readable_without_colours():
    low_rank, dense = structure_figure(point(Method.SVD, 30)).axes[0].collections[:2]

    def luminance(collection):
        red, green, blue, _ = collection.get_facecolor()[0]
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    assert luminance(low_rank) - luminance(dense) > 0.5


def test_structure_says_what_it_shows():
    record = point(Method.SVD, 30)
    figure = structure_figure(record)
    title, subtitle = figure.texts[0].get_text(), figure.texts[1].get_text()
    assert title == "googlenet fc: SVD, rank 30"
    assert subtitle.startswith("1000 × 1024, 250 blocks, 2.30 MB (56.1 % of 4.10 MB)")
    low_rank = sum(leaf[4] >= 0 for leaf in record.leaves)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == [f"{low_rank} low-rank blocks, rank written in", f"{250 - low_rank} dense blocks"]
    (axes,) = figure.axes
    assert axes.get_ylim() == (ROWS, 0)


def test_structure_of_the_baselines():
    own = point(Method.GLOBAL_SVD, 30)
    assert structure_figure(own).texts[0].get_text().endswith(f"rank {own.leaves[0][4]}")
    figure = structure_figure(DENSE)
    assert figure.texts[0].get_text() == "googlenet fc: uncompressed"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["1 dense block"]
    full = replace(own, leaves=((0, ROWS, 0, COLUMNS, -1),))
    assert "rank" not in structure_figure(full).texts[0].get_text()


@pytest.mark.parametrize(
    ("records", "shown"),
    [
        (study(), (Method.SVD, 30)),
        (study(ranks=(1, 10, 64)), (Method.SVD, 10)),
        (study((Method.ACA, Method.QR), (5, 50)), (Method.ACA, 50)),
    ],
)
def test_structure_record(records, shown):
    record = structure_record(records)
    assert (record.method, record.rank) == shown


def test_structure_record_needs_an_hmatrix():
    assert structure_record([DENSE, point(Method.GLOBAL_SVD, 30)]) is None
