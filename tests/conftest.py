import os

# Before NumPy and torch are imported: their threads would wait busily for each other on small blocks, and there may be
# a test on every core.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hmatrices import TYPES, make
from hypothesis import settings

from hmatrix import kernels

settings.register_profile("default", deadline=None)
settings.load_profile("default")


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
