#!/usr/bin/env bash
# vector-quantize-pytorch 1.32.0, torch 2.13.0, Python 3.11, CPU.
#
# VectorQuantize in training with its default gradient (rotation trick): the vector 0 comes out as 0,
# whatever its codeword, while every other vector comes out as its codeword; in eval() all do. In a
# residual quantizer a residual of 0 (a vector that a level explains fully) so passes through the
# levels below as if no codeword were added, in training only.
#
# Guess: the output equals the codeword of the index, to rounding, for every row.
# Seen: it does for all rows but the zero vector in training, and for all rows in eval().
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 vector-quantize-pytorch==1.32.0
"$folder/venv/bin/python" - <<'PY'
import torch
from vector_quantize_pytorch import VectorQuantize

torch.manual_seed(0)
quantizer = VectorQuantize(dim=8, codebook_size=16)
vectors = torch.randn(1, 32, 8)
vectors[0, 0] = 0
vectors.requires_grad_()

codebook = quantizer.codebook.detach().clone()
trained, indices, _ = quantizer.train()(vectors)
gap = (trained - codebook[indices]).abs().amax(dim=-1)[0]
print("training: zero vector", trained[0, 0].tolist(), "its codeword", codebook[indices[0, 0]].tolist())
assert torch.equal(trained[0, 0], torch.zeros(8)) and gap[0] > 0.1
assert gap[1:].max() < 1e-6

codebook = quantizer.codebook.detach().clone()
evaluated, indices, _ = quantizer.eval()(vectors)
assert torch.equal(evaluated, codebook[indices])
print("eval(): every row is its codeword")
PY
