#!/usr/bin/env bash
# vector-quantize-pytorch 1.32.0, torch 2.13.0, Python 3.11, CPU.
#
# ResidualVQ(kmeans_init=True), never trained, called in eval() under no_grad(): the first batch
# initialises the codebooks by k-means, and they stay so. An evaluation before training therefore
# fits the tokenizer to the evaluation batch, and reports an error that looks trained.
#
# Guess: an untrained model in eval() uses its initial codebooks (zeros), or raises.
# Seen: `initted` becomes True in eval(); the error of the batch falls below a fifth of its variance.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 vector-quantize-pytorch==1.32.0
"$folder/venv/bin/python" - <<'PY'
import torch
from vector_quantize_pytorch import ResidualVQ

torch.manual_seed(0)
quantizer = ResidualVQ(dim=8, num_quantizers=2, codebook_size=16, kmeans_init=True).eval()
before = [bool(layer._codebook.initted) for layer in quantizer.layers]
batch = torch.randn(1, 40, 8)
with torch.no_grad():
    quantized, _, _ = quantizer(batch)
after = [bool(layer._codebook.initted) for layer in quantizer.layers]
error = ((quantized - batch) ** 2).mean() / (batch**2).mean()
print("initialised before", before, "after one batch in eval()", after, f"relative error {error:.3f}")
assert before == [False, False] and after == [True, True]
assert error < 0.2
PY
