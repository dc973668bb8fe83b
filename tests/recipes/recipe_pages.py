"""The code of a page of docs/recipes, as a test runs it: page and test cannot differ.

In a fenced block of Python, an expression followed by ``# right`` must have the value that SIDMill
has; one followed by ``# wrong: OUTCOME`` must have another: its ``repr``, or the name of an
exception. ``# wrong`` alone stands for any other value. All other statements are run as they are.
"""

import ast
import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).resolve().parents[2] / "docs/recipes"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"  # (right|wrong)(?:: (.*))?")


class Statement(NamedTuple):
    """A statement of a block.

    Attributes:
        code: its text, without the comment behind it.
        kind: what the page calls it: right, wrong, or None for a plain one.
        says: the outcome that the page states of a wrong one, if it does.
    """

    code: str
    kind: str | None
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


def statements(block: str) -> list[Statement]:
    """The statements of a block, in order."""
    lines, found = block.splitlines(), []
    for node in ast.parse(block).body:
        code = ast.get_source_segment(block, node)
        behind = lines[node.end_lineno - 1].encode()[node.end_col_offset :].decode()
        match = MARK.fullmatch(behind)
        found.append(Statement(code, *(match.groups() if match else (None, None))))
    marked = sum(statement.kind is not None for statement in found)
    assert marked == len(re.findall(r"# (?:right|wrong)\b", block)), "a mark behind no statement"
    return found


def broken(block: str, names: dict[str, Any], same: Callable[[Any], bool]) -> list[str]:
    """Run a block; list what does not have the outcome that the page states.

    Args:
        block: of a page.
        names: what the block knows; it adds to them.
        same: whether a value is that of SIDMill.
    """
    found = []
    for code, kind, says in statements(block):
        if kind is None:
            exec(code, names)
            continue
        outcome, is_same = _outcome(code, names, same)
        as_said = kind == "right" or says in (None, outcome)
        if is_same != (kind == "right") or not as_said:
            found.append(f"{code}  # {kind}: {outcome}")
    return found


def with_obvious_lines(block: str) -> list[str]:
    """The block up to each wrong expression, which is called right in place of the right ones."""
    result: list[str] = []
    plain: list[str] = []
    for code, kind, _ in statements(block):
        if kind is None:
            plain.append(code)
        elif kind == "wrong":
            result.append("\n".join([*plain, f"{code}  # right"]))
    return result


def _outcome(code: str, names: dict[str, Any], same: Callable[[Any], bool]) -> tuple[str, bool]:
    try:
        value = eval(code, names)
    except Exception as error:
        return type(error).__name__, False
    return repr(value), bool(same(value))
