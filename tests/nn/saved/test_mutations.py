"""Damaged files of networks and folders of transformers: refused in words, or read as what they held."""

import json

import numpy as np
import pytest
import torch
from marks import nightly
from mutations import check_mutations, edited
from torch import nn

import hmatrix as hm
import hmatrix.nn as hnn
from hmatrix._support.digests import DIGESTS
from hmatrix.errors import HMatrixError


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(20, 12), nn.Linear(12, 16), nn.BatchNorm1d(16), nn.Linear(16, 10)).eval()


def written(path):
    model = network()
    rng = np.random.default_rng(0)
    for place, m, n in ((0, 20, 12), (1, 16, 12)):
        H = hm.quantize(rng.standard_normal((m, n)).astype(np.float32), "int4")
        model[place] = hnn.HEmbedding(H) if place == 0 else hnn.HLinear(H, torch.ones(m))
    weight = rng.standard_normal((10, 16)).astype(np.float32)
    head = hm.progressive(weight, rule=hm.Rigorous(), ranks=[4], precisions=["int8"])
    model[3] = hnn.ProgressiveLinear(head)
    hnn.save(model, path, {"model": "small", "sizes": [1, 2]})


def read(path, *, verify):
    return hnn.load(path, network(), verify=verify)


def arrays_of(model):
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def use(model):
    with torch.inference_mode():
        model(torch.arange(4))


@pytest.mark.parametrize("count", [300, nightly(50_000)])
def test_networks(tmp_path, count):
    written(tmp_path / "network")
    rng = np.random.default_rng(0)
    refused = check_mutations(rng, tmp_path / "network", read, count, arrays_of=arrays_of, use=use)
    assert refused > count / 2


def read_matrix(path, *, verify):
    return hnn.load_matrix(path, "1", verify=verify)


def test_matrices_of_networks(tmp_path):
    written(tmp_path / "network")
    check_mutations(
        np.random.default_rng(1),
        tmp_path / "network",
        read_matrix,
        800,
        arrays_of=lambda H: H.pack().arrays(),
        use=lambda H: H @ np.ones(H.shape[1]),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    from hmatrix.nn.huggingface import carry

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = transformers.BertModel(transformers.BertConfig(vocab_size=20, max_position_embeddings=8, **sizes))
    rng = np.random.default_rng(0)
    for block, name in ((model.pooler, "dense"), (model.encoder.layer[0].output, "dense")):
        matrix = hm.quantize(rng.standard_normal((8, 8)).astype(np.float32), "int8")
        setattr(block, name, hnn.HLinear(matrix, torch.zeros(8)))
    carry(model)
    path = tmp_path_factory.mktemp("folder")
    model.save_pretrained(path)
    return path


def read_folder(path, *, verify):  # noqa: ARG001
    """Read a folder, always with its digests: what fits no network is transformers' to refuse, in its own words."""
    import transformers

    return transformers.BertModel.from_pretrained(path.parent)


@pytest.mark.parametrize("count", [40, nightly(5_000)])
def test_folders(folder, count):
    def use_model(model):
        model(input_ids=torch.arange(8)[None])

    path = folder / "model.safetensors"
    check_mutations(np.random.default_rng(2), path, read_folder, count, arrays_of=arrays_of, use=use_model)


@pytest.mark.parametrize("version", [1, 2])
def test_configurations(folder, version):
    from hmatrix.nn.saved.huggingface_config import HMatrixConfig

    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    if version == 1:
        config = {name: value for name, value in config.items() if name not in DIGESTS} | {"version": 1}
    rng = np.random.default_rng(version)
    refused = 0
    for number in range(2000):
        changed = edited(rng, config)
        try:
            found = HMatrixConfig.from_dict(changed)
            for name in found.blueprints():
                found.placeholder(name)
        except HMatrixError:
            refused += 1
        except Exception as error:
            raise AssertionError(f"{number}: {error!r}, {changed}") from error
        else:
            assert version == 1 or found.to_dict() == config
    assert refused > 1000
