"""Items of a generative recommender: their ids, their SIDs, codebooks behind them, their text.

Item number r, in [0, N), is row r of pid2sid.parquet. An *identifier* is one set of SIDs of the
items: the first is the one whose SIDs are generated; others describe the same items again. A
*compared* identifier, if there is one, is neither read nor generated: the similarity of items is
that of its codewords.

Shapes: N items, L levels, K_l codes of a level, d of the codebooks, D of the text embeddings.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from sidmill.core import listing
from sidmill.core.errors import SidmillError
from sidmill.formats import code_files, quantizer_file, vector_store
from sidmill.io import id_lookup
from sidmill.numeric.row_blocks import take
from sidmill.recommend import item_features
from sidmill.recommend.checkpoint import digest_of_ids
from sidmill.recommend.item_features import Items


class Identifier(NamedTuple):
    """One set of SIDs.

    Attributes:
        codes: int32 (N, L), in the order of the items.
        sizes: K_l per level.
        codebooks: float32 (K_l, d) of the first levels; empty where SIDs were given. A level that
            was added to tell items apart has none.
        fold_codes: int32 (F, N, L), codes of the vectors that were fused without the users of each
            fold: training reads them for these users. None: it reads the SIDs.
    """

    codes: np.ndarray
    sizes: tuple[int, ...]
    codebooks: tuple[np.ndarray, ...]
    fold_codes: np.ndarray | None = None


class SidItems(NamedTuple):
    """All items, in the order of their numbers.

    Attributes:
        items: ids, numbers, and text embeddings (N, D); (N, 0) where none are read.
        identifiers: the first is generated.
        compared: the identifier whose codewords are compared; None: the first is compared.
    """

    items: Items
    identifiers: tuple[Identifier, ...]
    compared: Identifier | None = None

    @property
    def n_folds(self) -> int:
        """Folds of users that training reads items differently for; 1 without."""
        return max([1, *(len(codes) for codes in _all_fold_codes(self))])


def load(
    sid_paths: Sequence[str | Path],
    quantizer_paths: Sequence[str | Path],
    vectors_path: str | Path | None = None,
    ids_path: str | Path | None = None,
    fold_paths: Sequence[str | Path] = (),
    similarity_paths: Sequence[str | Path] = (),
) -> SidItems:
    """Read items by their SIDs.

    Memory: the ids, a hash table of them, 4 L bytes per item and identifier, the codebooks, and
    with vectors 4 N D bytes where their order is another than that of the SIDs.

    Args:
        sid_paths: a pid2sid.parquet per identifier; the first gives the items and their order.
        quantizer_paths: the quantizer.safetensors of each; one that was given has no codebooks.
        vectors_path: vectors.npy; None where text is not read.
        ids_path: ids.parquet of the vectors.
        fold_paths: a fold_codes.parquet per identifier, for training; empty where there are none.
        similarity_paths: codes.parquet and quantizer.safetensors of the compared identifier, and
            for training with folds its fold_codes.parquet; empty where the SIDs are compared.

    Raises:
        SidmillError: if files are unreadable or not of one quantizer, or an item lacks a SID or a
            vector.
    """
    # The first file gives the items and their order.
    coded = [code_files.read(path, "sid") for path in sid_paths]
    ids = coded[0].ids.combine_chunks()
    if not len(ids):
        raise SidmillError(f"{sid_paths[0]}: holds no item: nothing can be recommended")

    # Text embeddings in the order of the SIDs.
    vectors = np.zeros((len(ids), 0), np.float32)
    fingerprint: dict[str, Any] = {}
    if vectors_path is not None and ids_path is not None:
        store = vector_store.open_store(vectors_path, ids_path)
        rows = rows_of(id_lookup.make(store.ids, ids_path), ids, str(ids_path))
        in_order = len(rows) == len(store.vectors) and bool((np.diff(rows) == 1).all())
        vectors = store.vectors if in_order else take(store.vectors, rows)
        fingerprint = store.fingerprint

    # The other files in that order, and the codebooks behind each.
    identifiers = [
        _identifier(sids, path, quantizer_path, ids if sids is not coded[0] else None)
        for sids, path, quantizer_path in zip(coded, sid_paths, quantizer_paths, strict=True)
    ]

    # What training reads in place of the codes, for the users of each fold.
    for number, path in enumerate(fold_paths):
        fold_codes = _fold_codes(path, ids, identifiers[number])
        identifiers[number] = identifiers[number]._replace(fold_codes=fold_codes)
    compared = _compared(similarity_paths, ids) if similarity_paths else None
    return SidItems(item_features.of(ids, vectors, fingerprint), tuple(identifiers), compared)


def _identifier(
    coded: code_files.Codes,
    path: str | Path,
    quantizer_path: str | Path,
    ids: pa.Array | None = None,
) -> Identifier:
    """Join codes with the codebooks behind them.

    Args:
        coded: content of ``path``.
        path: pid2sid.parquet or codes.parquet.
        quantizer_path: the quantizer.safetensors of the codes.
        ids: items, in the order in which codes are wanted; None: that of the file.

    Raises:
        SidmillError: if the quantizer has other codebooks, or an item has no code.
    """
    codes = coded.codes
    if ids is not None:
        codes = codes[rows_of(id_lookup.make(coded.ids, path), ids, str(path))]
    codebooks = quantizer_file.read(quantizer_path, without_codebooks=True).codebooks
    counts = [len(book) for book in codebooks]
    if counts != list(coded.sizes[: len(counts)]):
        raise SidmillError(
            f"{quantizer_path} has codebooks of {listing.some(counts)} codewords, and the SIDs "
            f"of {path} have levels of {listing.some(coded.sizes)} codes: make both with one "
            f"quantizer"
        )
    return Identifier(codes, tuple(coded.sizes), tuple(codebooks))


def _compared(paths: Sequence[str | Path], ids: pa.Array) -> Identifier:
    """Read the identifier that is compared, in the order of the items.

    Its codes are those before collisions are resolved: they need not tell items apart.
    """
    codes_path, quantizer_path, *fold_paths = paths
    coded = code_files.read(codes_path, "codes")
    compared = _identifier(coded, codes_path, quantizer_path, ids)
    for path in fold_paths:
        compared = compared._replace(fold_codes=_fold_codes(path, ids, compared))
    return compared


def _fold_codes(path: str | Path, ids: pa.Array, identifier: Identifier) -> np.ndarray:
    """Read the codes of every fold, in the order of the items: int32 (F, N, L).

    Levels that the quantizer has no codes of, such as one that tells items apart, are those of the
    SIDs.

    Raises:
        SidmillError: if the codes are of other items or another quantizer.
    """
    coded = code_files.read(path, "codes")
    n_items, n_levels = len(ids), len(coded.sizes)
    if coded.sizes != list(identifier.sizes[:n_levels]):
        raise SidmillError(
            f"{path} has levels of {listing.some(coded.sizes)} codes, and the SIDs have levels of "
            f"{listing.some(identifier.sizes)}: make both with one quantizer, or set fuse.folds: 1"
        )

    # The file has all items of one fold after another.
    first = coded.ids.slice(0, n_items).combine_chunks()
    rows = rows_of(id_lookup.make(first, path), ids, str(path))
    of_quantizer = coded.codes.reshape(-1, n_items, n_levels)[:, rows]
    codes = np.repeat(identifier.codes[None], len(of_quantizer), axis=0)
    codes[:, :, :n_levels] = of_quantizer
    return codes


def rows_of(known: id_lookup.Lookup, ids: pa.Array, where: str) -> np.ndarray:
    """Find the rows that hold the items: int64 (N,).

    Args:
        known: the row of each id of a file.
        ids: int64 or string (N,), items with SIDs.
        where: name of the file, for the message.

    Raises:
        SidmillError: if an item is not among them.
    """
    rows = id_lookup.find(known, ids, where)
    missing = np.flatnonzero(rows < 0)
    if missing.size:
        raise SidmillError(
            f"{where}: lacks {missing.size} items that have a SID, first "
            f"{ids[int(missing[0])].as_py()!r}: make both from one catalogue"
        )
    return rows.astype(np.int64)


def identify(items: SidItems) -> dict[str, Any]:
    """Which items and SIDs a model belongs to: digests of ids, SIDs, codebooks; the fingerprint."""
    digest = hashlib.sha256()
    compared = () if items.compared is None else (items.compared,)
    for identifier in (*items.identifiers, *compared):
        digest.update(np.ascontiguousarray(identifier.codes, dtype="<i4").data)
        for book in identifier.codebooks:
            digest.update(np.ascontiguousarray(book, dtype="<f4").data)
    return {
        "ids": digest_of_ids(items.items.ids),
        "sids": digest.hexdigest(),
        "fingerprint": items.items.fingerprint,
    }


def identify_folds(items: SidItems) -> str | None:
    """A digest of what the folds read; None without folds."""
    folds = _all_fold_codes(items)
    digest = hashlib.sha256()
    for codes in folds:
        digest.update(np.ascontiguousarray(codes, dtype="<i4").data)
    return digest.hexdigest() if folds else None


def _all_fold_codes(items: SidItems) -> list[np.ndarray]:
    """Codes of all identifiers that have some for each fold: int32 (F, N, L) each."""
    compared = [] if items.compared is None else [items.compared]
    every = [one.fold_codes for one in (*items.identifiers, *compared)]
    return [codes for codes in every if codes is not None]
