"""The driver of `make nightly`: what it chooses, and that it neither hides a failure nor mistakes a kernel."""

import json
import sys
from pathlib import Path

import pytest
from nightly import cases, environments, probing
from nightly.__main__ import choose, run_case
from nightly.cases import Case, Environment
from nightly.environments import FailedError, ImpossibleError
from nightly.results import Result, table

CORE = Environment("3.11")


def test_files_of_the_core_import_nothing_optional_even_through_a_helper(tmp_path, monkeypatch):
    monkeypatch.setattr(cases, "TESTS", tmp_path)
    monkeypatch.setattr(cases, "ROOT", tmp_path)
    (tmp_path / "sub").mkdir()
    for name, text in {
        "helper.py": "import torch",
        "pure.py": "import numpy",
        "test_core.py": "from hmatrix import nnls\nfrom hmatrix.io import load\nfrom pure import x",
        "test_helped.py": "from helper import x",
        "test_inside.py": "def test():\n    import torch.nn",
        "test_skipped.py": "import pytest\ntorch = pytest.importorskip('torch')",
        "sub/test_member.py": "from hmatrix import nn",
    }.items():
        (tmp_path / name).write_text(text)
    assert cases.files(core=True) == ["test_core.py"]
    assert len(cases.files(core=False)) == 4


def test_every_lower_bound_is_pinned_in_the_oldest_environment():
    loose = environments.requirements(Environment("3.11", optional=True))
    pinned = environments.requirements(Environment("3.11", oldest=True, optional=True))
    bounds = [line for line in loose if ">=" in line]
    assert {line.replace(">=", "==") for line in bounds} <= set(pinned)
    assert not any(">" in line or "[" in line for line in pinned)
    core = environments.requirements(CORE)
    assert {"numpy", "pytest"} <= {line.split(">=")[0] for line in core} < {line.split(">=")[0] for line in loose}


def test_cases_are_chosen_by_group_or_name_and_a_wrong_one_is_refused():
    assert {case.group for case in choose(["oldest", "python3.1[23]-core"])} == {"oldest", "pythons"}
    assert len(choose([])) == len(cases.all_cases())
    with pytest.raises(SystemExit, match="oldst"):
        choose(["oldst"])


def test_a_kernel_that_this_processor_lacks_is_named():
    with pytest.raises(ImpossibleError, match="no sse9 here: hmatrix can run"):
        probing.check_kernels(Case("", "", CORE, kernel="sse9"), Path(sys.executable))


def test_another_blas_kernel_than_the_wanted_one_is_named(monkeypatch):
    found = {"core_types": ["Haswell"], "blas": ["0.3.30"], "threads": [1], "kernel": "avx2", "available": ["avx2"]}
    monkeypatch.setattr(probing, "_probe", lambda python, variables: found)  # noqa: ARG005
    with pytest.raises(ImpossibleError, match="runs Haswell instead"):
        probing.check_kernels(Case("", "", CORE, core_type="Zen"), Path())
    assert probing.check_kernels(Case("", "", CORE, core_type="Haswell"), Path()) == (found, found)
    with pytest.raises(FailedError, match="threads"):
        probing.check_kernels(Case("", "", CORE, blas_threads=2), Path())


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("def test(): pass", "passed"),
        ("def test(): assert False", "failed"),
        ("import absent", "failed"),
        ("", "failed"),
    ],
    ids=["passes", "fails", "does not import", "holds no test"],
)
def test_only_a_run_that_passes_is_told_as_passed(text, outcome, tmp_path, monkeypatch):
    (tmp_path / "test_it.py").write_text(text)
    monkeypatch.setattr("nightly.__main__.BUILD", tmp_path)
    monkeypatch.setattr(environments, "ROOT", tmp_path)
    monkeypatch.setattr("nightly.__main__.files", lambda core: ["test_it.py"])  # noqa: ARG005
    result = run_case(Case("case", "", CORE, kernel="numpy"), Path(sys.executable), [])
    assert result.outcome == outcome, result.told


def test_the_table_names_what_failed_and_what_cannot_run():
    results = [
        Result("a", "old", passed=3, failed=1, outcome="failed", versions={"numpy": "1.26"}),
        Result("b", "old", outcome="not run", told="no such Python"),
        Result("c", "new", outcome="failed", told="pip install ended with 1", versions={"numpy": "2.4"}),
    ]
    lines = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in table(results, ["numpy", "torch"]).splitlines()
    ]
    assert [line[6] for line in lines[2:5]] == ["1", "", "pip install ended with 1"]
    assert lines[3][2] == "no such Python"
    assert lines[-1] == ["numpy", "1.26", "2.4"]


def test_results_come_back_from_their_files(tmp_path, monkeypatch):
    monkeypatch.setattr("nightly.results.BUILD", tmp_path)
    from nightly.results import load

    result = Result("case", "env", passed=2)
    result.save()
    assert json.loads((tmp_path / "case.json").read_text())["passed"] == 2
    assert load("case") == result
    assert load("other") is None
