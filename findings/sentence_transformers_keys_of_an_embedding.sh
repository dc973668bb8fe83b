#!/usr/bin/env bash
# sentence-transformers 6.1.0 (6.0.1 alike), transformers 5.17.0, torch 2.13.0, Python 3.11, CPU.
#
# encode() with a decoder such as Qwen3-Embedding builds the cache of keys and values that generation
# needs, in every layer, and keeps it until the batch is done: nothing reads it. 16,384 tokens of
# Qwen3-Embedding-8B keep 36 layers x 2 x 1,024 x 16,384 values, 2.4 GB in bfloat16. Vectors are the
# same without it. From 6.2.0 on, loading turns it off; before, `config.use_cache = False` does.
#
# Guess: an embedding generates nothing, so encode() asks for no cache.
# Seen: a cache of all layers comes back from the model for each batch.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 transformers==5.17.0 sentence-transformers==6.1.0
cd "$folder"
venv/bin/python - <<'PY'
import functools

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

words = ["[PAD]", "red", "blue", "bolt", "glove"]
tokens = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="[PAD]"))
tokens.pre_tokenizer = pre_tokenizers.Whitespace()
PreTrainedTokenizerFast(tokenizer_object=tokens, pad_token="[PAD]").save_pretrained("model")
torch.manual_seed(0)
shape = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4)
config = Qwen3Config(vocab_size=len(words), num_key_value_heads=2, head_dim=8, **shape)
Qwen3Model(config).save_pretrained("model")
model = SentenceTransformer(modules=[Transformer("model"), Pooling(32, "lasttoken")], device="cpu")

caches, decoder = [], model[0].model
forward = decoder.forward


@functools.wraps(forward)
def watched(**inputs):
    out = forward(**inputs)
    caches.append(out.past_key_values)
    return out


decoder.forward = watched
texts = ["red bolt", "blue glove red bolt"]
vectors = model.encode(texts)
decoder.config.use_cache = False
without = model.encode(texts)
kept = [] if caches[0] is None else [layer.keys.shape for layer in caches[0].layers]
print("layers whose keys and values are kept:", len(kept), [tuple(shape) for shape in kept])
print("without:", caches[1], "same vectors:", np.array_equal(vectors, without))
assert len(kept) == 3 and all(shape[-2] == 4 for shape in kept)
assert caches[1] is None and np.array_equal(vectors, without)
PY
