"""Arrays without names in them: .npy, and the memory maps that MISSRec reads.

Shapes: N rows, D dimensions, M item ids.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np

from sidmill.core.errors import SidmillError
from sidmill.formats import memory_maps, vector_store
from sidmill.formats.embedding_shards import FINGERPRINT_KEY
from sidmill.io import parquet
from sidmill.report.inspect.facts import (
    ANOTHER,
    BLOCK_BYTES,
    Budget,
    Description,
)
from sidmill.report.inspect.tables import Norms

MAP = re.compile(r"mmap_(idx_(\d+)|emb_(\d+)_(\d+))")
SHOWN_VALUES = 6


def describe_npy(path: str, budget: Budget) -> Description:
    """Describe a .npy; ids.parquet beside it says what its rows are.

    Raises:
        SidmillError: if it is no .npy, cut short, or holds Python objects.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except vector_store.UNREADABLE as error:
        raise SidmillError(f"{path}: not a readable .npy file ({error}): {ANOTHER}") from None
    description = Description(path, "array", Path(path).stat().st_size)
    description.facts |= {"shape": list(array.shape), "dtype": array.dtype.name}
    if array.ndim != 2 or array.dtype.kind != "f":
        description.sample = [_shown(row) for row in array[: budget.rows]] if array.ndim else []
        return description
    description.kind = "vectors"
    name = Path(path).name
    if name.startswith(("all_item_embedding", "all_user_embedding")):
        description.kind = "embeddings of the recommender, the first column is the id or row"
        array = array[:, 1:]
    beside = Path(path).with_name("ids.parquet")
    if name == "vectors.npy" and beside.is_file():
        _hold_against_ids(description, beside)
    _look(description, array, budget)
    return description


def describe_map(path: str, budget: Budget) -> Description:
    """Describe a memory map whose name says its shape.

    Raises:
        SidmillError: if its size is not that of its name.
    """
    # The shape that the name says must be that of the bytes.
    name = MAP.fullmatch(Path(path).name)
    shape = [int(size) for size in name.groups()[1:] if size is not None] if name else []
    dtype = memory_maps.IDX_DTYPE if len(shape) == 1 else memory_maps.EMB_DTYPE
    size, wanted = Path(path).stat().st_size, int(np.prod(shape, dtype=object)) * dtype.itemsize
    if size != wanted or not size:
        raise SidmillError(
            f"{path}: {size} bytes, but its name says {dtype.name} {tuple(shape)}, which takes "
            f"{wanted}: it is cut, or misnamed: {ANOTHER}"
        )
    array = np.memmap(path, dtype=dtype, mode="r", shape=tuple(shape))

    # Row 0, and id 0, are padding.
    kind = "memory map: item id to row" if len(shape) == 1 else "memory map: vectors from row 1"
    description = Description(path, kind, size, {"shape": shape, "dtype": dtype.name})
    if len(shape) == 2:
        description.check("row 0 is padding", not array[0].any())
        _look(description, array[1:], budget)
        return description
    looked = budget.rows_of(len(array), dtype.itemsize)
    description.figures["items"] = int(np.count_nonzero(array[:looked]))
    description.figures["largest row"] = int(array[:looked].max())
    description.check("id 0 is padding", array[0] == 0)
    return description


def describe_maps(path: str, budget: Budget) -> Description:
    """Describe the pair that mmap.json names."""
    maps = memory_maps.open_maps(path)
    sizes = maps.index.nbytes + maps.embeddings.nbytes
    description = Description(path, "memory maps for MISSRec", sizes)
    description.facts["index"] = f"int32 {maps.index.shape}"
    description.facts["embeddings"] = f"float32 {maps.embeddings.shape}"
    description.facts["fingerprint"] = maps.fingerprint
    description.check("files, shapes and rows fit", True)
    _look(description, maps.embeddings[1:], budget)
    return description


def _hold_against_ids(description: Description, ids_path: Path) -> None:
    file = parquet.open_file(ids_path, {"pid": parquet.is_pid})
    description.facts["fingerprint"] = parquet.metadata_json(file, FINGERPRINT_KEY)
    rows, wanted = file.metadata.num_rows, description.facts["shape"][0]
    says = "" if rows == wanted else f"{ids_path} has {rows:,} ids for {wanted:,} vectors"
    description.check("an id for each row", rows == wanted, says)


def _look(description: Description, array: np.ndarray, budget: Budget) -> None:
    """Lengths of vectors, float (N, D), block by block, spread over the whole file."""
    total, row_bytes = len(array), max(array[:1].nbytes, 1)
    looked = budget.rows_of(total, row_bytes)
    block = max(min(BLOCK_BYTES // row_bytes, looked), 1)
    starts = np.arange(0, total, block)
    if looked < total:
        starts = np.linspace(0, total - block, -(-looked // block)).astype(np.int64)
    norms = Norms()
    for start in starts:
        norms.add(array[start : start + block])
    norms.tell(description, looked, total)
    description.sample = [_shown(row) for row in array[: budget.rows]]


def _shown(row: np.ndarray) -> list[Any]:
    values = np.atleast_1d(row).ravel()
    shown: list[Any] = values[:SHOWN_VALUES].tolist()
    return shown + (["..."] if len(values) > SHOWN_VALUES else [])
