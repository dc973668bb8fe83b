"""What fewer dimensions keep: nearest neighbours of cut vectors against those of whole ones.

Models trained for it (Matryoshka) put what matters most first, so vectors may be cut and scaled to
length 1 again. https://arxiv.org/abs/2205.13147

Letters: n texts of the sample, D dimensions, k neighbours.
"""

import logging

import numpy as np
import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.embed import backend_choice, progress
from sidmill.embed.normalization import unit_rows
from sidmill.formats import item_text

logger = logging.getLogger(__name__)

SMALLEST = 32
QUERIES = 256  # at a time: (256, n) scores


def measure(
    text_path: str, settings: dict, *, sample: int, neighbours: int, dims: list[int] | None
) -> dict:
    """Embed a sample at full width, cut it, and compare neighbours within the sample.

    Args:
        text_path: text.parquet; the sample is evenly spread over its rows.
        settings: of the backend, see :func:`sidmill.embed.shard.embed_shard`; ``dim`` is looked
            at, the model gives its full width. With ``lsa`` that is ``dim`` itself.
        sample: texts, at most. Memory: their vectors.
        neighbours: k; cosine, the text itself left out, ties to the earlier text.
        dims: widths to try, null for halves of the full one down to 32, and ``dim``.

    Returns:
        ``jaccard`` per width: mean share of common neighbours in all of both.

    Raises:
        SidmillError: if ``precomputed`` lacks vectors of the sample, which a file of new items
            alone does, a width is above the model's, or the sample has no k neighbours.
    """
    pids, texts = _sample(text_path, sample)
    if len(texts) <= neighbours:
        raise SidmillError(
            f"{text_path}: a sample of {len(texts)} texts has no {neighbours} neighbours: lower "
            f"matryoshka.neighbours"
        )
    dim = settings["dim"]
    in_order = settings.get("rows") == "catalogue"
    settings = {key: value for key, value in settings.items() if key != "rows"}
    settings |= {"order_path": text_path if in_order else None}
    whole = settings | {"dim": dim if settings["backend"] == "lsa" else None, "normalize": False}
    try:
        chosen = backend_choice.choose(lambda: pids, process=0, **whole)
    except SidmillError as error:
        if settings["backend"] != "precomputed":
            raise
        raise SidmillError(
            f"matryoshka.json samples the whole catalogue, published items too: {error}"
        ) from None
    full = chosen.fingerprint["dim"]
    wanted = sorted({*(dims or _halves(full)), *([dim] if dim else [])}, reverse=True)
    if wanted and wanted[0] > full:
        raise SidmillError(
            f"matryoshka.dims or embedding.dim: found {wanted[0]}, the model gives {full}: lower it"
        )
    with progress.counting(len(texts), "texts") as advance:
        vectors = next(chosen.stream(iter([texts]), advance)).vectors
    exact = _nearest(vectors, neighbours)
    kept = {width: _jaccard(exact, _nearest(vectors[:, :width], neighbours)) for width in wanted}
    return {
        "model": chosen.fingerprint["model"],
        "full_dim": full,
        "texts": len(texts),
        "neighbours": neighbours,
        "jaccard": {str(width): share for width, share in kept.items()},
    }


def _sample(text_path: str, sample: int) -> tuple[pa.Array, list[str]]:
    """Ids and texts of evenly spread rows; texts that were there already are passed over."""
    count = item_text.count(text_path)
    rows = (
        np.unique(np.linspace(0, count - 1, min(sample, count)).astype(np.int64)) if count else []
    )
    wanted = np.zeros(count, dtype=bool)
    wanted[rows] = True
    tables, row = [], 0
    for table in item_text.read(text_path):
        tables.append(table.filter(pa.array(wanted[row : row + table.num_rows])))
        row += table.num_rows
    chosen = pa.concat_tables(tables) if tables else item_text.schema(pa.int64()).empty_table()
    first: dict[str, int] = {}
    for number, line in enumerate(chosen["text"].to_pylist()):
        first.setdefault(line, number)
    chosen = chosen.take(list(first.values()))
    return chosen["pid"].combine_chunks(), chosen["text"].to_pylist()


def _halves(full: int) -> list[int]:
    return [full >> step for step in range(1, full.bit_length()) if full >> step >= SMALLEST]


def _nearest(vectors: np.ndarray, k: int) -> np.ndarray:
    """Rows of the k nearest of each vector by cosine, int64 (n, k)."""
    unit = unit_rows(vectors)
    found = []
    for start in range(0, len(unit), QUERIES):
        scores = unit[start : start + QUERIES] @ unit.T
        own = np.arange(len(scores))
        scores[own, start + own] = -np.inf
        found.append(np.argsort(-scores, axis=1, kind="stable")[:, :k])
    return np.concatenate(found)


def _jaccard(exact: np.ndarray, found: np.ndarray) -> float:
    k = exact.shape[1]
    common = (exact[:, :, None] == found[:, None, :]).any(axis=2).sum(axis=1)
    return float((common / (2 * k - common)).mean())
