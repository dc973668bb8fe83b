"""The best items for every user, found by faiss among the vectors that inference wrote.

Shapes: N items, U users, H of the model, b users of one block, k items wanted.
"""

import logging
from collections.abc import Iterator
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa

from sidmill.core import checksums
from sidmill.core.errors import SidmillError
from sidmill.formats import id_vectors, sequence_table, topk_table
from sidmill.formats.code_files import Codes
from sidmill.formats.vector_store import read_ids
from sidmill.io import id_lookup, json_report, parquet
from sidmill.numeric.row_blocks import MAX_BLOCK_ROWS, read_blocks, take
from sidmill.recommend.windows import GROUP_USERS

logger = logging.getLogger(__name__)

HNSW_LINKS, HNSW_BUILD, HNSW_SEARCH = 32, 200, 256
SEARCH_BLOCK = 1024  # users whose candidates are in memory


def recommend(
    listing_path: str | Path,
    sequences_path: str | Path,
    item_ids_path: str | Path,
    sids: Codes,
    output_path: str | Path,
    *,
    k: int,
    mask_seen: bool,
    index: str,
) -> int:
    """Write topk.parquet.

    Memory: the index, 4 N H bytes and more with hnsw, and a group of users.

    Args:
        listing_path: embeddings.json, beside the vectors it lists.
        sequences_path: sequences.parquet, whose users are the rows of the vectors.
        item_ids_path: item_ids.parquet, ids of the rows of the item vectors.
        sids: SIDs of the items, pid2sid.parquet.
        output_path: topk.parquet.
        k: items per user, at most.
        mask_seen: leave out what the user had.
        index: flat, which is exact, or hnsw, which is faster on millions of items.

    Returns:
        The number of users.

    Raises:
        SidmillError: if the vectors are not of these histories, or an item has no SID.
    """
    listing = json_report.read(listing_path)
    folder = Path(listing_path).parent
    n_users = sequence_table.count(sequences_path)
    if listing.get("sequences") != checksums.of_file(sequences_path):
        raise SidmillError(
            f"{listing_path} lists {listing['users']['rows']} users of other histories than those "
            f"of {sequences_path}, {n_users} users: delete it and run again"
        )
    found = _index(id_vectors.read(folder / listing["items"]["files"][0]), index)
    users = [id_vectors.read(folder / name) for name in listing["users"]["files"]]
    listed = parquet.open_file(item_ids_path, {"pid": parquet.is_pid})
    item_ids = read_ids(listed).combine_chunks()
    places = _places(item_ids, sids)
    numbers = id_lookup.make(item_ids)
    item_sids = sids.codes[places]
    searched = (
        _search(found, users, first, sequences_path, numbers, item_ids, item_sids, k, mask_seen)
        for first in range(0, n_users, GROUP_USERS)
    )
    return topk_table.write(
        output_path, item_ids.type, (table for part in searched for table in part)
    )


def _index(vectors: np.ndarray, kind: str) -> faiss.Index:
    dim = vectors.shape[1] - 1
    if kind == "hnsw":
        found = faiss.IndexHNSWFlat(dim, HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
        found.hnsw.efConstruction, found.hnsw.efSearch = HNSW_BUILD, HNSW_SEARCH
    else:
        found = faiss.IndexFlatIP(dim)
    for _, block in read_blocks(vectors, MAX_BLOCK_ROWS):
        found.add(np.ascontiguousarray(block[:, 1:]))
    return found


def _places(item_ids: pa.Array, sids: Codes) -> np.ndarray:
    """Rows of ``sids`` that hold the items: int32 (N,)."""
    places = id_lookup.find(id_lookup.make(sids.ids), item_ids, "the vectors of items")
    if (places < 0).any():
        lost = item_ids[int(np.flatnonzero(places < 0)[0])].as_py()
        raise SidmillError(f"item {lost!r} has a vector and no SID: run both on one catalogue")
    return places


def _search(
    found: faiss.Index,
    users: list[np.ndarray],
    first: int,
    sequences_path: str | Path,
    numbers: id_lookup.Lookup,
    item_ids: pa.Array,
    sids: np.ndarray,
    k: int,
    mask_seen: bool,
) -> Iterator[pa.Table]:
    """Yield the lists of a group of users, in blocks."""
    row = first
    for table in sequence_table.read(sequences_path, first, first + GROUP_USERS):
        for start in range(0, table.num_rows, SEARCH_BLOCK):
            part = table.slice(start, SEARCH_BLOCK)
            rows = np.arange(row, row + part.num_rows)
            yield _block(found, _rows_of(users, rows), part, numbers, item_ids, sids, k, mask_seen)
            row += part.num_rows


def _rows_of(users: list[np.ndarray], rows: np.ndarray) -> np.ndarray:
    """Vectors of some users in a row, from the files they lie in: float32 (b, H)."""
    files = rows // id_vectors.ROWS_PER_FILE
    parts = [
        take(users[file], rows[files == file] - file * id_vectors.ROWS_PER_FILE)[:, 1:]
        for file in np.unique(files)
    ]
    return np.ascontiguousarray(np.concatenate(parts))


def _block(
    found: faiss.Index,
    vectors: np.ndarray,
    table: pa.Table,
    numbers: id_lookup.Lookup,
    item_ids: pa.Array,
    sids: np.ndarray,
    k: int,
    mask_seen: bool,
) -> pa.Table:
    lists = table["item_ids"].combine_chunks()
    lengths = np.diff(lists.offsets.to_numpy())
    longest = int(lengths.max()) if mask_seen else 0
    scores, items = found.search(vectors, min(k + longest, found.ntotal))
    kept = items >= 0  # an approximate index may come back with fewer
    if mask_seen:
        had = id_lookup.find(numbers, lists.flatten(), "sequences.parquet").astype(np.int64)
        owners = np.repeat(np.arange(len(lengths)), lengths)
        pairs = owners.astype(np.int64) * found.ntotal + had
        kept &= ~np.isin(np.arange(len(items))[:, None] * found.ntotal + items, pairs)
    kept &= kept.cumsum(axis=1) <= k
    bounds = pa.array(np.concatenate([[0], kept.sum(axis=1).cumsum()]), pa.int32())
    chosen = items[kept]
    n_levels = sids.shape[1]
    codes = pa.FixedSizeListArray.from_arrays(sids[chosen].ravel(), n_levels)
    columns = [
        table["user_id"].combine_chunks(),
        pa.ListArray.from_arrays(bounds, item_ids.take(pa.array(chosen))),
        pa.ListArray.from_arrays(bounds, pa.array(scores[kept])),
        pa.ListArray.from_arrays(bounds, codes.cast(pa.list_(pa.int32()))),
    ]
    return pa.table(columns, schema=topk_table.schema(item_ids.type))
