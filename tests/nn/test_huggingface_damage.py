"""Folders of transformers that are damaged, or of another network, are refused in words."""

import json

import pytest

from hmatrix.errors import FormatError, NetworkError

transformers = pytest.importorskip("transformers")
from bert import compressed  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

pytestmark = pytest.mark.usefixtures("quiet")


def rewritten(folder, change, *, kept=False):
    """Change the configuration and the tensors of a saved network, as one of version 1 unless digests are kept."""
    content, tensors = json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")
    if not kept:
        del content["quantization_config"]["array_digests"], content["quantization_config"]["header_digest"]
        content["quantization_config"]["version"] = 1
    change(content["quantization_config"], tensors)
    (folder / "config.json").write_text(json.dumps(content))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


QUERY = "encoder.layer.0.attention.self.query"
WORDS = f"{QUERY}.weight.words"


def elsewhere(config, tensors):
    """The configuration of another network, whose layers have other names."""
    config["layers"] = {"gone": {**config["layers"][QUERY], "weight": "gone"}}
    for name in [name for name in tensors if name.endswith(".weight.words")]:
        del tensors[name]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda c, _: c.update(version=3), FormatError, "version 3; this release reads versions 1 and 2"),
        (lambda c, _: c.update(version=True), FormatError, "version True"),
        (lambda c, _: c.update(version=2), FormatError, "its header does not fit the digest"),
        (
            lambda c, _: c.update(more=1),
            FormatError,
            "_config: has the unknown key more; .*known are activ",
        ),
        (lambda c, _: c.update(storage="a"), FormatError, "storage: got 'a'"),
        (lambda c, _: c.update(skip=5), FormatError, "skip: got 5"),
        (lambda c, _: c.update(activations=[]), FormatError, r"activations: got \[\]"),
        (lambda c, _: c.update(layers=5), FormatError, "has layers of 5, not values by key"),
        (lambda c, _: c.pop("layers"), FormatError, "names no layers"),
        (lambda c, _: c["layers"].pop(QUERY), FormatError, f"has an H-matrix for {QUERY}, which .* does not name"),
        (lambda c, _: c["layers"].update({QUERY: []}), FormatError, rf"has layers\.{QUERY} of \[\], not values by key"),
        (lambda c, _: c["layers"][QUERY].pop("shape"), FormatError, rf"has no layers\.{QUERY}\.shape"),
        (lambda c, _: c["layers"][QUERY].pop("parts"), FormatError, rf"has no layers\.{QUERY}\.parts"),
        (lambda c, _: c["layers"][QUERY]["parts"].pop("words"), FormatError, rf"has no .*{QUERY}\.parts\.words"),
        (
            lambda c, _: c["layers"][QUERY]["parts"].update(words=["int64", [3]]),
            FormatError,
            "has .*words of",
        ),
        (lambda c, _: c["layers"][QUERY]["parts"].update(words=["int32", [2**50]]), FormatError, "has .*words of"),
        (lambda c, _: c["layers"][QUERY]["parts"].update(words=["int32", [[3]]]), FormatError, "has .*words of"),
        (lambda c, _: c["layers"][QUERY]["parts"].update(words=None), FormatError, "has .*words of None, not a type"),
        (lambda c, _: c["layers"][QUERY].update(shape=[3, 2**50]), FormatError, "not rows and columns, of 1 to"),
        (lambda c, _: c["layers"][QUERY].update(shape=[3, 3]), NetworkError, r"of \(3, 3\)"),
        (lambda c, _: c["layers"][QUERY].update(weight="gone"), FormatError, "of 'gone', not the name of a layer"),
        (elsewhere, NetworkError, "none of the compressed layers"),
        (lambda _, t: t.pop(WORDS), FormatError, "lacks words"),
        (lambda _, t: t[f"{QUERY}.weight.leaves"].fill_(9), FormatError, "is damaged"),
        (
            lambda _, t: t.update({f"{QUERY}.weight.words": t[f"{QUERY}.weight.words"][1:]}),
            Exception,
            "mismatch|damaged",
        ),
    ],
)
def test_damaged_files(tmp_path, change, error, message):
    compressed().save_pretrained(tmp_path)
    rewritten(tmp_path, change)
    with pytest.raises(error, match=message):
        transformers.AutoModel.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c, _: c["layers"].pop(QUERY), "its header does not fit the digest"),
        (lambda c, _: c.update(version=1), "its header does not fit the digest"),
        (lambda c, _: c.pop("header_digest"), "its header does not fit the digest"),
        (lambda _, t: t["embeddings.LayerNorm.bias"].add_(1), r"embeddings\.LayerNorm\.bias does not fit the digest"),
        (lambda _, t: t[WORDS].add_(1), "words does not fit the digest"),
        (lambda _, t: t.pop("embeddings.LayerNorm.bias"), r"embeddings\.LayerNorm\.bias"),
    ],
)
def test_a_folder_knows_that_it_is_damaged(tmp_path, change, message):
    compressed().save_pretrained(tmp_path)
    transformers.AutoModel.from_pretrained(tmp_path)
    rewritten(tmp_path, change, kept=True)
    with pytest.raises(FormatError, match=f"(is damaged|lacks).*{message}"):
        transformers.AutoModel.from_pretrained(tmp_path)


def test_a_damaged_folder_can_be_read_as_it_is(tmp_path):
    compressed().save_pretrained(tmp_path)
    rewritten(tmp_path, lambda _, t: t["embeddings.LayerNorm.bias"].add_(1), kept=True)
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    config.quantization_config["verify"] = False
    again = transformers.AutoModel.from_pretrained(tmp_path, config=config)
    again.save_pretrained(tmp_path / "again")
    transformers.AutoModel.from_pretrained(tmp_path / "again")
