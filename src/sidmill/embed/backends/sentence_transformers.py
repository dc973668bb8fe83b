"""Neural encoders through sentence-transformers, such as Qwen3-Embedding.

Pooling, normalisation and padding side are read from the model's own files; a model that does not
say how to pool is refused. https://sbert.net, https://huggingface.co/Qwen/Qwen3-Embedding-8B
"""

import gc
import json
import logging
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers.utils import logging as transformers_logging

from sidmill.core.errors import SidmillError
from sidmill.embed import batches, devices, fingerprint, model_checks
from sidmill.embed.backend import DEFAULT_RUN, Backend, Run, unit_rows
from sidmill.embed.fingerprint import Fingerprint
from sidmill.embed.progress import Advance
from sidmill.embed.throughput import Encoded, Model, Work, total
from sidmill.io import hf_hub
from sidmill.numeric import wide_linear
from sidmill.settings.embedding import Embedding

logger = logging.getLogger(__name__)

# Padded tokens per batch where the config names none. On a CPU what a batch needs stays in the
# cache (docs/log.md).
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
        model: folder or hub id.
        reader: how texts become batches.
        device: where the model computes.
        settings: of the embedding.
        fingerprint: of its space.
    """

    model: str
    reader: batches.Reader
    device: torch.device
    settings: Embedding
    fingerprint: Fingerprint


class Pending(NamedTuple):
    """Vectors of a batch that the device may still compute.

    Attributes:
        parts: float32 (b, D) each, on the host.
        copied: on a GPU, an event after the copy of each part.
    """

    parts: list[torch.Tensor]
    copied: list[torch.cuda.Event]

    @property
    def is_done(self) -> bool:
        """Whether nothing has to be waited for."""
        return not self.copied

    def vectors(self) -> np.ndarray:
        """Wait for them: float32 (b, D) of all parts, in order."""
        for event in self.copied:
            event.synchronize()
        parts = [part.numpy() for part in self.parts]
        return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)


Forward = Callable[[batches.Batch], Pending]


def load(settings: Embedding, run: Run = DEFAULT_RUN) -> Backend:
    """Load an encoder. Code that comes with a model is never run, pickled weights never read.

    The number of tokens in a batch, the device and the number of processes may move the last bits
    of a vector: a matrix product of another shape adds in another order. Names of the space and
    the order of rows do not change.

    Args:
        settings: ``model`` is a folder, or an id on the Hugging Face hub (its offline settings are
            respected). ``revision`` counts on the hub; of a folder its content digest is taken.
            ``dim`` below the model's keeps the first D values, which is meant for models trained
            that way (Matryoshka). ``dtype`` is that of weights and arithmetic, vectors are
            float32. ``prompt`` is put before every text; prompts that the model's folder names are
            logged, and not applied.
        run: the number of the process on the node.

    Raises:
        SidmillError: if a setting does not fit, or the model is missing, unreachable, not an
            encoder with a known pooling, or without safetensors weights or some of them; if its
            positions or the prompt leave no room for texts of ``max_length``.
    """
    # Refuse what is no encoder before any of its weights is read.
    device = devices.choose_device(settings.device, run.process)
    dtype = devices.choose_dtype(settings.dtype, device)
    name = _check_modules(settings.model, settings.revision)
    model = _load_weights(settings, device, dtype)
    if not settings.compiled:
        wide_linear.widen(model)

    # Width and length of texts: as the settings say, within what the model can do.
    dim = _dimension(model, settings)
    max_length = _length(model, settings)
    model.max_seq_length = max_length
    model_checks.check(name, model, max_length, settings.prompt)
    model_checks.log_prompts(name, model, settings.prompt)

    # Name the embedding space.
    pooling = next(module for module in model if isinstance(module, Pooling))
    space = fingerprint.make(
        settings,
        model=Path(name).resolve().name if Path(name).is_dir() else name,
        revision=_revision(model, settings),
        pooling="+".join(np.atleast_1d(pooling.pooling_mode).tolist()),
        dim=dim,
        dtype=dtype,
        max_length=max_length,
    )

    # How texts become batches, and batches vectors.
    transformer: Any = model[0]
    reader = batches.Reader(
        model=model,
        prompt=settings.prompt,
        budget=settings.batch_tokens or BATCH_TOKENS[device.type],
        max_length=max_length,
        fixed_shapes=settings.compiled,
        packed=transformer.can_flatten_inputs,
    )
    if settings.compiled:
        transformer.model.compile(dynamic=False)
    logger.info("loaded %s on %s: %s", name, device, space)
    encoder = Encoder(name, reader, device, settings, space)
    return Backend(
        partial(_stream, reader, space),
        space,
        partial(_check, encoder),
        cache(partial(_cost, encoder)),
    )


def _dimension(model: SentenceTransformer, settings: Embedding) -> int:
    """D: ``embedding.dim``, or the model's own."""
    own: Any = model.get_embedding_dimension()
    if settings.dim is not None and settings.dim > own:
        raise SidmillError(
            f"embedding.dim is {settings.dim}, {settings.model} gives {own}: lower it, or set null "
            f"for all"
        )
    return int(settings.dim or own)


def _length(model: SentenceTransformer, settings: Embedding) -> int:
    """Tokens per text: ``embedding.max_length``, or fewer where the model's folder says so."""
    own = model.max_seq_length
    if own is None or settings.max_length <= own:
        return settings.max_length
    logger.warning(
        "%s reads %d tokens at most: embedding.max_length %d is lowered to that",
        settings.model,
        own,
        settings.max_length,
    )
    return int(own)


def _check_modules(model: str | None, revision: str | None) -> str:
    """Return the model's name once its modules.json is found to name a transformer and a pooling.

    Without that file sentence-transformers would guess the pooling; for a model of another type
    (reranker, sparse encoder) it would put a mean on top. Both give vectors that look fine and
    retrieve badly.
    """
    if not model:
        raise SidmillError("embedding.model is null: name a model folder or an id on the hub")

    # modules.json: read before any weight.
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

    # What stands behind Transformer and Pooling has to treat all texts alike.
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
    return model


def _load_weights(settings: Embedding, device: torch.device, dtype: str) -> SentenceTransformer:
    """Load the model with all of its weights, and nothing but safetensors."""
    # Options of transformers.
    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    options: dict[str, object] = {"dtype": devices.DTYPES[dtype], "use_safetensors": True}
    if settings.attention != "auto":
        options["attn_implementation"] = settings.attention

    # The libraries raise many things for a folder that is not whole.
    model = str(settings.model)
    try:
        with model_checks.complete(model):
            loaded = SentenceTransformer(
                model,
                revision=settings.revision,
                device=str(device),
                trust_remote_code=False,
                model_kwargs=options,
            )
    except (torch.OutOfMemoryError, SidmillError):
        raise
    except UNLOADABLE as error:
        raise SidmillError(
            f"{model}: cannot be loaded ({hf_hub.first_line(error)}): it must be a whole model "
            f"folder with model.safetensors; pickled weights (pytorch_model.bin) and models that "
            f"bring their own code are refused"
        ) from None
    _keep_no_keys(loaded)
    return loaded.eval()


def _keep_no_keys(model: SentenceTransformer) -> None:
    """Let a decoder keep no keys and values for tokens to come: an embedding has none.

    sentence-transformers does so since 6.2; before, each layer copied them and kept them until the
    batch was done, 2.4 GB for 16,384 tokens of Qwen3-Embedding-8B.
    """
    transformer: Any = model[0]
    config = transformer.model.config.get_text_config()
    if getattr(config, "use_cache", False):
        config.use_cache = False


def _revision(model: SentenceTransformer, settings: Embedding) -> str | None:
    """Content digest of a folder; of a hub model its commit, or the name that the user gave."""
    folder = str(settings.model)
    if Path(folder).is_dir():
        return fingerprint.folder_digest(folder)
    transformer: Any = model[0]
    return getattr(transformer.config, "_commit_hash", None) or settings.revision


def _stream(
    reader: batches.Reader, space: Fingerprint, chunks: Iterator[list[str]], advance: Advance
) -> Iterator[Encoded]:
    """Encode each chunk, longest texts first, and put the vectors back in their order."""
    dim = space["dim"]
    vectors = np.empty((0, dim), dtype=np.float32)
    works: list[Work] = []
    made = batches.prefetch(batches.batches(reader, chunks), BATCHES_AHEAD)
    with closing(_run_ahead(forward(reader, dim), made)) as encoded:
        for batch, rows in encoded:
            # The first batch of a chunk: room for all of its vectors, (n, D).
            texts = batch.texts
            if not works:
                vectors = np.empty((len(texts.texts), dim), dtype=np.float32)
                works.append(Work(cut=texts.cut))

            if len(batch.rows):
                vectors[batch.rows] = rows
                works.append(batches.work(texts, batch))
                advance(len(batch.rows))

            if batch.last:
                _log_cut(texts, space["max_length"])
                yield Encoded(unit_rows(vectors) if space["normalize"] else vectors, total(works))
                works = []


def _run_ahead(
    begin: Forward, made: Generator[batches.Batch, None, None]
) -> Generator[tuple[batches.Batch, np.ndarray], None, None]:
    """Yield each batch with its vectors; a GPU is given the next batch before this one is yielded.

    So it computes while the host takes the vectors, and writes a chunk of them. If the next batch
    cannot be made or started, the error is raised after this one was yielded, so that a chunk that
    is whole is written. If this one fails, nothing more is yielded: its chunk is never whole.

    Args:
        begin: of :func:`forward`.
        made: batches in order.
    """
    waiting: deque[tuple[batches.Batch, Pending]] = deque()
    failure: Exception | None = None
    with closing(made):
        while failure is None:
            # Start the next batch.
            try:
                batch = next(made, None)
                if batch is None:
                    break
                waiting.append((batch, begin(batch)))
            except Exception as error:
                failure = error

            # Wait for the batches before it; on a CPU for this one, too.
            while len(waiting) > 1 or (waiting and waiting[0][1].is_done):
                begun_batch, begun = waiting.popleft()
                yield begun_batch, begun.vectors()

        # The last batch, or the last before the error.
        for begun_batch, begun in waiting:
            yield begun_batch, begun.vectors()
        if failure is not None:
            raise failure


def forward(reader: batches.Reader, dim: int) -> Forward:
    """Make the function that starts to encode a batch of tokens with the model.

    A batch that is too large for the device is halved. The function remembers the largest number
    of tokens that fitted, so that later batches are cut beforehand.

    Args:
        reader: makes the halves of a batch.
        dim: values of each vector to keep.
    """
    fits = float("inf")

    def run(batch: batches.Batch) -> Pending:
        nonlocal fits
        if not len(batch.rows):
            return Pending([], [])
        size = batch.features["input_ids"].numel()
        if size <= fits or len(batch.rows) == 1:
            try:
                return _vectors(reader, batch, dim)
            except torch.OutOfMemoryError:
                if len(batch.rows) == 1:
                    raise SidmillError(
                        f"a text of {size} tokens does not fit the device: lower "
                        f"embedding.max_length (now {reader.max_length})"
                    ) from None
            fits = min(fits, size // 2)
            logger.warning("out of memory: batches of at most %d tokens from here on", fits)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

        # Too large: two batches of half the texts.
        middle = (len(batch.rows) + 1) // 2
        halves = (batch.rows[:middle], batch.rows[middle:])
        first, second = (run(_half(reader, batch, rows)) for rows in halves)
        return Pending([*first.parts, *second.parts], [*first.copied, *second.copied])

    return run


def _vectors(reader: batches.Reader, batch: batches.Batch, dim: int) -> Pending:
    """Start one pass through the model: float32 (b, dim)."""
    device = reader.model.device
    features = {
        name: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
        for name, value in batch.features.items()
    }
    with torch.inference_mode():
        pooled = reader.model(features)["sentence_embedding"][: len(batch.rows), :dim]
        # Where no event says when a copy is done, it has to be waited for here.
        vectors = pooled.float().to("cpu", non_blocking=device.type == "cuda")
    if device.type != "cuda":
        return Pending([vectors], [])
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record(torch.cuda.current_stream(device))
    return Pending([vectors], [copied])


def _half(reader: batches.Reader, batch: batches.Batch, rows: np.ndarray) -> batches.Batch:
    reader = reader._replace(fixed_shapes=False)
    return batch._replace(rows=rows, features=batches.collate(reader, batch.texts, rows))


def _log_cut(texts: batches.Texts, max_length: int) -> None:
    if texts.cut:
        logger.info(
            "%d of %d texts are longer than %d tokens and were cut (embedding.max_length)",
            texts.cut,
            len(texts.texts),
            max_length,
        )


def _check(encoder: Encoder, texts: list[str]) -> float | None:
    """Compare some texts with float32, by a second copy of the model that is dropped again."""
    reader, space, device = encoder.reader, encoder.fingerprint, encoder.device
    if space["dtype"] == "float32" or not texts:
        return None

    # Vectors in float32, with the attention that the library chooses, padded and not compiled.
    exact_model: SentenceTransformer | None = None
    exact_reader: batches.Reader | None = None
    try:
        plain = replace(encoder.settings, attention="auto")
        exact_model = _load_weights(plain, device, "float32")
        exact_model.max_seq_length = space["max_length"]
        exact_reader = reader._replace(model=exact_model, fixed_shapes=False, packed=False)
        exact = next(_stream(exact_reader, space, iter([texts]), lambda count: None)).vectors
    except (torch.OutOfMemoryError, SidmillError):  # the weights, or one text
        logger.warning("bfloat16 was not compared with float32, which does not fit %s", device)
        return None
    finally:
        exact_model = exact_reader = None
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()

    # The same texts as they will be embedded.
    rounded = next(_stream(reader, space, iter([texts]), lambda count: None)).vectors
    chosen = encoder.settings.dtype == space["dtype"]
    return devices.check_precision(rounded, exact, chosen=chosen)


def _cost(encoder: Encoder) -> Model | None:
    """What a token costs, its rate measured here; None where the configuration does not say."""
    transformer: Any = encoder.reader.model[0]
    config = transformer.model.config.get_text_config()
    missing = [name for name in devices.SIZES if getattr(config, name, None) is None]
    if missing:
        logger.info("operations are not counted: the configuration lacks %s", ", ".join(missing))
        return None
    device = encoder.device
    rate = devices.matmul_rate(
        config.hidden_size,
        config.intermediate_size,
        devices.DTYPES[encoder.fingerprint["dtype"]],
        device,
    )
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return devices.cost_per_token(transformer.model, config, name, rate)
