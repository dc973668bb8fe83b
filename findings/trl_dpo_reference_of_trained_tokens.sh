#!/usr/bin/env bash
# trl 1.16.0, peft 0.21.2, transformers 5.23.0, torch 2.13.0, Python 3.11, CPU.
#
# DPO on a model that already has a trained LoRA adapter: TRL adds an adapter "ref", a frozen copy of the
# trained one, as the reference. Rows of tokens that were trained with it (trainable_token_indices, as for
# new semantic-ID tokens) are not copied: the reference has the LoRA matrices of the adapter and the rows
# from before training. So it is a model that never existed, and preferences are learned against it.
#
# Guess: the reference is the model as it is, so the first loss is ln 2 = 0.693, with or without such rows.
# Seen (beta 1): 0.693 with LoRA matrices alone, 1.225 if rows of tokens were trained with them.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 peft==0.21.2 trl==1.16.0
cd "$folder" && "$folder/venv/bin/python" -W ignore - <<'PY' 2>&1 | grep -v "it/s\|examples/s\|^{"
import math

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from trl import DPOConfig, DPOTrainer

words = ["<unk>", "<end>", *(f"<a_{code}>" for code in range(20))]
made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>", pad_token="<unk>")
pairs = Dataset.from_list(
    [{"prompt": f"<a_{n}> ", "chosen": f"<a_{n + 1}> ", "rejected": f"<a_{19 - n}> "} for n in range(8)]
)


def first_loss(**tokens):
    """Of DPO, after 20 steps of next-token training of an adapter."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=22, hidden_size=32, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, head_dim=16, initializer_range=0.2,
        tie_word_embeddings=False, pad_token_id=0,
    )
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], **tokens)
    model = get_peft_model(Qwen3ForCausalLM(config), lora)
    optimizer = torch.optim.AdamW([w for w in model.parameters() if w.requires_grad], lr=0.05)
    for _ in range(20):
        ids = torch.arange(2, 22)[None]
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    settings = DPOConfig(
        output_dir="out", beta=1.0, max_steps=1, logging_steps=1, per_device_train_batch_size=8, use_cpu=True,
        bf16=False, report_to=[], save_strategy="no", disable_tqdm=True,
    )
    trainer = DPOTrainer(model, args=settings, train_dataset=pairs, processing_class=tokenizer)
    trainer.train()
    return float(trainer.state.log_history[0]["loss"])


plain = first_loss()
rows = first_loss(trainable_token_indices={"embed_tokens": list(range(2, 22))})
print(f"first loss: LoRA alone {plain:.4f}, with rows of tokens {rows:.4f}, ln 2 {math.log(2):.4f}")
assert abs(plain - math.log(2)) < 1e-3
assert abs(rows - math.log(2)) > 0.01
PY
