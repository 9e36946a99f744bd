"""Networks of transformers, saved and loaded by its own calls."""

import subprocess
import sys

import pytest
import torch
from marks import slow
from peaks import needs_peaks, peak_of
from safetensors.torch import load_file
from torch import nn

import hmatrix as hm
import hmatrix.nn as hnn
from hmatrix.errors import ArgumentError, NetworkError
from hmatrix.nn.network.kinds import kind_of

transformers = pytest.importorskip("transformers")
from bert import IDS, compressed, output, plain  # noqa: E402

from hmatrix.nn import huggingface  # noqa: E402
from hmatrix.nn.huggingface import HMatrixConfig  # noqa: E402

pytestmark = pytest.mark.usefixtures("quiet")


def same(first, second):
    first, second = first.state_dict(), second.state_dict()
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert second[name].dtype == tensor.dtype
        assert torch.equal(second[name], tensor), name


@pytest.mark.parametrize(
    "kind", [transformers.BertModel, transformers.BertForMaskedLM, transformers.BertForSequenceClassification]
)
def test_round_trip(tmp_path, kind):
    model = compressed(kind)
    model.save_pretrained(tmp_path)
    again, info = kind.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    same(model, again)
    assert torch.equal(output(again), output(model))
    again.save_pretrained(tmp_path / "again")
    assert torch.equal(output(kind.from_pretrained(tmp_path / "again")), output(model))


def test_by_the_automatic_class(tmp_path):
    model = compressed()
    model.save_pretrained(tmp_path)
    again = transformers.AutoModel.from_pretrained(tmp_path)
    assert type(again) is transformers.BertModel
    assert torch.equal(output(again), output(model))
    assert type(again.config.quantization_config) is HMatrixConfig


def test_by_way_of_a_file_of_our_own(tmp_path):
    model = compressed()
    hnn.save(model, tmp_path / "file")
    hnn.load(tmp_path / "file", plain()).save_pretrained(tmp_path / "folder")
    assert torch.equal(output(transformers.AutoModel.from_pretrained(tmp_path / "folder")), output(model))


def test_in_shards(tmp_path):
    model = compressed()
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert torch.equal(output(transformers.AutoModel.from_pretrained(tmp_path)), output(model))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_in_other_types(tmp_path, dtype):
    model = compressed(dtype=dtype)
    model.save_pretrained(tmp_path)
    again = transformers.AutoModel.from_pretrained(tmp_path, dtype=dtype)
    same(model, again)
    assert output(again).dtype == dtype
    assert torch.equal(output(again), output(model))


def test_tied_weights_stay_tied(tmp_path):
    model = compressed(transformers.BertForMaskedLM)
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight
    model.save_pretrained(tmp_path)
    assert not any(
        name.startswith("cls.predictions.decoder.weight") for name in load_file(tmp_path / "model.safetensors")
    )
    again = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path)
    assert again.cls.predictions.decoder.weight is again.bert.embeddings.word_embeddings.weight


def test_a_head_on_what_was_saved_without(tmp_path):
    """Its weight is the embedding's, its bias is its own."""
    model = compressed()
    model.save_pretrained(tmp_path)
    again = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path)
    decoder = again.cls.predictions.decoder
    assert decoder.weight is again.bert.embeddings.word_embeddings.weight
    assert decoder.bias is again.cls.predictions.bias
    with torch.inference_mode():
        torch.testing.assert_close(again.bert(input_ids=IDS)[0], output(model), rtol=0, atol=0)
    assert torch.isfinite(output(again)).all()


def test_a_part_of_what_was_saved(tmp_path):
    model = compressed(transformers.BertForMaskedLM)
    model.save_pretrained(tmp_path)
    again = transformers.BertModel.from_pretrained(tmp_path, add_pooling_layer=False)
    with torch.inference_mode():
        assert torch.equal(output(again), model.bert(input_ids=IDS)[0])


@pytest.mark.slow
@needs_peaks
def test_float32_weights_are_not_made(tmp_path):
    """An embedding of 31 MB, which would be 61 in float32."""
    small = {"hidden_size": 256, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = transformers.BertModel(transformers.BertConfig(vocab_size=60_000, **small)).eval()
    for parent, name in ((model.embeddings, "word_embeddings"), (model.pooler, "dense")):
        layer = getattr(parent, name)
        matrix = hm.quantize(layer.weight.detach().numpy(), "bfloat16")
        setattr(parent, name, kind_of(layer).successor(layer, hnn.HWeight(matrix)))
    huggingface.carry(model)
    model.save_pretrained(tmp_path)
    size = (tmp_path / "model.safetensors").stat().st_size
    before = f"""
        import torch

        import hmatrix.nn.huggingface
        from transformers import BertConfig, BertModel
        BertModel(BertConfig(vocab_size=100, **{small}))(torch.ones(1, 4).long())
    """
    peak = peak_of(before, f"model = BertModel.from_pretrained({str(tmp_path)!r}); model(torch.ones(1, 4).long())")
    assert peak < 1.2 * size + 10e6  # and what transformers needs for itself


def test_compress_makes_it_ready(tmp_path):
    batches = [{"input_ids": IDS}, {"input_ids": IDS.flip(1)}]
    model, report = hnn.compress(plain(), hm.Budget(storage=0.5), calibration=batches, progress=False)
    assert report.after < 0.6 * report.before  # the pooler is idle
    assert model.config.quantization_config.layers
    model.save_pretrained(tmp_path)
    assert torch.equal(output(transformers.AutoModel.from_pretrained(tmp_path)), output(model))


def test_compress_in_place_and_inside_of_another_network(tmp_path):
    network = nn.ModuleDict({"encoder": plain()})
    select = hnn.matching("re:.*query")
    hnn.compress(network, hm.Budget(storage=0.5), select=select, inplace=True, progress=False)
    network["encoder"].save_pretrained(tmp_path)
    again = transformers.AutoModel.from_pretrained(tmp_path)
    assert isinstance(again.encoder.layer[0].attention.self.query, hnn.HLinear)
    assert torch.equal(output(again), output(network["encoder"]))


@pytest.mark.parametrize("kind", [transformers.BertModel, slow(transformers.BertForMaskedLM)])
def test_while_it_is_loaded(tmp_path, kind):
    model = plain(kind)
    model.save_pretrained(tmp_path / "dense")
    settings = HMatrixConfig(storage=0.5, activations="exact", skip=["re:.*query"])
    small = kind.from_pretrained(tmp_path / "dense", quantization_config=settings)
    dense = {name: module for name, module in model.named_modules() if kind_of(module) is not None}
    assert (
        type(
            small.get_submodule("bert" if kind is not transformers.BertModel else "")
            .encoder.layer[0]
            .attention.self.query
        )
        is nn.Linear
    )
    weights = {id(m.weight): m for m in small.modules() if isinstance(m, hnn.HLinear | hnn.HEmbedding)}
    assert weights
    assert all(layer.matrix.activations is hm.Activations.EXACT for layer in weights.values())
    before = sum(4 * module.weight.numel() for name, module in dense.items() if "query" not in name)
    after = sum(layer.matrix.storage().total for layer in weights.values())
    assert after <= 0.5 * before
    assert (output(small) - output(model)).norm() < 0.2 * output(model).norm()
    small.save_pretrained(tmp_path / "small")
    assert torch.equal(output(kind.from_pretrained(tmp_path / "small")), output(small))


def test_what_cannot_be_saved(tmp_path):
    model = compressed()
    hnn.trainable(model)
    with pytest.raises(ArgumentError, match=r"being trained; pack them: hmatrix\.nn\.freeze"):
        model.save_pretrained(tmp_path)
    hnn.freeze(model)
    model.save_pretrained(tmp_path)
    with pytest.raises(ArgumentError, match="has no H-matrix"):
        HMatrixConfig.of(plain())


def test_a_configuration_without_storage(tmp_path):
    plain().save_pretrained(tmp_path)
    with pytest.raises(ArgumentError, match="has no storage"):
        transformers.AutoModel.from_pretrained(tmp_path, quantization_config=HMatrixConfig())
    with pytest.raises(ArgumentError, match="activations: got 'int3'"):
        HMatrixConfig(activations="int3")


def test_a_network_of_another_method():
    model = plain()
    model.hf_quantizer = object()
    with pytest.raises(NetworkError, match="quantised by a object"):
        hnn.compress(model, hm.Budget(storage=0.5), progress=False)


def test_transformers_stays_optional():
    code = "import sys, hmatrix.nn; sys.exit('transformers' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    code = (
        "import sys; sys.modules['transformers'] = None\n"
        "try:\n    import hmatrix.nn.huggingface\n"
        "except ModuleNotFoundError as error:\n    sys.exit('hmatrix[huggingface]' not in str(error))\n"
        "sys.exit(2)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_older_release_is_told(monkeypatch):
    # A lazy module puts itself in the place of the one that was imported first.
    monkeypatch.setattr(sys.modules["transformers"], "__version__", "4.57.1")
    monkeypatch.delitem(sys.modules, "hmatrix.nn.saved.huggingface_config")
    with pytest.raises(NetworkError, match=r"transformers: has version 4\.57\.1; install 5\.0 or newer"):
        __import__("hmatrix.nn.saved.huggingface_config")
