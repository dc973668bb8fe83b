"""Captions of items in the texts of rows, without the wording around them.

A row is worded in one of several ways, drawn per row, so equal captions are found in different
texts. Each wording of the prompts that matches a text gives a caption; two texts agree if they have
one caption in common.
"""

import re
from pathlib import Path

from sidmill.core import provenance
from sidmill.core.errors import SidmillError
from sidmill.datasets import tasks

PROMPTS = provenance.ROOT.parent / "workflow/resources/prompts"
SID = "\0"  # replaces the SID of the row; no text contains it


class Wordings:
    """The wordings of prompts files, as patterns that find a caption."""

    def __init__(self, folder: str | Path | None) -> None:
        """Read all languages of all files of a folder; None: the folder of this project."""
        texts: dict[str, None] = {}
        answers: dict[str, None] = {}
        for path in sorted(Path(folder or PROMPTS).glob("*.yaml")):
            try:
                languages = tasks.read_prompts(path)
            except SidmillError:
                continue  # of a task that no dataset here is made of: those were checked
            for wordings in languages.values():
                texts |= dict.fromkeys(wordings.get("text", ()))
                answers |= dict.fromkeys(wordings.get("assistant", ()))
        self.texts = [pattern for text in texts for pattern in _patterns(text, with_sid=True)]
        self.answers = [pattern for text in answers for pattern in _patterns(text, with_sid=False)]

    def of_text(self, text: str, sid: str) -> set[str]:
        """The captions that a plain text may hold with its SID; none where no wording matches."""
        return _match(self.texts, text.replace(sid, SID))

    def of_answer(self, answer: str) -> set[str]:
        """The captions that an answer may hold: the whole answer, and the fields of a wording."""
        return {answer.strip()} | _match(self.answers, answer.strip())


def _match(patterns: list[re.Pattern[str]], text: str) -> set[str]:
    """The captions that patterns find in a text."""
    matches = (pattern.fullmatch(text) for pattern in patterns)
    return {SID.join(match.groups()) for match in matches if match}


def _patterns(wording: str, *, with_sid: bool) -> list[re.Pattern[str]]:
    """One pattern per field that the SID may stand for; none of a wording of fields alone."""
    try:
        template = tasks.parse_template(wording)
    except SidmillError:
        return []
    fields = [position for position, (_, name) in enumerate(template) if name]
    if not fields or not any(literal for literal, _ in template):
        return []
    if not with_sid:
        return [_pattern(template, None)]
    return [_pattern(template, sid_field) for sid_field in fields] if len(fields) > 1 else []


def _pattern(template: list[tuple[str, str | None]], sid_field: int | None) -> re.Pattern[str]:
    """A pattern that captures every field but the one at position ``sid_field``."""
    whole = ""
    for position, (literal, name) in enumerate(template):
        whole += re.escape(literal)
        if name:
            whole += SID if position == sid_field else "(.*)"
    return re.compile(whole, re.DOTALL)
