import numpy as np
import pytest

from hmatrix.study.config.settings import Method, Network, Study, Timing
from hmatrix.study.data.classifiers import LastLayer
from hmatrix.study.data.features import Features
from hmatrix.study.figures.plots import draw_all
from hmatrix.study.figures.tables import table_note, table_rows
from hmatrix.study.measure.head_point import has_head
from hmatrix.study.measure.records import RecordFile
from hmatrix.study.measure.subject import Subject
from hmatrix.study.measure.sweep import sweep


@pytest.fixture
def subject():
    rng = np.random.default_rng(0)
    weight = (rng.standard_normal((90, 8)) @ rng.standard_normal((8, 40)) + 0.1 * rng.standard_normal((90, 40))) / 8
    weight = weight.astype(np.float32)
    inputs = rng.standard_normal((600, 40)).astype(np.float32)
    labels = np.argmax(inputs @ weight.T + 0.1 * rng.standard_normal((600, 90)), axis=1)
    return Subject(
        "invented", "fc", "digest", weight, np.zeros(90, np.float32), Features(inputs, labels, LastLayer(600, 90))
    )


def test_a_head_is_a_point_of_the_study(subject, tmp_path):
    study = Study(
        "small", (Network("invented"),), None, (Method.SVD,), (4,), timing=Timing(products=40), output=tmp_path
    )
    records = sweep(study, subject, RecordFile(tmp_path / "records.jsonl"))
    head = records[-1]
    assert head.method is Method.PROGRESSIVE
    assert head.rank > 0
    assert head.accuracy.samples == 600
    assert abs(head.accuracy.top1 - head.accuracy.baseline_top1) < 0.03
    assert 0 < head.relative_error < 1
    assert head.hmatrix_time.median > 0
    assert sweep(study, subject, RecordFile(tmp_path / "records.jsonl"))[-1] == head
    assert table_rows(records)[-1].method is Method.PROGRESSIVE
    assert "progressive: rank and error of its coarse part" in table_note(records)
    names = {path.name for path in draw_all(records, tmp_path, "x")}
    assert "x-fig5-tradeoff.svg" in names
    assert "progressive head" in (tmp_path / "x-fig5-tradeoff.svg").read_text()
    assert "progressive head" not in (tmp_path / "x-fig3-storage.svg").read_text()


def test_few_images_or_none_calibrate_no_head(subject):
    assert has_head(subject)
    few = Features(subject.features.inputs[:99], subject.features.labels[:99], LastLayer(99, 90))
    for features in (None, few):
        assert not has_head(Subject("a", "b", "c", subject.weight, subject.bias, features))
