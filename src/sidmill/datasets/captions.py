"""What a row says of an item, without the words around it: do two texts of one SID agree?

A row is worded in one of several ways, drawn per row, so equal captions stand in different texts.
Each wording of the prompts that fits a text tells a caption; two texts agree if they share one.
"""

import re
from pathlib import Path

from sidmill.core import provenance
from sidmill.core.errors import SidmillError
from sidmill.datasets import tasks

PROMPTS = provenance.ROOT.parent / "workflow/resources/prompts"
SID = "\0"  # stands for the SID of the row, which no text holds


class Wordings:
    """The wordings of prompts files, as patterns that find a caption."""

    def __init__(self, folder: str | Path | None) -> None:
        """Read all languages of all files of a folder; None: the folder of this project."""
        texts, answers = {}, {}
        for path in sorted(Path(folder or PROMPTS).glob("*.yaml")):
            try:
                languages = tasks.read_prompts(path)
            except SidmillError:
                continue  # of a task that no dataset here is made of: those were checked
            for words in languages.values():
                texts |= dict.fromkeys(words.get("text", ()))
                answers |= dict.fromkeys(words.get("assistant", ()))
        self.texts = [pattern for text in texts for pattern in _patterns(text, with_sid=True)]
        self.answers = [pattern for text in answers for pattern in _patterns(text, with_sid=False)]

    def of_text(self, text: str, sid: str) -> set[str]:
        """The captions that a plain text may hold beside its SID; none where no wording fits."""
        return _found(self.texts, text.replace(sid, SID))

    def of_answer(self, answer: str) -> set[str]:
        """The captions that an answer may hold: the whole, and what a wording makes of it."""
        return {answer.strip()} | _found(self.answers, answer.strip())


def _found(patterns: list[re.Pattern], text: str) -> set[str]:
    matches = (pattern.fullmatch(text) for pattern in patterns)
    return {SID.join(match.groups()) for match in matches if match}


def _patterns(wording: str, *, with_sid: bool) -> list[re.Pattern]:
    """One pattern per field that the SID may stand for; none of a wording of fields alone."""
    try:
        pieces = tasks.pieces(wording)
    except SidmillError:
        return []
    fields = [place for place, (_, name) in enumerate(pieces) if name]
    if not fields or not any(literal for literal, _ in pieces):
        return []
    patterns = []
    for chosen in fields if with_sid else [None]:
        if with_sid and len(fields) < 2:
            continue
        parts = [
            re.escape(literal) + ("" if not name else SID if place == chosen else "(.*)")
            for place, (literal, name) in enumerate(pieces)
        ]
        patterns.append(re.compile("".join(parts), re.DOTALL))
    return patterns
