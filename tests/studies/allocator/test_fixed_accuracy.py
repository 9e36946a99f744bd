import numpy as np
import pytest
from safetensors.numpy import save_file

from hmatrix.errors import ArgumentError
from hmatrix.partitions.coordinates import Points
from studies.allocator import fixed_accuracy
from studies.allocator.fixed_accuracy import AtAccuracy, at_accuracy, inverse_distance, markdown_lines, search, sphere


def test_points_lie_evenly_on_the_sphere():
    points = sphere(500)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1)
    np.testing.assert_allclose(points.mean(axis=0), 0, atol=5e-3)
    distances = np.linalg.norm(points[:, None] - points, axis=2) + 9 * np.eye(500)
    # An even spread of 500 points has each of its neighbours about sqrt(4 pi / 500) away.
    assert distances.min() > 0.5 * np.sqrt(4 * np.pi / 500)


def test_the_kernel_entry_by_entry():
    points = sphere(9)
    expected = [[0 if i == j else 1 / np.linalg.norm(points[i] - points[j]) for j in range(9)] for i in range(9)]
    np.testing.assert_allclose(inverse_distance(points), expected, rtol=1e-6)


def test_every_method_reaches_the_accuracy():
    points = sphere(400)
    rows = list(at_accuracy(inverse_distance(points), Points(points), 1e-2))
    methods = ["SVD blocks", "SVD blocks", "uniform H-matrix", "allocator"]
    assert [row.method.split(",")[0] for row in rows] == methods
    assert all(row.error <= 1e-2 for row in rows)
    assert rows[1].nbytes <= rows[0].nbytes
    assert rows[3].nbytes < min(rows[1].nbytes, rows[2].nbytes)


def test_search_finds_the_largest_tolerance():
    tried = []

    def make(tolerance):
        tried.append(tolerance)
        return tolerance

    # The error is a third of what is asked for, so three times the accuracy may be asked for.
    assert search(make, lambda found: found / 3, 0.1, start=0.1) == pytest.approx(0.3, rel=1e-2)
    assert len(tried) == fixed_accuracy._STEPS
    # And the other way round.
    assert search(make, lambda found: 5 * found, 0.1, start=0.1) == pytest.approx(0.02, rel=1e-2)


def test_search_returns_nothing_that_misses():
    assert search(lambda tolerance: tolerance, lambda _: 1.0, 0.1, start=0.1) is None


def test_an_accuracy_of_zero():
    with pytest.raises(ArgumentError, match="accuracy"):
        list(at_accuracy(np.ones((4, 4), np.float32), None, 0.0))


def test_the_command(capsys):
    assert fixed_accuracy.main(["--points", "200", "--accuracy", "0.05"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| method |")
    assert len(lines) == 6


@pytest.fixture
def shuffled():
    """Return groups of rows and columns that permutations have hidden, (256, 320)."""
    rng = np.random.default_rng(0)
    A = np.zeros((256, 320), np.float32)
    for k in range(4):
        part = (slice(64 * k, 64 * k + 64), slice(80 * k, 80 * k + 80))
        A[part] = rng.standard_normal((64, 2)) @ rng.standard_normal((2, 80))
    return A[rng.permutation(256)][:, rng.permutation(320)]


@pytest.mark.slow
def test_without_geometry_the_allocator_finds_an_order(shuffled):
    rows = list(at_accuracy(shuffled, None, 0.05))
    assert all(row.error <= 0.05 for row in rows)
    assert rows[-1].nbytes < 0.2 * min(row.nbytes for row in rows[:-1])


@pytest.mark.slow
def test_the_layer_of_a_study(shuffled, tmp_path, capsys):
    save_file({"weight": shuffled}, tmp_path / "weight.safetensors")
    study = tmp_path / "study.toml"
    study.write_text(f"[[network]]\nweights = '{tmp_path / 'weight.safetensors'}'\n")
    assert fixed_accuracy.main([str(study), "--accuracy", "0.5"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 6
    (tmp_path / "weight.safetensors").unlink()
    assert fixed_accuracy.main([str(study)]) == 1
    assert "weight.safetensors" in capsys.readouterr().err


def test_table_does_not_wait_for_its_end():
    def rows():
        yield AtAccuracy("svd", 1_000, 4_000, 1e-3, "form", 2.0)
        raise RuntimeError

    lines = markdown_lines(rows())
    assert [next(lines) for _ in range(3)][2] == "| svd | 1,000 | 25.00 | 1.00e-03 | form | 2 |"
    with pytest.raises(RuntimeError):
        next(lines)
