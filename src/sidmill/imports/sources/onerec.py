"""OneRec's RecIF-Bench: histories of videos and captions as parquet.

    pid2caption.parquet             pid, dense_caption
    onerec_bench_release.parquet    uid, split (0 train, 1 test), hist_video_pid, target_video_pid

Histories are lists, oldest first, without times. A train row is for training as a whole; of a test
row the targets are held out. Rows of one user that begin alike are joined. Ads and goods are not
read: interactions.fields reads them from the same file (docs/interactions.md).

Source: https://huggingface.co/datasets/OpenOneRec/OpenOneRec-RecIF
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow.parquet as pq

from sidmill.core.errors import SidmillError
from sidmill.formats import catalogue
from sidmill.imports.content import SPLITS, TEXT, Bad, Content, Event, Item
from sidmill.imports.files import Entry, Files, refuse_repeated

BATCH_ROWS = 1024
HISTORY, TARGET = "hist_video_pid", "target_video_pid"
SPLIT_NUMBERS = {0: SPLITS["train"], 1: SPLITS["test"]}


def open_source(files: Files) -> Content:
    """Open the data set."""
    captions = files.need(r"pid2caption.*\.parquet", "pid2caption.parquet")
    logs = files.need(r"onerec_bench_release.*\.parquet", "onerec_bench_release.parquet")
    for group in (captions, logs):
        refuse_repeated(group)
    for entry in [*captions, *logs]:
        if entry.local is None:
            raise SidmillError(f"{entry.name}: parquet is not read within an archive: unpack it")
    return Content(
        {"caption": TEXT}, lambda: _items(captions), lambda: _events(logs), has_splits=True
    )


def _rows(entry: Entry, columns: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a parquet file, from 1. Memory: ``BATCH_ROWS`` rows."""
    assert entry.local is not None
    with catalogue.reading_parquet(entry.local):
        file = pq.ParquetFile(entry.local)
        absent = [name for name in columns if name not in file.schema_arrow.names]
        if absent:
            raise SidmillError(f"{entry.name}: no column {', '.join(absent)}")
        number = 0
        for batch in file.iter_batches(BATCH_ROWS, columns=columns):
            for row in batch.to_pylist():
                number += 1
                yield number, row


def _items(entries: list[Entry]) -> Iterator[Item | Bad]:
    for entry in entries:
        names = pq.read_schema(entry.local).names
        caption = "dense_caption" if "dense_caption" in names else "caption"
        for number, row in _rows(entry, ["pid", caption]):
            pid = "" if row["pid"] is None else str(row["pid"])
            yield Item(pid, {"caption": row[caption]}, entry.name, number)


def _events(entries: list[Entry]) -> Iterator[Event | Bad]:
    for entry in entries:
        for number, row in _rows(entry, ["uid", "split", HISTORY, TARGET]):
            past, future = row[HISTORY] or [], row[TARGET] or []
            split = SPLIT_NUMBERS.get(row["split"])
            if row["uid"] is None or split is None:
                reason = f"uid {row['uid']!r}, split {row['split']!r}: wanted 0 or 1"
                yield Bad(entry.name, number, reason, len(past) + len(future))
                continue

            # Items may occur more than once; a repeated row has the same occurrences.
            earlier: Counter[int] = Counter()
            for position, item in enumerate([*past, *future]):
                place = (position, earlier[item])
                earlier[item] += 1
                held = split if position >= len(past) else SPLITS["train"]
                user = str(row["uid"])
                yield Event(user, str(item), None, None, held, entry.name, number, *place)
