import json
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

import hmatrix as hm
from hmatrix.errors import ArgumentError, OutputError
from hmatrix.study.data.classifiers import LastLayer
from hmatrix.study.data.features import Features
from hmatrix.study.figures.drawing import style
from hmatrix.study.measure.subject import Subject
from studies.allocator import frontier
from studies.allocator.competitors import OWN, Approximation, Contender
from studies.allocator.frontier import Evaluation, Split, leaf_shares, run_frontier, write_frontier
from studies.allocator.frontier_plot import LOOKS, frontier_figure
from studies.allocator.frontier_records import FrontierRecord
from studies.allocator.frontier_table import better, error, frontier_summary, frontier_table, lost_interval, lost_points

CLASSES, INPUTS, IMAGES = 40, 64, 80


@pytest.fixture(scope="module")
def subject():
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((CLASSES, INPUTS)).astype(np.float32)
    labels = np.arange(IMAGES) % CLASSES
    # Each image lies near its class, off centre.
    inputs = (weight[labels] + 2 * rng.standard_normal((IMAGES, INPUTS)) + 1).astype(np.float32)
    features = Features(inputs, labels, LastLayer(IMAGES, CLASSES))
    return Subject("net", "head", "digest", weight, rng.standard_normal(CLASSES).astype(np.float32), features)


@pytest.fixture(scope="module")
def records(subject):
    return list(run_frontier(subject, Split.IMAGES, (0.2, 0.5)))


def test_all_stay_within_the_budget(records):
    budgets = {record.budget for record in records}
    assert len(budgets) == 5
    for budget in budgets:
        group = [record for record in records if record.budget == budget]
        assert [record.contender for record in group[:3]] == list(OWN)
        assert all(record.nbytes <= budget for record in group)


def test_only_the_allocator_predicts(records):
    for record in records:
        own = record.contender in OWN
        for value in (record.predicted_error, record.measured_error, record.damping, record.arrangement):
            assert (value is not None) == own


def approximation(dense, contender=Contender.SVD):
    return Approximation(contender, dense, lambda X: X @ dense.T, 1, "", 0.0)


def test_evaluation_against_an_independent_computation(subject):
    rng = np.random.default_rng(1)
    dense = subject.weight + 0.3 * rng.standard_normal(subject.weight.shape).astype(np.float32)
    record = Evaluation(subject, Split.IMAGES).record(7, approximation(dense), None)
    X, labels = subject.features.inputs.astype(np.float64), subject.features.labels
    W, bias = subject.weight.astype(np.float64), subject.bias.astype(np.float64)
    corrected = bias + (W - dense) @ X[0::2].mean(axis=0)
    exact, found = X[1::2] @ W.T + bias, X[1::2] @ dense.T.astype(np.float64) + corrected
    lost = exact - found
    lost -= lost.mean(axis=1)[:, None]
    kept = exact - exact.mean(axis=1)[:, None]
    assert record.output_error == pytest.approx(np.linalg.norm(lost) / np.linalg.norm(kept), rel=1e-4)
    assert record.weight_error == pytest.approx(np.linalg.norm(W - dense) / np.linalg.norm(W), rel=1e-4)
    before, after = exact.argmax(axis=1) == labels[1::2], found.argmax(axis=1) == labels[1::2]
    assert record.accuracy.samples == IMAGES // 2
    assert record.accuracy.lost == np.sum(before & ~after) > 0
    assert record.accuracy.gained == np.sum(after & ~before)
    assert lost_points(record) == pytest.approx(100 * (before.mean() - after.mean()))


def test_an_error_of_the_mean_is_corrected(subject):
    # All images that calibrate have this mean; those that evaluate nearly.
    mean = subject.features.inputs[0::2].mean(axis=0)
    shift = 10 * np.outer(np.arange(CLASSES), mean / (mean @ mean)).astype(np.float32)
    same = replace(subject, features=replace(subject.features, inputs=np.tile(mean, (IMAGES, 1))))
    assert Evaluation(same, Split.IMAGES).record(7, approximation(subject.weight + shift), None).output_error < 1e-4


def test_int8_activations_count(subject):
    matrix = hm.quantize(subject.weight, "int8", activations="int8")
    exact = hm.quantize(subject.weight, "int8")
    evaluation = Evaluation(subject, Split.IMAGES)
    errors = [
        evaluation.record(7, Approximation(Contender.INT8, m.to_dense(), m.apply, 1, "", 0.0), None).output_error
        for m in (exact, matrix)
    ]
    assert errors[0] < errors[1] < 0.05


def test_split():
    labels = np.array([0, 0, 1, 1, 2, 3])
    assert Split.CLASSES.calibrates(labels).tolist() == [True, True, False, False, True, False]
    assert Split.IMAGES.calibrates(labels).tolist() == [True, False, True, False, True, False]


@pytest.mark.parametrize("labels", [np.zeros(IMAGES, int), np.ones(IMAGES, int)])
def test_a_split_with_one_side_only(subject, labels):
    one_sided = replace(subject, features=replace(subject.features, labels=labels))
    with pytest.raises(ArgumentError, match="split"):
        list(run_frontier(one_sided, Split.CLASSES, (0.5,)))


def test_without_images(subject):
    records = list(run_frontier(replace(subject, features=None), storages=(0.5,)))
    assert {record.output_error for record in records} == {record.accuracy for record in records} == {None}
    assert {record.contender for record in records}.isdisjoint(OWN[1:])
    assert all(error(record) == record.weight_error for record in records)
    assert "lost, points" not in frontier_table(records)
    assert len(frontier_figure(records).axes) == 1


def test_records_survive_json(records):
    for record in records:
        line = record.to_json()
        assert FrontierRecord.from_json(line) == record
        assert json.loads(line)["contender"] == record.contender.value


def test_table_has_a_row_for_each_record(records):
    lines = frontier_table(records).splitlines()
    assert len(lines) == 2 + len(records) + 2
    assert all(line.count("|") == lines[0].count("|") for line in lines[: 2 + len(records)])
    first = next(record for record in sorted(records, key=lambda record: record.budget))
    assert f"| {first.contender.value} | {first.nbytes:,} |" in lines[2]


def test_summary_has_a_cell_for_each_record(records):
    lines = [line.strip("| ").split(" | ") for line in frontier_summary(records).splitlines()]
    by_budget = sorted({record.budget for record in records})
    assert lines[0] == ["method", *(f"{100 * budget / records[0].dense_bytes:.1f} %" for budget in by_budget)]
    assert sum("/" in cell for line in lines[2:] for cell in line[1:]) == len(records)
    own = next(line for line in lines if line[0] == "allocator")
    first = min((r for r in records if r.contender is Contender.ALLOCATOR), key=lambda record: record.budget)
    assert own[1] == f"{lost_points(first):z.1f} / {first.output_error:.4f}"


def test_table_names_who_is_better(records):
    own = next(record for record in records if record.contender is Contender.ALLOCATOR)
    rival = replace(own, contender=Contender.BLAST, output_error=own.output_error / 2)
    assert better([own, rival]) == [(rival, own)]
    assert "BLAST at" in frontier_table([own, rival]).splitlines()[-1]
    assert better([own, replace(rival, output_error=own.output_error)]) == []
    assert frontier_table([own]).endswith("none.\n")


def test_figure_shows_the_records(records):
    left, right = frontier_figure(records).axes
    for axes, value in ((left, lost_points), (right, error)):
        (drawn,) = [line for line in axes.lines if line.get_label() == LOOKS[Contender.ALLOCATOR].label]
        own = {record.nbytes: record for record in records if record.contender is Contender.ALLOCATOR}
        expected = [(100 * nbytes / record.dense_bytes, value(record)) for nbytes, record in sorted(own.items())]
        assert drawn.get_xydata() == pytest.approx(np.array(expected))
    lower, upper = lost_interval(records[0])
    assert any(bar.get_segments()[0][:, 1] == pytest.approx([lower, upper]) for bar in left.collections)


@pytest.mark.parametrize("measured", [True, False])
def test_the_legend_stays_on_the_paper(records, measured):
    shown = list(Contender) if measured else [c for c in Contender if c not in OWN[1:]]
    made = [replace(records[0], contender=contender) for contender in shown]
    if not measured:
        made = [replace(record, accuracy=None, output_error=None) for record in made]
    figure = frontier_figure(made)
    with style():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    labels = [text for legend in figure.legends for text in legend.get_texts()]
    assert len(labels) == len(shown)
    for text in labels:
        assert text.get_window_extent(canvas.get_renderer()).x1 <= figure.bbox.x1, text


def test_every_contender_has_a_look_of_its_own():
    assert set(LOOKS) == set(Contender)
    assert len({(look.colour, look.marker, look.filled) for look in LOOKS.values()}) == len(Contender)


def test_files(records, tmp_path):
    write_frontier(records, tmp_path / "new", "frontier-net")
    names = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert names == [f"frontier-net.{ending}" for ending in ("jsonl", "md", "png", "svg")]
    lines = (tmp_path / "new" / "frontier-net.jsonl").read_text().splitlines()
    assert [FrontierRecord.from_json(line) for line in lines] == records


def test_a_folder_that_cannot_be_written(records, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="folder"):
        write_frontier(records, tmp_path / "file", "frontier-net")


def test_leaf_shares():
    weight = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    allocation = hm.allocate(weight, hm.Budget(storage=1.0))
    whole = replace(allocation, matrix=hm.quantize(weight, "int4"))
    assert leaf_shares(whole) == "int4 100 %"
    assert leaf_shares(replace(allocation, matrix=hm.global_svd(weight, hm.Truncation(max_rank=3)))) == (
        "rank in float32 100 %"
    )
    zero = hm.global_svd(np.zeros((8, 8), np.float32), hm.Truncation(max_rank=3))
    assert leaf_shares(replace(allocation, matrix=zero)) == "dropped 100 %"


def test_the_command(subject, tmp_path, monkeypatch, capsys):
    study = tmp_path / "study.toml"
    study.write_text('title = "x"\n[[network]]\nmodel = "digits"\n[data]\nsource = "digits"\n')
    monkeypatch.setattr(frontier, "load_subject", lambda *_: subject)
    assert frontier.main([str(study), "--storages", "0.5", "--output", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "frontier-net-head.md").read_text().startswith("| method |")
    assert frontier.main([str(tmp_path / "none.toml")]) == 1
    assert "none.toml" in capsys.readouterr().err
