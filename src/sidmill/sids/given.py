"""Existing SIDs in place of a quantizer's codes: checked, and in the order of the catalogue.

Shapes: N items of the catalogue, L levels, K_l codes at level l.
"""

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.formats import given_sids, ledger_file, vector_store
from sidmill.formats.code_files import Codes
from sidmill.formats.quantizer_file import GIVEN, Quantizer
from sidmill.io import id_lookup, parquet
from sidmill.settings import sids as settings_of

logger = logging.getLogger(__name__)


class Loaded(NamedTuple):
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
    text_path: str | Path, ledger_path: str | Path, settings: settings_of.Given, id_type: str
) -> Loaded:
    """Read SIDs, and put them in the order of the catalogue.

    Memory: about 100 bytes per item of the file, and the ids of both.

    Args:
        text_path: text.parquet; empty where the items of the file are the catalogue.
        ledger_path: of a published version whose SIDs stay; empty for none.
        settings: the file, as :func:`sidmill.formats.given_sids.read` takes it, and how to read it.
            With ``on_missing_sids: reject`` text.parquet has no items without a SID; with
            ``on_unknown_items: reject`` SIDs of items that the catalogue lacks are left out.
        id_type: ``int``, ``string`` or ``auto``, of a catalogue without a file of its own.

    Raises:
        SidmillError: if an item has no SID; if there are others, under ``error``; if a published
            SID is another one; if a codebook is too small for its codes.
    """
    path = str(settings.path)
    items = vector_store.read_pids(text_path) if text_path else None
    integer = {"int": True, "string": False}.get(id_type)
    if items is not None:
        integer = pa.types.is_integer(items.type)
    file = given_sids.read(path, settings.id_offset, integer)
    sizes = _sizes(path, file, settings.codebook_sizes)

    # Rows of the file, in the order of the catalogue.
    items = file.ids if items is None else items
    rows = id_lookup.find(id_lookup.make(file.ids, path), items, str(text_path))
    in_catalogue = np.zeros(len(file.ids), dtype=bool)
    in_catalogue[rows[rows != id_lookup.ABSENT]] = True
    others = np.flatnonzero(~in_catalogue)
    missing = np.flatnonzero(rows == id_lookup.ABSENT)
    _check_items(file.ids, items, missing, others, settings)
    if len(others):
        names = given_sids.named(file.ids.take(pa.array(others)).to_pylist())
        logger.warning(
            "%d SIDs of items that the catalogue lacks are left out: %s", len(others), names
        )

    codes = file.codes[rows]
    _check_published(ledger_path, path, items, codes)
    return Loaded(items, codes, sizes, file.ids.take(pa.array(others)), file.codes[others])


def quantizer_of(loaded: Loaded, path: str) -> Quantizer:
    """The quantizer file of given SIDs: no codebooks, only their sizes."""
    settings = {
        "codebook_sizes": loaded.sizes,
        "source": Path(path).name,
        "sids": len(loaded.ids) + len(loaded.others),
        "sids_of_unknown_items": len(loaded.others),
    }
    return Quantizer(GIVEN, [], settings, {})


def write_rejects(path: str | Path, loaded: Loaded) -> None:
    """Write rejects.parquet: pid and sid of items that the catalogue lacks."""
    schema = pa.schema([("pid", loaded.others.type), ("sid", pa.list_(pa.int32()))])
    lists = pa.array(loaded.other_codes.tolist(), pa.list_(pa.int32()))
    parquet.write(path, schema, [pa.table([loaded.others, lists], schema=schema)])


def _sizes(path: str, file: Codes, configured: list[int] | None) -> list[int]:
    """K_l per level, as the settings or the file say."""
    if configured is None:
        return file.sizes
    least: list[int] = (file.codes.max(axis=0) + 1).tolist()
    if len(configured) != len(least) or any(map(int.__gt__, least, configured)):
        raise SidmillError(
            f"given.codebook_sizes: found {configured}, but the SIDs of {path} need {least} at "
            f"least: raise them, or set null"
        )
    return configured


def _check_items(
    file_ids: pa.ChunkedArray,
    items: pa.ChunkedArray,
    missing: np.ndarray,
    others: np.ndarray,
    settings: settings_of.Given,
) -> None:
    """Stop where items have no SID, or SIDs no item; both in one message.

    Args:
        file_ids: of the file, (F,).
        items: of the catalogue, (N,).
        missing: int64, rows of ``items`` without a SID.
        others: int64, rows of ``file_ids`` that the catalogue lacks.
        settings: what is an error.
    """
    # Items without a SID.
    problems = []
    if len(missing):
        remedy = "add their SIDs to the file"
        if settings.on_missing_sids == "error":
            remedy += (
                ", or set given.on_missing_sids: reject, which leaves these items out of the "
                "catalogue and lists them in results/items/rejects.parquet"
            )
        names = given_sids.named(items.take(pa.array(missing)).to_pylist())
        problems.append(
            f"{len(missing)} of {len(items)} items of the catalogue have no SID: {names}: {remedy}"
        )

    # SIDs without an item.
    if len(others) and settings.on_unknown_items == "error":
        names = given_sids.named(file_ids.take(pa.array(others)).to_pylist())
        problems.append(
            f"{len(others)} of {len(file_ids)} SIDs are of items that the catalogue lacks: "
            f"{names}: add these items, or set given.on_unknown_items: reject, which leaves their "
            f"SIDs out and lists them in results/given/rejects.parquet"
        )
    if problems:
        hint = _fitting_offset(file_ids, items, settings.id_offset)
        raise SidmillError(f"{settings.path}: {'; and '.join(problems)}{hint}")


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

    # An item may have the codes that it was published with, or the SID that these became.
    rows = id_lookup.find(id_lookup.make(before.ids.slice(0, before.owners)), items, path)
    published = np.flatnonzero(rows != id_lookup.ABSENT)
    old_rows = rows[published]
    same = (before.codes[old_rows] == codes[published]).all(axis=1)
    same |= (before.sids[old_rows, :n_levels] == codes[published]).all(axis=1)
    moved = published[~same]
    if len(moved):
        names = given_sids.named(items.take(pa.array(moved)).to_pylist())
        raise SidmillError(
            f"{path}: {len(moved)} items have another SID than in the published version: {names}: "
            f"name their published SIDs, or set published.path: null, which makes all SIDs new"
        )
