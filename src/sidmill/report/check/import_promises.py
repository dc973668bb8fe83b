"""What the files of an import promise of each other: counts, and items that the catalogue has."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from sidmill.io import json_report, parquet
from sidmill.report.check.promise import Paths, Promise

ITEMS, EVENTS, REJECTS = "items.parquet", "interactions.parquet", "rejects.parquet"


def find(paths: Paths) -> Iterator[Promise]:
    """List the promises between the files of each imported data set."""
    # Files are named after the report that counts them.
    for name in paths:
        if Path(name).name != "import.json":
            continue
        items, events, rejects = (
            str(Path(name).with_name(one)) for one in (ITEMS, EVENTS, REJECTS)
        )

        # Items and interactions, then rejects.
        if {items, events} <= set(paths):
            yield Promise(
                f"{name} counts the rows of {ITEMS} and {EVENTS}",
                name,
                partial(_counts, paths[name], paths[items], paths[events]),
            )
            yield Promise(
                f"every item of {events} is in {ITEMS}",
                events,
                partial(_known, paths[events], paths[items]),
            )
        if {items, rejects} <= set(paths):
            yield Promise(
                f"{name} counts the rows of {REJECTS}",
                name,
                partial(_rejects, paths[name], paths[rejects]),
            )


def _counts(report: Path, items: Path, events: Path) -> str | None:
    # Rows of the catalogue, users, interactions.
    told, n_interactions = json_report.read(report), 0
    for batch in _batches(events, "item_ids"):
        n_interactions += len(batch.flatten())
    counted = (
        ("items.written", told["items"]["written"], _rows(items), ITEMS),
        ("log.users", told["log"]["users"], _rows(events), EVENTS),
        ("interactions.written", told["interactions"]["written"], n_interactions, EVENTS),
    )
    for key, said, found, name in counted:
        if said != found:
            return f"{key} is {said:,}, {name} has {found:,}"

    # Every interaction that was read went somewhere.
    log = told["interactions"]
    gone = log["written"] + log["rejected"] + sum(log["left_out"].values())
    if log["read"] != gone:
        return f"interactions.read is {log['read']:,}; written, rejected and left out are {gone:,}"
    return None


def _rejects(report: Path, rejects: Path) -> str | None:
    told, rows, interactions = json_report.read(report), 0, 0
    for batch in _batches(rejects, "interactions"):
        rows += pc.sum(pc.equal(batch, 0)).as_py() or 0
        interactions += pc.sum(batch).as_py() or 0
    counted = (
        ("items.rejected", told["items"]["rejected"], rows, "rows of the catalogue"),
        ("interactions.rejected", told["interactions"]["rejected"], interactions, "interactions"),
    )
    for key, said, found, what in counted:
        if said != found:
            return f"{key} is {said:,}, {REJECTS} has {found:,} {what}"
    return None


def _known(events: Path, items: Path) -> str | None:
    known = pa.concat_arrays(list(_batches(items, "item_id")))
    for batch in _batches(events, "item_ids"):
        ids = batch.flatten()
        odd = pc.index(pc.is_in(ids, value_set=known), False).as_py()
        if odd >= 0:
            return f"item {ids[odd]} is not in {items.name}"
    return None


def _batches(path: Path, column: str) -> Iterator[pa.Array]:
    with parquet.naming(path):
        for batch in parquet.Parquet(path).iter_batches(columns=[column]):
            yield batch.column(0)


def _rows(path: Path) -> int:
    with parquet.naming(path):
        return int(parquet.Parquet(path).metadata.num_rows)
