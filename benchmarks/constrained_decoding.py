"""Beam search with the tree of SIDs and without it, by a model trained on an SFT set.

A tiny Qwen3 (random weights; its tokenizer is trained on the texts) gets the SID tokens, learns
from the rows of a dataset, and answers those of another. Counted are answers that are the SID of an
item, among k beams per user, and users with k different ones. It shows that the parts fit together;
a model of this size says nothing about recommendations.

    python benchmarks/constrained_decoding.py                 the datasets in results/
    python benchmarks/constrained_decoding.py --steps 20 --users 40
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from sidmill.datasets import trie, vocabulary
from sidmill.formats import (
    code_files,
    dataset_rows,
    quantizer_file,
    sid_text,
)
from sidmill.settings.datasets import Vocabulary

PAD, OPEN, CLOSE = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
IGNORED = -100  # label of tokens that are no answer


def main() -> None:
    """Build, train, decode twice, print one JSON line."""
    options = _options()
    torch.manual_seed(options.seed)
    results = Path(options.results)
    turns = {name: read(results / "datasets" / name) for name in (options.train, options.test)}
    items = code_files.read(results / "pid2sid.parquet", "sid")
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder, "base"), turns[options.train], options)
        books = quantizer_file.read(results / options.quantizer / "quantizer.safetensors").codebooks
        out, model_folder = Path(folder, "expanded"), str(Path(folder, "base"))
        settings = Vocabulary(model=model_folder, dtype="float32")
        ids = vocabulary.expand(out, items.codes, items.sizes, books, settings, options.seed)
        model = AutoModelForCausalLM.from_pretrained(out)
        tokenizer = AutoTokenizer.from_pretrained(out)
    losses = train(model, tokenizer, turns[options.train], options)
    edge = max(len(losses) // 10, 1)
    tree, known = trie.build(items.codes, ids), set(map(tuple, items.codes.tolist()))
    picked = torch.randperm(len(turns[options.test]))[: options.users].sort().values.tolist()
    asked = [turns[options.test][row][:-1] for row in picked]
    figures = {
        "train_rows": len(turns[options.train]),
        "test_users": len(turns[options.test]),
        "asked_users": len(asked),
        "steps": len(losses),
        "loss_first": round(sum(losses[:edge]) / edge, 3),
        "loss_last": round(sum(losses[-edge:]) / edge, 3),
    }
    for name, constrained in (("constrained", True), ("unconstrained", False)):
        began = time.perf_counter()
        answers = decode(model, tokenizer, tree, asked, constrained, options)
        valid = [[sid for sid in some if sid in known] for some in answers]
        distinct = [len(set(some)) for some in valid]
        figures |= {
            f"{name}_valid": round(sum(map(len, valid)) / (options.k * len(asked)), 4),
            f"{name}_distinct_valid": round(sum(distinct) / len(asked), 3),
            f"{name}_users_with_k": round(sum(n == options.k for n in distinct) / len(asked), 4),
            f"{name}_seconds": round(time.perf_counter() - began, 1),
        }
    print(json.dumps(figures))


def read(folder: Path) -> list[list[dict]]:
    """Rows as lists of role and content."""
    rows = []
    for table in dataset_rows.read(folder):
        for text in table["messages"].to_pylist():
            turns = json.loads(text) if isinstance(text, str) else text
            rows.append([{"role": t["role"], "content": _content(t["content"])} for t in turns])
    return rows


def build(folder: Path, rows: list[list[dict]], options: argparse.Namespace) -> None:
    """A tokenizer trained on the texts, and a Qwen3 with random weights."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        special_tokens=[PAD, OPEN, CLOSE],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator((turn["content"] for row in rows for turn in row), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        eos_token=CLOSE,
        padding_side="left",
        chat_template=TEMPLATE,
    )
    tokenizer.save_pretrained(folder)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=options.width,
        intermediate_size=2 * options.width,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)


def train(model, tokenizer, rows: list[list[dict]], options: argparse.Namespace) -> list[float]:
    """Train on the answers; return the loss of every step."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=options.lr)
    model.train()
    losses, order = [], torch.empty(0, dtype=torch.long)
    for _ in range(options.steps):
        if len(order) < options.batch:
            order = torch.randperm(len(rows))
        picked, order = order[: options.batch].tolist(), order[options.batch :]
        asked = tokenizer(_prompts(tokenizer, [rows[row][:-1] for row in picked])).input_ids
        given = [rows[row][-1]["content"] + CLOSE for row in picked]
        given = tokenizer(given, add_special_tokens=False).input_ids
        width = max(len(a) + len(g) for a, g in zip(asked, given, strict=True))
        tokens = torch.full((len(picked), width), tokenizer.pad_token_id)
        labels, mask = torch.full_like(tokens, IGNORED), torch.zeros_like(tokens)
        for row, (question, answer) in enumerate(zip(asked, given, strict=True)):
            tokens[row, : len(question) + len(answer)] = torch.tensor(question + answer)
            labels[row, len(question) : len(question) + len(answer)] = torch.tensor(answer)
            mask[row, : len(question) + len(answer)] = 1
        loss = model(input_ids=tokens, attention_mask=mask, labels=labels).loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        losses.append(loss.item())
    model.eval()
    return losses


@torch.inference_mode()
def decode(model, tokenizer, tree, asked, constrained: bool, options) -> list[list[tuple]]:
    """The k beams of every user, each as the SID it is or None."""
    settings = trie.beam_settings(tree, options.k)
    depth, answers = tree.depth, []
    for start in range(0, len(asked), options.batch):
        prompts = _prompts(tokenizer, asked[start : start + options.batch])
        batch = tokenizer(prompts, padding=True, return_tensors="pt")
        length = batch.input_ids.shape[1]
        limits = [trie.SidLogits(tree, length, tokenizer.eos_token_id)] if constrained else []
        found = model.generate(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            logits_processor=limits,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            **settings,
        )
        texts = tokenizer.batch_decode(found[:, length : length + depth], skip_special_tokens=True)
        sids = [_sid(text, depth - 2) for text in texts]
        answers += [sids[row : row + options.k] for row in range(0, len(sids), options.k)]
    return answers


def _prompts(tokenizer, rows: list[list[dict]]) -> list[str]:
    return tokenizer.apply_chat_template(rows, tokenize=False, add_generation_prompt=True)


def _sid(text: str, n_levels: int) -> tuple[int, ...] | None:
    found = sid_text.find(text.replace(" ", ""), n_levels)
    return found.sids[0] if len(found.sids) == 1 and not found.malformed else None


def _content(content: str | list[dict]) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", default="results", help="folder of a run of the workflow")
    parser.add_argument("--quantizer", default="rqkmeans")
    parser.add_argument("--train", default="sft_video_rec")
    parser.add_argument("--test", default="sft_video_rec.test")
    parser.add_argument("--users", type=int, help="test users asked, drawn by seed; all by default")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--k", type=int, default=10, help="beams")
    parser.add_argument("--seed", type=int, default=42)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
