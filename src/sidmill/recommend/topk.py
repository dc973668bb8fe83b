"""The best items of every user, found by faiss among the vectors that inference wrote.

Shapes: N items, U users, H of the model, L levels, b users of one block, k items of a list.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from sidmill.core import checksums
from sidmill.core.errors import SidmillError
from sidmill.core.faiss_library import faiss
from sidmill.formats import id_vectors, sequence_table, topk_table
from sidmill.formats.code_files import Codes
from sidmill.formats.vector_store import read_ids
from sidmill.io import id_lookup, json_report, parquet
from sidmill.numeric.row_blocks import MAX_BLOCK_ROWS, read_blocks, take
from sidmill.recommend.windows import GROUP_USERS
from sidmill.settings.recommend import RecommenderTopk

logger = logging.getLogger(__name__)

HNSW_LINKS, HNSW_BUILD, HNSW_SEARCH = 32, 200, 256
SEARCH_BLOCK = 1024  # users whose candidates are in memory


class SearchItems(NamedTuple):
    """The items that lists are made of, in the order of the index.

    Attributes:
        vectors: index of inner products over the vectors (N, H).
        ids: int64 or string (N,).
        numbers: the number of each id.
        sids: int32 (N, L).
    """

    vectors: faiss.Index
    ids: pa.Array
    numbers: id_lookup.Lookup
    sids: np.ndarray


def recommend(
    listing_path: str | Path,
    sequences_path: str | Path,
    item_ids_path: str | Path,
    sids: Codes,
    output_path: str | Path,
    settings: RecommenderTopk,
) -> int:
    """Write topk.parquet: the best items of every user.

    Memory: the index, 4 N H bytes and more with hnsw, and a group of users.

    Args:
        listing_path: embeddings.json, in the folder of the vectors that it lists.
        sequences_path: sequences.parquet, whose users are the rows of the vectors.
        item_ids_path: item_ids.parquet, ids of the rows of the item vectors.
        sids: SIDs of the items, pid2sid.parquet.
        output_path: topk.parquet.
        settings: what a list holds, and how it is searched.

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

    # Items: their index, and the SID of each row.
    index = _build_index(id_vectors.read(folder / listing["items"]["files"][0]), settings.index)
    ids = read_ids(parquet.open_file(item_ids_path, {"pid": parquet.is_pid})).combine_chunks()
    rows = _rows_of_sids(ids, sids)
    items = SearchItems(index, ids, id_lookup.make(ids), sids.codes[rows])

    # Users: a group at a time, in the order of their vectors.
    users = [id_vectors.read(folder / name) for name in listing["users"]["files"]]
    tables = (
        table
        for first in range(0, n_users, GROUP_USERS)
        for table in _search_group(items, users, sequences_path, first, settings)
    )
    return topk_table.write(output_path, ids.type, tables)


def _build_index(vectors: np.ndarray, kind: str) -> faiss.Index:
    """Index the vectors of items (N, 1 + H), whose first column names the row."""
    dim = vectors.shape[1] - 1
    index: faiss.Index
    if kind == "hnsw":
        index = faiss.IndexHNSWFlat(dim, HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction, index.hnsw.efSearch = HNSW_BUILD, HNSW_SEARCH
    else:
        index = faiss.IndexFlatIP(dim)
    for _, block in read_blocks(vectors, MAX_BLOCK_ROWS):
        index.add(np.ascontiguousarray(block[:, 1:]))
    return index


def _rows_of_sids(item_ids: pa.Array, sids: Codes) -> np.ndarray:
    """Rows of ``sids`` that hold the items: int32 (N,)."""
    rows = id_lookup.find(id_lookup.make(sids.ids), item_ids, "the vectors of items")
    if (rows < 0).any():
        missing = item_ids[int(np.flatnonzero(rows < 0)[0])].as_py()
        raise SidmillError(f"item {missing!r} has a vector and no SID: run both on one catalogue")
    return rows


def _search_group(
    items: SearchItems,
    users: list[np.ndarray],
    sequences_path: str | Path,
    first: int,
    settings: RecommenderTopk,
) -> Iterator[pa.Table]:
    """Yield the lists of a group of users, from row ``first`` on, in blocks."""
    row = first
    for table in sequence_table.read(sequences_path, first, first + GROUP_USERS):
        for start in range(0, table.num_rows, SEARCH_BLOCK):
            histories = table.slice(start, SEARCH_BLOCK)
            rows = np.arange(row, row + histories.num_rows)
            yield _search_block(items, _user_vectors(users, rows), histories, settings)
            row += histories.num_rows


def _user_vectors(files: list[np.ndarray], rows: np.ndarray) -> np.ndarray:
    """Vectors of consecutive users, from the files that hold them: float32 (b, H)."""
    numbers = rows // id_vectors.ROWS_PER_FILE
    parts = [
        take(files[number], rows[numbers == number] - number * id_vectors.ROWS_PER_FILE)[:, 1:]
        for number in np.unique(numbers)
    ]
    return np.ascontiguousarray(np.concatenate(parts))


def _search_block(
    items: SearchItems, vectors: np.ndarray, histories: pa.Table, settings: RecommenderTopk
) -> pa.Table:
    """Lists of a block of users, in the schema of topk.parquet.

    Args:
        items: what is searched.
        vectors: float32 (b, H), of the users.
        histories: b rows of sequences.parquet.
        settings: k, and whether items of the history are left out.
    """
    lists = histories["item_ids"].combine_chunks()
    lengths = np.diff(lists.offsets.to_numpy())

    # As many more candidates as the longest history may take away: (b, k + longest).
    longest = int(lengths.max()) if settings.mask_seen else 0
    n_items = items.vectors.ntotal
    scores, numbers = items.vectors.search(vectors, min(settings.k + longest, n_items))
    kept = numbers >= 0  # an approximate index may return fewer
    if settings.mask_seen:
        seen = id_lookup.find(items.numbers, lists.flatten(), "sequences.parquet").astype(np.int64)
        owners = np.repeat(np.arange(len(lengths)), lengths)
        pairs = owners.astype(np.int64) * n_items + seen
        kept &= ~np.isin(np.arange(len(numbers))[:, None] * n_items + numbers, pairs)
    kept &= kept.cumsum(axis=1) <= settings.k

    return topk_table.make(
        histories["user_id"].combine_chunks(),
        items.ids,
        items.sids,
        np.where(kept, numbers, -1),
        scores,
    )
