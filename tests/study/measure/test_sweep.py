"""The study from end to end on a lone matrix and on an invented network."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import hmatrix as hm
from hmatrix._support.locks import locked
from hmatrix.errors import OutputError
from hmatrix.study.config.settings import Method, Network, Structure, Study, Timing
from hmatrix.study.data.features import Features, LastLayer
from hmatrix.study.measure.records import RecordFile
from hmatrix.study.measure.subject import Subject
from hmatrix.study.measure.sweep import affordable_rank, approximate, points, sweep
from hmatrix.study.run import run_study


@pytest.fixture
def study(tmp_path) -> Study:
    rng = np.random.default_rng(0)
    # A spectrum that decays, so that ranks differ.
    weight = (rng.standard_normal((60, 80)) / np.arange(1, 81)).astype(np.float32)
    save_file({"fc.weight": weight}, tmp_path / "head.safetensors")
    return Study(
        title="small",
        networks=(Network(None, weights=tmp_path / "head.safetensors"),),
        data=None,
        methods=(Method.SVD, Method.QR),
        ranks=(1, 3),
        structure=Structure(leaf_size=10),
        timing=Timing(products=2),
        output=tmp_path / "out",
    )


@pytest.fixture
def subject() -> Subject:
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((40, 50)).astype(np.float32)
    inputs = rng.standard_normal((200, 50)).astype(np.float32)
    bias = rng.standard_normal(40).astype(np.float32)
    labels = np.argmax(inputs @ weight.T + bias, axis=1)
    labels[:20] = (labels[:20] + 1) % 40  # a baseline of 90 %
    return Subject("invented", "fc", "digest", weight, bias, Features(inputs, labels, LastLayer(200, 40)))


def rows(study: Study) -> list[dict]:
    return [json.loads(line) for line in (study.output / "records.jsonl").read_text().splitlines()]


def test_every_point_has_its_record_with_evidence(study, tmp_path):
    (records,) = run_study(study, tmp_path / "cache")
    asked = [(record.method, record.rank) for record in records]
    assert asked == [(point.method, point.rank) for point in points(study)]
    assert len(set(asked)) == 7
    for record, row in zip(records, rows(study), strict=True):
        assert record.key == row["key"]
        assert (record.rows, record.columns) == (60, 80)
        assert record.environment["kernel"] == hm.backend().name
        assert record.accuracy is None
        assert sum((leaf[1] - leaf[0]) * (leaf[3] - leaf[2]) for leaf in record.leaves) == 4800
        assert record.storage.uncompressed == 4 * 4800
    dense = records[0]
    assert (dense.relative_error, dense.hmatrix_time) == (0.0, None)
    assert {time.contender for time in dense.times} == {"torch", "numpy", "native"}
    for record in records[1:]:
        assert record.hmatrix_time is not None


def test_figures_and_tables_are_written(study, tmp_path):
    list(run_study(study, tmp_path / "cache"))
    names = {path.name for path in study.output.iterdir()}
    stem = "head-fc"
    for figure in ("fig1-structure", "fig2-time", "fig3-storage", "fig4-error", "fig5-tradeoff"):
        assert {f"{stem}-{figure}.png", f"{stem}-{figure}.svg"} <= names
    assert {f"{stem}-table.md", f"{stem}-table.csv", "records.jsonl"} <= names


def test_errors_and_storage_are_those_of_the_matrix(study, tmp_path):
    (records,) = run_study(study, tmp_path / "cache")
    original = load_file(study.networks[0].weights)["fc.weight"]
    by_point = {(record.method, record.rank): record for record in records}
    for method in (Method.SVD, Method.QR):
        for rank in (1, 3):
            matrix = approximate(original, study.structure, method, rank)
            difference = np.linalg.norm(original.astype(float) - matrix.to_dense()) / np.linalg.norm(original)
            assert by_point[method, rank].relative_error == pytest.approx(difference, rel=1e-6)
            assert by_point[method, rank].storage.total == matrix.storage().total
    for rank in (1, 3):
        svd, single = by_point[Method.SVD, rank], by_point[Method.GLOBAL_SVD, rank]
        assert single.storage.total <= svd.storage.total < single.storage.total + 4 * (60 + 80)
        assert len(single.leaves) == 1


def test_a_finished_study_is_not_measured_again(study, tmp_path):
    list(run_study(study, tmp_path / "cache"))
    before = (study.output / "records.jsonl").read_bytes()
    list(run_study(study, tmp_path / "cache"))
    assert (study.output / "records.jsonl").read_bytes() == before
    list(run_study(replace(study, ranks=(1, 3, 5)), tmp_path / "cache"))
    after = (study.output / "records.jsonl").read_bytes()
    assert after.startswith(before)
    assert after.count(b"\n") == before.count(b"\n") + 3


def test_other_settings_are_measured_anew(study, subject, tmp_path):
    file = RecordFile(tmp_path / "records.jsonl")
    first = sweep(study, subject, file)
    other = sweep(replace(study, structure=Structure(leaf_size=5)), subject, file)
    assert {record.key for record in first}.isdisjoint(record.key for record in other)
    again = sweep(study, replace(subject, digest="other weights"), file)
    assert {record.key for record in first}.isdisjoint(record.key for record in again)


def test_accuracy_is_that_of_the_dense_matrix(study, subject, tmp_path):
    records = sweep(study, subject, RecordFile(tmp_path / "records.jsonl"))
    features = subject.features
    assert records[0].accuracy.baseline_correct == records[0].accuracy.correct == 180
    assert records[-1].method is Method.PROGRESSIVE
    for record in records[1:-1]:
        if record.method is Method.GLOBAL_SVD:
            own_rank = affordable_rank(subject.weight, study.structure, record.rank)
            matrix = hm.global_svd(subject.weight, hm.Truncation(max_rank=own_rank)).to_dense()
        else:
            matrix = approximate(subject.weight, study.structure, record.method, record.rank).to_dense()
        outputs = features.inputs.astype(float) @ matrix.T.astype(float) + subject.bias
        right = outputs.argmax(axis=1) == features.labels
        baseline = np.arange(200) >= 20
        accuracy = record.accuracy
        assert (accuracy.samples, accuracy.correct) == (200, right.sum())
        assert (accuracy.lost, accuracy.gained) == ((baseline & ~right).sum(), (right & ~baseline).sum())


def test_an_output_folder_that_cannot_be_written(study, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be made"):
        list(run_study(replace(study, output=tmp_path / "file" / "out"), tmp_path / "cache"))


def test_a_second_run_waits_says_so_and_measures_nothing_twice(study, tmp_path, capsys):
    list(run_study(replace(study, ranks=(1,)), tmp_path / "cache"))
    path, told, found = study.output / "records.jsonl", threading.Event(), []
    with locked(path, lambda: None):
        other = threading.Thread(target=lambda: found.extend(run_study(study, tmp_path / "cache")))
        other.start()
        while other.is_alive() and not told.is_set():
            if f"another run writes {path}: this one waits" in capsys.readouterr().err:
                told.set()
            time.sleep(0.01)
        # What the first run measures meanwhile is found by the second.
        before = len(rows(study))
        file = RecordFile(path)
        file.append(replace(file[rows(study)[0]["key"]], key="of the first run"))
    other.join(60)
    assert told.is_set()
    keys = [row["key"] for row in rows(study)]
    assert keys[before] == "of the first run"
    assert len(set(keys)) == len(keys) == before + 1 + 3
    assert len(found) == 1


@pytest.mark.nightly
def test_four_runs_at_once_end_well(study, tmp_path):
    command = [sys.executable, "-m", "hmatrix.cli", "study", str(study.networks[0].weights), "--ranks", "1,2,3,4"]
    command += ["--leaf-size", "10", "--methods", "svd,qr", "--output", str(study.output), "--cache", str(tmp_path)]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    ends = [(*run.communicate(), run.returncode) for run in runs]
    assert [code for *_, code in ends] == [0] * 4
    assert len({out for out, *_ in ends}) == 1
    assert any("this one waits" in err for _, err, _ in ends)
    keys = [row["key"] for row in rows(study)]
    assert len(keys) == len(set(keys)) == 13
    assert not [path for path in study.output.iterdir() if path.name.startswith(".")]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_study_goes_on_where_it_stopped(study, tmp_path, blow):
    records = study.output / "records.jsonl"
    command = [sys.executable, "-m", "hmatrix.cli", "study", str(study.networks[0].weights), "--ranks", "1,2,3,4"]
    command += ["--leaf-size", "10", "--methods", "svd,qr", "--output", str(study.output), "--cache", str(tmp_path)]
    slow = subprocess.Popen(
        [*command, "--products", "20000"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # Jobs that a shell runs in the background ignore it, and so do their children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not records.exists() or records.read_bytes().count(b"\n") < 3:
        assert slow.poll() is None
        time.sleep(0.02)
    slow.send_signal(blow)
    assert slow.wait(20) == (130 if blow == signal.SIGINT else -signal.SIGKILL)
    # A line that was cut short is what a crash of the machine may leave behind.
    finished = records.read_bytes().count(b"\n")
    kept = records.read_bytes()[: records.read_bytes().rfind(b"\n") + 1]
    with records.open("ab") as file:
        file.write(b'{"key": "cut sh')
    subprocess.run([*command, "--products", "20000"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert finished < 13
    assert records.read_bytes().startswith(kept)
    assert records.read_bytes().count(b"\n") == 1 + 3 * 4
    assert len({row["key"] for row in rows(study)}) == 13


def test_the_module_runs_as_a_command(tmp_path):
    # What runpy has to say of a module that is imported twice is a RuntimeWarning.
    environment = {**os.environ, "PYTHONWARNINGS": "error::RuntimeWarning"}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "hmatrix.cli",
            "study",
            str(tmp_path / "none.safetensors"),
            "--output",
            str(tmp_path / "o"),
        ],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 1
    assert "none.safetensors" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("tensor", ["../../outside/f\nc.weight", "fc.weight"])
def test_names_of_tensors_and_files_lead_to_files_of_their_own_in_the_folder(tensor, study, tmp_path):
    paths = [tmp_path / "a/head.safetensors", tmp_path / "b/HEAD.safetensors"]
    for number, path in enumerate(paths, start=1):
        path.parent.mkdir()
        save_file({tensor: np.eye(9 * number, dtype=np.float32)}, path)
    before = set(tmp_path.rglob("*"))
    networks = tuple(Network(None, weights=path) for path in paths)
    timing = Timing(products=1)
    list(run_study(replace(study, networks=networks, methods=(), ranks=(1,), timing=timing), tmp_path / "cache"))
    written = set(tmp_path.rglob("*")) - before - {study.output}
    assert {path.parent for path in written} == {study.output}
    assert all(path.is_file() for path in written)
    # A system may take capitals for small letters.
    assert len({path.name.casefold() for path in study.output.glob("*-table.csv")}) == 2
