"""Errors in datasets that are well-formed: checks of the written files, row by row.

target_in_history       an item that the answer names is in the question
contradictory_captions  items of one SID with different texts: no model can learn both
captions_not_compared   plain texts in no wording of the prompts, whose caption is not known
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
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sidmill.core.errors import SidmillError
from sidmill.datasets.captions import Wordings
from sidmill.formats import code_files, dataset_rows, sid_text
from sidmill.settings.datasets import Lint

EXAMPLES = 5  # of each finding
BYTES_PER_TOKEN = 4  # of text that is no SID, where no tokenizer is given
SPLIT_NAME = re.compile(r"\.(valid|test)$")


class Rules(NamedTuple):
    """What rows are checked against.

    Attributes:
        sids: those of all items.
        levels: numbers of levels that SIDs have, one per domain.
        wordings: those that captions are found in.
        count_tokens: of a text.
        token_budget: tokens of a row, at most.
    """

    sids: set[tuple[int, ...]]
    levels: list[int]
    wordings: Wordings
    count_tokens: Callable[[str], int]
    token_budget: int


class Row(NamedTuple):
    """One row of any form.

    Attributes:
        name: its uuid, or its file and number.
        source: the task that it is of.
        metadata: ``uid``, or ``pid`` and ``sid``, where they are given.
        question: text of all turns but the answer.
        answer: text of the answer.
    """

    name: str
    source: str
    metadata: dict[str, Any]
    question: str
    answer: str


def lint(
    folders: list[str],
    pid2sid: str | Path,
    settings: Lint,
    product_pid2sid: str | Path | None = None,
    prompts: str | Path | None = None,
) -> dict[str, Any]:
    """Check the written files of datasets, row by row, for errors that no format check finds.

    Memory: one file, 24 bytes per row of a dataset, 8 per row of all, and some 400 per SID with a
    caption.

    Args:
        folders: of datasets, or single parquet files.
        pid2sid: the SIDs of items.
        settings: the token budget, and what counts tokens.
        product_pid2sid: SIDs of the second domain, which may have another number of levels.
        prompts: folder of the wordings that captions are found in; None: that of this project.

    Returns:
        Per dataset, the number of rows of each finding with a few examples, and the longest row.

    Raises:
        SidmillError: if a file has neither messages nor segments, or a row that is not JSON.
    """
    # What rows are checked against.
    domains = [code_files.read(path, "sid").codes for path in (pid2sid, product_pid2sid) if path]
    sids = {tuple(sid) for domain in domains for sid in domain.tolist()}
    levels = list(dict.fromkeys(domain.shape[1] for domain in domains))
    count_tokens = _token_counter(settings.tokenizer)
    rules = Rules(sids, levels, Wordings(prompts), count_tokens, settings.token_budget)

    # Each dataset by itself; the second folder of a name is reported by its path.
    found: dict[str, dict[str, Any]] = {}
    users: dict[str, np.ndarray] = {}
    for folder in folders:
        name = Path(folder).name
        name = name if name not in found else str(folder)
        found[name], users[name] = _check(folder, rules)

    # Users in two splits, and the sums.
    for name in found:
        found[name]["users_in_two_splits"] = _users_in_other_splits(name, users)
    totals = {key: sum(each[key] for each in found.values()) for key in _Findings.NAMES}
    return {"rows": sum(each["rows"] for each in found.values()), **totals, "datasets": found}


def _users_in_other_splits(name: str, users: dict[str, np.ndarray]) -> int | None:
    """Users of a dataset that are in another split of its task; None without another split."""
    task = SPLIT_NAME.sub("", name)
    others = [
        users[other] for other in users if other != name and SPLIT_NAME.sub("", other) == task
    ]
    return int(np.isin(users[name], np.concatenate(others)).sum()) if others else None


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


def _check(folder: str, rules: Rules) -> tuple[dict[str, Any], np.ndarray]:
    """What is found in one dataset, and hashes of its users, uint64 (n,), each once."""
    findings = _Findings()
    users, texts = array("Q"), array("Q")
    captions: dict[int, frozenset[int]] = {}
    n_rows = longest = 0
    for row in _rows(folder):
        # The text and its length.
        n_rows += 1
        texts.append(_digest(f"{row.source}\0{row.question}\0{row.answer}"))
        n_tokens = rules.count_tokens(row.question + row.answer)
        longest = max(longest, n_tokens)
        if n_tokens > rules.token_budget:
            findings.add("over_token_budget", row.name)

        # The SIDs on both sides.
        asked, asked_valid = _sids(row.question, rules.levels)
        answered, answer_valid = _sids(row.answer, rules.levels)
        if asked & answered:
            findings.add("target_in_history", row.name)
        if not (asked_valid and answer_valid and rules.sids.issuperset(asked | answered)):
            findings.add("unknown_sids", row.name)

        # Whose row it is: a user's, or that of an item and its text.
        if "uid" in row.metadata:
            users.append(_digest(str(row.metadata["uid"])))
        elif "sid" in row.metadata and "pid" in row.metadata and not answered:
            _compare_captions(row, rules.wordings, captions, findings)

    # Duplicates, after all rows: their names take a second reading.
    for name in _names(folder, _duplicates(np.array(texts, np.uint64), findings)):
        findings.examples.setdefault("duplicate_rows", []).append(name)
    figures = {"rows": n_rows, "longest_row_tokens": longest, **findings.counts}
    return {**figures, "examples": findings.examples}, np.unique(np.array(users, np.uint64))


def _compare_captions(
    row: Row, wordings: Wordings, captions: dict[int, frozenset[int]], findings: _Findings
) -> None:
    """Compare the caption in a row with that of the first row of its SID."""
    sid = str(row.metadata["sid"])
    answer, question = row.answer, row.question
    possible = wordings.of_answer(answer) if answer else wordings.of_text(question, sid)
    if not possible:
        findings.add("captions_not_compared", row.name)
        return
    digests = frozenset(map(_digest, possible))
    if not captions.setdefault(_digest(sid), digests) & digests:
        findings.add("contradictory_captions", row.name)


def _sids(text: str, levels: list[int]) -> tuple[set[tuple[int, ...]], bool]:
    """The SIDs of a text, of any domain, and whether none is malformed."""
    found = sid_text.find(text, levels[0])
    sids, malformed = set(found.sids), found.malformed
    for n_levels in levels[1:]:
        others = [sid_text.find(piece, n_levels) for piece in malformed]
        sids.update(sid for other in others for sid in other.sids)
        malformed = [piece for other in others for piece in other.malformed]
    return sids, not malformed


def _duplicates(texts: np.ndarray, findings: _Findings) -> list[int]:
    """Count the rows whose text an earlier row has; the numbers of the first few."""
    first = np.unique(texts, return_index=True)[1]
    is_duplicate = np.ones(len(texts), bool)
    is_duplicate[first] = False
    findings.counts["duplicate_rows"] = int(is_duplicate.sum())
    numbers: list[int] = np.flatnonzero(is_duplicate)[:EXAMPLES].tolist()
    return numbers


def _names(folder: str, numbers: list[int]) -> Iterator[str]:
    """Yield the names of some rows, by their numbers."""
    remaining = set(numbers)
    for number, row in enumerate(_rows(folder)) if remaining else ():
        if number in remaining:
            yield row.name
            remaining.discard(number)
        if not remaining:
            return


def _rows(folder: str) -> Iterator[Row]:
    """Yield the rows of a dataset of this or another program."""
    for path in dataset_rows.files(folder):
        table = dataset_rows.read_file(path)
        for number, row in enumerate(table.to_pylist(), start=1):
            try:
                metadata = json.loads(row.get("metadata") or "{}")
                metadata = metadata if isinstance(metadata, dict) else {}
                question, answer = _sides(row, metadata)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise SidmillError(
                    f"{path}, row {number}: not a row of messages or segments ({error!r}): see "
                    f"docs/datasets.md for the forms"
                ) from None
            name = row.get("uuid") or f"{path.name}, row {number}"
            yield Row(name, row.get("source") or "", metadata, question, answer)


def _sides(row: dict[str, Any], metadata: dict[str, Any]) -> tuple[str, str]:
    """Question and answer of a row; a plain text ends in as many SIDs as ``targets`` says."""
    if row.get("messages") is None:
        text = _content(_decode(row["segments"]))
        if "targets" not in metadata:
            return text, ""
        cut = len(text)
        for _ in range(int(metadata["targets"])):
            cut = text.rfind(sid_text.BEGIN, 0, cut)
        return text[: max(cut, 0)], text[max(cut, 0) :]
    question = answer = ""
    for turn in _decode(row["messages"]):
        text = _content(turn["content"]) + "\n"
        if turn["role"] == "assistant":
            answer += text
        else:
            question += text
    return question, answer


def _decode(content: Any) -> Any:
    """Turns or typed parts, which may be written as JSON; a plain text stays as it is."""
    is_json = isinstance(content, str) and content.lstrip().startswith("[{")
    return json.loads(content) if is_json else content


def _content(parts: str | Iterable[Any] | None) -> str:
    """The text of typed parts, or a plain one."""
    if parts is None or isinstance(parts, str):
        return parts or ""
    texts = (part if isinstance(part, str) else part.get("text") for part in parts)
    return "".join(text or "" for text in texts)


def _token_counter(tokenizer: str | None) -> Callable[[str], int]:
    """A function that counts the tokens of a text, or estimates them without a tokenizer."""
    if tokenizer is not None:
        from transformers import AutoTokenizer

        encode = AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False)
        return lambda text: len(encode(text, add_special_tokens=False)["input_ids"])
    token = re.compile(r"<\|sid_(?:begin|end)\|>|<s_[a-z]_\d+>")

    def estimate(text: str) -> int:
        rest, n_tokens = token.subn("", text)
        return n_tokens + -(-len(rest.encode()) // BYTES_PER_TOKEN)

    return estimate


def _digest(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")
