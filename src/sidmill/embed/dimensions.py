"""What fewer dimensions keep: nearest neighbours of cut vectors against those of whole ones.

Models trained for it (Matryoshka) put what matters most first, so vectors may be cut and scaled to
length 1 again. https://arxiv.org/abs/2205.13147

Letters: n texts of the sample, D dimensions, k neighbours.
"""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.embed import backend, progress
from sidmill.embed.backend import DEFAULT_RUN, Run, unit_rows
from sidmill.formats import item_text
from sidmill.numeric import list_overlap
from sidmill.settings.embedding import Embedding, Matryoshka

logger = logging.getLogger(__name__)

SMALLEST = 32
QUERIES = 256  # at a time: (256, n) scores


def measure(
    text_path: str | Path, settings: Embedding, matryoshka: Matryoshka, run: Run = DEFAULT_RUN
) -> dict[str, Any]:
    """Embed a sample at full width, cut it, and compare neighbours within the sample.

    Args:
        text_path: text.parquet; the sample is evenly spread over its rows.
        settings: of the embedding. The model gives its full width, whatever ``dim`` is; with
            ``lsa`` that is ``dim`` itself.
        matryoshka: ``sample`` texts, at most (memory: their vectors); k ``neighbours`` by cosine,
            the text itself left out, ties to the earlier text; ``dims`` null: halves of the full
            width down to 32, and ``embedding.dim``.
        run: what the backend needs besides.

    Returns:
        ``jaccard`` per width: mean share of common neighbours in all of both.

    Raises:
        SidmillError: if ``precomputed`` lacks vectors of the sample, which a file of new items
            alone does, a width is above the model's, or the sample has no k neighbours.
    """
    neighbours = matryoshka.neighbours
    pids, texts = _sample(text_path, matryoshka.sample)
    if len(texts) <= neighbours:
        raise SidmillError(
            f"{text_path}: a sample of {len(texts)} texts has no {neighbours} neighbours: lower "
            f"matryoshka.neighbours"
        )

    # The model at its full width.
    dim = settings.dim
    whole = replace(settings, dim=dim if settings.backend == "lsa" else None, normalize=False)
    run = run._replace(text_path=str(text_path), read_pids=lambda: pids)
    try:
        loaded = backend.choose(whole, run)
    except SidmillError as error:
        if settings.backend != "precomputed":
            raise
        raise SidmillError(
            f"matryoshka.json samples the whole catalogue, published items too: {error}"
        ) from None

    # Widths to compare, largest first.
    full = loaded.fingerprint["dim"]
    widths = {*(matryoshka.dims or _halves(full)), *([dim] if dim else [])}
    if widths and max(widths) > full:
        raise SidmillError(
            f"matryoshka.dims or embedding.dim: found {max(widths)}, the model gives {full}: lower "
            f"it"
        )

    # Neighbours at full width, and at each smaller one.
    with progress.counting(len(texts), "texts") as advance:
        vectors = loaded.encode(texts, advance)
    exact = _nearest(vectors, neighbours)
    return {
        "model": loaded.fingerprint["model"],
        "full_dim": full,
        "texts": len(texts),
        "neighbours": neighbours,
        "jaccard": {
            str(width): list_overlap.jaccard(exact, _nearest(vectors[:, :width], neighbours))
            for width in sorted(widths, reverse=True)
        },
    }


def _sample(text_path: str | Path, sample: int) -> tuple[pa.Array, list[str]]:
    """Ids and texts of evenly spread rows; of equal texts the first."""
    # Which rows: bool (N,).
    n_rows = item_text.count(text_path)
    is_sampled = np.zeros(n_rows, dtype=bool)
    if n_rows:
        spread = np.linspace(0, n_rows - 1, min(sample, n_rows))
        is_sampled[spread.astype(np.int64)] = True

    # Their ids and texts.
    tables, row = [], 0
    for table in item_text.read(text_path):
        tables.append(table.filter(pa.array(is_sampled[row : row + table.num_rows])))
        row += table.num_rows
    chosen = pa.concat_tables(tables) if tables else item_text.schema(pa.int64()).empty_table()

    # A text that stands in the sample twice would be its own nearest neighbour.
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
    nearest = []
    for start in range(0, len(unit), QUERIES):
        scores = unit[start : start + QUERIES] @ unit.T
        own = np.arange(len(scores))
        scores[own, start + own] = -np.inf
        nearest.append(np.argsort(-scores, axis=1, kind="stable")[:, :k])
    return np.concatenate(nearest)
