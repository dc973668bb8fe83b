"""Neural encoders through sentence-transformers, such as Qwen3-Embedding.

Pooling, normalisation and padding side are read from the model's own files; a model that does not
say how to pool is refused. https://sbert.net, https://huggingface.co/Qwen/Qwen3-Embedding-8B
"""

import gc
import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers.utils import logging as transformers_logging

from sidmill.core.errors import SidmillError
from sidmill.embed import (
    fingerprint,
    flops,
    model_checks,
    precision,
    tokens,
)
from sidmill.embed.forward import forward
from sidmill.embed.normalization import unit_rows
from sidmill.embed.prefetch import ahead
from sidmill.embed.progress import Advance
from sidmill.embed.throughput import (
    Encoded,
    Model,
    Work,
    total,
)
from sidmill.io import hf_hub

logger = logging.getLogger(__name__)

# Padded tokens per batch where the config names none. On a CPU what a batch needs stays in the
# cache (docs/performance.md).
BATCH_TOKENS = {"cuda": 16384, "cpu": 1024}
BATCHES_AHEAD = 8
# What the libraries raise for a folder that is not whole, by the part of it that is not.
UNLOADABLE = (
    *(OSError, ValueError, ImportError, SafetensorError, RuntimeError, KeyError, TypeError),
    AttributeError,
)


class Encoder(NamedTuple):
    """A loaded model.

    Attributes:
        stream: chunks of texts to their vectors, float32 (n, D) in the order given, with the work
            that they took; calls its second argument with the number of texts done after every
            batch.
        fingerprint: names the embedding space.
        check: compares the vectors of some texts with those in float32, where it is another.
        cost: what the model costs, its rate measured when it is called; None where its
            configuration does not say.
    """

    stream: Callable[[Iterator[list[str]], Advance], Iterator[Encoded]]
    fingerprint: dict
    check: Callable[[list[str]], float | None]
    cost: Callable[[], Model | None]

    def encode(self, texts: list[str], advance: Advance) -> np.ndarray:
        """Encode one chunk: float32 (n, D)."""
        return next(self.stream(iter([texts]), advance)).vectors


def load(
    *,
    model: str | None,
    revision: str | None,
    dim: int | None,
    batch_tokens: int | None,
    max_length: int,
    dtype: str,
    device: str,
    attention: str,
    compiled: bool,
    prompt: str,
    normalize: bool,
    process: int = 0,
) -> Encoder:
    """Load an encoder. Code that comes with a model is never run, pickled weights never read.

    Args:
        model: folder, or id on the Hugging Face hub (its offline settings are respected).
        revision: branch, tag or commit on the hub; of a folder its content digest is taken instead.
        dim: D, or null for the model's own. A smaller one keeps the first D values, which is
            meant for models trained that way (Matryoshka).
        batch_tokens: padded tokens per batch, at most; null: 16,384 on a GPU, 1,024 on a CPU.
        max_length: tokens per text; longer ones are cut, and counted in the log.
        dtype: float32 or bfloat16, of weights and arithmetic; auto: bfloat16 where the device has
            a unit for it. Vectors are float32.
        device: auto, cpu or cuda.
        attention: auto, or an implementation that transformers knows; with flash_attention_2
            batches are packed, not padded.
        compiled: run the model through torch.compile, on few shapes.
        prompt: put before every text; prompts that the model's folder names are logged, and not
            applied.
        normalize: scale to unit length after cutting to D.
        process: number of this process on the node; it takes the GPU of that number.

    Raises:
        SidmillError: if a setting does not fit, or the model is missing, unreachable, not an
            encoder with a known pooling, or without safetensors weights or some of them; if its
            positions or the prompt leave no room for texts of ``max_length``.
    """
    place = _device(device, process)
    number = precision.choose(dtype, place)
    _check_modules(model, revision)
    loaded = _load_weights(model, revision, place, number, attention)
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
    model_checks.check(model, loaded, max_length, prompt)
    model_checks.say_prompts(model, loaded, prompt)
    facts = fingerprint.make(
        backend="sentence_transformers",
        model=Path(model).resolve().name if Path(model).is_dir() else model,
        revision=_revision(loaded, model, revision),
        pooling="+".join(np.atleast_1d(pooling.pooling_mode).tolist()),
        prompt=prompt,
        normalize=normalize,
        dim=dim or own_dim,
        dtype=number,
        max_length=max_length,
    )
    reader = tokens.Reader(
        model=loaded,
        prompt=prompt,
        budget=batch_tokens or BATCH_TOKENS[place.type],
        max_length=max_length,
        fixed_shapes=compiled,
        packed=loaded[0].can_flatten_inputs,
    )
    if compiled:
        loaded[0].model.compile(dynamic=False)
    logger.info("loaded %s on %s: %s", model, place, facts)
    return Encoder(
        partial(_stream, reader, facts),
        facts,
        partial(_check, reader, facts, (model, revision, place), chosen=dtype == number),
        cache(partial(_cost, loaded[0].model, place, number)),
    )


def _device(device: str, process: int) -> torch.device:
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise SidmillError(
            "embedding.device is cuda, but torch sees no CUDA device here: set auto or cpu, or run "
            "on a machine with a GPU and a CUDA build of torch"
        )
    if process >= torch.cuda.device_count():
        raise SidmillError(
            f"torch sees {torch.cuda.device_count()} GPUs here, process {process + 1} has none: "
            f"lower embedding.processes to that"
        )
    return torch.device("cuda", process)


def _check_modules(model: str | None, revision: str | None) -> None:
    """Check that the model is there, and that its modules.json names a transformer and a pooling.

    Without the file sentence-transformers would guess the pooling; for a model of another type
    (reranker, sparse encoder) it would put a mean on top. Both give vectors that look fine and
    retrieve badly.
    """
    if not model:
        raise SidmillError("embedding.model is null: name a model folder or an id on the hub")
    path = hf_hub.find_modules(model, revision, "embedding")
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
    if (
        types[:1] != ["Transformer"]
        or "Pooling" not in types
        or not {*types} <= model_checks.MODULES
    ):
        allowed = ", ".join(sorted(model_checks.MODULES))
        raise SidmillError(
            f"{model}: is made of {', '.join(types) or 'nothing'}; this backend runs models made "
            f"of Transformer and Pooling, with others of {allowed} behind them: choose one, "
            f"or bring vectors that you made with embedding.backend: precomputed"
        )


def _load_weights(
    model: str, revision: str | None, device: torch.device, dtype: str, attention: str
) -> SentenceTransformer:
    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
    options = {"dtype": precision.DTYPES[dtype], "use_safetensors": True}
    if attention != "auto":
        options["attn_implementation"] = attention
    try:
        with model_checks.complete(model):
            loaded = SentenceTransformer(
                model,
                revision=revision,
                device=str(device),
                trust_remote_code=False,
                model_kwargs=options,
            )
    except (torch.OutOfMemoryError, SidmillError):
        raise
    except UNLOADABLE as error:
        raise SidmillError(
            f"{model}: cannot be loaded ({hf_hub.first_line(error)}): it must be a whole model "
            "folder "
            f"with model.safetensors; pickled weights (pytorch_model.bin) and models that bring "
            f"their own code are refused"
        ) from None
    return loaded.eval()


def _revision(loaded: SentenceTransformer, model: str, revision: str | None) -> str | None:
    if Path(model).is_dir():
        return fingerprint.folder_digest(model)
    return getattr(loaded[0].config, "_commit_hash", None) or revision


def _stream(
    reader: tokens.Reader, facts: dict, chunks: Iterator[list[str]], advance: Advance
) -> Iterator[Encoded]:
    """Encode each chunk, longest texts first, and put the vectors back in their order."""
    found, done = np.empty((0, facts["dim"]), dtype=np.float32), []
    limit = forward(reader, facts["dim"])
    with closing(ahead(tokens.batches(reader, chunks), BATCHES_AHEAD)) as made:
        for batch in made:
            texts = batch.texts
            if not done:
                found = np.empty((len(texts.texts), facts["dim"]), dtype=np.float32)
                done.append(Work(cut=texts.cut))
            if len(batch.rows):
                found[batch.rows] = limit(batch)
                done.append(tokens.work(texts, batch))
                advance(len(batch.rows))
            if batch.last:
                _say_cut(texts, facts["max_length"])
                yield Encoded(unit_rows(found) if facts["normalize"] else found, total(done))
                done = []


def _say_cut(texts: tokens.Texts, max_length: int) -> None:
    if texts.cut:
        logger.info(
            "%d of %d texts are longer than %d tokens and were cut (embedding.max_length)",
            texts.cut,
            len(texts.texts),
            max_length,
        )


def _check(
    reader: tokens.Reader, facts: dict, source: tuple, texts: list[str], *, chosen: bool
) -> float | None:
    """Compare some texts with float32, by a second copy of the model that is dropped again."""
    model, revision, place = source
    if facts["dtype"] == "float32" or not texts:
        return None
    try:
        exact_model = _load_weights(model, revision, place, "float32", "auto")
        exact_model.max_seq_length = facts["max_length"]
        exact = next(
            _stream(
                reader._replace(model=exact_model, fixed_shapes=False, packed=False),
                facts,
                iter([texts]),
                lambda count: None,
            )
        ).vectors
    except (torch.OutOfMemoryError, SidmillError):  # the weights, or one text
        logger.warning("bfloat16 was not compared with float32, which does not fit %s", place)
        return None
    finally:
        exact_model = None
        gc.collect()
        if place.type == "cuda":
            torch.cuda.empty_cache()
    found = next(_stream(reader, facts, iter([texts]), lambda count: None)).vectors
    return precision.check(found, exact, chosen=chosen)


def _cost(model: torch.nn.Module, place: torch.device, dtype: str) -> Model | None:
    config = model.config.get_text_config()
    missing = [name for name in flops.WANTED if getattr(config, name, None) is None]
    if missing:
        logger.info("operations are not counted: the configuration lacks %s", ", ".join(missing))
        return None
    rate = flops.matmul_rate(
        config.hidden_size, config.intermediate_size, precision.DTYPES[dtype], place
    )
    name = torch.cuda.get_device_name(place) if place.type == "cuda" else "cpu"
    return flops.cost_of(model, config, name, rate)
