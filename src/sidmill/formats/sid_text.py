"""SIDs as text, both ways, with any number of levels.

    onerec   <|sid_begin|><s_a_12><s_b_7><s_c_200><|sid_end|>
    lcrec    <a_12><b_7><c_200>

Levels are lettered from a. Shapes: N items, L levels.

Sources: https://github.com/Kuaishou-OneRec/OpenOneRec, LC-Rec https://arxiv.org/abs/2311.09049
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sidmill.core.errors import SidmillError

BEGIN, END = "<|sid_begin|>", "<|sid_end|>"
MAX_LEVELS = 26


class Form(NamedTuple):
    """How one form writes a token, and the marks around a SID."""

    token: str
    begin: str
    end: str


FORMS = {
    "onerec": Form("<s_{letter}_{code}>", BEGIN, END),
    "lcrec": Form("<{letter}_{code}>", "", ""),
}


class Found(NamedTuple):
    """SIDs of a text in order, and the pieces that look like a SID and are none."""

    sids: list[tuple[int, ...]]
    malformed: list[str]


def token(level: int, code: int | str, form: str = "onerec") -> str:
    """One token: ``token(0, 12)`` is ``<s_a_12>``."""
    return FORMS[form].token.format(letter=chr(ord("a") + level), code=code)


def vocabulary(sizes: Sequence[int], form: str = "onerec") -> list[str]:
    """Every token of SIDs with K_l codes at level l: begin, end, then level by level."""
    around = [mark for mark in FORMS[form][1:] if mark]
    levels = [token(level, code, form) for level, size in enumerate(sizes) for code in range(size)]
    return around + levels


def render(codes: np.ndarray, form: str = "onerec") -> pa.LargeStringArray:
    """Write each row of codes, integers (N, L), as a SID. Memory: about 200 bytes per item.

    Raises:
        SidmillError: if there are more than 26 levels, which run out of letters.
    """
    if not 1 <= codes.shape[1] <= MAX_LEVELS:
        raise SidmillError(f"SIDs have {codes.shape[1]} levels: wanted 1 to {MAX_LEVELS}")
    kind = FORMS[form]
    parts: list[pa.Array | pa.Scalar] = [_scalar(kind.begin)]
    for level in range(codes.shape[1]):
        before, after = token(level, "\0", form).split("\0")
        column = np.ascontiguousarray(codes[:, level])
        numbers = pa.Array.from_buffers(
            pa.from_numpy_dtype(column.dtype), len(column), [None, pa.py_buffer(column)]
        ).cast(pa.large_string())
        parts += [_scalar(before), numbers, _scalar(after)]
    return pc.binary_join_element_wise(*parts, _scalar(kind.end), _scalar(""))


def parse(text: str, n_levels: int, form: str = "onerec") -> list[tuple[int, ...]]:
    """Read a text that holds SIDs and nothing else.

    Raises:
        SidmillError: at the first character that is part of no whole SID of ``n_levels`` levels.
    """
    sids, position = [], 0
    whole = _whole(n_levels, form)
    while position < len(text):
        match = whole.match(text, position)
        if match is None:
            raise SidmillError(
                f"no SID of {n_levels} levels at character {position}: "
                f"{text[position : position + 60]!r}"
            )
        sids.append(tuple(map(int, match.groups())))
        position = match.end()
    return sids


def find(text: str, n_levels: int, form: str = "onerec") -> Found:
    """Find the SIDs in the output of a model, with any text between them.

    A run of begin, level and end tokens is a SID, or several, or malformed: too few levels, levels
    out of order, a mark missing.
    """
    whole, sids, malformed = _whole(n_levels, form), [], []
    for run in _run(form).finditer(text):
        start = 0
        for match in whole.finditer(run[0]):
            malformed += _pieces(run[0][start : match.start()], form)
            sids.append(tuple(map(int, match.groups())))
            start = match.end()
        malformed += _pieces(run[0][start:], form)
    return Found(sids, malformed)


def _whole(n_levels: int, form: str) -> re.Pattern[str]:
    tokens = "".join(
        re.escape(token(level, "\0", form)).replace(re.escape("\0"), r"(\d{1,9})")
        for level in range(n_levels)
    )
    return re.compile(re.escape(FORMS[form].begin) + tokens + re.escape(FORMS[form].end))


def _run(form: str) -> re.Pattern[str]:
    kind = FORMS[form]
    tokens = [re.escape(mark) for mark in (kind.begin, kind.end) if mark]
    tokens.append(kind.token.format(letter="[a-z]", code=r"\d+"))
    return re.compile(f"(?:{'|'.join(tokens)})+")


def _pieces(text: str, form: str) -> list[str]:
    """Cut a run that is no SID after each end mark and before each begin mark."""
    kind = FORMS[form]
    if not kind.begin:
        return [text] if text else []
    cuts = f"(?<={re.escape(kind.end)})|(?={re.escape(kind.begin)})"
    return [piece for piece in re.split(cuts, text) if piece]


def _scalar(text: str) -> pa.Scalar:
    return pa.scalar(text, pa.large_string())
