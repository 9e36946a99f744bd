import doctest
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import hmatrix

HEAVY = {"torch", "matplotlib"}


def test_all_names_the_public_surface():
    public = {
        name for name, value in vars(hmatrix).items() if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert set(hmatrix.__all__) == public
    assert list(hmatrix.__all__) == sorted(hmatrix.__all__)


def test_every_public_name_is_documented():
    for name in hmatrix.__all__:
        assert getattr(hmatrix, name).__doc__, name
    assert all(getattr(hmatrix, name).__module__.startswith("hmatrix.") for name in hmatrix.__all__)


def test_error_messages_have_three_parts():
    error = hmatrix.HMatrixError("subject", "what came", "the mend")
    assert str(error) == "subject: what came; the mend"
    assert (error.subject, error.came, error.mend) == ("subject", "what came", "the mend")


def loaded(statements):
    """Which heavy packages a new interpreter has loaded after some statements."""
    script = f"import sys\n{statements}\nprint(*sorted({HEAVY!r} & set(sys.modules)))"
    return set(
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    )


def test_the_import_loads_neither_torch_nor_matplotlib():
    assert loaded("import hmatrix") == set()


@pytest.mark.parametrize("name", sorted(HEAVY))
def test_that_would_be_noticed(name):
    pytest.importorskip(name)
    assert name in loaded(f"import hmatrix, {name}")


def test_the_import_of_nn_loads_torch():
    pytest.importorskip("torch")
    assert "torch" in loaded("import hmatrix.nn")


def test_doctest():
    result = doctest.testmod(hmatrix)
    assert (result.failed, result.attempted) == (0, 6)


def test_no_public_name_hides_a_module():
    for package in (hmatrix, pytest.importorskip("hmatrix.nn")):
        modules = {path.stem for path in Path(package.__file__).parent.iterdir()}
        assert modules.isdisjoint(package.__all__)
