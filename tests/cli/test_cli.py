import importlib
import os
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

import hmatrix
from hmatrix.cli import main
from hmatrix.cli.study import EXAMPLES


def test_version(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"hmatrix {hmatrix.__version__}\n"


@pytest.mark.parametrize("module", ["hmatrix", "hmatrix.cli"])
def test_the_module_is_the_command(module):
    found = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (0, f"hmatrix {hmatrix.__version__}\n"), found.stderr
    found = subprocess.run([sys.executable, "-m", module, "show", "none"], capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert found.stderr.startswith("hmatrix: FormatError: file none")


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["study", "--help"])
    assert EXAMPLES in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "value"),
    [("--ranks", "0"), ("--ranks", "1,-2"), ("--ranks", "a"), ("--leaf-size", "0"), ("--threads", "0"), ("--eta", "x")],
)
def test_bad_values_name_the_option(capsys, option, value):
    with pytest.raises(SystemExit, match="2"):
        main(["study", option, value])
    assert option in capsys.readouterr().err


def test_errors_are_one_line(capsys):
    assert main(["study", "--eta", "-1"]) == 1
    assert capsys.readouterr().err.startswith("hmatrix: ArgumentError: eta: got -1.0; ")


def test_a_lone_matrix_is_studied(tmp_path, capsys):
    weight = np.random.default_rng(0).standard_normal((50, 40)).astype(np.float32)
    save_file({"fc.weight": weight}, tmp_path / "head.safetensors")
    command = ["study", str(tmp_path / "head.safetensors"), "--ranks", "2", "--methods", "svd", "--products", "3"]
    assert main([*command, "--leaf-size", "9", "--output", str(tmp_path / "out"), "--cache", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert f"kernel {hmatrix.backend().name}, 1 thread(s)" in printed
    assert "no data: accuracy is not measured" in printed
    assert "global-svd" in printed


@pytest.mark.parametrize(
    ("arguments", "again"),
    [
        (["study"], "goes on from here"),
        (["compress", "digits", "-o", "x"], "goes on after the layers that are done"),
        (["finetune", "x", "-o", "y"], "begins anew"),
        (["evaluate", "x"], "begins anew"),
        (["bench"], "begins anew"),
        (["cache"], "begins anew"),
    ],
)
def test_an_interruption_says_what_the_same_command_does(monkeypatch, capsys, arguments, again):
    def interrupted(_):
        raise KeyboardInterrupt

    command = importlib.import_module(f"hmatrix.cli.{arguments[0]}")
    monkeypatch.setattr(command, "run", interrupted)
    assert main(arguments) == 130
    assert capsys.readouterr().err == f"\nhmatrix: interrupted; given again, the command {again}\n"


def test_a_missing_extra_is_told(tmp_path):
    code = "import sys; sys.modules['timm'] = None; from hmatrix.cli import main; sys.exit(main(['study']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert "timm is not installed; install it with: pip install 'hmatrix[study]'" in done.stderr


def test_a_kernel_that_is_not_there_is_one_line(tmp_path):
    code = "import sys; from hmatrix.cli import main; sys.exit(main(['bench', '4x4', '--products', '1']))"
    environment = {**os.environ, "HMATRIX_KERNEL": "sse9"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path, env=environment
    )
    assert done.returncode == 1
    assert done.stderr.startswith("hmatrix: BackendError: HMATRIX_KERNEL=sse9: is not available here; ")
