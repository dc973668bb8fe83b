"""Two versions of ``pid2sid.parquet``: items that are new, are gone, or have another SID.

A published SID is a promise: a model trained on it, or a log that holds it, means one item by it.
Two things break the promise: an item that **moved** (same pid, another SID), and a SID that was
**reused** (it now means only items that it did not mean before).

Shapes: N items of the old version, M of the new one, L levels.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.formats import code_files
from sidmill.io import id_lookup


class Comparison(NamedTuple):
    """The difference of two versions; rows rise, and are those of the file that is named.

    Attributes:
        old: ids, SIDs int32 (N, L) and sizes of the old version.
        new: the same of the new version, (M, L).
        added: int64 rows of new: the pid is not in old.
        removed: int64 rows of old: the pid is not in new.
        moved: int64 rows of new: the pid is in old with another SID.
        moved_from: int64 rows of old, one for each of ``moved``.
        unchanged: int64 rows of new: the pid is in old with the same SID.
        reused: int64 rows of new, added or moved ones: their SID belonged to other pids in old,
            none of which has it now.
        shared: int64 rows of new, added or moved ones: their SID belonged to another pid in old,
            which has it still: items share a SID where collisions are not resolved.
    """

    old: code_files.Codes
    new: code_files.Codes
    added: np.ndarray
    removed: np.ndarray
    moved: np.ndarray
    moved_from: np.ndarray
    unchanged: np.ndarray
    reused: np.ndarray
    shared: np.ndarray

    @property
    def keeps_promises(self) -> bool:
        """Whether no item moved and no SID was reused."""
        return not len(self.moved) and not len(self.reused)


class Tenures(NamedTuple):
    """Masks over the items of a new version, bool (M,).

    Attributes:
        same: it has the SID that it had.
        reused: it was given one that items had before, none of which has it now.
        shared: it was given one that another item had before and has still.
    """

    same: np.ndarray
    reused: np.ndarray
    shared: np.ndarray


def compare(old_path: str | Path, new_path: str | Path) -> Comparison:
    """Compare two versions of ``pid2sid.parquet``, in any order of their rows.

    Memory: about 220 bytes per item of both with integer ids; strings add the look-up of
    :mod:`sidmill.io.id_lookup`.

    Args:
        old_path: the version that was published.
        new_path: the version that shall follow it.

    Raises:
        SidmillError: if a file is no ``pid2sid.parquet`` or holds an id twice, or if the two have
            ids of different types or SIDs of different lengths.
    """
    # Refuse files that cannot be versions of one catalogue.
    old, new = code_files.read(old_path, "sid"), code_files.read(new_path, "sid")
    if pa.types.is_integer(old.ids.type) != pa.types.is_integer(new.ids.type):
        raise SidmillError(
            f"{old_path} has item ids of type {old.ids.type}, {new_path} of type {new.ids.type}: "
            f"they are no versions of one catalogue: set items.id_type to int or string for both"
        )
    lengths = [one.codes.shape[1] for one in (old, new)]
    if len(old.codes) and len(new.codes) and lengths[0] != lengths[1]:
        raise SidmillError(
            f"{old_path} has SIDs of {lengths[0]} tokens, {new_path} of {lengths[1]}: no SID of "
            f"the one is a SID of the other, so all items moved: keep the number of levels and "
            f"collisions.strategy between versions"
        )

    # The row that each new item has in old, (M,); the second look-up refuses ids that repeat.
    rows_in_old = id_lookup.find(id_lookup.make(old.ids, old_path), new.ids).astype(np.int64)
    id_lookup.make(new.ids, new_path)
    known = rows_in_old != id_lookup.ABSENT
    tenures = follow(old.codes, new.codes, rows_in_old)

    moved = np.flatnonzero(known & ~tenures.same)
    stays = np.zeros(len(old.codes), dtype=bool)
    stays[rows_in_old[known]] = True
    return Comparison(
        old,
        new,
        added=np.flatnonzero(~known),
        removed=np.flatnonzero(~stays),
        moved=moved,
        moved_from=rows_in_old[moved],
        unchanged=np.flatnonzero(tenures.same),
        reused=np.flatnonzero(tenures.reused),
        shared=np.flatnonzero(tenures.shared),
    )


def follow(old: np.ndarray, new: np.ndarray, rows_in_old: np.ndarray) -> Tenures:
    """Tell which items of two versions kept their SID, and which got one that other items had.

    Args:
        old: SIDs int32 (N, L).
        new: SIDs int32 (M, L).
        rows_in_old: int (M,), the row that an item had in ``old``, ``ABSENT`` for none.
    """
    before, after = _numbered(old, new)
    same = rows_in_old != id_lookup.ABSENT
    same[same] = before[rows_in_old[same]] == after[same]
    n_sids = 1 + max(before.max(initial=-1), after.max(initial=-1))
    owned, kept = np.zeros((2, n_sids), dtype=bool)  # SIDs of old, and those with an old owner left
    owned[before] = True
    kept[after[same]] = True
    return Tenures(same, ~same & owned[after] & ~kept[after], ~same & kept[after])


def summary(comparison: Comparison) -> dict[str, int]:
    """Count the items of each kind of difference between two versions."""
    return {
        "old_items": len(comparison.old.codes),
        "new_items": len(comparison.new.codes),
        "unchanged": len(comparison.unchanged),
        "added": len(comparison.added),
        "removed": len(comparison.removed),
        "moved": len(comparison.moved),
        "reused": len(comparison.reused),
        "shared": len(comparison.shared),
    }


def _numbered(old: np.ndarray, new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Equal numbers for equal SIDs, int64 (N,) and (M,): codebooks may have grown in between."""
    both = [sids for sids in (old, new) if len(sids)]
    numbers = np.zeros(sum(map(len, both)), dtype=np.int64)
    for level in range(both[0].shape[1] if both else 0):
        column = np.concatenate([one[:, level] for one in both])
        numbers *= int(column.max()) + 1
        numbers += column  # below 2**63: fewer than 2**32 numbers, codes are int32
        numbers = np.unique(numbers, return_inverse=True)[1]
    return numbers[: len(old)], numbers[len(old) :]
