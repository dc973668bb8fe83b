"""Several datasets in one: weights, and users held out for a test.

A weight of 0.5 keeps half the rows, 2 takes each twice, 1.5 each once and half of them again.
Which rows, and their order, is a hash of the seed and the row's uuid. Held-out users are the same
in every dataset, so nobody is in both parts. Rows that an item owns are held out by item, and only
where a dataset of items has a test size.

Memory: some 150 bytes per row, and the rows of one output file. Each output file reads the input
files it draws from, which suits mixtures that fit the page cache.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sidmill.core.errors import SidmillError
from sidmill.datasets import keys, ragged
from sidmill.formats import dataset_rows

OWNERS = ("uid", "pid")


def mix(
    folders: list[str],
    train: str | Path,
    test: str | Path,
    *,
    seed: int,
    weights: dict[str, float],
    test_size: dict[str, int],
    rows_per_file: int,
) -> dict:
    """Mix datasets into a training and a test part.

    Args:
        folders: one per dataset of ``weights``, in the order of their names.
        train: folder to write.
        test: folder to write; empty without ``test_size``.
        seed: covers samples, order and the users held out.
        weights: per dataset.
        test_size: rows held out, per dataset, at least; of whole users.
        rows_per_file: rows of a file.

    Returns:
        Per part and dataset, the number of rows; and training rows of users held out.

    Raises:
        SidmillError: if a dataset with a test size is not in ``weights``, or has fewer rows.
    """
    names = sorted(weights)
    stray = sorted(set(test_size) - set(names))
    if stray:
        raise SidmillError(f"test_size names {', '.join(stray)}, which weights does not")
    files = [(n, path) for n, folder in enumerate(folders) for path in dataset_rows.parts(folder)]
    owners, kinds, ids, origin, place = [], [], [], [], []
    for number, (dataset, path) in enumerate(files):
        table = pq.read_table(path, columns=["uuid", "metadata"], partitioning=None)
        owned = [_owner(text, seed) for text in table["metadata"].to_pylist()]
        owners += [number for number, _ in owned]
        kinds += [kind for _, kind in owned]
        ids += [_number(text) for text in table["uuid"].to_pylist()]
        origin += [np.full(len(table), dataset)]
        place += [np.stack([np.full(len(table), number), np.arange(len(table))], axis=1)]
    owner, key = np.array(owners, np.uint64), np.array(ids, np.uint64)
    origin, place = np.concatenate(origin), np.concatenate(place)
    held = _held_out(owner, np.array(kinds, np.int64), origin, names, test_size)
    counts = {"dropped_of_held_out_users": {}}
    shutil.rmtree(train, ignore_errors=True)
    shutil.rmtree(test, ignore_errors=True)
    for folder in (train, test):
        Path(folder).mkdir(parents=True)
    for part, folder, rows in (("train", train, ~held), ("test", test, held)):
        picked = np.flatnonzero(rows)
        share = np.array([weights[name] for name in names])[origin[picked]]
        if part == "test":
            wanted = np.array([test_size.get(name, 0) > 0 for name in names])[origin[picked]]
            for number, name in enumerate(names):
                lost = int(((origin[picked] == number) & ~wanted).sum())
                if lost:
                    counts["dropped_of_held_out_users"][name] = lost
            picked, share = picked[wanted], np.ones(int(wanted.sum()))
        drawn = keys.share(keys.derive(key[picked], seed, "copies"))
        copies = (share + drawn).astype(np.int64)
        picked = np.repeat(picked, copies)
        again = ragged.places(np.zeros(len(copies), np.int64), copies).astype(np.uint64)
        order = np.argsort(keys.mix(keys.derive(key[picked], seed, part) + again), kind="stable")
        _write(Path(folder), files, place[picked[order]], rows_per_file)
        totals = np.bincount(origin[picked], minlength=len(names)).tolist()
        counts[part] = dict(zip(names, totals, strict=True))
    return counts


def _held_out(
    owner: np.ndarray, kind: np.ndarray, origin: np.ndarray, names: list[str], sizes: dict
) -> np.ndarray:
    """Rows of the owners held out: those with the lowest numbers, as many as the sizes ask for."""
    held = np.zeros(len(owner), dtype=bool)
    for number, name in enumerate(names):
        size = sizes.get(name, 0)
        if not size:
            continue
        own = origin == number
        rows = np.sort(owner[own])
        if size >= len(rows):
            raise SidmillError(
                f"test_size of {name} is {size}, but it has {len(rows)} rows: lower it"
            )
        held |= (owner <= rows[size - 1]) & np.isin(kind, kind[own])
    return held


def _write(folder: Path, files: list, place: np.ndarray, rows_per_file: int) -> None:
    """Write rows, given as file and row, in order; each output file reads what it needs."""
    count = -(-len(place) // rows_per_file)
    for number in range(count):
        wanted = place[number * rows_per_file : (number + 1) * rows_per_file]
        tables, found = [], []
        for file in np.unique(wanted[:, 0]):
            rows = np.flatnonzero(wanted[:, 0] == file)
            table = pq.read_table(files[file][1], partitioning=None)
            tables.append(table.take(pa.array(wanted[rows, 1])))
            found.append(rows)
        order = np.argsort(np.concatenate(found), kind="stable")
        if len({table.schema for table in tables}) > 1:
            raise SidmillError("segments and messages cannot be mixed: weigh one kind at a time")
        whole = pa.concat_tables(tables).take(pa.array(order)).combine_chunks()
        dataset_rows.write(folder / dataset_rows.part_name(number, count), whole)


def _owner(metadata: str, seed: int) -> tuple[int, int]:
    """A number for the owner of a row, and what it is: a place in ``OWNERS``."""
    facts = json.loads(metadata)
    kind = next((kind for kind, key in enumerate(OWNERS) if key in facts), len(OWNERS))
    name = f"{OWNERS[kind]} {facts[OWNERS[kind]]}" if kind < len(OWNERS) else metadata
    return int(keys.stream(seed, f"owner {name}")), kind


def _number(uuid: str) -> int:
    return int(uuid.replace("-", "")[:16], 16)
