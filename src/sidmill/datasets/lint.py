"""What is wrong with datasets that look right: checks of the written files, row by row.

target_in_history       an item that the answer names stands in the question
contradictory_captions  items of one SID with different texts: the model cannot please both
over_token_budget       rows that a context window would cut
duplicate_rows          rows of equal source and text (equal uuid)
users_in_two_splits     users of a training set who are in a validation or test set as well; null
                        where no other split of the task is among the datasets
unknown_sids            SIDs that no item has, or malformed ones
"""

import json
import re
from array import array
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from sidmill.formats import codes, dataset_rows, sid_text

EXAMPLES = 5  # of each finding
BYTES_PER_TOKEN = 4  # of text that is no SID, where no tokenizer is given
SPLIT_NAME = re.compile(r"\.(valid|test)$")


def lint(
    folders: list[str], pid2sid: str | Path, *, token_budget: int, tokenizer: str | None
) -> dict:
    """Check datasets.

    Memory: one file, 16 bytes per row of a dataset, 8 per row of all, and some 200 per SID with a
    caption.

    Args:
        folders: of datasets.
        pid2sid: the SIDs that exist.
        token_budget: tokens of a row, at most.
        tokenizer: folder or hub id, to count tokens with; None estimates them.

    Returns:
        Per dataset, the number of rows of each finding with a few examples, and the longest row.
    """
    items = codes.read(pid2sid, "sid")
    known, n_levels = set(map(tuple, items.codes.tolist())), items.codes.shape[1]
    count_tokens = _counter(tokenizer, n_levels)
    found, users = {}, {}
    for folder in folders:
        name = Path(folder).name
        found[name], users[name] = _check(folder, known, n_levels, count_tokens, token_budget)
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
    """Counts of findings, with the first few uuids of each."""

    NAMES = (
        "target_in_history",
        "contradictory_captions",
        "over_token_budget",
        "duplicate_rows",
        "unknown_sids",
    )

    def __init__(self) -> None:
        self.counts = dict.fromkeys(self.NAMES, 0)
        self.examples: dict[str, list[str]] = {}

    def add(self, name: str, uuid: str) -> None:
        self.counts[name] += 1
        if len(self.examples.setdefault(name, [])) < EXAMPLES:
            self.examples[name].append(uuid)


def _check(folder, known, n_levels, count_tokens, token_budget) -> tuple[dict, np.ndarray]:
    """What is found in one dataset, and numbers of its users, uint64 (n,), each once."""
    findings, users, captions = _Findings(), array("Q"), {}
    rows = longest = 0
    for path in dataset_rows.parts(folder):
        for row in pq.read_table(path, partitioning=None).to_pylist():
            rows += 1
            facts = json.loads(row["metadata"])
            question, answer = _sides(row, facts, n_levels)
            whole = question + answer
            tokens = count_tokens(whole)
            longest = max(longest, tokens)
            if tokens > token_budget:
                findings.add("over_token_budget", row["uuid"])
            asked = sid_text.find(question, n_levels)
            given = sid_text.find(answer, n_levels)
            if set(asked.sids) & set(given.sids):
                findings.add("target_in_history", row["uuid"])
            if asked.malformed or given.malformed or not known.issuperset(asked.sids + given.sids):
                findings.add("unknown_sids", row["uuid"])
            if "uid" in facts:
                users.append(_digest(str(facts["uid"])))
            elif "sid" in facts and "pid" in facts and not given.sids:
                text = _digest(answer or whole.replace(facts["sid"], ""))
                if captions.setdefault(_digest(facts["sid"]), text) != text:
                    findings.add("contradictory_captions", row["uuid"])
    for uuid in _repeated(folder):
        findings.add("duplicate_rows", uuid)
    figures = {"rows": rows, "longest_row_tokens": longest, **findings.counts}
    return {**figures, "examples": findings.examples}, np.unique(np.array(users, np.uint64))


def _repeated(folder: str) -> Iterator[str]:
    """Yield the uuid of every row that has one of a row before it."""

    def uuids() -> Iterator[str]:
        for path in dataset_rows.parts(folder):
            yield from pq.read_table(path, columns=["uuid"], partitioning=None)["uuid"].to_pylist()

    numbers, times = np.unique(np.fromiter(map(_digest, uuids()), np.uint64), return_counts=True)
    twice, met = set(numbers[times > 1].tolist()), set()
    for uuid in uuids() if twice else ():
        number = _digest(uuid)
        if number in met:
            yield uuid
        elif number in twice:
            met.add(number)


def _sides(row: dict, facts: dict, n_levels: int) -> tuple[str, str]:
    """What a row asks and what it answers; of a plain text, its last SIDs, as ``targets`` says."""
    if "segments" in row:
        text = row["segments"]
        if text.startswith('[{"type"'):
            text = "".join(part["text"] for part in json.loads(text))
        if "targets" not in facts:
            return text, ""
        cut = len(text)
        for _ in range(facts["targets"]):
            cut = text.rfind(sid_text.BEGIN, 0, cut)
        return text[:cut], text[cut:]
    turns = row["messages"]
    if isinstance(turns, str):
        turns = [
            {"role": turn["role"], "content": "".join(part["text"] for part in turn["content"])}
            for turn in json.loads(turns)
        ]
    sides = {True: "", False: ""}
    for turn in turns:
        sides[turn["role"] == "assistant"] += turn["content"] + "\n"
    return sides[False], sides[True]


def _counter(tokenizer: str | None, n_levels: int):
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
