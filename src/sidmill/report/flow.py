"""Rows in and out of each stage, from what the files say, and that none is lost on the way.

A stage holds if ``in = out + rejects + other``; ``other`` names what leaves for a good reason.
Counts come from the metadata of both ends, so a stage is checked however its output came about, in
one run or in several. One whose input is newer than its output is ``stale``, and not held to it.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from sidmill.core.errors import SidmillError
from sidmill.formats import (
    item_data,
    item_text,
    memory_maps,
    vector_store,
)
from sidmill.io import json_report, parquet

COLLECTIONS = ("items", "corpus", "queries", "mining_corpus", "mining_queries")

EXPORTS = ("mmap/mmap.json", "h5/item_data.h5")


class Stage(NamedTuple):
    """What went through one stage.

    Attributes:
        name: of the stage, and what it was of.
        rows_in: rows in; None where the files do not say.
        rows_out: rows out.
        rejected: rows listed as rejects.
        other: rows dropped for another reason, by reason; negative numbers are rows added.
        stale: whether an input is newer than the output.
    """

    name: str
    rows_in: int | None
    rows_out: int
    rejected: int = 0
    other: dict[str, int] | None = None
    stale: bool = False

    @property
    def holds(self) -> bool | None:
        """Whether the identity holds; None where it is not known."""
        if self.rows_in is None or self.stale:
            return None
        return self.rows_in == self.rows_out + self.rejected + sum((self.other or {}).values())

    def as_json(self) -> dict[str, Any]:
        """The same as run.json has it."""
        counts = {"in": self.rows_in, "out": self.rows_out, "rejects": self.rejected}
        also = {"other": self.other} if self.other else {}
        return {"stage": self.name, **counts, **also, "stale": self.stale, "holds": self.holds}


def follow(results: str | Path) -> list[Stage]:
    """Count what went through every stage whose files lie in ``results``.

    Memory: a block of one column; time: as many files as there are.

    Raises:
        SidmillError: naming a stage that lost or made rows, or a file that cannot be read.
    """
    folder = Path(results)
    stages = [
        *(stage for name in COLLECTIONS for stage in _collection(folder / name)),
        *_codes(folder),
        *_exports(folder),
        *_interactions(folder / "interactions"),
        *_datasets(folder / "datasets"),
    ]
    lost = [stage for stage in stages if stage.holds is False]
    if lost:
        stage = lost[0]
        parts = [f"{stage.rows_out} out", f"{stage.rejected} rejects"]
        parts += [f"{count} {reason}" for reason, count in (stage.other or {}).items()]
        raise SidmillError(
            f"stage {stage.name!r}: {stage.rows_in} in, but {' + '.join(parts)}: rows were lost or "
            f"made: delete its output and run it again"
        )
    return stages


def _collection(folder: Path) -> Iterator[Stage]:
    texts, rejects = folder / "text.parquet", folder / "rejects.parquet"
    if not texts.is_file():
        return
    if rejects.is_file():
        rows_in = item_text.rows_read(rejects)
        yield Stage(f"read {folder.name}", rows_in, _rows(texts), _rows(rejects))
    shards = whole_set(sorted((folder / "embeddings.parquet").glob("part-*.parquet")))
    if not shards:
        return
    embedded = sum(map(_rows, shards))
    stale = is_stale([texts], shards)
    yield Stage(f"embed {folder.name}", _rows(texts), embedded, stale=stale)
    stored, ids = folder / "vectors.npy", folder / "ids.parquet"
    if stored.is_file() and ids.is_file():
        stale = is_stale(shards, [stored, ids])
        count = len(vector_store.open_npy(stored))
        yield Stage(f"store {folder.name}", embedded, count, stale=stale)


def _codes(folder: Path) -> Iterator[Stage]:
    ids, chosen, sids = folder / "items/ids.parquet", folder / "codes.parquet", "pid2sid.parquet"
    for codes in sorted(folder.glob("*/codes.parquet")):
        if ids.is_file():
            name = f"encode with {codes.parent.name}"
            yield Stage(name, _rows(ids), _rows(codes), stale=is_stale([ids], [codes]))
    if chosen.is_file() and (folder / sids).is_file():
        stale = is_stale([chosen], [folder / sids])
        yield Stage("resolve collisions", _rows(chosen), _rows(folder / sids), stale=stale)


def _exports(folder: Path) -> Iterator[Stage]:
    ids, maps, items = (folder / name for name in ("items/ids.parquet", *EXPORTS))
    if maps.is_file() and ids.is_file():
        rows = memory_maps.open_maps(maps).embeddings.shape[0] - 1  # row 0 is padding
        yield Stage("memory maps", _rows(ids), rows, stale=is_stale([ids], [maps]))
    if items.is_file() and ids.is_file():
        data = item_data.open_item_data(items)
        with data.file:
            rows = len(data.item_ids)
        yield Stage("item_data.h5", _rows(ids), rows, stale=is_stale([ids], [items]))


def _interactions(folder: Path) -> Iterator[Stage]:
    told, rejects = folder / "report.json", folder / "rejects.parquet"
    if not told.is_file() or not rejects.is_file():
        return
    counts = json_report.read(told)["interactions_accounted_for"]
    with parquet.naming(rejects):
        rejected = sum(
            sum(filter(None, batch.column(0).to_pylist()))
            for batch in parquet.Parquet(rejects).iter_batches(columns=["interactions"])
        )
    other = {"restated": counts["restated"]}
    yield Stage("read interactions", counts["read"], counts["written"], rejected, other)


def _datasets(folder: Path) -> Iterator[Stage]:
    for path in sorted((folder / "counts").glob("*.json")):
        counts = json_report.read(path)
        if "read" not in counts:  # a mixture draws rows, as often as weights say
            drawn = sum(sum(counts[part].values()) for part in ("train", "test"))
            yield Stage(f"mix {path.stem}", None, drawn)
            continue
        parts = whole_set(sorted((folder / path.stem).glob("part-*.parquet")))
        written = sum(map(_rows, parts)) if parts else counts["written"]
        other = {"added": -counts["added"], **counts["left_out"]}
        yield Stage(f"dataset {path.stem}", counts["read"], written, other=other)


def whole_set(parts: list[Path]) -> list[Path]:
    """Parts of one number of shards that are all there: the newest such set, or none."""
    sets: dict[str, list[Path]] = {}
    for part in parts:
        sets.setdefault(part.stem.rpartition("-of-")[2], []).append(part)
    whole = [
        files for count, files in sets.items() if count.isdecimal() and len(files) == int(count)
    ]
    return max(whole, key=lambda files: files[-1].stat().st_mtime_ns, default=[])


def is_stale(inputs: Sequence[Path], outputs: Sequence[Path]) -> bool:
    """Whether an output is older than an input, as Snakemake tells it."""
    newest = max((path.stat().st_mtime_ns for path in inputs), default=0)
    return any(path.stat().st_mtime_ns < newest for path in outputs)


def _rows(path: Path) -> int:
    with parquet.naming(path):
        return int(pq.read_metadata(path).num_rows)
