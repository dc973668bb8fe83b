"""Rows that a language model is trained on, in files that OpenOneRec and TRL read unchanged.

    source    string        which task a row is of
    uuid      string        uuid5 of source and content
    segments  string        pretraining: JSON, [{"type": "text", "text": ...}]
    messages  string        chat: JSON, [{"role": ..., "content": [{"type": "text", "text": ...}]}]
              or list<struct<role, content>>, with ``form: chat``: what ``datasets`` and TRL take
    ground_truth       list<string>  of chat turns with ``form: chat``: the SIDs of the answer, or
                                     its text, where it has none
    ground_truth_pids  list<pid>     with it: the items that the answer names
    metadata  string        JSON, with uid, or pid and sid

For reinforcement learning, with ``form: chat``, also what TRL's GRPOTrainer and verl read:

    prompt        list<struct<role, content>>            the messages without the answer
    data_source   string                                 as ``source``
    reward_model  struct<style, ground_truth>            style is ``rule``
    extra_info    struct<index, split, uuid>             index is the number of the row

A dataset is a folder of ``part-00000-of-00010.parquet``.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sidmill.core.atomic import replacing
from sidmill.core.errors import SidmillError
from sidmill.io import parquet

CHAT = pa.large_list(pa.struct([("role", pa.large_string()), ("content", pa.large_string())]))
ANSWERS, PIDS = "ground_truth", "ground_truth_pids"
PART = re.compile(r"part-\d+-of-\d+\.parquet")
COMPRESSION = "snappy"  # zstd left 41 MB for 73 MB, but its files took 0.61 s to write, not 0.43 s


def part_name(number: int, count: int) -> str:
    """Name of one file of a dataset."""
    return f"part-{number:05d}-of-{count:05d}.parquet"


def write(path: str | Path, table: pa.Table) -> None:
    """Write one file of a dataset atomically: no dictionary, no statistics, as all texts differ."""
    with replacing(path) as temporary:
        pq.write_table(
            table,
            temporary,
            use_dictionary=["source"],
            write_statistics=False,
            compression=COMPRESSION,
        )


def cut(tables: Iterable[pa.Table], rows_per_file: int) -> Iterator[pa.Table]:
    """Cut rows of a dataset into those of one file after another, also across tables."""
    waiting: list[pa.Table] = []
    count = 0
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
        SidmillError: if there is none, or one of the number that their names state is missing.
    """
    paths = sorted(Path(folder).glob("part-*-of-*.parquet"))
    if [path.name for path in paths] != [part_name(i, len(paths)) for i in range(len(paths))]:
        raise SidmillError(f"{folder}: files of a dataset are missing: delete it and run again")
    if not paths:
        raise SidmillError(f"{folder}: holds no part-00000-of-00001.parquet: make the dataset")
    return paths


def read(folder: str | Path) -> Iterator[pa.Table]:
    """Yield the rows of a dataset, one file at a time."""
    for path in parts(folder):
        yield pq.read_table(path, partitioning=None)


def files(path: str | Path) -> list[Path]:
    """The parquet files of a dataset, of this or another program.

    Args:
        path: a folder with files of any name, or one file.

    Raises:
        SidmillError: if there is none, or one of the number that their names state is missing.
    """
    folder = Path(path)
    if folder.is_file():
        return [folder]
    paths = sorted(
        each
        for each in folder.rglob("*.parquet")
        if not any(part[0] in "._" for part in each.relative_to(folder).parts)
    )
    if not paths:
        raise SidmillError(f"{path}: holds no parquet file: name the folder of a dataset, or one")
    is_own = any(PART.fullmatch(each.name) for each in paths)
    if is_own and len({each.parent for each in paths}) == 1:
        return parts(paths[0].parent)
    return paths


def read_file(path: Path) -> pa.Table:
    """Read one file of a dataset of this or another program.

    Raises:
        SidmillError: if it has neither messages nor segments, or cannot be read.
    """
    file = parquet.open_file(path, {})
    names = file.schema_arrow.names
    if not {"messages", "segments"} & set(names):
        raise SidmillError(
            f"{path}: no column messages or segments, only {', '.join(names[:20])}: rename the "
            f"column of the texts"
        )
    columns = ("source", "uuid", "segments", "messages", "metadata")
    return file.read(columns=[name for name in columns if name in names])


def text_column(table: pa.Table) -> str:
    """The column that holds the text: segments or messages."""
    return "segments" if "segments" in table.column_names else "messages"


def with_questions(table: pa.Table, first_row: int, split: str) -> pa.Table:
    """Add the columns of reinforcement learning to rows of chat turns; other rows stay as they are.

    Args:
        table: rows (n,) of a dataset.
        first_row: the number of its first row.
        split: train or test.

    Raises:
        SidmillError: if the rows are plain texts, which have no question.
    """
    # JSON of chat turns stays as it is.
    texts = table[text_column(table)]
    if pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type):
        if not texts[0].as_py().startswith("["):  # JSON, with form: onerec
            raise SidmillError(
                f"{table['source'][0].as_py()}: rows of plain text have no question and no answer "
                f"to reward: name tasks of form messages in rl.weights"
            )
        return table

    # The question is all turns (m - n,) but the last one of each row.
    turns = table["messages"].combine_chunks()
    lengths = pc.list_value_length(turns).to_numpy(zero_copy_only=False).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    is_question = np.ones(offsets[-1], dtype=bool)
    is_question[offsets[1:] - 1] = False
    question_offsets = np.concatenate([[0], np.cumsum(lengths - 1)])
    questions = pa.LargeListArray.from_arrays(
        pa.array(question_offsets), pc.list_flatten(turns).filter(pa.array(is_question))
    )

    # Columns that verl reads with the question.
    answers, count = table[ANSWERS].combine_chunks(), table.num_rows
    rule = pa.repeat(pa.scalar("rule"), count)
    numbers = pa.array(np.arange(first_row, first_row + count))
    added = {
        "prompt": questions,
        "data_source": table["source"],
        "reward_model": pa.StructArray.from_arrays([rule, answers], ["style", ANSWERS]),
        "extra_info": pa.StructArray.from_arrays(
            [numbers, pa.repeat(pa.scalar(split), count), table["uuid"].combine_chunks()],
            ["index", "split", "uuid"],
        ),
    }
    for name, column in added.items():
        table = table.append_column(name, column)
    return table
