"""What every backend is: texts in, vectors out, and the name of their embedding space.

The backends are listed in :data:`sidmill.settings.registry.BACKENDS`. Each is imported where it is
chosen: sentence_transformers alone takes 9 seconds and some hundred MB, which a job that runs
another backend should not pay.
"""

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import NamedTuple, cast

import numpy as np
import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.embed.fingerprint import Fingerprint
from sidmill.embed.progress import Advance
from sidmill.embed.throughput import Encoded, Model
from sidmill.settings import base, registry
from sidmill.settings.embedding import Embedding, Openai
from sidmill.settings.registry import BACKENDS

# Norms this close to 1 count as 1: float32 vectors that are normalised keep their bits.
TOLERANCE = 1e-6


class Run(NamedTuple):
    """What a backend needs besides the settings of the embedding.

    Attributes:
        openai: how a server is asked.
        model_path: fitted LSA model.
        text_path: text.parquet, whose order the user's vectors may have.
        read_pids: reads the ids of the texts that will be embedded, in their order.
        process: number of this process on the node; it takes the GPU of that number.
    """

    openai: Openai = base.read(Openai, {})  # its defaults
    model_path: str | None = None
    text_path: str = ""
    read_pids: Callable[[], pa.Array] = lambda: pa.array([], pa.int64())
    process: int = 0


DEFAULT_RUN = Run()


class Backend(NamedTuple):
    """A way to get vectors.

    Attributes:
        stream: turns chunks of texts into float32 (n, D), in the order given, with the work that
            they took; calls its second argument with the number of texts done.
        fingerprint: names the embedding space.
        check: compares vectors of some texts with those of full precision, where they differ.
        cost: what the model costs, where that is known.
    """

    stream: Callable[[Iterator[list[str]], Advance], Iterator[Encoded]]
    fingerprint: Fingerprint
    check: Callable[[list[str]], float | None] = lambda texts: None
    cost: Callable[[], Model | None] = lambda: None

    def encode(self, texts: list[str], advance: Advance) -> np.ndarray:
        """Encode one chunk: float32 (n, D)."""
        return next(self.stream(iter([texts]), advance)).vectors


def choose(settings: Embedding, run: Run) -> Backend:
    """Load the backend that the settings name.

    Args:
        settings: the embedding; what the backend does not read counts for nothing.
        run: what else it needs.

    Raises:
        SidmillError: if a setting does not fit the backend.
    """
    entry = _entry(settings.backend)
    if settings.prompt and "prompt" not in entry.reads:
        raise SidmillError(
            f"embedding.prompt is {settings.prompt!r}, which means nothing to backend "
            f'{settings.backend}: set it to ""'
        )
    module, _, name = entry.function.partition(":")
    load = cast(Callable[[Embedding, Run], Backend], getattr(import_module(module), name))
    return load(settings, run)


def module_of(name: str) -> str:
    """The module of a backend, which imports the libraries that it uses.

    Raises:
        SidmillError: if there is no such backend.
    """
    return _entry(name).function.partition(":")[0]


def _entry(name: str) -> registry.Backend:
    entry = BACKENDS.get(name)
    if entry is None:
        raise SidmillError(f"embedding.backend is {name!r}: choose {', '.join(BACKENDS)}")
    return entry


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Scale each row to length 1.

    Rows that have that length already keep their bits, so doing it twice does nothing. Rows
    without a direction (zero, or not finite) are left for the vector store to refuse.

    Args:
        vectors: float32 (n, D).

    Returns:
        float32 (n, D).
    """
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    uneven = np.isfinite(norms) & (norms > 0) & (np.abs(norms - 1) > TOLERANCE)
    scaled = np.array(vectors, dtype=np.float32)
    scaled[uneven] = vectors[uneven] / norms[uneven, None]
    return scaled
