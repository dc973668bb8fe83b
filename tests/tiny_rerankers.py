"""Tiny models with random weights: a BERT that reads characters, and a Qwen3 language model."""

from pathlib import Path

import tiny_qwen3
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

HIDDEN = 64


def bert(folder: Path, texts: list[str]) -> Path:
    """A BERT without any head, in the bare form of a Hugging Face folder: no modules.json."""
    characters = sorted(
        {character for text in texts for character in text if not character.isspace()}
    )
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    words = Tokenizer(
        models.WordLevel({w: n for n, w in enumerate(special + characters)}, unk_token="[UNK]")
    )
    words.normalizer = normalizers.NFC()
    words.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    words.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", model_max_length=256,
    )  # fmt: skip
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=HIDDEN, intermediate_size=128, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=256, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, initializer_range=0.2,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder


def qwen3_reranker(folder: Path) -> Path:
    """A Qwen3 language model whose tokenizer knows yes and no, as Qwen3-Reranker is handed out."""
    tokenizer = tiny_qwen3._tokenizer("left")
    tokenizer.add_tokens(["yes", "no"])
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=HIDDEN, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, max_position_embeddings=1024,
        initializer_range=0.1, eos_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return folder
