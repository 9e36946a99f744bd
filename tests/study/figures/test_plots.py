import itertools
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace

import matplotlib
import matplotlib.backends.backend_agg as agg
import pytest
from matplotlib.text import Text
from PIL import Image
from study_records import (
    DENSE,
    point,
    slower,
    study,
    without_accuracy,
    without_times,
)

from hmatrix.errors import ArgumentError, OutputError
from hmatrix.study.config.settings import Method
from hmatrix.study.figures.drawing import style
from hmatrix.study.figures.plots import draw_all
from hmatrix.study.figures.rank_plots import (
    accuracy_figure,
    error_figure,
    plot_accuracy,
    plot_storage,
    plot_time,
    storage_figure,
    time_figure,
)
from hmatrix.study.figures.structure_plot import plot_structure, structure_figure, structure_record
from hmatrix.study.figures.tradeoff_plot import plot_tradeoff, tradeoff_figure

ALL_METHODS = [m for m in Method if m not in (Method.DENSE, Method.GLOBAL_SVD, Method.PROGRESSIVE)]
LONG_NAMES = {"network": "hf_hub:timm/" + 9 * "a_long_name_", "layer": "blocks.11.attention.output.dense"}


def test_draw_all_names_its_files(tmp_path):
    paths = draw_all(study(), tmp_path / "new" / "folder", "googlenet.fc")
    stems = ["fig1-structure", "fig2-time", "fig3-storage", "fig4-accuracy", "fig5-tradeoff"]
    names = [f"googlenet.fc-{stem}.{ending}" for stem in stems for ending in ("png", "svg")]
    assert [path.name for path in paths] == names
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == sorted(names)
    for path in paths:
        if path.suffix == ".png":
            with Image.open(path) as image:
                image.load()
                assert min(image.info["dpi"]) >= 150
                assert min(image.size) > 700
        else:
            assert ET.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"


@pytest.mark.parametrize(
    ("records", "figures"),
    [
        ([], []),
        ([DENSE], []),
        (without_times(study((Method.QR,), (30,))), ["1-structure", "3-storage", "4-accuracy", "5-tradeoff"]),
        (without_accuracy([point(Method.ACA, 1)]), ["1-structure", "2-time", "3-storage", "4-error", "5-tradeoff"]),
        ([point(Method.GLOBAL_SVD, 30)], ["3-storage", "4-accuracy", "5-tradeoff"]),
    ],
)
def test_draw_all_writes_what_the_records_allow(tmp_path, records, figures):
    paths = draw_all(records, tmp_path, "x")
    assert [path.name for path in paths if path.suffix == ".svg"] == [f"x-fig{name}.svg" for name in figures]


@pytest.mark.slow
def test_same_records_same_bytes(tmp_path):
    first = draw_all(study(), tmp_path / "a", "x")
    before = dict(matplotlib.rcParams)
    mine = {
        "lines.linewidth": 9,
        "font.size": 20,
        "svg.hashsalt": "other",
        "xtick.major.size": 20,
        "text.usetex": False,
    }
    with matplotlib.rc_context({**mine, "axes.titlesize": 30, "savefig.bbox": "tight", "axes.xmargin": 0.4}):
        second = draw_all(study()[::-1], tmp_path / "b", "x")
    assert dict(matplotlib.rcParams) == before
    for a, b in zip(first, second, strict=True):
        assert a.read_bytes() == b.read_bytes(), a.name


@pytest.mark.slow
def test_same_bytes_in_another_process_and_no_pyplot(tmp_path):
    script = (
        "import sys; from pathlib import Path; from study_records import study; "
        "from hmatrix.study.figures.plots import draw_all; draw_all(study(), Path(sys.argv[1]), 'x'); "
        "assert 'matplotlib.pyplot' not in sys.modules; assert 'torch' not in sys.modules"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", script, tmp_path / "a"], check=True, env=environment)
    for path in draw_all(study(), tmp_path / "b", "x"):
        assert path.read_bytes() == (tmp_path / "a" / path.name).read_bytes(), path.name


@pytest.mark.parametrize("plot", [plot_time, plot_storage, plot_accuracy, plot_tradeoff])
def test_plots_replace_what_was_there(tmp_path, plot):
    (tmp_path / "x.png").write_bytes(b"old")
    paths = plot(study((Method.SVD,), (1, 30)), tmp_path / "x")
    assert paths == [tmp_path / "x.png", tmp_path / "x.svg"]
    assert paths[0].read_bytes().startswith(b"\x89PNG")


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be made"):
        plot_structure(DENSE, tmp_path / "file" / "figure")


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    (tmp_path / "x.png").mkdir()
    with pytest.raises(OutputError):
        plot_structure(DENSE, tmp_path / "x")
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]


def test_records_of_two_layers_are_refused(tmp_path):
    with pytest.raises(ArgumentError, match="2 layers"):
        draw_all([*study(), replace(DENSE, layer="other")], tmp_path, "x")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "records",
    [
        study(),
        study(ALL_METHODS, (1, 2, 4, 8, 16, 32, 64, 128)),
        study((Method.QR,), (30,)),
        without_accuracy(study()),
        [replace(record, **LONG_NAMES) for record in slower(study(), 1.0)],
        slower(study(), 30.0),
    ],
    ids=["study", "all methods", "one point", "lone matrix", "long names", "slow"],
)
def test_no_text_leaves_the_paper_or_lies_on_another(records):
    figures = [
        structure_figure(structure_record(records)),
        time_figure(records),
        storage_figure(records),
        accuracy_figure(records) or error_figure(records),
        tradeoff_figure(records),
    ]
    for figure in figures:
        with style():
            canvas = agg.FigureCanvasAgg(figure)
            canvas.draw()
            renderer = canvas.get_renderer()
            everything = [*figure.axes, *(child for axes in figure.axes for child in axes.child_axes)]
            texts = [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
            for axes in everything:
                shown = [tick for axis in (axes.xaxis, axes.yaxis) for tick in axis._update_ticks()]
                texts += [*axes.texts, *(t for tick in shown for t in (tick.label1, tick.label2) if t.get_visible())]
                texts += [axes.xaxis.label, axes.yaxis.label]
            # An annotation's own extent would include its leader line.
            boxes = [(t.get_text(), Text.get_window_extent(t, renderer)) for t in texts if t.get_text()]
        for text, box in boxes:
            assert figure.bbox.x0 <= box.x0, text
            assert box.x1 <= figure.bbox.x1, text
            assert figure.bbox.y0 <= box.y0, text
            assert box.y1 <= figure.bbox.y1, text
        for (text, box), (other, beside) in itertools.combinations(boxes, 2):
            assert not box.shrunk(0.9, 0.8).overlaps(beside.shrunk(0.9, 0.8)), (text, other)
