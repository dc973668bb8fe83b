"""A tiny Qwen3 embedding model with random weights, in the folder form of Qwen3-Embedding.

The real code path without the real weights: Qwen3Model, a byte-level BPE tokenizer that ends every
text with ``<|endoftext|>`` (which is the padding token too, as in Qwen3-Embedding), last-token
pooling, normalisation, safetensors.
"""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

END = "<|endoftext|>"
TURN_END = "<|im_end|>"
TRAINING_TEXTS = [
    "stainless steel hex bolt, metric thread, pack of fifty",
    "digital caliper with a large display for inside and outside measurement",
    "nitrile gloves, powder free, box of one hundred, blue",
    "The capital of China is Beijing.",
    "Instruct: Given a product, find others that are used with it",
    "国家法定节假日共多少天",
    "不锈钢六角螺栓，公制螺纹，五十只装",
    "哪个网站有湖南卫视直播",
]
HIDDEN = 64


def build(folder: Path, *, padding_side: str = "left", seed: int = 0) -> Path:
    """Write the model to ``folder`` and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(padding_side)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=512,
        initializer_range=0.2,  # the usual 0.02 leaves so small a model nearly linear
        eos_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.pad_token_id,
    )
    config.architectures = ["Qwen3ForCausalLM"]
    Qwen3Model(config).save_pretrained(folder)
    _write(
        folder / "modules.json",
        [
            _module(0, "", "Transformer"),
            _module(1, "1_Pooling", "Pooling"),
            _module(2, "2_Normalize", "Normalize"),
        ],
    )
    modes = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "lasttoken")
    _write(
        folder / "1_Pooling/config.json",
        {
            "word_embedding_dimension": HIDDEN,
            **{f"pooling_mode_{mode}": mode == "lasttoken" for mode in modes},
            "include_prompt": True,
        },
    )
    (folder / "2_Normalize").mkdir(exist_ok=True)
    _write(
        folder / "config_sentence_transformers.json",
        {
            "prompts": {"query": "Instruct: find what answers\nQuery:", "document": ""},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
    )
    return folder


def _tokenizer(padding_side: str) -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=[END, TURN_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(TRAINING_TEXTS, trainer)
    bpe.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", pair=f"$A {END} $B {END}", special_tokens=[(END, bpe.token_to_id(END))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=END,
        eos_token=TURN_END,
        padding_side=padding_side,
        model_max_length=512,
        # Qwen3-Embedding carries one; encoders must not apply it
        chat_template="{% for m in messages %}<|im_start|>{{ m.role }}{{ m.content }}{% endfor %}",
    )


def _module(number: int, path: str, kind: str) -> dict:
    return {
        "idx": number,
        "name": str(number),
        "path": path,
        "type": f"sentence_transformers.models.{kind}",
    }


def _write(path: Path, content: dict | list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")
