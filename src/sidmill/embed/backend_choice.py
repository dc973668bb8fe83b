"""The ways to get vectors, chosen by name.

Each backend is imported where it is chosen: sentence_transformers alone takes 9 seconds and some
hundred MB, which a job that runs another backend should not pay.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.embed import fingerprint
from sidmill.embed.normalization import unit_rows
from sidmill.embed.progress import Advance
from sidmill.embed.throughput import Encoded, Model, Work

# Rows whose vectors are kept on disk at a time; the other backends are quicker than their disk.
CHUNK_ROWS = {"sentence_transformers": 8192, "openai": 1024}


class Backend(NamedTuple):
    """A way to get vectors.

    Attributes:
        stream: turns chunks of texts into float32 (n, D), in the order given, and reports how
            many texts are done.
        fingerprint: names the embedding space.
        check: compares vectors of some texts with those of full precision, where they differ.
        cost: what the model costs, where that is known.
    """

    stream: Callable[[Iterator[list[str]], Advance], Iterator[Encoded]]
    fingerprint: dict
    check: Callable[[list[str]], object] = lambda texts: None
    cost: Callable[[], Model | None] = lambda: None


def choose(
    pids: Callable[[], pa.Array],
    *,
    model_path: str | None,
    backend: str,
    model: str | None,
    revision: str | None,
    path: str | None,
    ids_path: str | None,
    fields: dict | None,
    order_path: str | None,
    dim: int | None,
    batch_tokens: int | None,
    max_length: int | None,
    dtype: str | None,
    device: str,
    attention: str,
    compiled: bool,
    prompt: str | None,
    normalize: bool,
    http: dict,
    process: int,
) -> Backend:
    """Load the backend that the settings name.

    Args:
        pids: gives the ids of the texts, for ``precomputed``.
        model_path: fitted LSA model, for ``lsa``.
        backend: lsa, sentence_transformers, openai or precomputed.
        model: see :func:`sidmill.embed.shard.embed_shard`, as the others.
        revision: see there.
        path: see there.
        ids_path: see there.
        fields: see there.
        order_path: text.parquet in whose order the rows of ``path`` stand; None: by their ids.
        dim: see there.
        batch_tokens: see there.
        max_length: see there.
        dtype: see there.
        device: see there.
        attention: see there.
        compiled: see there.
        prompt: see there.
        normalize: see there.
        http: see there.
        process: number of this process on the node.

    Raises:
        SidmillError: if a setting does not fit the backend.
    """
    if backend in ("lsa", "precomputed") and prompt:
        raise SidmillError(
            f"embedding.prompt is {prompt!r}, which means nothing to backend {backend}: set it to "
            f'""'
        )
    if backend == "lsa":
        return _lsa(model_path, dim, normalize)
    if backend == "sentence_transformers":
        from sidmill.embed.backends import sentence_transformers

        encoder = sentence_transformers.load(
            model=model,
            revision=revision,
            dim=dim,
            batch_tokens=batch_tokens,
            max_length=max_length,
            dtype=dtype,
            device=device,
            attention=attention,
            compiled=compiled,
            prompt=prompt,
            normalize=normalize,
            process=process,
        )
        return Backend(encoder.stream, encoder.fingerprint, encoder.check, encoder.cost)
    if backend == "openai":
        from sidmill.embed.backends import openai

        return Backend(
            *openai.load(
                model=model, revision=revision, dim=dim, prompt=prompt, normalize=normalize, **http
            )
        )
    if backend == "precomputed":
        return _precomputed(
            pids(),
            model=model,
            revision=revision,
            path=path,
            ids_path=ids_path,
            fields=fields,
            order_path=order_path,
            dim=dim,
            normalize=normalize,
        )
    raise SidmillError(
        f"embedding.backend is {backend!r}: choose lsa, sentence_transformers, openai or "
        f"precomputed"
    )


def _lsa(model_path: str | None, dim: int | None, normalize: bool) -> Backend:
    from sidmill.embed.backends import lsa

    if model_path is None:
        raise ValueError("backend lsa needs model_path")
    fitted = lsa.load(model_path)
    if dim is not None and dim != len(fitted.components):
        raise SidmillError(
            f"{model_path} has {len(fitted.components)} dimensions, embedding.dim is {dim}: set "
            f"embedding.dim to {len(fitted.components)}"
        )

    def stream(chunks: Iterator[list[str]], advance: Advance) -> Iterator[Encoded]:
        for texts in chunks:
            vectors = lsa.encode(fitted, texts, normalize=normalize)
            advance(len(texts))
            yield Encoded(vectors, Work(texts=len(texts)))

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
    return Backend(stream, facts)


def _precomputed(
    pids: pa.Array,
    *,
    model: str | None,
    revision: str | None,
    path: str | None,
    ids_path: str | None,
    fields: dict | None,
    order_path: str | None,
    dim: int | None,
    normalize: bool,
) -> Backend:
    from sidmill.embed.backends import precomputed

    if not model:
        raise SidmillError(
            "embedding.model is null: with embedding.backend: precomputed it is a name for the "
            "space of your vectors, such as qwen3-embedding-8b"
        )
    source = {"path": path, "ids_path": ids_path, "fields": fields, "order_path": order_path}
    found = precomputed.gather(pids, **source, dim=dim)  # (n, D), this shard

    def stream(chunks: Iterator[list[str]], advance: Advance) -> Iterator[Encoded]:
        done = 0
        for texts in chunks:
            vectors = found[done : done + len(texts)]
            done += len(texts)
            advance(len(texts))
            yield Encoded(unit_rows(vectors) if normalize else vectors, Work(texts=len(texts)))

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
    return Backend(stream, facts)
