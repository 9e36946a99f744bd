#!/usr/bin/env bash
# A model whose configuration names a quantisation that transformers does not know loads with weights drawn at random.
#
# One would guess: from_pretrained refuses a folder of which it cannot read the weights, as it does for a quantisation
# that it knows and whose package is missing. Where nothing has registered the method, it is ignored with a line in the
# log; weights that lie in the file under the names of that method count as missing, and are drawn anew. The call
# returns a model, and two loads of one folder compute different outputs.
# A package with a quantisation of its own cannot mend this: nothing of it is called. Its users have to import it first.
#
# Seen with transformers 5.24.0, torch 2.14.1, safetensors 0.8.0, Python 3.11, Linux x86-64, on 2026-12-01:
#   both loads returned a model: True, with equal outputs: False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q transformers==5.24.0 torch==2.14.1 safetensors==0.8.0 numpy==2.4.6
seen=$("$folder/env/bin/python" - "$folder" 2>"$folder/log" <<'PYTHON'
import json
import sys

import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel

path = sys.argv[1] + "/model"
sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
BertModel(BertConfig(vocab_size=30, **sizes)).save_pretrained(path)
tensors = load_file(path + "/model.safetensors")
tensors["pooler.dense.packed"] = tensors.pop("pooler.dense.weight").to(torch.bfloat16)
save_file(tensors, path + "/model.safetensors", metadata={"format": "pt"})
with open(path + "/config.json") as file:
    config = json.load(file)
config["quantization_config"] = {"quant_method": "packed_rows"}
with open(path + "/config.json", "w") as file:
    json.dump(config, file)
models = [BertModel.from_pretrained(path).eval() for _ in range(2)]
outputs = [model(torch.tensor([[1, 2, 3]])).pooler_output for model in models]
returned = all(isinstance(model, BertModel) for model in models)
print(f"both loads returned a model: {returned}, with equal outputs: {torch.equal(*outputs)}")
PYTHON
)
echo "$seen"
grep -o "Unknown quantization type, got packed_rows" "$folder/log"
[ "$seen" = "both loads returned a model: True, with equal outputs: False" ]
