"""Vectors in vector stores: a faiss index that keeps them as they are, or a LanceDB table.

    .faiss, .index   IndexFlat, alone or in IndexIDMap, whose ids are int64
    .lance           a table of LanceDB or Lance, with columns of ids and of vectors; needs pylance

Memory: a faiss index whole; of a Lance table a batch of rows.
Source: https://github.com/facebookresearch/faiss/wiki, https://lancedb.github.io/lance/
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.io import user_arrays
from sidmill.io.vector_containers import container
from sidmill.io.vector_containers.container import Container, Names


def open_faiss(path: str) -> Container:
    """Open a faiss index.

    Raises:
        SidmillError: if it cannot be read, or does not keep its vectors.
    """
    from sidmill.core.faiss_library import faiss

    if not Path(path).is_file():
        raise SidmillError(f"{path}: no such file: check embedding.path")
    try:
        index = faiss.read_index(path)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise SidmillError(f"{path}: not a readable faiss index ({reason:.200})") from None

    # IndexIDMap has the ids, and an index of the vectors within.
    ids, inner = None, index
    if isinstance(index, faiss.IndexIDMap | faiss.IndexIDMap2):
        ids = faiss.vector_to_array(index.id_map)
        inner = faiss.downcast_index(index.index)
    if not isinstance(inner, faiss.IndexFlat):
        raise SidmillError(
            f"{path}: a {type(inner).__name__}, which does not keep the vectors that were added: "
            f"take the vectors that it was made of, or an IndexFlat"
        )

    # ``index`` owns ``inner``: it has to live as long. Its own reconstruct_n goes by ids, not rows.
    def cut(start: int, stop: int, owner: object = index) -> np.ndarray:
        rows: np.ndarray = inner.reconstruct_n(start, stop - start)
        return rows

    n_rows = inner.ntotal
    return Container(
        (n_rows, inner.d),
        lambda: container.blocks(n_rows, cut),
        None if ids is None else lambda: iter([user_arrays.ids_of(pa.array(ids), path)]),
    )


def open_lance(path: str, names: Names) -> Container:
    """Open a Lance table.

    Raises:
        SidmillError: if the package is not installed, or the table has no such column.
    """
    try:
        import lance
    except ImportError:
        raise SidmillError(
            f"{path}: a Lance table needs the package pylance, which is not installed: pip install "
            f"pylance, or write parquet: lance.dataset({path!r}).to_table()"
        ) from None
    try:
        table = lance.dataset(path)
    except (ValueError, OSError) as error:
        raise SidmillError(f"{path}: not a readable Lance table ({error!s:.200})") from None

    # Columns as in parquet.
    schema = table.schema
    tests = {names.embedding: user_arrays.holds_vectors, names.pid: user_arrays.holds_ids}
    for name, accepts in tests.items():
        if name not in schema.names or not accepts(schema.field(name).type):
            columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
            raise SidmillError(
                f"{path}: no column {name!r} for it; the table has {columns:.300}: set "
                f"embedding.fields"
            )

    def batches(name: str) -> Iterator[tuple[int, pa.Array]]:
        row = 0
        for batch in table.to_batches(columns=[name], batch_size=container.BLOCK_ROWS):
            if batch.num_rows:
                yield row, batch.column(name)
                row += batch.num_rows

    def read() -> Iterator[np.ndarray]:
        for row, column in batches(names.embedding):
            yield user_arrays.vectors_of(column, path, row)

    def read_ids() -> Iterator[pa.ChunkedArray]:
        for row, column in batches(names.pid):
            yield user_arrays.ids_of(column, path, row)

    head = table.head(1, columns=[names.embedding])
    if not head.num_rows:
        raise SidmillError(f"{path}: the table is empty")
    dim = user_arrays.vectors_of(head[names.embedding], path).shape[1]
    return Container((table.count_rows(), dim), read, read_ids)
