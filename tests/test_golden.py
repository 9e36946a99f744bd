"""What release 0.1.0 wrote opens for ever: files, folders, caches and pickles; `golden/write.py` wrote it."""

import json
import pickle
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file

torch = pytest.importorskip("torch")
from goldens import FOLDER, HEADS, IDS, MATRICES, compressed, inputs, network, strategies, tokens  # noqa: E402

import hmatrix as hm  # noqa: E402
import hmatrix.nn as hnn  # noqa: E402
from hmatrix._support.store import list_entries  # noqa: E402
from hmatrix.errors import FormatError  # noqa: E402
from hmatrix.study.figures.tables import table_rows, to_csv  # noqa: E402
from hmatrix.study.measure.records import RecordFile  # noqa: E402

EXPECTED = load_file(FOLDER / "expected.safetensors")
LAYERS = ["linear", "conv", "embedding", "trainable", "head"]


def unpickled(name):
    return pickle.loads((FOLDER / f"{name}.pickle").read_bytes())


def layer(name):
    return torch.load(FOLDER / f"layer-{name}.pt", weights_only=False)


def check_matrix(matrix, name):
    """Dense blocks and codes have the same bits everywhere; sums are rounded in the order of the machine."""
    dense, product = EXPECTED[f"matrix-{name}.dense"], EXPECTED[f"matrix-{name}.product"]
    assert matrix.dtype == dense.dtype
    # Products of rank 2, and sums of 36 entries: each term is rounded a few times, in its own type.
    unit = np.finfo(dense.dtype).eps
    np.testing.assert_allclose(matrix.to_dense(), dense, rtol=0, atol=4 * unit * np.abs(dense).max())
    size = np.linalg.norm(dense, axis=1).max() * np.linalg.norm(inputs(), axis=1).max()
    np.testing.assert_allclose(matrix.apply(inputs()), product, rtol=0, atol=36 * unit * size)


def check_head(head, name):
    values, indices = head.topk(inputs(), 3)
    np.testing.assert_array_equal(indices, EXPECTED[f"head-{name}.indices"])
    np.testing.assert_array_equal(head.refined(inputs(), 3), EXPECTED[f"head-{name}.refined"])
    np.testing.assert_allclose(values, EXPECTED[f"head-{name}.values"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", MATRICES)
def test_files_of_matrices_open(name):
    check_matrix(hm.load(FOLDER / f"matrix-{name}.safetensors"), name)


def test_a_matrix_of_integer_codes_and_activations_has_the_same_bits():
    name = "matrix-int8-activations"
    matrix = hm.load(FOLDER / f"{name}.safetensors")
    np.testing.assert_array_equal(matrix.to_dense(), EXPECTED[f"{name}.dense"])
    np.testing.assert_array_equal(matrix.apply(inputs()), EXPECTED[f"{name}.product"])


@pytest.mark.parametrize("name", MATRICES)
def test_files_of_matrices_are_written_as_before(name, tmp_path):
    path = FOLDER / f"matrix-{name}.safetensors"
    hm.save(hm.load(path), tmp_path / "again")
    before, after = load_file(path), load_file(tmp_path / "again")
    assert before.keys() == after.keys()
    for key, array in before.items():
        np.testing.assert_array_equal(after[key], array)


@pytest.mark.parametrize("name", HEADS)
def test_files_of_heads_open(name):
    check_head(hm.ProgressiveHead.load(FOLDER / f"head-{name}.safetensors"), name)


def test_the_file_of_a_network_opens():
    path = FOLDER / "network.safetensors"
    assert hnn.read_header(path).architecture == {"model": "golden"}
    assert hnn.read_header(path).layers
    with torch.inference_mode():
        output = hnn.load(path, network())(tokens()).numpy()
    np.testing.assert_allclose(output, EXPECTED["network.output"], rtol=0, atol=1e-5 * np.abs(output).max())


def test_the_folder_of_a_transformer_opens():
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.disable_progress_bar()
    import hmatrix.nn.huggingface  # noqa: F401  (it tells transformers of the method)

    model = transformers.BertModel.from_pretrained(FOLDER / "transformer")
    assert any(isinstance(module, hnn.HLinear) for module in model.modules())
    with torch.inference_mode():
        output = model(input_ids=IDS)[0].numpy()
    np.testing.assert_allclose(output, EXPECTED["transformer.output"], rtol=0, atol=1e-5 * np.abs(output).max())


def test_matrices_of_a_cache_open():
    found = sorted((FOLDER / "cache").glob("*.json"))
    assert found
    for path in found:
        evidence = json.loads(path.read_text())
        matrix = hm.load(path.with_suffix(".safetensors"))
        assert len(evidence["bias_correction"]) == matrix.shape[0]
        assert 0 <= evidence["measured_error"] < 1


def test_a_cache_of_other_code_is_left_alone(tmp_path):
    cache = shutil.copytree(FOLDER / "cache", tmp_path / "cache")
    before = {path.name: path.read_bytes() for path in cache.iterdir()}
    done = compressed(cache)
    assert done.report.layers == compressed(cache).report.layers
    after = {path.name: path.read_bytes() for path in cache.iterdir() if path.is_file()}
    assert after == before
    assert list_entries(cache) != []


def test_records_of_a_study_give_the_same_table():
    path = FOLDER / "records.jsonl"
    lines = path.read_text().splitlines()
    content = path.read_bytes()
    file = RecordFile(path)
    records = [file[json.loads(line)["key"]] for line in lines]
    assert path.read_bytes() == content
    assert [record.to_json() for record in records] == lines
    assert to_csv(table_rows(records)) == (FOLDER / "table.csv").read_text()


def test_pickled_matrices_open():
    for name, matrix in unpickled("matrices").items():
        assert type(matrix) is hm.HMatrix
        check_matrix(matrix, name)
    transposed = unpickled("transposed")
    assert type(transposed) is hm.TransposedHMatrix
    check_matrix(transposed.T, "float32")


def test_a_pickled_factorisation_opens():
    lowrank = unpickled("lowrank")
    assert type(lowrank) is hm.LowRank
    expected = EXPECTED["lowrank.dense"]
    np.testing.assert_allclose(lowrank.to_dense(), expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_pickled_heads_open():
    for name, head in unpickled("heads").items():
        assert type(head) is hm.ProgressiveHead
        check_head(head, name)


def test_pickled_strategies_open():
    assert unpickled("strategies") == strategies()


def test_a_pickled_allocation_opens():
    allocation = unpickled("allocation")
    assert type(allocation) is hm.Allocation
    check_matrix(allocation.matrix, "mixture")
    assert allocation.measured_error < 1


def test_a_pickled_report_opens():
    report = unpickled("report")
    assert type(report) is hnn.Report
    assert all(type(entry) is hnn.LayerReport for entry in report.layers)


@pytest.mark.parametrize("name", LAYERS)
def test_pickled_layers_open(name):
    kinds = [hnn.HLinear, hnn.HConv2d, hnn.HEmbedding, hnn.HLinear, hnn.ProgressiveLinear]
    module = layer(name)
    assert type(module) is dict(zip(LAYERS, kinds, strict=True))[name]
    dense = EXPECTED["matrix-mixture.dense"]
    match name:
        case "linear":
            assert torch.equal(module.bias, torch.arange(float(dense.shape[0])))
            check_matrix(module.weight.matrix, "mixture")
            outputs = module(torch.from_numpy(inputs())).detach().numpy()
            expected = EXPECTED["matrix-mixture.product"] + np.arange(dense.shape[0])
            np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-4)
        case "conv" | "embedding":
            check_matrix(module.weight.matrix, "mixture")
        case "trainable":
            check_matrix(hnn.freeze(module).weight.matrix, "mixture")
        case "head":
            check_head(module.head, "low-rank")


def test_a_state_dict_opens():
    module = hnn.HLinear(hm.quantize(np.zeros(EXPECTED["matrix-mixture.dense"].shape, np.float32), "int8"))
    state = torch.load(FOLDER / "state.pt", weights_only=True)
    bias = state.pop("bias")
    module.load_state_dict(state)
    check_matrix(module.weight.matrix, "mixture")
    assert torch.equal(bias, torch.arange(len(bias), dtype=bias.dtype))


def test_what_is_no_golden_file_is_refused():
    with pytest.raises(FormatError):
        hm.load(FOLDER / "table.csv")
