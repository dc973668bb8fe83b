"""Neural encoders through sentence-transformers, such as Qwen3-Embedding.

Pooling, normalisation and padding side are read from the model's own files; a model that does not
say how to pool is refused. https://sbert.net, https://huggingface.co/Qwen/Qwen3-Embedding-8B
"""

import json
import logging
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers.utils import logging as transformers_logging

from sidmill.core.errors import SidmillError
from sidmill.embed import batches, fingerprint
from sidmill.embed.progress import Advance
from sidmill.embed.unit import unit_rows
from sidmill.formats import hub

logger = logging.getLogger(__name__)

# float16 is not among them: Qwen3 overflows it and gives NaN.
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TEXTS_PER_COUNT = 1024  # tokenised at a time to learn their lengths


class Encoder(NamedTuple):
    """A loaded model.

    Attributes:
        encode: texts to float32 (n, D) in the order given; calls its second argument with the
            number of texts done after every batch.
        fingerprint: names the embedding space.
    """

    encode: Callable[[list[str], Advance], np.ndarray]
    fingerprint: dict


def load(
    *,
    model: str | None,
    revision: str | None,
    dim: int | None,
    batch_tokens: int,
    max_length: int,
    dtype: str,
    device: str,
    prompt: str,
    normalize: bool,
) -> Encoder:
    """Load an encoder. Code that comes with a model is never run, pickled weights never read.

    Args:
        model: folder, or id on the Hugging Face hub (its offline settings are respected).
        revision: branch, tag or commit on the hub; of a folder its content digest is taken instead.
        dim: D, or null for the model's own. A smaller one keeps the first D values, which is
            meant for models trained that way (Matryoshka).
        batch_tokens: padded tokens per batch, at most.
        max_length: tokens per text; longer ones are cut, and counted in the log.
        dtype: float32 or bfloat16, of weights and arithmetic. Vectors are float32.
        device: auto, cpu or cuda.
        prompt: put before every text; the prompts in the model's folder are not applied.
        normalize: scale to unit length after cutting to D.

    Raises:
        SidmillError: if a setting does not fit, or the model is missing, unreachable, not an
            encoder with a known pooling, or without safetensors weights.
    """
    place = _device(device)
    if dtype not in DTYPES:
        raise SidmillError(
            f"embedding.dtype is {dtype!r}: choose float32, or bfloat16 on a GPU (float16 "
            f"overflows to NaN in Qwen3)"
        )
    _check_modules(model, revision)
    loaded = _load_weights(model, revision, place, dtype)
    pooling = next(module for module in loaded if isinstance(module, Pooling))
    own_dim = loaded.get_embedding_dimension()
    if dim is not None and dim > own_dim:
        raise SidmillError(
            f"embedding.dim is {dim}, {model} gives {own_dim}: lower it, or set null for all"
        )
    own_length = loaded.max_seq_length
    if own_length is not None and max_length > own_length:
        logger.warning(
            "%s reads %d tokens at most: embedding.max_length %d is lowered to that",
            model,
            own_length,
            max_length,
        )
        max_length = own_length
    loaded.max_seq_length = max_length
    facts = fingerprint.make(
        backend="sentence_transformers",
        model=Path(model).resolve().name if Path(model).is_dir() else model,
        revision=_revision(loaded, model, revision),
        pooling="+".join(np.atleast_1d(pooling.pooling_mode).tolist()),
        prompt=prompt,
        normalize=normalize,
        dim=dim or own_dim,
        dtype=dtype,
        max_length=max_length,
    )
    logger.info("loaded %s on %s: %s", model, place, facts)
    return Encoder(partial(_encode, loaded, facts, batch_tokens), facts)


def _device(device: str) -> str:
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise SidmillError(
            "embedding.device is cuda, but torch sees no CUDA device here: set auto or cpu, or run "
            "on a machine with a GPU and a CUDA build of torch"
        )
    return device


def _check_modules(model: str | None, revision: str | None) -> None:
    """Check that the model is there, and that its modules.json names a transformer and a pooling.

    Without the file sentence-transformers would guess the pooling; for a model of another type
    (reranker, sparse encoder) it would put a mean on top. Both give vectors that look fine and
    retrieve badly.
    """
    if not model:
        raise SidmillError("embedding.model is null: name a model folder or an id on the hub")
    path = hub.find_modules(model, revision, "embedding")
    if path is None:
        raise SidmillError(
            f"{model}: no modules.json, so nothing says how to pool its tokens (Qwen3 takes the "
            f"last one, others the mean or the first): get the whole sentence-transformers folder "
            f"of the model, with modules.json and 1_Pooling/config.json"
        )
    try:
        types = [entry["type"].rpartition(".")[2] for entry in json.loads(path.read_bytes())]
    except (ValueError, TypeError, KeyError) as error:
        raise SidmillError(
            f"{path}: not a list of modules ({error}): download the model again"
        ) from None
    if types[:1] != ["Transformer"] or "Pooling" not in types:
        raise SidmillError(
            f"{model}: is made of {', '.join(types) or 'nothing'}; this backend runs models made "
            f"of Transformer and Pooling: choose one, or bring vectors that you made with "
            f"embedding.backend: precomputed"
        )


def _load_weights(model: str, revision: str | None, device: str, dtype: str) -> SentenceTransformer:
    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
    try:
        return SentenceTransformer(
            model,
            revision=revision,
            device=device,
            trust_remote_code=False,
            model_kwargs={"dtype": DTYPES[dtype], "use_safetensors": True},
        )
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        raise SidmillError(
            f"{model}: cannot be loaded ({hub.first_line(error)}): it must be a whole model folder "
            f"with model.safetensors; pickled weights (pytorch_model.bin) and models that bring "
            f"their own code are refused"
        ) from None


def _revision(loaded: SentenceTransformer, model: str, revision: str | None) -> str | None:
    if Path(model).is_dir():
        return fingerprint.folder_digest(model)
    return getattr(loaded[0].config, "_commit_hash", None) or revision


def _encode(
    model: SentenceTransformer, facts: dict, batch_tokens: int, texts: list[str], advance: Advance
) -> np.ndarray:
    """Encode ``texts``, longest first, and put the vectors back in their order."""
    lengths = _count_tokens(model, [facts["prompt"] + text for text in texts])
    cut = int((lengths > facts["max_length"]).sum())
    if cut:
        logger.info(
            "%d of %d texts are longer than %d tokens and were cut (embedding.max_length)",
            cut,
            len(texts),
            facts["max_length"],
        )
    lengths = np.minimum(lengths, facts["max_length"])
    vectors = np.empty((len(texts), facts["dim"]), dtype=np.float32)
    for rows in batches.by_token_budget(lengths, batch_tokens):
        batch = [texts[row] for row in rows]
        vectors[rows] = _encode_batch(model, batch, facts["prompt"], batch_tokens)[
            :, : facts["dim"]
        ]
        advance(len(rows))
    return unit_rows(vectors) if facts["normalize"] else vectors


def _count_tokens(model: SentenceTransformer, texts: list[str]) -> np.ndarray:
    """Return the tokens of each text before cutting, int64 (n,)."""
    lengths = []
    for start in range(0, len(texts), TEXTS_PER_COUNT):
        encoded = model.tokenizer(
            texts[start : start + TEXTS_PER_COUNT],
            truncation=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        lengths += [len(ids) for ids in encoded["input_ids"]]
    return np.array(lengths, dtype=np.int64)


def _encode_batch(
    model: SentenceTransformer, texts: list[str], prompt: str, batch_tokens: int
) -> np.ndarray:
    try:
        # prompt="" turns off a default prompt in the model's folder
        return (
            model.encode(
                texts,
                prompt=prompt,
                batch_size=len(texts),
                show_progress_bar=False,
                convert_to_tensor=True,
            )
            .float()
            .cpu()
            .numpy()
        )
    except torch.OutOfMemoryError:
        raise SidmillError(
            f"a batch of {len(texts)} texts does not fit the device: lower embedding.batch_tokens "
            f"(now {batch_tokens})"
        ) from None
