"""Write the golden files of release 0.1.0, once: later releases open them, and never write them again.

Run by that release: ``PYTHONPATH=tests python tests/golden/write.py``.
"""

import contextlib
import pickle
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from goldens import FOLDER, HEADS, IDS, PRECISIONS, M, N, compressed, inputs, strategies, tokens
from hmatrix.study.records import RecordFile
from hmatrix.study.settings import Method, Network, Structure, Study, Timing
from hmatrix.study.tables import table_rows, to_csv
from safetensors.numpy import save_file

import hmatrix as hm
import hmatrix.nn as hnn
from hmatrix.nn import huggingface
from hmatrix.study.run import run_study


def weight() -> np.ndarray:
    """A weight of low rank but for noise."""
    rng = np.random.default_rng(8)
    smooth = rng.standard_normal((M, 4)) @ rng.standard_normal((4, N))
    return (smooth + 0.1 * rng.standard_normal((M, N))).astype(np.float32)


def structured(A: np.ndarray) -> hm.HMatrix:
    """An H-matrix with blocks of low rank beside dense ones."""
    return hm.build(A, splitter=hm.Cardinality(10), truncation=hm.Truncation(max_rank=2))


def matrices() -> dict[str, hm.HMatrix]:
    """One matrix of each precision, and mixtures."""
    made = {name: structured(weight()).astype(name) for name in PRECISIONS if name != "float64"}
    made["float64"] = structured(weight().astype(np.float64))
    made["int8-activations"] = hm.quantize(weight(), "int4", activations="int8")
    made["mixture"] = hm.allocate(weight(), hm.Budget(storage=0.2), activations="int8").matrix
    points = np.random.default_rng(9).permutation(N).astype(float)
    sides = hm.Points(np.arange(M, dtype=float)), hm.Points(points)
    made["permuted"] = hm.build(
        weight(), coordinates=sides, splitter=hm.Cardinality(10), truncation=hm.Truncation(max_rank=2)
    )
    return made


def heads() -> dict[str, hm.ProgressiveHead]:
    """Progressive heads with coarse parts of all kinds."""
    X = np.random.default_rng(10).standard_normal((300, N)).astype(np.float32)
    bias = np.random.default_rng(11).standard_normal(M).astype(np.float32)
    asked = {
        "low-rank": {"ranks": [4]},
        "clusters": {"ranks": [4], "cluster_rows": [4]},
        "coarse-matrix": {"coarse": hm.quantize(weight(), "int4", activations="int8")},
        "rigorous": {"ranks": [4], "rule": hm.Rigorous()},
    }
    return {name: hm.progressive(weight(), bias, calibration=X, agreement=0.9, **asked[name]) for name in HEADS}


def transformer(folder: Path) -> torch.Tensor:
    """Save a small network of transformers, and return its output."""
    torch.manual_seed(12)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.BertConfig(vocab_size=30, max_position_embeddings=16, **sizes)
    model = hnn.compress(transformers.BertModel(config).eval(), hm.Budget(storage=0.4), progress=False).model
    huggingface.carry(model)
    model.save_pretrained(folder)
    with torch.inference_mode():
        return model(input_ids=IDS)[0]


def study(folder: Path) -> None:
    """Write the records of a small study, and the table that follows from them."""
    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
        save_file({"fc.weight": weight()}, "head.safetensors")
        asked = Study(
            title="small",
            networks=(Network(None, weights=Path("head.safetensors")),),
            data=None,
            methods=(Method.SVD, Method.QR),
            ranks=(1, 2),
            structure=Structure(leaf_size=10),
            timing=Timing(products=2),
            output=Path("out"),
        )
        list(run_study(asked, Path("cache")))
        folder.joinpath("records.jsonl").write_bytes(Path("out/records.jsonl").read_bytes())
    records = RecordFile(folder / "records.jsonl")
    folder.joinpath("table.csv").write_text(to_csv(table_rows(list(records._records.values()))), encoding="utf-8")


def layers(matrix: hm.HMatrix, head: hm.ProgressiveHead) -> dict[str, torch.nn.Module]:
    """Layers of all kinds, whole."""
    linear = hnn.HLinear(matrix, torch.arange(float(M)))
    return {
        "linear": linear,
        "conv": hnn.HConv2d(torch.nn.Conv2d(4, M, 3), matrix),
        "embedding": hnn.HEmbedding(matrix),
        "trainable": hnn.trainable(hnn.HLinear(matrix)),
        "head": hnn.ProgressiveLinear(head),
    }


def main() -> None:
    """Write all files."""
    FOLDER.mkdir(exist_ok=True)
    x, expected = inputs(), {}
    made, of_rows = matrices(), heads()
    for name, matrix in made.items():
        hm.save(matrix, FOLDER / f"matrix-{name}.safetensors")
        expected[f"matrix-{name}.dense"], expected[f"matrix-{name}.product"] = matrix.to_dense(), matrix.apply(x)
    for name, head in of_rows.items():
        head.save(FOLDER / f"head-{name}.safetensors")
        expected[f"head-{name}.values"], expected[f"head-{name}.indices"] = head.topk(x, 3)
        expected[f"head-{name}.refined"] = head.refined(x, 3)
    done = compressed(FOLDER / "cache")
    hnn.save(done.model, FOLDER / "network.safetensors", {"model": "golden"})
    with torch.inference_mode():
        expected["network.output"] = done.model(tokens()).numpy()
    expected["transformer.output"] = transformer(FOLDER / "transformer").numpy()
    study(FOLDER)
    lowrank = hm.TruncatedSVD()(weight(), hm.Truncation(max_rank=2))
    expected["lowrank.dense"] = lowrank.to_dense()
    allocation = hm.allocate(weight(), hm.Budget(storage=0.2), activations="int8")
    pickled = {
        "matrices": {name: made[name] for name in ("float32", "mixture", "permuted")},
        "transposed": made["float32"].T,
        "lowrank": lowrank,
        "heads": of_rows,
        "strategies": strategies(),
        "allocation": allocation,
        "report": done.report,
    }
    for name, value in pickled.items():
        FOLDER.joinpath(f"{name}.pickle").write_bytes(pickle.dumps(value))
    for name, layer in layers(made["mixture"], of_rows["low-rank"]).items():
        torch.save(layer, FOLDER / f"layer-{name}.pt")
    torch.save(layers(made["mixture"], of_rows["low-rank"])["linear"].state_dict(), FOLDER / "state.pt")
    save_file({name: np.ascontiguousarray(array) for name, array in expected.items()}, FOLDER / "expected.safetensors")


if __name__ == "__main__":
    main()
