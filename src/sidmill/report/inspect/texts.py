"""JSON of figures, runs, tables of text and logs: files of text.

Large ones are read as a stream of lines; only a JSON below 16 MiB is parsed as a whole.
"""

import csv
import json
import re
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from sidmill.core.errors import SidmillError
from sidmill.core.listing import some
from sidmill.report.inspect.facts import (
    ANOTHER,
    LOOKED_ROWS,
    Budget,
    Description,
)

WHOLE_JSON = 16 << 20
LONGEST_LINE = 1 << 20
HEAD_LETTERS = 1 << 16
PIECE_LETTERS = 1 << 20
# An item of an index of SIDs; items stand on lines of their own, or all on one.
INDEX_ENTRY = re.compile(r'"((?:[^"\\]|\\.)*)"\s*:\s*(\[[^\]]*\])')
INDEX_HEAD = re.compile(r'\s*\{\s*"(?:[^"\\]|\\.)*"\s*:\s*\[\s*"<[a-z]_\d+>"')
TOKEN = re.compile(r"<[a-z]_\d+>")
MAIN_METRICS = ("HR@10", "NDCG@10")  # two fit into a line
KINDS: dict[frozenset[str], str] = {
    frozenset({"before", "after", "levels"}): "quality of the SIDs",
    frozenset({"before", "after"}): "quality of the SIDs",
    frozenset({"neighbour_preservation", "levels"}): "evaluation of a quantizer",
    frozenset({"members", "codebook_sizes"}): "comparison of quantizers",
    frozenset({"strategy", "items_moved"}): "cost of resolving collisions",
    frozenset({"interactions_accounted_for"}): "report of the interactions",
    frozenset({"versions", "rules", "stages"}): "description of a run",
    frozenset({"runs", "differences"}): "metrics of retrieval",
    frozenset({"read", "written", "left_out"}): "counts of a dataset",
    frozenset({"datasets", "lint"}): "report of the datasets",
    frozenset({"epochs"}): "course of a training",
}


def describe_json(path: str, budget: Budget) -> Description:
    """Describe a JSON of figures, an index of SIDs, or a run.

    Raises:
        SidmillError: if it is no JSON.
    """
    # An index of SIDs may be large, and is read item by item; other JSON is parsed as a whole.
    size = Path(path).stat().st_size
    description = Description(path, "JSON", size)
    with Path(path).open(encoding="utf-8") as file:
        head = file.read(HEAD_LETTERS)
    if INDEX_HEAD.match(head):
        return _describe_index(description, budget)
    if size > WHOLE_JSON:
        description.facts["begins"] = head.lstrip("{\n ")[:200]
        description.check("JSON", None, f"above {WHOLE_JSON >> 20} MiB it is not parsed")
        return description

    # Parse, and note what JSON does not allow.
    twice: list[str] = []
    odd: list[str] = []
    try:
        content = json.loads(
            Path(path).read_text(encoding="utf-8"),
            object_pairs_hook=partial(_noting_repeats, twice),
            parse_constant=partial(_noting_constant, odd),
        )
    except (ValueError, RecursionError) as error:
        raise SidmillError(f"{path}: not JSON ({error}): {ANOTHER}") from None
    description.check("no key twice", not twice, some(twice, 3))
    description.check("numbers as JSON has them", not odd, some(dict.fromkeys(odd)))

    # Tell the form by the keys and the values.
    if not isinstance(content, dict):
        description.facts["form"] = (
            f"{type(content).__name__} of {len(content)}" if content else "empty"
        )
        return description
    if content and all(
        isinstance(entry, list) and all(isinstance(one, str) for one in entry)
        for entry in content.values()
    ):
        description.kind = "run: passages of each query, best first"
        lengths = {len(entry) for entry in content.values()}
        description.facts |= {"queries": len(content), "passages each": sorted(lengths)[:5]}
        description.sample = [{qid: pids[:5]} for qid, pids in islice(content.items(), budget.rows)]
        return description
    kinds = (kind for keys, kind in KINDS.items() if keys <= set(content))
    description.kind = next(kinds, "JSON")
    tables = {split: _methods(entry) for split, entry in content.items() if _is_split(entry)}
    if tables:
        description.kind = "metrics of recommenders"
        content = {key: value for key, value in content.items() if key not in tables}
        description.figures |= tables
    description.facts |= {key: _shown(value) for key, value in content.items()}
    return description


def _is_split(entry: Any) -> bool:
    """Whether an entry of metrics.json has the metrics of methods."""
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("methods"), dict)
        and all(isinstance(metrics, dict) for metrics in entry["methods"].values())
    )


def _methods(split: dict[str, Any]) -> dict[str, str]:
    """A line for each method: its main metrics, with half the width of their intervals."""
    shown = {}
    for method, metrics in split["methods"].items():
        cells = []
        for name in MAIN_METRICS:
            figure = metrics.get(name)
            if not isinstance(figure, dict) or not isinstance(figure.get("value"), float):
                continue
            ends = [end for key in ("low", "high") if (end := figure.get(key)) is not None]
            width = f" ±{(ends[1] - ends[0]) / 2:.4f}" if len(ends) == 2 else ""
            cells.append(f"{name} {figure['value']:.4f}{width}")
        shown[method] = "  ".join(cells)
    return shown


def describe_run(path: str, budget: Budget) -> Description:
    """Describe res.topk or run.trec.

    Raises:
        SidmillError: naming the first line that is of another form.
    """
    trec = path.endswith(".trec")
    description = Description(path, "run, as trec_eval reads it" if trec else "run, tab-separated")
    description.bytes = Path(path).stat().st_size
    queries, lines, deepest, falling = 0, 0, 0, True
    last: tuple[str, int, float] = ("", 0, 0.0)
    most = None if budget.whole else LOOKED_ROWS

    # Ranks of a query begin at 1 and rise by 1, and scores never rise.
    for number, line in enumerate(islice(_lines(path), most), start=1):
        cells = line.split() if trec else line.rstrip("\n").split("\t")
        try:
            qid, pid, rank, score = (
                (cells[0], cells[2], int(cells[3]), float(cells[4]))
                if trec
                else (cells[0], cells[1], int(cells[2]), float(cells[3]))
            )
        except (ValueError, IndexError):
            wanted = "qid Q0 pid rank score tag" if trec else "qid, pid, rank, score"
            raise SidmillError(f"{path}, line {number}: wanted {wanted}: {ANOTHER}") from None
        queries += qid != last[0]
        goes_on = rank == last[1] + 1 and score <= last[2] if qid == last[0] else rank == 1
        falling &= goes_on
        deepest, lines, last = max(deepest, rank), number, (qid, rank, score)
        if number <= budget.rows:
            description.sample.append({"qid": qid, "pid": pid, "rank": rank, "score": score})

    description.figures |= {"lines": lines, "queries": queries, "passages each, at most": deepest}
    description.check("ranks from 1, scores falling", falling)
    if most and lines == most:
        description.check("all lines", None, f"the first {most:,}; --all looks at all")
    return description


def describe_table(path: str, budget: Budget) -> Description:
    """Describe a .tsv or .csv with names in its first line."""
    description = Description(path, "table of text", Path(path).stat().st_size)
    if Path(path).parent.name == "benchmarks":
        description.kind = "time and memory of a job"
    reader = csv.reader(_lines(path), delimiter="\t" if path.endswith(".tsv") else ",")
    header = next(reader, [])
    description.facts["columns"] = header
    rows = uneven = 0
    for row in reader:
        if rows < budget.rows:
            description.sample.append(dict(zip(header, row, strict=False)))
        rows += 1
        uneven += len(row) != len(header)
    description.facts["rows"] = rows
    description.check(
        "as many cells as names", not uneven, f"{uneven:,} rows not" if uneven else ""
    )
    return description


def describe_lines(path: str, budget: Budget) -> Description:
    """Describe JSON lines: the log of a job, a catalogue.

    Raises:
        SidmillError: naming the first line that is no JSON, unless a kill cut the last.
    """
    description = Description(path, "JSON lines", Path(path).stat().st_size)
    count, last, damaged = 0, {}, 0
    for number, line in enumerate(_lines(path), start=1):
        try:
            last = json.loads(line)
        except (ValueError, RecursionError) as error:
            damaged = damaged or number
            if line.endswith("\n"):
                raise SidmillError(f"{path}, line {number}: no JSON ({error})") from None
        else:
            count = number
            if number <= budget.rows:
                description.sample.append(last)
    description.facts["lines"] = count
    if isinstance(last, dict) and {"time", "level", "rule", "message"} <= set(last):
        description.kind = f"log of a job, rule {last['rule']}"
        description.facts["last"] = f"{last['time']} {last['level']} {last['message']}"
    description.check("last line whole", not damaged)
    return description


def describe_text(path: str, budget: Budget) -> Description:
    """Describe a log, a page, a plot: the first lines of it."""
    description = Description(path, "text", Path(path).stat().st_size)
    kinds = {".log": "log of a job", ".svg": "plot", ".html": "page", ".md": "table in Markdown"}
    description.kind = kinds.get(Path(path).suffix, "text")
    if description.kind in ("log of a job", "text"):
        description.sample = [line.rstrip("\n") for line in islice(_lines(path), budget.rows)]
    return description


def _describe_index(description: Description, budget: Budget) -> Description:
    """Look at index.json item by item, however its lines are cut."""
    description.kind = "index of SIDs, as LC-Rec and MiniOneRec read it"
    lengths: set[int] = set()
    seen: set[int] = set()  # hashes of ids, 64 bits each
    items = odd = repeated = 0
    rest = ""

    # Items stand between "{" and "}", with a comma between two.
    for between, key, value in _index_entries(description.path):
        between = between.strip()
        if key is None:
            rest = between
            break
        odd += between != ("," if items else "{")
        items += 1
        tokens = json.loads(value)
        odd += not all(isinstance(token, str) and TOKEN.fullmatch(token) for token in tokens)
        lengths.add(len(tokens))
        repeated += hash(key) in seen
        seen.add(hash(key))
        if items <= budget.rows:
            description.sample.append({json.loads(f'"{key}"'): tokens})

    description.figures |= {"items": items, "tokens of a SID": sorted(lengths)}
    description.check("ends whole", rest == "}")
    description.check("one length", len(lengths) == 1)
    description.check("ids unique", not repeated, f"{repeated:,} repeated" if repeated else "")
    if odd:
        description.check("an item is an id and its tokens", False, f"{odd:,} are of another form")
    return description


def _index_entries(path: str) -> Iterator[tuple[str, str | None, str]]:
    """What stands before an item, its id and its list, as text; last what is left, and None.

    Memory: an item and 1 MiB, for one line of any length.
    """
    text = ""
    with Path(path).open(encoding="utf-8") as file:
        while piece := file.read(PIECE_LETTERS):
            text += piece
            place = 0
            for match in INDEX_ENTRY.finditer(text):
                yield text[place : match.start()], match[1], match[2]
                place = match.end()
            text = text[place:]
            if len(text) > 2 * PIECE_LETTERS:
                break
    yield text, None, ""


def _noting_repeats(twice: list[str], pairs: list[tuple[str, object]]) -> dict[str, Any]:
    """A JSON object; keys that it has twice, of which readers take one, are noted."""
    description = dict(pairs)
    if len(description) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                twice.append(key)
            seen.add(key)
    return description


def _noting_constant(odd: list[str], name: str) -> float:
    """NaN or an infinity, which JSON does not have and strict readers refuse; noted."""
    odd.append(name)
    return float(name)


def _lines(path: str) -> Iterator[str]:
    """Lines of UTF-8, none longer than 1 MiB."""
    with Path(path).open(encoding="utf-8", newline="") as file:
        number = 0
        while line := file.readline(LONGEST_LINE):
            number += 1
            if "\0" in line:
                raise SidmillError(f"{path}, line {number}: holds NUL: it is no text")
            if len(line) == LONGEST_LINE:
                raise SidmillError(f"{path}, line {number}: longer than {LONGEST_LINE:,} letters")
            yield line


def _shown(value: object) -> object:
    if isinstance(value, dict):
        plain = {key: entry for key, entry in value.items() if not isinstance(entry, dict | list)}
        return plain or f"{len(value)} entries: {', '.join(map(str, list(value)[:5]))}"
    if isinstance(value, list):
        return value if len(value) <= 8 and not _nested(value) else f"list of {len(value)}"
    return value


def _nested(value: list[Any]) -> bool:
    return any(isinstance(entry, dict | list) for entry in value)
