"""Small networks of transformers, dense and of H-matrices."""

import torch
import transformers
from matrices import permutation, random_leaves

import hmatrix as hm
import hmatrix.nn as hnn
from hmatrix.nn import huggingface
from hmatrix.nn.network.kinds import kind_of, matrix_of
from hmatrix.nn.network.replacing import exchange

IDS = torch.arange(20).reshape(2, 10)


def config(**changes):
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    return transformers.BertConfig(vocab_size=60, max_position_embeddings=16, **sizes, **changes)


def plain(kind=transformers.BertModel, dtype=torch.float32):
    torch.manual_seed(0)
    return kind(config()).eval().to(dtype)


def compressed(kind=transformers.BertModel, dtype=torch.float32):
    """A network of H-matrices of many kinds, without a search for them; the last linear layer stays dense."""
    model = plain(kind, dtype)
    weights, made = {}, {}
    precisions = ["int8", "int4", "float32", "bfloat16", "int2"] if dtype != torch.float64 else ["float64"]
    for number, module in enumerate(module for module in model.modules() if kind_of(module) is not None):
        if module is model.base_model.encoder.layer[1].output.dense:
            continue
        matrix = hm.quantize(matrix_of(module).numpy(), precisions[number % len(precisions)], activations="int8")
        if number == 5:
            leaves = random_leaves(matrix.shape, dtype=matrix.dtype, ranks=(None, 0, 1, 3))
            matrix = hm.HMatrix.from_leaves(matrix.shape, leaves, *(permutation(size) for size in matrix.shape))
        weight = weights.setdefault(id(module.weight), hnn.HWeight(matrix))
        made[module] = kind_of(module).successor(module, weight).to(dtype)
    exchange(model, made)
    huggingface.carry(model)
    return model


def output(model):
    with torch.inference_mode():
        return model(input_ids=IDS)[0]
