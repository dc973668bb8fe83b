"""SIDs that exist take the place of a quantizer's codes: held against the catalogue, and its order.

Shapes: N items of the catalogue, L levels, K_l codes at level l.
"""

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.formats import given_sids, ledger_file, vector_store
from sidmill.formats.quantizer_file import GIVEN, Quantizer
from sidmill.io import id_lookup, parquet

logger = logging.getLogger(__name__)


class Given(NamedTuple):
    """SIDs of the catalogue, in its order, and those of other items.

    Attributes:
        ids: int64 or string (N,).
        codes: int32 (N, L).
        sizes: K_l per level.
        others: ids (n,) of items that the catalogue lacks.
        other_codes: int32 (n, L).
    """

    ids: pa.ChunkedArray
    codes: np.ndarray
    sizes: list[int]
    others: pa.ChunkedArray
    other_codes: np.ndarray


def load(
    text_path: str | Path,
    ledger_path: str | Path,
    *,
    path: str,
    id_offset: int,
    codebook_sizes: list[int] | None,
    on_missing_sids: str,
    on_unknown_items: str,
    id_type: str,
) -> Given:
    """Read SIDs, and put them in the order of the catalogue.

    Memory: about 100 bytes per item of the file, and the ids of both.

    Args:
        text_path: text.parquet; empty where the items of the file are the catalogue.
        ledger_path: of a published version whose SIDs stay; empty for none.
        path: the file, as :func:`sidmill.formats.given_sids.read` takes it.
        id_offset: added to its ids.
        codebook_sizes: K_l per level; None: what the file says, or its largest codes + 1.
        on_missing_sids: ``error``, or ``reject`` where text.parquet has no items without one.
        on_unknown_items: ``error`` where the file has items that the catalogue lacks, or
            ``reject``: they are left out.
        id_type: ``int``, ``string`` or ``auto``, of a catalogue without a file of its own.

    Raises:
        SidmillError: if an item has no SID; if there are others, under ``error``; if a published
            SID is another one; if a codebook is too small for its codes.
    """
    items = vector_store.read_pids(text_path) if text_path else None
    integer = {"int": True, "string": False}.get(id_type)
    if items is not None:
        integer = pa.types.is_integer(items.type)
    found = given_sids.read(path, id_offset, integer)
    sizes = _sizes(path, found, codebook_sizes)

    # Rows of the file, in the order of the catalogue.
    items = found.ids if items is None else items
    rows = id_lookup.find(id_lookup.make(found.ids, path), items, str(text_path))
    known = np.zeros(len(found.ids), dtype=bool)
    known[rows[rows != id_lookup.ABSENT]] = True
    others = np.flatnonzero(~known)
    missing = np.flatnonzero(rows == id_lookup.ABSENT)
    _check_items(
        path, found.ids, items, missing, others, id_offset, on_missing_sids, on_unknown_items
    )
    if len(others):
        names = given_sids.named(found.ids.take(pa.array(others)).to_pylist())
        logger.warning(
            "%d SIDs of items that the catalogue lacks are left out: %s", len(others), names
        )

    codes = found.codes[rows]
    _check_published(ledger_path, path, items, codes)
    return Given(items, codes, sizes, found.ids.take(pa.array(others)), found.codes[others])


def quantizer_of(loaded: Given, path: str) -> Quantizer:
    """What stands for a quantizer: no codebooks, only their sizes."""
    settings = {
        "codebook_sizes": loaded.sizes,
        "source": Path(path).name,
        "sids": len(loaded.ids) + len(loaded.others),
        "sids_of_unknown_items": len(loaded.others),
    }
    return Quantizer(GIVEN, [], settings, {})


def write_rejects(path: str | Path, loaded: Given) -> None:
    """Write rejects.parquet: pid and sid of items that the catalogue lacks."""
    schema = pa.schema([("pid", loaded.others.type), ("sid", pa.list_(pa.int32()))])
    lists = pa.array(loaded.other_codes.tolist(), pa.list_(pa.int32()))
    parquet.write(path, schema, [pa.table([loaded.others, lists], schema=schema)])


def _sizes(path: str, found: given_sids.Codes, wanted: list[int] | None) -> list[int]:
    least = (found.codes.max(axis=0) + 1).tolist()
    if wanted is None:
        return found.sizes
    if len(wanted) != len(least) or any(map(int.__gt__, least, wanted)):
        raise SidmillError(
            f"given.codebook_sizes: found {wanted}, but the SIDs of {path} need {least} at least: "
            f"raise them, or set null"
        )
    return wanted


def _check_items(
    path: str,
    file_ids: pa.ChunkedArray,
    items: pa.ChunkedArray,
    missing: np.ndarray,
    others: np.ndarray,
    id_offset: int,
    on_missing_sids: str,
    on_unknown_items: str,
) -> None:
    """Stop where items have no SID, or SIDs no item; both in one message."""
    problems = []
    if len(missing):
        remedy = "add their SIDs to the file"
        if on_missing_sids == "error":
            remedy += (
                ", or set given.on_missing_sids: reject, which leaves these items out of the "
                "catalogue and lists them in results/items/rejects.parquet"
            )
        names = given_sids.named(items.take(pa.array(missing)).to_pylist())
        problems.append(
            f"{len(missing)} of {len(items)} items of the catalogue have no SID: {names}: {remedy}"
        )
    if len(others) and on_unknown_items == "error":
        names = given_sids.named(file_ids.take(pa.array(others)).to_pylist())
        problems.append(
            f"{len(others)} of {len(file_ids)} SIDs are of items that the catalogue lacks: "
            f"{names}: add these items, or set given.on_unknown_items: reject, which leaves their "
            f"SIDs out and lists them in results/given/rejects.parquet"
        )
    if problems:
        hint = _fitting_offset(file_ids, items, id_offset)
        raise SidmillError(f"{path}: {'; and '.join(problems)}{hint}")


def _fitting_offset(file_ids: pa.ChunkedArray, items: pa.ChunkedArray, id_offset: int) -> str:
    """Say which offset would give every item a SID, if one by the smallest ids does."""
    if not pa.types.is_integer(file_ids.type):
        return ""
    here, there = np.sort(items.to_numpy()), np.sort(file_ids.to_numpy())
    shift = int(here[0]) - int(there[0])
    if not shift or not np.isin(here, there + shift).all():
        return ""
    return f". With given.id_offset: {id_offset + shift} every item would have one"


def _check_published(
    ledger_path: str | Path, path: str, items: pa.ChunkedArray, codes: np.ndarray
) -> None:
    """Refuse another SID for an item than the one that it was published with."""
    if not ledger_path:
        return
    before = ledger_file.read(ledger_path)
    n_levels = before.codes.shape[1]
    if n_levels != codes.shape[1]:
        raise SidmillError(
            f"{path}: SIDs of {codes.shape[1]} tokens, those of the published version are of "
            f"{n_levels}: name SIDs of the same form, or set published.path: null"
        )
    rows = id_lookup.find(id_lookup.make(before.ids.slice(0, before.owners)), items, path)
    known = np.flatnonzero(rows != id_lookup.ABSENT)
    was = rows[known]
    same = (before.codes[was] == codes[known]).all(axis=1)
    same |= (before.sids[was, :n_levels] == codes[known]).all(axis=1)
    moved = known[~same]
    if len(moved):
        names = given_sids.named(items.take(pa.array(moved)).to_pylist())
        raise SidmillError(
            f"{path}: {len(moved)} items have another SID than in the published version: {names}: "
            f"name their published SIDs, or set published.path: null, which makes all SIDs new"
        )
