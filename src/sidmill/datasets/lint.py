"""What is wrong with datasets that look right: checks of the written files, row by row.

target_in_history       an item that the answer names stands in the question
contradictory_captions  items of one SID with different texts: the model cannot please both
captions_not_compared   plain texts in no wording of the prompts, whose caption cannot be told
over_token_budget       rows that a context window would cut
duplicate_rows          rows of equal source and text
users_in_two_splits     users of a training set who are in a validation or test set as well; null
                        where no other split of the task is among the datasets
unknown_sids            SIDs that no item of any domain has, or malformed ones

Datasets of other programs are read too: parquet files of any name with ``messages`` or
``segments``; ``source``, ``uuid`` and ``metadata`` may be missing.
"""

import json
import re
from array import array
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sidmill.core.errors import SidmillError
from sidmill.datasets.captions import Wordings
from sidmill.formats import code_files, dataset_rows, sid_text

EXAMPLES = 5  # of each finding
BYTES_PER_TOKEN = 4  # of text that is no SID, where no tokenizer is given
SPLIT_NAME = re.compile(r"\.(valid|test)$")


class Rules(NamedTuple):
    """What rows are held against."""

    known: set[tuple[int, ...]]
    levels: list[int]  # numbers of levels that SIDs have, one per domain
    wordings: Wordings
    count_tokens: Callable[[str], int]
    token_budget: int


class Row(NamedTuple):
    """One row, of whatever form: how to call it, its facts, question and answer."""

    name: str
    source: str
    facts: dict
    question: str
    answer: str


def lint(
    folders: list[str],
    pid2sid: str | Path,
    product_pid2sid: str | Path | None = None,
    prompts: str | Path | None = None,
    *,
    token_budget: int,
    tokenizer: str | None,
) -> dict:
    """Check datasets.

    Memory: one file, 24 bytes per row of a dataset, 8 per row of all, and some 400 per SID with a
    caption.

    Args:
        folders: of datasets, or single parquet files.
        pid2sid: the SIDs that exist.
        product_pid2sid: those of the second domain, which may have another number of levels.
        prompts: folder of the wordings that captions stand in; None: that of this project.
        token_budget: tokens of a row, at most.
        tokenizer: folder or hub id, to count tokens with; None estimates them.

    Returns:
        Per dataset, the number of rows of each finding with a few examples, and the longest row.

    Raises:
        SidmillError: if a file has neither messages nor segments, or a row that is no JSON.
    """
    domains = [code_files.read(path, "sid").codes for path in (pid2sid, product_pid2sid) if path]
    known = {tuple(sid) for domain in domains for sid in domain.tolist()}
    levels = list(dict.fromkeys(domain.shape[1] for domain in domains))
    rules = Rules(known, levels, Wordings(prompts), _counter(tokenizer), token_budget)
    found, users = {}, {}
    for folder in folders:
        name = Path(folder).name
        name = name if name not in found else str(folder)
        found[name], users[name] = _check(folder, rules)
    for name, seen in users.items():
        base = SPLIT_NAME.sub("", name)
        others = [
            users[other] for other in users if other != name and SPLIT_NAME.sub("", other) == base
        ]
        elsewhere = np.isin(seen, np.concatenate(others)).sum() if others else None
        found[name]["users_in_two_splits"] = None if elsewhere is None else int(elsewhere)
    totals = {key: sum(each[key] for each in found.values()) for key in _Findings.NAMES}
    return {"rows": sum(each["rows"] for each in found.values()), **totals, "datasets": found}


class _Findings:
    """Counts of findings, with the names of the first few rows of each."""

    NAMES = (
        "target_in_history",
        "contradictory_captions",
        "captions_not_compared",
        "over_token_budget",
        "duplicate_rows",
        "unknown_sids",
    )

    def __init__(self) -> None:
        self.counts = dict.fromkeys(self.NAMES, 0)
        self.examples: dict[str, list[str]] = {}

    def add(self, name: str, row: str) -> None:
        self.counts[name] += 1
        if len(self.examples.setdefault(name, [])) < EXAMPLES:
            self.examples[name].append(row)


def _check(folder: str, rules: Rules) -> tuple[dict, np.ndarray]:
    """What is found in one dataset, and numbers of its users, uint64 (n,), each once."""
    findings, users, texts, captions = _Findings(), array("Q"), array("Q"), {}
    rows = longest = 0
    for row in _rows(folder):
        rows += 1
        whole = row.question + row.answer
        texts.append(_digest(f"{row.source}\0{row.question}\0{row.answer}"))
        tokens = rules.count_tokens(whole)
        longest = max(longest, tokens)
        if tokens > rules.token_budget:
            findings.add("over_token_budget", row.name)

        # The SIDs on both sides.
        asked, asked_well = _sids(row.question, rules.levels)
        given, given_well = _sids(row.answer, rules.levels)
        if asked & given:
            findings.add("target_in_history", row.name)
        if not (asked_well and given_well and rules.known.issuperset(asked | given)):
            findings.add("unknown_sids", row.name)

        # Whose row it is: a user's, or that of an item and its text.
        if "uid" in row.facts:
            users.append(_digest(str(row.facts["uid"])))
        elif "sid" in row.facts and "pid" in row.facts and not given:
            _hold(row, rules.wordings, captions, findings)
    for name in _names(folder, _repeats(np.array(texts, np.uint64), findings)):
        findings.examples.setdefault("duplicate_rows", []).append(name)
    figures = {"rows": rows, "longest_row_tokens": longest, **findings.counts}
    return {**figures, "examples": findings.examples}, np.unique(np.array(users, np.uint64))


def _hold(row: Row, wordings: Wordings, captions: dict, findings: _Findings) -> None:
    """Hold what a row says of an item against what the first row of its SID said."""
    sid = str(row.facts["sid"])
    said = wordings.of_answer(row.answer) if row.answer else wordings.of_text(row.question, sid)
    if not said:
        findings.add("captions_not_compared", row.name)
        return
    digests = frozenset(map(_digest, said))
    if not captions.setdefault(_digest(sid), digests) & digests:
        findings.add("contradictory_captions", row.name)


def _sids(text: str, levels: list[int]) -> tuple[set[tuple[int, ...]], bool]:
    """The SIDs of a text, of any domain, and whether all that looks like one is one."""
    found = sid_text.find(text, levels[0])
    sids, odd = set(found.sids), found.malformed
    for n_levels in levels[1:]:
        others = [sid_text.find(piece, n_levels) for piece in odd]
        sids.update(sid for other in others for sid in other.sids)
        odd = [piece for other in others for piece in other.malformed]
    return sids, not odd


def _repeats(texts: np.ndarray, findings: _Findings) -> list[int]:
    """Count the rows whose text an earlier row has; the numbers of the first few."""
    first = np.unique(texts, return_index=True)[1]
    again = np.ones(len(texts), bool)
    again[first] = False
    findings.counts["duplicate_rows"] = int(again.sum())
    return np.flatnonzero(again)[:EXAMPLES].tolist()


def _names(folder: str, numbers: list[int]) -> Iterator[str]:
    """Yield what some rows are called."""
    wanted = set(numbers)
    for number, row in enumerate(_rows(folder)) if wanted else ():
        if number in wanted:
            yield row.name
            wanted.discard(number)
        if not wanted:
            return


def _rows(folder: str) -> Iterator[Row]:
    """Yield the rows of a dataset of this or another program."""
    for path in dataset_rows.files(folder):
        table = dataset_rows.read_file(path)
        for number, row in enumerate(table.to_pylist(), start=1):
            try:
                facts = json.loads(row.get("metadata") or "{}")
                facts = facts if isinstance(facts, dict) else {}
                question, answer = _sides(row, facts)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise SidmillError(
                    f"{path}, row {number}: not a row of messages or segments ({error!r}): see "
                    f"docs/datasets.md for the forms"
                ) from None
            name = row.get("uuid") or f"{path.name}, row {number}"
            yield Row(name, row.get("source") or "", facts, question, answer)


def _sides(row: dict, facts: dict) -> tuple[str, str]:
    """What a row asks and what it answers; of a plain text, its last SIDs, as ``targets`` says."""
    if row.get("messages") is None:
        text = _content(_unpacked(row["segments"]))
        if "targets" not in facts:
            return text, ""
        cut = len(text)
        for _ in range(int(facts["targets"])):
            cut = text.rfind(sid_text.BEGIN, 0, cut)
        return text[: max(cut, 0)], text[max(cut, 0) :]
    sides = {True: "", False: ""}
    for turn in _unpacked(row["messages"]):
        sides[turn["role"] == "assistant"] += _content(turn["content"]) + "\n"
    return sides[False], sides[True]


def _unpacked(content: str | list) -> str | list:
    """Turns or parts, which may be written as JSON; a plain text stays as it is."""
    is_json = isinstance(content, str) and content.lstrip().startswith("[{")
    return json.loads(content) if is_json else content


def _content(parts: str | list | None) -> str:
    """The text of typed parts, or a plain one."""
    if parts is None or isinstance(parts, str):
        return parts or ""
    texts = (part if isinstance(part, str) else part.get("text") for part in parts)
    return "".join(text or "" for text in texts)


def _counter(tokenizer: str | None) -> Callable[[str], int]:
    if tokenizer is not None:
        from transformers import AutoTokenizer

        encode = AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False)
        return lambda text: len(encode(text, add_special_tokens=False)["input_ids"])
    token = re.compile(r"<\|sid_(?:begin|end)\|>|<s_[a-z]_\d+>")

    def estimate(text: str) -> int:
        rest, count = token.subn("", text)
        return count + -(-len(rest.encode()) // BYTES_PER_TOKEN)

    return estimate


def _digest(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")
