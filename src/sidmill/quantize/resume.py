"""The state of residual k-means after every pass, in one file, so that a killed run resumes.

The file stays beside the quantizer until the quantizer is written. It names its training: the state
of another training, or a damaged file, is not used.

Shapes: K_l codewords at level l, D dimensions, n training rows.
"""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sidmill.core.errors import SidmillError
from sidmill.io import tensors

logger = logging.getLogger(__name__)


class Fitted(NamedTuple):
    """Finished levels.

    Attributes:
        codebooks: float32 (K_l, D) per level.
        prices: float32 (K_l,) per level of balanced codebooks; empty without balance.
        balance: per level what the balance cost and gained; empty without.
    """

    codebooks: list[np.ndarray]
    prices: list[np.ndarray]
    balance: list[dict[str, Any]]


class Saved(NamedTuple):
    """What a file holds: the finished levels, and the arrays and facts of the unfinished one."""

    finished: Fitted
    arrays: dict[str, np.ndarray]  # empty between two levels
    facts: dict[str, Any]


# Saves the finished levels, and the arrays and facts of the unfinished level.
Save = Callable[[Fitted, dict[str, np.ndarray], dict[str, Any]], None]


def start(
    path: str | Path | None, identity: dict[str, Any], *, saves: bool = True
) -> tuple[Saved, Save]:
    """Resume residual k-means: return what an interrupted run saved, and the function that saves.

    Args:
        path: the state's file, or None to save nothing.
        identity: settings and facts of the data, JSON; equal for the same training alone.
        saves: whether this process is the one that saves.
    """
    if path is None:
        return _nothing(), _save_nothing
    save: Save = partial(_save, path, identity) if saves else _save_nothing
    return _load(path, identity), save


def read_finished(path: str | Path) -> Fitted:
    """Read the result of a training out of the state that it has kept, whatever the training.

    Raises:
        SidmillError: if the file is missing, damaged, or no state of a training.
    """
    arrays, facts = tensors.read(path, "state of a training")
    return unscale(_finished(arrays, facts), facts["scale"])


def unscale(finished: Fitted, scale: float) -> Fitted:
    """Codebooks and prices of vectors that were multiplied by ``scale``, without it."""
    if scale == 1.0:
        return finished
    codebooks = [(codebook / scale).astype(np.float32) for codebook in finished.codebooks]
    prices = [(prices / scale**2).astype(np.float32) for prices in finished.prices]
    return Fitted(codebooks, prices, finished.balance)


def discard(path: str | Path) -> None:
    """Remove the state of a training whose result is written."""
    Path(path).unlink(missing_ok=True)


def _nothing() -> Saved:
    return Saved(Fitted([], [], []), {}, {})


def _load(path: str | Path, identity: dict[str, Any]) -> Saved:
    if not Path(path).exists():
        return _nothing()
    try:
        arrays, facts = tensors.read(path, "state of a training")
    except SidmillError as error:
        logger.warning("%s; training starts from the beginning", error)
        return _nothing()
    if facts.pop("identity", None) != identity:
        logger.info("%s belongs to another training; this one starts from the beginning", path)
        return _nothing()
    finished = _finished(arrays, facts)
    logger.info(
        "resuming after %d finished levels, %s", len(finished.codebooks), facts or "no pass"
    )
    return Saved(finished, arrays, facts)


def _finished(arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> Fitted:
    """Take the finished levels out of what a file holds."""
    levels, balance = range(facts.pop("n_finished")), facts.pop("balance")
    codebooks = [arrays.pop(f"codebook.{level}") for level in levels]
    prices = [arrays.pop(f"price.{level}") for level in levels if balance]
    return Fitted(codebooks, prices, balance)


def _save(
    path: str | Path,
    identity: dict[str, Any],
    finished: Fitted,
    arrays: dict[str, np.ndarray],
    facts: dict[str, Any],
) -> None:
    codebooks = {f"codebook.{level}": codebook for level, codebook in enumerate(finished.codebooks)}
    prices = {f"price.{level}": price for level, price in enumerate(finished.prices)}
    metadata = {
        "identity": identity,
        "n_finished": len(finished.codebooks),
        "balance": finished.balance,
    }
    tensors.write(path, codebooks | prices | arrays, metadata | facts)


def _save_nothing(finished: Fitted, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
    """Save nothing: the training has no state file."""
