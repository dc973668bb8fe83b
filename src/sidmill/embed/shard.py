"""One shard of embeddings.parquet: rows of text.parquet -> vectors, by the chosen backend."""

import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.embed import fingerprint, progress, reuse
from sidmill.embed.unit import unit_rows
from sidmill.formats import embeddings, text

logger = logging.getLogger(__name__)

NAMED_IDS = 5  # ids that a warning names


class Backend(NamedTuple):
    """A way to get vectors.

    Attributes:
        encode: turns a table of ``pid`` and ``text`` (n rows) into float32 (n, D), and reports
            how many rows are done.
        fingerprint: names the embedding space.
    """

    encode: Callable[[pa.Table, progress.Advance], np.ndarray]
    fingerprint: dict


def embed_shard(
    text_path: str,
    shard_path: str,
    *,
    shard: int,
    shards: int,
    model_path: str | None,
    match_path: str | None,
    published: list[str],
    backend: str,
    model: str | None,
    revision: str | None,
    path: str | None,
    ids_path: str | None,
    dim: int | None,
    batch_tokens: int,
    max_length: int,
    dtype: str,
    device: str,
    prompt: str,
    normalize: bool,
) -> int:
    """Embed the texts of one shard.

    Shards are consecutive rows of text.parquet, so their files in order of name hold the items in
    order. Memory: 8,192 texts with their vectors, and the model; with ``precomputed`` the vectors
    of the shard.

    Args:
        text_path: text.parquet.
        shard_path: file of embeddings.parquet to write.
        shard: number of the shard, from 0.
        shards: how many there are.
        model_path: fitted LSA model, for backend ``lsa``.
        match_path: match.parquet of a published version, whose vectors are reused; or None.
        published: its shards of embeddings, in order.
        backend: lsa, sentence_transformers or precomputed.
        model: folder or hub id; for ``precomputed`` a label that names the space.
        revision: of the model, as the user names it.
        path: vectors of the user, for ``precomputed``.
        ids_path: ids of a .npy at ``path``.
        dim: D; see the backend for null.
        batch_tokens: padded tokens per batch.
        max_length: tokens per text.
        dtype: float32 or bfloat16.
        device: auto, cpu or cuda.
        prompt: put before every text.
        normalize: scale vectors to unit length.

    Returns:
        Number of rows written.

    Raises:
        SidmillError: if a setting does not fit the backend, or the backend cannot do its work.
    """
    start, stop = text.shard_bounds(text.count(text_path), shard, shards)
    rows = reuse.published_rows(match_path, published, start, stop)
    if backend != "sentence_transformers" and prompt:
        raise SidmillError(
            f"embedding.prompt is {prompt!r}, which means nothing to backend {backend}: set it to "
            f'""'
        )
    if backend == "lsa":
        chosen = _lsa(model_path, dim, normalize)
    elif backend == "sentence_transformers":
        chosen = _sentence(
            model=model,
            revision=revision,
            dim=dim,
            batch_tokens=batch_tokens,
            max_length=max_length,
            dtype=dtype,
            device=device,
            prompt=prompt,
            normalize=normalize,
        )
    elif backend == "precomputed":
        pids = _pids(text_path, start, stop)
        pids = pids.filter(pa.array(rows == reuse.NONE))
        chosen = _precomputed(
            pids,
            model=model,
            revision=revision,
            path=path,
            ids_path=ids_path,
            dim=dim,
            normalize=normalize,
        )
    else:
        raise SidmillError(
            f"embedding.backend is {backend!r}: choose lsa, sentence_transformers or precomputed"
        )
    logger.info("shard %d of %d: rows %d to %d of %s", shard, shards, start, stop, text_path)
    read = partial(text.read, text_path, start, stop)
    with progress.counting(int((rows == reuse.NONE).sum()), "texts") as advance:
        embed = partial(_blocks, chosen, advance=advance)
        blocks = embed(read())
        if published:
            reuse.check(chosen.fingerprint, published)
            blocks = reuse.blocks(
                read, embed, rows, published, chosen.fingerprint["dim"], Path(shard_path).parent
            )
        return embeddings.write(shard_path, text.pid_type(text_path), chosen.fingerprint, blocks)


def _blocks(
    backend: Backend, tables: Iterator[pa.Table], advance: progress.Advance
) -> Iterator[tuple[pa.ChunkedArray, np.ndarray]]:
    """Yield ids with their vectors, and warn of vectors without a direction at the end."""
    empty: list = []
    count = 0
    for table in tables:
        vectors = backend.encode(table, advance)
        zero = np.flatnonzero(~vectors.any(axis=1))
        count += zero.size
        empty += table["pid"].take(zero[: NAMED_IDS - len(empty)]).to_pylist()
        yield table["pid"], vectors
    if count:
        logger.warning(
            "%d texts have an all-zero vector, which the vector store refuses; first pids: %s",
            count,
            ", ".join(map(repr, empty)),
        )


# Each backend is imported where it is chosen: sentence_transformers alone takes 9 seconds and some
# hundred MB, which a job that runs another backend should not pay.


def _lsa(model_path: str | None, dim: int | None, normalize: bool) -> Backend:
    from sidmill.embed import lsa

    if model_path is None:
        raise ValueError("backend lsa needs model_path")
    fitted = lsa.load(model_path)
    if dim is not None and dim != len(fitted.components):
        raise SidmillError(
            f"{model_path} has {len(fitted.components)} dimensions, embedding.dim is {dim}: set it "
            f"so, or fit LSA anew"
        )

    def encode(table: pa.Table, advance: progress.Advance) -> np.ndarray:
        vectors = lsa.encode(fitted, table["text"].to_pylist(), normalize=normalize)
        advance(len(vectors))
        return vectors

    facts = fingerprint.make(
        backend="lsa",
        model="lsa",
        revision=fingerprint.file_digest(model_path),
        pooling="tfidf-svd",
        prompt="",
        normalize=normalize,
        dim=len(fitted.components),
        dtype="float32",
        max_length=None,
    )
    return Backend(encode, facts)


def _sentence(**settings: object) -> Backend:
    from sidmill.embed import sentence

    encoder = sentence.load(**settings)

    def encode(table: pa.Table, advance: progress.Advance) -> np.ndarray:
        return encoder.encode(table["text"].to_pylist(), advance)

    return Backend(encode, encoder.fingerprint)


def _precomputed(
    pids: pa.Array,
    *,
    model: str | None,
    revision: str | None,
    path: str | None,
    ids_path: str | None,
    dim: int | None,
    normalize: bool,
) -> Backend:
    from sidmill.embed import precomputed

    if not model:
        raise SidmillError(
            "embedding.model is null: with embedding.backend: precomputed it is a name for the "
            "space of your vectors, such as qwen3-embedding-8b"
        )
    found = precomputed.gather(pids, path=path, ids_path=ids_path, dim=dim)  # (n, D), this shard
    done = 0

    def encode(table: pa.Table, advance: progress.Advance) -> np.ndarray:
        nonlocal done
        vectors = found[done : done + table.num_rows]
        done += table.num_rows
        advance(table.num_rows)
        return unit_rows(vectors) if normalize else vectors

    facts = fingerprint.make(
        backend="precomputed",
        model=model,
        revision=revision,
        pooling="",
        prompt="",
        normalize=normalize,
        dim=found.shape[1],
        dtype="float32",
        max_length=None,
    )
    return Backend(encode, facts)


def _pids(text_path: str, start: int, stop: int) -> pa.Array:
    """Return the item ids of the shard."""
    chunks = [chunk for table in text.read(text_path, start, stop) for chunk in table["pid"].chunks]
    return pa.chunked_array(chunks, text.pid_type(text_path)).combine_chunks()
