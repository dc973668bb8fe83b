"""A published retrieval collection -> passages, queries and judgements in the form of BEIR.

    corpus.jsonl     _id, title, text
    queries.jsonl    _id, text: those with a judgement
    qrels.tsv        query-id, corpus-id, score
    rejects.parquet, import.json, overlay.yaml   as of a data set

Letters: N passages.
"""

import json
import logging
from array import array
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xxhash

from sidmill.core.atomic import replacing
from sidmill.core.errors import SidmillError
from sidmill.core.paths import refuse_overwrite
from sidmill.imports import files, overlay, rejects_file
from sidmill.imports.content import Bad
from sidmill.io import json_report
from sidmill.settings.imported import Imported
from sidmill.settings.registry import SOURCES, load_function

logger = logging.getLogger(__name__)

NAMES = ("corpus.jsonl", "queries.jsonl", "qrels.tsv", "rejects.parquet", "import.json",
         "overlay.yaml")  # fmt: skip
HEADER = "query-id\tcorpus-id\tscore\n"
FEW_PASSAGES = 1000
TARGET = "results/retrieval/metrics.json"
APPLIES = {"path", "max_reject_share", "memory_mb"}  # settings that are not about interactions


class Passage(NamedTuple):
    """A passage or a query."""

    id: str
    title: str
    text: str
    file: str
    row: int


class Judgement(NamedTuple):
    """How well a passage answers a query: 0 for not at all."""

    query: str
    passage: str
    score: int
    file: str
    row: int


class Collection(NamedTuple):
    """A collection, ready to be read.

    Attributes:
        passages: reads the passages.
        queries: reads the queries.
        judgements: reads the judgements.
        notes: what a user should know.
    """

    passages: Callable[[], Iterator[Passage | Bad]]
    queries: Callable[[], Iterator[Passage | Bad]]
    judgements: Callable[[], Iterator[Judgement | Bad]]
    notes: tuple[str, ...] = ()


def run(
    name: str, source: str, folder: str | Path, settings: Imported, *, for_workflow: bool = False
) -> dict[str, Any]:
    """Import a collection. Memory: 24 bytes per passage, and the ids of the judged queries.

    Passages and queries are read twice, first for ids that occur more than once.

    Args:
        name: of the source, a key of ``SOURCES``.
        source: its folder or archive.
        folder: where the files are written.
        settings: ``max_reject_share``; the others are about interactions.
        for_workflow: whether the overlay also says how the files are made.

    Returns:
        What import.json contains.

    Raises:
        SidmillError: if a file is missing or cannot be read to its end, if one fault takes too many
            rows, or if no judgement remains.
    """
    refuse_overwrite(folder, [source], "OUT")
    _refuse_options(name, settings)
    entry = SOURCES[name]
    listed = files.open_files(source, f"fetch {entry.reads} from {entry.published}")
    collection: Collection = load_function(f"{entry.module}:open_source")(listed)
    paths = {Path(one).stem: str(Path(folder) / one) for one in NAMES}

    # Passages, then the judgements of those that are there, then the queries that are judged.
    with rejects_file.opened(paths["rejects"]) as rejects:
        passages, known = _write_texts(paths["corpus"], collection.passages, rejects.add_item, None)
        judgements, asked = _write_judgements(
            paths["qrels"], collection.judgements(), known, rejects.add_item
        )
        queries, found = _write_texts(
            paths["queries"], collection.queries, rejects.add_item, np.sort(_keys(asked))
        )
        rejects.items.rows = passages["read"] + judgements["read"] + queries["read"]
        rejects.items.check(settings.max_reject_share, "imported")
        if not judgements["written"] or not queries["written"]:
            raise SidmillError(f"{source}: no judgement of a query and a passage that are there")

    report = {
        "source": name,
        "passages": passages,
        "queries": queries | {"judged_but_missing": len(asked) - len(found)},
        "judgements": judgements,
        "reasons": dict(rejects.items.causes),
        "notes": collection.notes,
    }
    json_report.write(paths["import"], report)
    _write_overlay(name, source, paths, report, settings if for_workflow else None)
    for line in rejects.items.lines():
        logger.warning(line)
    return report


def _refuse_options(name: str, settings: Imported) -> None:
    """Stop where an option is set that is about interactions."""
    default = asdict(Imported())
    odd = [
        key
        for key, value in asdict(settings).items()
        if key not in APPLIES and value != default[key]
    ]
    if odd:
        raise SidmillError(
            f"{', '.join(odd)}: {name} has passages and queries, not interactions: leave out"
        )


def _keys(ids: list[str]) -> np.ndarray:
    return np.fromiter((_key(one) for one in ids), np.uint64, len(ids))


def _key(one: str) -> int:
    return xxhash.xxh3_64_intdigest(one.encode(errors="surrogatepass"))


def _write_texts(
    path: str,
    read: Callable[[], Iterator[Passage | Bad]],
    reject: Callable[[Bad], None],
    wanted: np.ndarray | None,
) -> tuple[dict[str, int], np.ndarray]:
    """Write passages or queries, of several with one id the first.

    Args:
        path: the file.
        read: starts to read what to write.
        reject: takes the rows that give nothing.
        wanted: uint64, ascending, keys of the ids to write; None: all.

    Returns:
        Counts, and the keys of what was written, ascending.
    """
    counts = {"read": 0, "rejected": 0, "left_out": 0, "written": 0}
    repeated, seen, keys = _repeated_keys(read()), set[int](), array("Q")

    # Row by row; of rows with one id the first is taken.
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as out:
        for row in read():
            counts["read"] += 1
            key = 0 if isinstance(row, Bad) else _key(row.id)
            bad = row if isinstance(row, Bad) else _problem(row, key in seen)
            if bad is not None:
                counts["rejected"] += 1
                reject(bad)
                continue
            assert isinstance(row, Passage)
            if key in repeated:
                seen.add(key)
            if wanted is not None and not _is_in(wanted, key):
                counts["left_out"] += 1
                continue
            counts["written"] += 1
            keys.append(key)
            fields = {"_id": row.id, "title": row.title, "text": row.text}
            if wanted is not None:
                del fields["title"]
            out.write(json.dumps(fields, ensure_ascii=False) + "\n")
    return counts, np.sort(np.frombuffer(keys, np.uint64)) if len(keys) else np.empty(0, np.uint64)


def _repeated_keys(stream: Iterator[Passage | Bad]) -> set[int]:
    """Keys that occur more than once. Memory: 8 bytes per row, twice while they are sorted."""
    keys = np.frombuffer(
        array("Q", (_key(row.id) for row in stream if isinstance(row, Passage))), np.uint64
    )
    ranked = np.sort(keys)
    return set(ranked[1:][ranked[1:] == ranked[:-1]].tolist())


def _write_judgements(
    path: str,
    stream: Iterator[Judgement | Bad],
    passages: np.ndarray,
    reject: Callable[[Bad], None],
) -> tuple[dict[str, int], list[str]]:
    """Write the judgements of passages that are there.

    Returns:
        Counts, and the ids of the queries, each once.
    """
    counts = {"read": 0, "rejected": 0, "written": 0}
    queries: dict[str, None] = {}
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as out:
        out.write(HEADER)
        for row in stream:
            counts["read"] += 1
            bad = row if isinstance(row, Bad) else None
            if isinstance(row, Judgement) and not _is_in(passages, _key(row.passage)):
                bad = Bad(row.file, row.row, f"passage {row.passage!r:.60} is not there")
            if bad is not None:
                counts["rejected"] += 1
                reject(bad)
                continue
            assert isinstance(row, Judgement)
            counts["written"] += 1
            queries[row.query] = None
            out.write(f"{row.query}\t{row.passage}\t{row.score}\n")
    return counts, list(queries)


def _is_in(keys: np.ndarray, key: int) -> bool:
    place = int(np.searchsorted(keys, np.uint64(key)))
    return place < len(keys) and int(keys[place]) == key


def _problem(row: Passage, is_repeated: bool) -> Bad | None:
    """Why a row gives no passage; None where it does."""
    if not row.id.strip() or any(mark in row.id for mark in "\t\r\n"):
        return Bad(row.file, row.row, "no id, or one with a tab or a line break")
    if is_repeated:
        return Bad(row.file, row.row, f"id {row.id!r:.60}: an earlier row has it")
    if not any(letter.isalnum() for letter in row.title + row.text):
        return Bad(row.file, row.row, "no letter or digit in it")
    try:
        f"{row.id}{row.title}{row.text}".encode()
    except UnicodeEncodeError:
        return Bad(row.file, row.row, "half a character (a lone surrogate)")
    return None


def _write_overlay(
    name: str, source: str, paths: dict[str, str], report: dict[str, Any], made: Imported | None
) -> None:
    n_passages = report["passages"]["written"]
    sections: dict[str, Any] = overlay.how_it_was_made(made) if made else {}
    sections["retrieval"] = {key: paths[key] for key in ("corpus", "queries", "qrels")}
    if n_passages < FEW_PASSAGES:
        sections["embedding"] = {"dim": 16, "shards": 1}
    overlay.write(
        paths["overlay"],
        sections,
        [
            f"{name}, imported from {source}: {n_passages:,} passages, "
            f"{report['queries']['written']:,} queries, "
            f"{report['judgements']['written']:,} judgements.",
            f"Licence of the data: {SOURCES[name].licence}.",
            f"snakemake --cores 8 --configfile {paths['overlay']} -- {TARGET}",
            *report["notes"],
        ],
    )
