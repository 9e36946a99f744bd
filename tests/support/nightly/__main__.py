"""Run the numeric tests on other processors, versions and Pythons.

``make nightly`` runs all cases, ``make nightly CASES="processors python3.13-*"`` those of a group or of some names.
Each runs in an environment of its own below ``build/nightly``, which pip makes and which is removed after its last
case. The newest result of every case is kept there; ``table.md`` shows them all.

What this machine cannot run (a Python that it does not have, instructions that its processor lacks, a core type that
its OpenBLAS has no kernels for) is told with the reason. All else that is not green makes the run fail.
"""

import argparse
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from nightly.cases import BUILD, Case, Environment, all_cases, files
from nightly.environments import FailedError, ImpossibleError, make, remove, requirements, run
from nightly.probing import check_kernels
from nightly.results import Result, load, table


def main() -> int:
    """Run the chosen cases; return how many failed."""
    parser = argparse.ArgumentParser(prog="nightly", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("cases", nargs="*", help="groups, or patterns of names; all cases if none is given")
    parser.add_argument("--list", action="store_true", help="only list the cases")
    parser.add_argument(
        "--here", action="store_true", help="run them with this Python, unless their kernels are those of all tests"
    )
    parser.add_argument("--pytest", default="", metavar="OPTIONS", help="options of pytest, as one word")
    parser.add_argument("--keep", action="store_true", help="keep the environments")
    arguments = parser.parse_args()
    chosen = choose(arguments.cases)
    if arguments.list:
        print(*(f"{case.group:12}{case.name:22}{case.environment.name}" for case in chosen), sep="\n")
        return 0
    BUILD.mkdir(parents=True, exist_ok=True)
    failed = 0
    for case, following in zip(chosen, [*chosen[1:], None], strict=True):
        here = Path(sys.executable) if arguments.here else None
        result = run_case(case, here, shlex.split(arguments.pytest))
        failed += result.outcome == "failed"
        numbers = f"{result.passed} passed, {result.failed} failed, {result.skipped} skipped"
        print(f"{case.name}: {result.outcome}; {result.told or numbers}, {result.seconds:.0f} s", flush=True)
        if not here:
            result.save()
            kept = [found for each in all_cases() if (found := load(each.name))]
            (BUILD / "table.md").write_text(table(kept, packages()))
            if not arguments.keep and (following is None or following.environment != case.environment):
                remove(case.environment)
    return failed


def choose(patterns: Sequence[str]) -> list[Case]:
    """Return the cases of which the group or the name fits one of the patterns."""
    cases = all_cases()
    for pattern in patterns:
        if not any(fnmatch(word, pattern) for case in cases for word in (case.group, case.name)):
            raise SystemExit(f"CASES: no case or group is called {pattern}; --list lists them")
    return [
        case
        for case in cases
        if not patterns or any(fnmatch(word, pattern) for pattern in patterns for word in (case.group, case.name))
    ]


def run_case(case: Case, here: Path | None, options: Sequence[str]) -> Result:
    """Run one case, in the environment of the Python `here`, or in its own."""
    result = Result(case.name, "here" if here else case.environment.name, blas_threads=case.blas_threads)
    log, report = BUILD / f"{case.name}.log", BUILD / f"{case.name}.xml"
    log.unlink(missing_ok=True)
    report.unlink(missing_ok=True)
    try:
        if not here:
            make(case.environment)
        python = here or case.environment.executable
        result.versions = installed(python)
        found, usual = check_kernels(case, python)
        result.core_types, result.kernel = ", ".join(found["core_types"]), found["kernel"]
        if here and found == usual:
            raise ImpossibleError("other tests run these kernels: they are what runs if none is asked for")
        tests = files(core=not case.environment.optional)
        run(
            [python, "-m", "pytest", f"--junitxml={report}", *case.options, *options, *tests],
            log,
            "pytest",
            **case.variables,
        )
    except ImpossibleError as reason:
        result.outcome, result.told = "not run", str(reason)
    except FailedError as reason:
        result.outcome, result.told = "failed", str(reason)
    if report.exists():
        result.count(report)
    return result


def installed(python: Path) -> dict[str, str]:
    """Return the versions in an environment, by the names of distributions."""
    script = "import json, platform, importlib.metadata as m; print(json.dumps({'python': platform.python_version(), "
    script += "**{d.name.lower().replace('_', '-'): d.version for d in m.distributions()}}))"
    done = subprocess.run([python, "-c", script], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def packages() -> list[str]:
    """Return the names of what the table tells the versions of."""
    lines = requirements(Environment("", optional=True))
    return ["python", *(re.split("[><=]", line)[0] for line in lines)]


if __name__ == "__main__":
    sys.exit(min(main(), 1))
