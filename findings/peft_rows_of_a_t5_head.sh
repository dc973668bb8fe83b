#!/usr/bin/env bash
# peft 0.21.2, transformers 5.23.0, torch 2.13.0, Python 3.11, CPU.
#
# A T5 whose head is not its embeddings (Flan-T5, T5 1.1, mT5), with
# trainable_token_indices={"shared": ids, "lm_head": ids}: PEFT takes the two for tied, since transformers
# declares it for every T5, and writes the rows of the embeddings into the head. The adapter is untrained,
# and the model answers differently. Naming both, as for other models of two matrices, changes nothing.
# After merging and saving the rows of the head are lost.
#
# Guess: an untrained adapter leaves the logits as they are, and both named matrices get rows of their own.
# Seen: the logits of these tokens change by more than 1, all others not at all; there is one set of rows.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 peft==0.21.2
cd "$folder" && "$folder/venv/bin/python" -W ignore - <<'PY'
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import T5Config, T5ForConditionalGeneration

# A model on disk in the layout of Flan-T5: tie_word_embeddings false, a head of its own.
torch.manual_seed(0)
config = T5Config(
    vocab_size=50, d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=2, decoder_start_token_id=0,
    tie_word_embeddings=False,
)
T5ForConditionalGeneration(config).save_pretrained("model")
weights = load_file("model/model.safetensors")
weights["lm_head.weight"] = torch.randn_like(weights["shared.weight"])
save_file(weights, "model/model.safetensors", {"format": "pt"})


def logits(model):
    ids = torch.arange(5, 12)[None]
    with torch.no_grad():
        return model.eval()(input_ids=ids, decoder_input_ids=ids).logits


ids, others = list(range(40, 50)), list(range(40))
base = T5ForConditionalGeneration.from_pretrained("model")
before, head = logits(base), base.lm_head.weight[ids].clone()
assert torch.equal(base.lm_head.weight, weights["lm_head.weight"])
model = get_peft_model(base, LoraConfig(r=2, trainable_token_indices={"shared": ids, "lm_head": ids}))
change = (logits(model) - before).abs()
rows = [name for name, weight in model.named_parameters() if weight.requires_grad and "token" in name]
merged = model.merge_and_unload()
print(f"logits of the tokens change by {change[..., ids].max():.2f}, of others by {change[..., others].max():.1e}")
print(f"sets of rows: {len(rows)}; head after merging is the embeddings there:",
      torch.equal(merged.lm_head.weight[ids], merged.shared.weight[ids]))
assert change[..., ids].max() > 1 > 1e-3 > change[..., others].max()
assert len(rows) == 1
assert not torch.equal(merged.lm_head.weight[ids], head)
PY
