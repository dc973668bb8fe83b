"""Vectors of all items and of all users, by blocks, for search and serving.

The vector of a user is the model's prediction after all of their items. Items and users have unit
length, so their inner product is the score that the recommender ranks by.

Shapes: N items, U users, H of the model.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch

from sidmill.core import checksums
from sidmill.formats import id_vectors, sequence_table
from sidmill.io import parquet
from sidmill.numeric.nearest_torch import pick_device
from sidmill.recommend import checkpoint, score, windows
from sidmill.recommend.item_features import Items

logger = logging.getLogger(__name__)


class Files(NamedTuple):
    """Files that inference writes; those of users lie in ``folder``."""

    folder: Path
    item_ids: str
    user_ids: str
    listing: str


def infer(
    sequences_path: str | Path,
    items: Items,
    checkpoint_path: str | Path,
    files: Files,
    device: str,
) -> None:
    """Write the vectors of all items and all users.

    Another device gives the same vectors up to the last bits of their floats.

    Memory: 8 N H bytes for the items, a group of users, and the ids.

    Raises:
        SidmillError: if the recommender is of other items, or the ids are too many.
    """
    fitted = checkpoint.load(checkpoint_path, pick_device(device))
    checkpoint.check_items(fitted, checkpoint.identify(items), checkpoint_path)
    known = score.catalogue(fitted, items)
    dim = fitted.model.shape.hidden_dim

    # The first column of each file names its rows, by id where float32 holds the id.
    named_items = id_vectors.first_column(items.ids)
    blocks = (block.cpu().numpy() for block in torch.split(known.targets, score.ITEM_BLOCK))
    id_vectors.write(files.folder / id_vectors.ITEM_FILE, dim, named_items.values, blocks)
    _write_ids(files.item_ids, "pid", items.ids)

    tables = sequence_table.read(sequences_path)
    user_ids = pa.concat_arrays([table["user_id"].combine_chunks() for table in tables])
    named_users = id_vectors.first_column(user_ids)
    users = _user_blocks(sequences_path, items, fitted, known)
    written = id_vectors.write_users(files.folder, dim, named_users.values, users)
    _write_ids(files.user_ids, "user_id", user_ids)

    # The listing names the histories: lists of items are made for these users alone.
    sequences_digest = checksums.of_file(sequences_path)
    id_vectors.write_listing(files.listing, named_items, named_users, written, sequences_digest)
    logger.info("%d items, %d users, %d dimensions", len(items.ids), len(user_ids), dim)


def _user_blocks(
    path: str | Path, items: Items, fitted: checkpoint.Fitted, known: score.Catalogue
) -> Iterator[np.ndarray]:
    for group in windows.read_groups(path, items):
        yield score.user_vectors(fitted, known, windows.latest(group)).cpu().numpy()


def _write_ids(path: str | Path, column: str, ids: pa.Array) -> None:
    table = pa.table({column: ids})
    parquet.write(path, table.schema, [table])
