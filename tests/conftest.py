import os
from collections import Counter

# Before NumPy and torch are imported: their threads would wait busily for each other on small blocks, and there may be
# a test on every core.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import modelled
import pytest
from hmatrices import TYPES, make
from hypothesis import settings

from hmatrix.allocation.search import bounds
from hmatrix.packed import kernels

settings.register_profile("default", deadline=None)
settings.load_profile("default")


def pytest_collection_modifyitems(items):
    # Each file runs on one core: what takes long begins first, so that nothing is waited for at the end.
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    sizes = Counter(item.path for item in items)
    items.sort(key=lambda item: (item.path not in slow, -sizes[item.path], str(item.path)))


@pytest.fixture
def threads():
    """Sets the number of threads; puts it back at the end."""
    before = kernels.backend().threads
    yield kernels.set_num_threads
    kernels.set_num_threads(before)


@pytest.fixture(scope="session")
def reference():
    """A small network of torchvision's, with weights that no constructor gives."""
    import torchvision
    from networks import MODEL, randomised

    return randomised(torchvision.models.get_model(MODEL, weights=None))


@pytest.fixture(scope="session")
def weights(reference, tmp_path_factory):
    """A file of its weights."""
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    save_file(reference.state_dict(), path)
    return path


@pytest.fixture
def quiet():
    """Warnings of transformers about weights that are not in a file would be failures: tests look at such weights."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


@pytest.fixture
def tied():
    """A network of which two layers share a weight."""
    from compressible import tied_network

    return tied_network()


@pytest.fixture
def tokens():
    """Its calibration data."""
    from compressible import token_batches

    return token_batches()


@pytest.fixture(params=[kernels.backend().available[0], kernels.REFERENCE])
def any_kernel(request, monkeypatch):
    """Let the best native kernel run, and the reference."""
    monkeypatch.setattr(kernels, "_name", lambda: request.param)


@pytest.fixture(params=TYPES, ids=["float32", "float64"])
def both(request):
    """A random H-matrix, and its array in float64."""
    return make(request.param)


@pytest.fixture
def timed(monkeypatch):
    """Let budgets of time go by the model of `modelled`."""
    monkeypatch.setattr(bounds, "time_cost", lambda activations: modelled.COST)  # noqa: ARG005
    monkeypatch.setattr(bounds, "dense_seconds", modelled.dense_seconds)
