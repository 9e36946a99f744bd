import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from threadpoolctl import threadpool_info

import hmatrix as hm
from hmatrix._support.machine import blas_threads, cpu_name, threads
from hmatrix.errors import ArgumentError


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nmodel name\t: Other\n", "Some CPU @ 2 GHz"),
        ("BogoMIPS\t: 100\n", "an architecture"),
        (None, "an architecture"),
    ],
)
def test_a_processor_has_the_name_that_it_gives_itself_or_its_architecture(monkeypatch, text, name):
    def read(path, **_):
        if text is None:
            raise FileNotFoundError(path)
        return text

    monkeypatch.setattr(Path, "read_text", read)
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "an architecture")
    assert cpu_name() == name


def test_threads_are_set_everywhere_and_put_back():
    before = torch.get_num_threads(), hm.backend().threads
    with threads(1):
        assert (torch.get_num_threads(), hm.backend().threads) == (1, 1)
        assert {library["num_threads"] for library in threadpool_info()} == {1}
    assert (torch.get_num_threads(), hm.backend().threads) == before


def test_threads_must_be_positive():
    with pytest.raises(ArgumentError, match="threads"), threads(0):
        pass


def test_torch_is_not_loaded_for_its_threads():
    script = (
        "import sys, hmatrix as hm\n"
        "from hmatrix._support.machine import threads\n"
        "hm.set_num_threads(3)\n"
        "with threads(1): print(hm.backend().threads)\n"
        "print(hm.backend().threads, 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n3 False\n"


def test_threads_of_linear_algebra_are_set_alone():
    before = hm.backend().threads, torch.get_num_threads()
    with blas_threads(1):
        assert {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"} == {1}
        assert (hm.backend().threads, torch.get_num_threads()) == before
