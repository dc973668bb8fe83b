"""The code of a page of docs/recipes, line by line, as a test runs it: page and test cannot differ.

In a fenced block of Python, a line that ends in ``# right`` must have the value that SIDMill has;
one that ends in ``# wrong: OUTCOME`` must have another: its ``repr``, or the name of an exception.
``# wrong`` alone stands for any other value. All other lines are run as they are.
"""

import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).resolve().parents[2] / "docs/recipes"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"^(?P<code>.*?)  # (?P<kind>right|wrong)(?:: (?P<says>.*))?$")


class Line(NamedTuple):
    """A marked line: its code, whether the page calls it right, and the outcome it states."""

    code: str
    is_right: bool
    says: str | None


def sections(page: str, language: str = "python") -> dict[str, list[str]]:
    """Fenced blocks of a page by the heading above them; those before the first are under ""."""
    text = (FOLDER / page).read_text(encoding="utf-8")
    first, *rest = re.split(r"^## ", text, flags=re.MULTILINE)
    parts = [("", first), *(tuple(part.split("\n", 1)) for part in rest)]
    return {
        heading: [code for kind, code in FENCE.findall(part) if kind == language]
        for heading, part in parts
    }


def outdated(page: str) -> list[str]:
    """Packages whose version is not the one that the page states."""
    text = (FOLDER / page).read_text(encoding="utf-8")
    stated = re.findall(r"\b([A-Za-z][\w-]*) (\d+\.\d+\.\d+)", text)
    assert stated, f"{page} states no version"
    return [f"{name} {said}: {version(name)}" for name, said in stated if version(name) != said]


def mark(line: str) -> Line | None:
    """A marked line in its parts; None for a plain one."""
    match = MARK.match(line)
    return match and Line(match["code"], match["kind"] == "right", match["says"])


def broken(block: str, names: dict[str, Any], same: Callable[[Any], bool]) -> list[str]:
    """Run a block; list the marked lines that do not have the outcome that the page states.

    Args:
        block: lines of Python; a marked line is a whole expression.
        names: what the lines know; the block adds to it.
        same: whether a value is that of SIDMill.
    """
    found, plain = [], ""
    for line in [*block.splitlines(), ""]:
        marked = mark(line)
        if marked is None:
            plain += f"{line}\n"
            continue
        exec(plain, names)
        plain = ""
        outcome, is_same = _outcome(marked.code, names, same)
        as_said = marked.is_right or marked.says in (None, outcome)
        if is_same != marked.is_right or not as_said:
            found.append(f"{line}: {outcome}")
    exec(plain, names)
    return found


def with_obvious_lines(block: str) -> list[str]:
    """The block up to each wrong line, which is called right in place of the right lines."""
    lines, result, plain = block.splitlines(), [], []
    for line in lines:
        marked = mark(line)
        if marked is None:
            plain.append(line)
        elif not marked.is_right:
            result.append("\n".join([*plain, f"{marked.code}  # right"]))
    return result


def _outcome(code: str, names: dict[str, Any], same: Callable[[Any], bool]) -> tuple[str, bool]:
    try:
        value = eval(code, names)
    except Exception as error:
        return type(error).__name__, False
    return repr(value), bool(same(value))
