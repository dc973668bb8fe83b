"""Rows that a language model is trained on, in files that OpenOneRec and TRL read unchanged.

    source    string        which task a row is of
    uuid      string        uuid5 of source and content
    segments  string        pretraining: JSON, [{"type": "text", "text": ...}]
    messages  string        chat: JSON, [{"role": ..., "content": [{"type": "text", "text": ...}]}]
              or list<struct<role, content>>, with ``form: chat``: what ``datasets`` and TRL take
    metadata  string        JSON, with uid, or pid and sid

A dataset is a folder of ``part-00000-of-00010.parquet``.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sidmill.core.atomic import replacing
from sidmill.core.errors import SidmillError

CHAT = pa.large_list(pa.struct([("role", pa.large_string()), ("content", pa.large_string())]))
COMPRESSION = "snappy"  # zstd left 41 MB for 73 MB, but its files took 0.61 s to write, not 0.43 s


def part_name(number: int, count: int) -> str:
    """Name of one file of a dataset."""
    return f"part-{number:05d}-of-{count:05d}.parquet"


def write(path: str | Path, table: pa.Table) -> None:
    """Write one file atomically: texts are all different, so no dictionary and no statistics."""
    with replacing(path) as temporary:
        pq.write_table(
            table,
            temporary,
            use_dictionary=["source"],
            write_statistics=False,
            compression=COMPRESSION,
        )


def cut(tables: Iterable[pa.Table], rows_per_file: int) -> Iterator[pa.Table]:
    """Cut rows into those of one file after another; a file may reach over several tables."""
    waiting, count = [], 0
    for table in tables:
        start = 0
        while start < table.num_rows:
            waiting.append(table.slice(start, rows_per_file - count))
            start, count = start + len(waiting[-1]), count + len(waiting[-1])
            if count == rows_per_file:
                yield pa.concat_tables(waiting).combine_chunks()
                waiting, count = [], 0
    if count:
        yield pa.concat_tables(waiting).combine_chunks()


def parts(folder: str | Path) -> list[Path]:
    """The files of a dataset, in order.

    Raises:
        SidmillError: if there is none, or one of those that the names promise is missing.
    """
    found = sorted(Path(folder).glob("part-*-of-*.parquet"))
    if [path.name for path in found] != [part_name(i, len(found)) for i in range(len(found))]:
        raise SidmillError(f"{folder}: files of a dataset are missing: delete it and run again")
    if not found:
        raise SidmillError(f"{folder}: holds no part-00000-of-00001.parquet: make the dataset")
    return found


def read(folder: str | Path) -> Iterator[pa.Table]:
    """Yield the rows of a dataset, one file at a time."""
    for path in parts(folder):
        yield pq.read_table(path, partitioning=None)


def text_column(table: pa.Table) -> str:
    """The column that holds the text: segments or messages."""
    return "segments" if "segments" in table.column_names else "messages"
