"""What the cases gave: one JSON file for each, and all of them as a table."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from xml.etree import ElementTree

from nightly.cases import BUILD

HEADER = "| case | environment | BLAS kernels | BLAS threads | kernel | passed | failed | skipped | seconds | date |"


@dataclass
class Result:
    """The newest run of a case; `told` says what failed besides the tests, or why the case was not run."""

    case: str
    environment: str
    outcome: str = "passed"
    told: str = ""
    core_types: str = ""
    blas_threads: int = 0
    kernel: str = ""
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)
    date: str = field(default_factory=lambda: date.today().isoformat())

    def count(self, report: Path) -> None:
        """Take the numbers of tests from pytest's report."""
        suite = next(ElementTree.parse(report).iter("testsuite"))
        tests, failures, errors, self.skipped = (
            int(suite.attrib[key]) for key in ("tests", "failures", "errors", "skipped")
        )
        self.failed = failures + errors
        self.passed = tests - self.failed - self.skipped
        self.seconds = float(suite.attrib["time"])

    def save(self) -> None:
        """Write the JSON file."""
        path = BUILD / f"{self.case}.json"
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")


def load(case: str) -> Result | None:
    """Return the newest result of a case, if it ever ran."""
    path = BUILD / f"{case}.json"
    return Result(**json.loads(path.read_text())) if path.exists() else None


def table(results: Sequence[Result], packages: Sequence[str]) -> str:
    """Return the results as Markdown, and below them the versions of `packages` that each environment had."""
    rows = [[*_cells(result), result.date] for result in results]
    lines = [HEADER, "| --- | --- | --- | --: | --- | --: | --: | --: | --: | --- |", *map(_line, rows), ""]
    environments = {result.environment: result.versions for result in results if result.versions}
    lines += [_line(["", *environments]), _line(["---"] * (1 + len(environments)))]
    for package in packages:
        versions = [installed.get(package, "") for installed in environments.values()]
        lines += [_line([package, *versions])] if any(versions) else []
    return "\n".join(lines) + "\n"


def _cells(result: Result) -> list[object]:
    first = [result.case, result.environment]
    if result.outcome == "not run":
        return [*first, result.told, "", "", "", "", "", ""]
    failed = result.failed or (result.told if result.outcome == "failed" else 0)
    counts = [result.passed, failed, result.skipped, round(result.seconds)]
    return [*first, result.core_types, result.blas_threads, result.kernel, *counts]


def _line(cells: Sequence[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"
