import re

import numpy as np
import pytest

import hmatrix as hm
from studies.heads.head_rivals import faiss_rivals
from studies.heads.head_subjects import saved_subject, vocabulary
from studies.heads.progressive_bench import report


def test_a_report_has_a_line_for_each_call(capsys):
    subject = vocabulary(300, 32, samples=120)
    report(subject, [0.8, 0.9], rules=[hm.Margin()], ranks=[16], top=3)
    printed = capsys.readouterr().out
    assert "vocabulary: 300 x 32, 60 inputs" in printed
    for name in ("Margin 0.8", "Margin 0.8, topk", "Margin 0.8, module", "Margin 0.9", "Margin 0.9, topk"):
        assert re.search(rf"\| {name} \| 16 int[48], 0, ", printed)


def test_heads_with_an_h_matrix_stand_beside_the_others(capsys):
    subject = vocabulary(300, 32, samples=240)
    report(subject, [0.8], rules=[hm.Margin()], ranks=[16], coarse=0.2)
    printed = capsys.readouterr().out
    assert "| Margin 0.8 | 16 int" in printed
    for name in ("Margin 0.8, H-matrix of 20.0%", "Margin 0.8, H-matrix of 20.0%, topk"):
        assert f"| {name} | " in printed
    assert " leaves, 0, " in printed
    assert "| H-matrix of 20.0% alone | | | " in printed


def test_a_saved_subject_calibrates_on_even_classes(tmp_path):
    X = np.arange(12.0).reshape(6, 2)
    labels = np.array([0, 0, 1, 1, 2, 3])
    np.savez(tmp_path / "some.npz", X=X, labels=labels, weight=np.eye(2), bias=np.zeros(2))
    subject = saved_subject(tmp_path / "some.npz")
    np.testing.assert_array_equal(subject.calibration, X[labels % 2 == 0])
    np.testing.assert_array_equal(subject.inputs, X[labels % 2 == 1])
    assert subject.labels.tolist() == [1, 1, 3]


def test_rivals_find_the_largest():
    pytest.importorskip("faiss")
    subject = vocabulary(2000, 32, samples=40)
    truth = (subject.inputs @ subject.weight.T).argmax(axis=1)
    found = faiss_rivals(subject)
    np.testing.assert_array_equal(found["faiss flat"](subject.inputs), truth)
    assert len(found) == 5
    for name, search in found.items():
        assert np.mean(search(subject.inputs) == truth) > 0.8, name
