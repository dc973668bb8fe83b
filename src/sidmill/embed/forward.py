"""Batches through the model; one that is too large for the device is halved, as those after it."""

import logging
from collections.abc import Callable

import numpy as np
import torch

from sidmill.core.errors import SidmillError
from sidmill.embed import tokens

logger = logging.getLogger(__name__)


def forward(reader: tokens.Reader, dim: int) -> Callable[[tokens.Batch], np.ndarray]:
    """Make the function that turns a batch into float32 (n, dim).

    It remembers the largest number of tokens that fitted: after a failure later batches are cut
    beforehand.

    Args:
        reader: makes the parts of a batch.
        dim: values of each vector to keep.
    """
    fits = float("inf")

    def run(batch: tokens.Batch) -> np.ndarray:
        nonlocal fits
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
        middle = (len(batch.rows) + 1) // 2
        halves = (batch.rows[:middle], batch.rows[middle:])
        return np.concatenate([run(_part(reader, batch, rows)) for rows in halves])

    return run


def _vectors(reader: tokens.Reader, batch: tokens.Batch, dim: int) -> np.ndarray:
    place = reader.model.device
    features = {
        name: value.to(place, non_blocking=True) if isinstance(value, torch.Tensor) else value
        for name, value in batch.features.items()
    }
    with torch.inference_mode():
        found = reader.model(features)["sentence_embedding"][: len(batch.rows), :dim]
        return found.float().cpu().numpy()


def _part(reader: tokens.Reader, batch: tokens.Batch, rows: np.ndarray) -> tokens.Batch:
    reader = reader._replace(fixed_shapes=False)
    return batch._replace(rows=rows, features=tokens.collate(reader, batch.texts, rows))
