"""``rejects.parquet`` of an import: the rows that give nothing, and how many there are by cause.

file, row      where it is, row from 1
interactions   how many interactions the row stands for; 0 for a row of items or passages
reason         string
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import pyarrow as pa

from sidmill.formats.reject_counts import Tally, cause_of
from sidmill.imports.content import Bad
from sidmill.io import parquet

REJECTS = pa.schema(
    [
        ("file", pa.string()),
        ("row", pa.int64()),
        ("interactions", pa.int64()),
        ("reason", pa.string()),
    ]
)


class Rejects(NamedTuple):
    """rejects.parquet, open, and what went there: rows of the catalogue, and interactions."""

    add_item: Callable[[Bad], None]
    add_event: Callable[[Bad], None]
    items: Tally
    events: Tally
    interactions: Counter[str]  # by cause; a row may stand for several


@contextmanager
def opened(path: str) -> Iterator[Rejects]:
    """Open rejects.parquet. Memory: one row group."""
    tallies = Tally(), Tally()
    by_cause: Counter[str] = Counter()
    with parquet.row_writer(path, REJECTS) as write:

        def add(tally: Tally, is_item: bool, bad: Bad) -> None:
            interactions = 0 if is_item else bad.interactions
            write((bad.file, bad.row, interactions, bad.reason))
            tally.rows += 1 if is_item else bad.interactions
            tally.add(bad.file, bad.row, bad.reason)
            by_cause[cause_of(bad.reason)] += interactions

        yield Rejects(
            partial(add, tallies[0], True), partial(add, tallies[1], False), *tallies, by_cause
        )
