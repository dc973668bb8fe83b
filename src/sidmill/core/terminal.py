"""Text for a terminal: control characters escaped, columns aligned."""

import unicodedata
from collections.abc import Iterable

WIDE = ("W", "F")
MOST_NAMES = 20  # in one message
NAME_WIDTH = 60
UNSAFE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")  # controls, bidirectional marks, surrogates


def safe(text: object, width: int | None = None) -> str:
    r"""Foreign text on one line, with all characters escaped that act on a terminal.

    Control characters (ANSI escapes begin with one), bidirectional marks, surrogates and unassigned
    characters are written as Python escapes them: ``\x1b[31m``.

    Args:
        text: anything; its ``str`` is taken.
        width: maximum columns, the last for an ellipsis; None: no maximum.
    """
    whole = str(text)
    head = whole if width is None else whole[: width + 1]
    printable = "".join(
        repr(letter)[1:-1] if unicodedata.category(letter) in UNSAFE else letter for letter in head
    )
    return printable if width is None else cut(printable, width)


def safe_lines(text: object) -> str:
    """Foreign text of several lines, each escaped as by :func:`safe`.

    Every message is escaped here: errors when they are raised, other lines when they are logged.
    """
    whole = str(text)
    if whole.isascii() and whole.replace("\n", "").isprintable():
        return whole
    return "\n".join(map(safe, whole.split("\n")))


def names(known: Iterable[object]) -> str:
    """Foreign names for a message: at most 20, each at most NAME_WIDTH columns."""
    listed = list(known)
    printable = ", ".join(safe(name, NAME_WIDTH) for name in listed[:MOST_NAMES])
    more = len(listed) - MOST_NAMES
    return f"{printable} and {more:,} more" if more > 0 else printable


def columns(text: str) -> int:
    """Columns of a text: Chinese, Japanese and Korean letters have two."""
    return sum(
        0 if unicodedata.combining(letter) else 1 + (unicodedata.east_asian_width(letter) in WIDE)
        for letter in text
    )


def cut(text: str, width: int) -> str:
    """The text, cut to ``width`` columns with an ellipsis if it is wider."""
    if columns(text) <= width:
        return text
    letters, width_left = [], width - 1
    for letter in text:
        width_left -= columns(letter)
        if width_left < 0:
            break
        letters.append(letter)
    return "".join(letters) + "…"


def padded(text: str, width: int) -> str:
    """The text, padded with spaces on the right; ``str.rjust`` aligns numbers."""
    return text + " " * (width - columns(text))


def table(rows: list[list[str]], header: list[str], right: tuple[int, ...] = ()) -> list[str]:
    """Rows as lines with two spaces between columns; columns in ``right`` are aligned right.

    No line ends in spaces.
    """
    whole = [header, *rows]
    widths = [max(columns(row[column]) for row in whole) for column in range(len(header))]
    lines = []
    for row in whole:
        cells = [
            " " * (width - columns(cell)) + cell if column in right else padded(cell, width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines
