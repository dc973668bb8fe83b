"""The SID explorer: one HTML file in which a person walks from a prefix to the texts under it.

Shapes: N items, L levels of the SIDs, M levels of the codes (M < L where resolution added a
suffix), n <= N items on the page.

The page carries its data, styles and script and opens from disk without a network. Items stand in
the order of their SIDs, so that every prefix is a run of rows.
"""

import json
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from jinja2 import Environment, StrictUndefined

from sidmill.core.atomic import write_text
from sidmill.core.errors import SidmillError
from sidmill.formats import code_files, item_text, quantizer_file
from sidmill.settings.report import Explorer

TEXT_CHARACTERS = 240
COLLISION_SHARE = 5  # of a sample: a fifth for shared SIDs, a fifth for moved or numbered items
SCRIPT_ESCAPES = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}


class Shown(NamedTuple):
    """What is on the page: ``shown`` of ``items`` items, and figures of all items.

    ``moved_items`` have other codes than the quantizer gave them, as in resolution.json;
    ``numbered_items`` kept theirs, and a suffix above 0 tells them from the first with these codes.
    """

    items: int
    shown: int
    distinct: int
    shared_sids: int
    shared_items: int
    moved_items: int
    numbered_items: int


class Tree(NamedTuple):
    """All items in SID order.

    ``order`` int64 (N,) gives the row of each position; ``sids`` int32 (N, L) is in that order;
    ``starts`` has for each prefix length 1..L the positions where a prefix begins, ascending.
    """

    order: np.ndarray
    sids: np.ndarray
    starts: list[np.ndarray]


class Sources(NamedTuple):
    """Files that the page is made of.

    Attributes:
        template: Jinja template of the page.
        pid2sid: final SIDs.
        codes: codes as quantized, in the row order of ``pid2sid``.
        text: texts, in the same row order. The first line is the title of an item. None or empty
            where items have no text: then the page shows the id.
        quantizer: of the SIDs, for the names of its categories; None or empty where it has none.
    """

    template: str | Path
    pid2sid: str | Path
    codes: str | Path
    text: str | Path | None
    quantizer: str | Path | None = None


def write(page_path: str | Path, sources: Sources, settings: Explorer, seed: int) -> Shown:
    """Write the explorer of a catalogue, atomically.

    With more than ``max_items`` items the page holds a sample: whole groups of items with one SID
    and moved or numbered items, at most a fifth each, and the rest drawn evenly. The counts beside
    prefixes are of all items either way. Memory: about 300 bytes per item with 3 levels; texts are
    read by row groups and kept for the shown items alone.

    Args:
        page_path: the HTML file.
        sources: template, SIDs, codes and texts.
        settings: heading, and items on the page at most.
        seed: of the sample.

    Returns:
        What the page shows.

    Raises:
        SidmillError: if there is no item, or the files are not of the same items in one order.
    """
    # SIDs and codes of the same items, in one order.
    ids, sids, sizes = code_files.read(sources.pid2sid, "sid")
    if not len(ids):
        raise SidmillError(f"{sources.pid2sid}: no items, so there is nothing to explore")
    quantized = code_files.read(sources.codes, "codes")
    if not ids.equals(quantized.ids):
        raise SidmillError(
            _disagreement(sources.pid2sid, len(ids), sources.codes, len(quantized.ids))
        )
    codes = quantized.codes

    # The items on the page: positions (n,) in SID order, and their rows in the files.
    moved, numbered = _moved_and_numbered(sids, codes)
    tree = _tree(sids)
    positions = _sample(tree, (moved | numbered)[tree.order], settings.max_items, seed)
    rows = tree.order[positions]
    pids = ids.take(pa.array(rows)).cast(pa.string()).to_pylist()
    if sources.text:
        texts, same_text = _texts(sources.text, ids, rows, sources.pid2sid)
    else:
        texts, same_text = pids, [pid.encode() for pid in pids]

    # Figures of all items, and the data of those on the page.
    group_sizes = np.diff(tree.starts[-1], append=len(ids))
    shown = Shown(
        items=len(ids),
        shown=len(rows),
        distinct=len(group_sizes),
        shared_sids=int((group_sizes > 1).sum()),
        shared_items=int(group_sizes[group_sizes > 1].sum()),
        moved_items=int(moved.sum()),
        numbered_items=int(numbered.sum()),
    )
    moved_from = {int(n): codes[rows[n]].tolist() for n in np.flatnonzero(moved[rows])}
    data = {
        **shown._asdict(),
        "sizes": sizes,
        "first_names": _names_of_first_tokens(sources.quantizer),
        "code_levels": codes.shape[1],
        "pids": pids,
        "texts": texts,
        "sids": tree.sids[positions].ravel().tolist(),
        "totals": _totals(tree, positions) if len(rows) < len(ids) else None,
        "same_text": _runs_of_one_text(tree, positions, same_text),
        "moved": moved_from,
        "numbered": np.flatnonzero(numbered[rows]).tolist(),
    }

    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(
        Path(sources.template).read_text(encoding="utf-8")
    )
    page = template.render(title=settings.title, data=_script_json(data))
    write_text(page_path, page + "\n")
    return shown


def _names_of_first_tokens(quantizer_path: str | Path | None) -> list[str] | None:
    """The category behind each first token; None where the first level is no category level."""
    if not quantizer_path:
        return None
    categories = quantizer_file.read(quantizer_path, without_codebooks=True).categories
    return categories.code_names() if categories else None


def _disagreement(path: str | Path, n_rows: int, other: str | Path, n_other: int) -> str:
    return (
        f"{path} ({n_rows} rows) and {other} ({n_other} rows) are not of the same items in the "
        f"same order: delete both and run again"
    )


def _moved_and_numbered(sids: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which items resolution moved to other codes, and which it only numbered: bool (N,) each."""
    n_levels = min(sids.shape[1], codes.shape[1])
    moved = (sids[:, :n_levels] != codes[:, :n_levels]).any(axis=1)
    return moved, ~moved & (sids[:, n_levels:] != 0).any(axis=1)


def _tree(sids: np.ndarray) -> Tree:
    order = np.lexsort(sids.T[::-1])
    ordered = sids[order]
    begins = np.zeros(max(len(ordered) - 1, 0), dtype=bool)
    starts = []
    for level in range(sids.shape[1]):
        begins |= ordered[1:, level] != ordered[:-1, level]
        starts.append(np.concatenate([[0], np.flatnonzero(begins) + 1]))
    return Tree(order, ordered, starts)


def _sample(tree: Tree, changed: np.ndarray, max_items: int, seed: int) -> np.ndarray:
    """Positions in SID order of the items on the page, ascending: int64 (n,).

    ``changed`` is bool (N,), items that the resolution moved or numbered, in SID order.
    """
    n_items = len(tree.order)
    if n_items <= max_items:
        return np.arange(n_items)
    rng = np.random.default_rng(seed)
    budget = max_items // COLLISION_SHARE
    chosen = np.zeros(n_items, dtype=bool)
    sizes = np.diff(tree.starts[-1], append=n_items)
    groups = rng.permutation(np.flatnonzero((sizes > 1) & (sizes <= budget)))
    for group in groups[np.cumsum(sizes[groups]) <= budget]:
        first = tree.starts[-1][group]
        chosen[first : first + sizes[group]] = True
    chosen[rng.permutation(np.flatnonzero(changed))[:budget]] = True
    others = np.flatnonzero(~chosen)
    chosen[rng.choice(others, max_items - int(chosen.sum()), replace=False)] = True
    return np.flatnonzero(chosen)


def _totals(tree: Tree, positions: np.ndarray) -> list[list[int]]:
    """Number of items under each prefix on the page, for each length, in SID order."""
    totals = []
    for starts in tree.starts:
        groups = np.unique(np.searchsorted(starts, positions, side="right") - 1)
        totals.append(np.diff(starts, append=len(tree.order))[groups].tolist())
    return totals


def _texts(
    path: str | Path, ids: pa.ChunkedArray, rows: np.ndarray, ids_path: str | Path
) -> tuple[list[str], list[bytes]]:
    """Return the texts of ``rows``, shortened, and a digest of each whole text, in that order."""
    n_items = item_text.count(path)
    texts, digests = [""] * len(rows), [b""] * len(rows)
    by_row = np.argsort(rows, kind="stable")
    sorted_rows = rows[by_row]
    start = 0
    for table in item_text.read(path):
        stop = start + table.num_rows
        if n_items != len(ids) or not table["pid"].equals(ids.slice(start, table.num_rows)):
            break
        first, last = np.searchsorted(sorted_rows, (start, stop))
        block_texts = table["text"].take(pa.array(sorted_rows[first:last] - start)).to_pylist()
        for position, text in zip(by_row[first:last], block_texts, strict=True):
            texts[position] = _shorten(text)
            digests[position] = blake2b(text.encode(), digest_size=16).digest()
        start = stop
    if start != len(ids):
        raise SidmillError(_disagreement(path, n_items, ids_path, len(ids)))
    return texts, digests


def _shorten(text: str) -> str:
    text = text.strip()
    if len(text) <= TEXT_CHARACTERS:
        return text
    return text[: TEXT_CHARACTERS - 1].rstrip() + "…"


def _runs_of_one_text(tree: Tree, positions: np.ndarray, digests: list[bytes]) -> list[int]:
    """First index on the page of each shared SID whose shown items all have one text."""
    groups = np.searchsorted(tree.starts[-1], positions, side="right")
    firsts = np.flatnonzero(np.diff(groups, prepend=-1))
    bounds = np.append(firsts, len(positions))
    return [
        int(first)
        for first, last in pairwise(bounds)
        if last - first > 1 and len(set(digests[first:last])) == 1
    ]


def _script_json(data: dict[str, Any]) -> str:
    """JSON that no text in it can end: safe inside ``<script type="application/json">``."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.translate(SCRIPT_ESCAPES)
