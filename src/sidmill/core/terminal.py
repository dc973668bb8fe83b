"""Text for a terminal: foreign text made harmless, and columns that fit."""

import unicodedata
from collections.abc import Iterable

WIDE = ("W", "F")
MOST_NAMES = 20  # in one message
NAME_WIDTH = 60
UNSAFE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")  # controls, bidirectional marks, surrogates


def safe(text: object, width: int | None = None) -> str:
    r"""Foreign text on one line, in which nothing acts on the terminal.

    Control characters (ANSI escapes begin with one), bidirectional marks and the like are written
    as Python escapes them: ``\x1b[31m``.

    Args:
        text: anything; its ``str`` is taken.
        width: cut to so many columns, with an ellipsis; None for no cut.
    """
    whole = str(text)
    words = whole if width is None else whole[: width + 1]
    shown = "".join(
        repr(letter)[1:-1] if unicodedata.category(letter) in UNSAFE else letter for letter in words
    )
    return shown if width is None else cut(shown, width)


def safe_lines(text: object) -> str:
    """Foreign text of several lines, each made harmless as by :func:`safe`.

    Every message goes through here: errors where they are made, other lines where they are logged.
    """
    whole = str(text)
    if whole.isascii() and whole.replace("\n", "").isprintable():
        return whole
    return "\n".join(map(safe, whole.split("\n")))


def names(known: Iterable[object]) -> str:
    """Names that come from outside, for a message: at most 20, none longer than a line."""
    listed = list(known)
    shown = ", ".join(safe(name, NAME_WIDTH) for name in listed[:MOST_NAMES])
    more = len(listed) - MOST_NAMES
    return f"{shown} and {more:,} more" if more > 0 else shown


def columns(text: str) -> int:
    """Columns that a text takes: Chinese, Japanese and Korean letters take two."""
    return sum(
        0 if unicodedata.combining(letter) else 1 + (unicodedata.east_asian_width(letter) in WIDE)
        for letter in text
    )


def cut(text: str, width: int) -> str:
    """The text, or as much of it as fits with an ellipsis behind it."""
    if columns(text) <= width:
        return text
    kept, room = [], width - 1
    for letter in text:
        room -= columns(letter)
        if room < 0:
            break
        kept.append(letter)
    return "".join(kept) + "…"


def padded(text: str, width: int) -> str:
    """The text, filled with spaces to a width; numbers are aligned by ``str.rjust``."""
    return text + " " * (width - columns(text))


def table(rows: list[list[str]], header: list[str], right: tuple[int, ...] = ()) -> list[str]:
    """Rows as lines with two spaces between columns; columns named in ``right`` end flush.

    The last column is not filled, so that no line ends in spaces.
    """
    whole = [header, *rows]
    widths = [max(columns(row[place]) for row in whole) for place in range(len(header))]
    lines = []
    for row in whole:
        cells = [
            " " * (width - columns(cell)) + cell if place in right else padded(cell, width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines
