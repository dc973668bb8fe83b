"""JSON larger than memory, value by value: an array, an object of objects, or values in a row.

    lines   one value a line (JSON lines)
    array   ``[value, value, ...]``
    keyed   ``{"key": value, "key": value, ...}``, all of them objects, or all of them lists
    values  one value after another, over several lines each

A value that is no JSON has a problem, and the values after it are still read where its brackets
show for sure where it ends. Python's own parser reads each value, so NaN, Infinity and
integers of any length are taken, as in JSON lines.
"""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from sidmill.core.errors import SidmillError
from sidmill.io import text_lines

LOOK_AHEAD = 1 << 20  # bytes that decide the shape of a file
CHUNK = 1 << 16
MANY = 10  # lists: more than a row has
NEAR_END = 16  # characters: an error closer to the end of what was read may be of a value cut there
NOT_UTF8 = re.compile("[\ud800-\udfff]")  # what surrogateescape makes of such bytes
SCAN = json.JSONDecoder().scan_once  # type: ignore[attr-defined]
SPACE = re.compile(r"[ \t\n\r]*")
TOO_DEEP = "JSON nested too deeply"
# A string, whole or up to where the text ends, or a mark that opens, closes or parts values.
TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[\[\]{},]', re.DOTALL)
AFTER_A_STRING = re.compile(r"[ \t\n\r]*(?:[,:\]}]|\Z)")


class Value(NamedTuple):
    """One value, or why it could not be read; ``key`` is its name in an object."""

    value: object
    problem: str | None = None
    key: str | None = None


def parse(text: str | bytes) -> object:
    """Parse one JSON value; an integer of more digits than Python converts becomes its text.

    Raises:
        ValueError: if it is no JSON.
        RecursionError: if it is nested too deeply.
    """
    # One whole value, as almost every line is: json.loads takes twice the time for a short one.
    if isinstance(text, str):
        try:
            value, end = SCAN(text, 0)
            if end == len(text) or text[end:] in ("\n", "\r\n"):
                return value
        except (StopIteration, ValueError):
            pass  # json.loads tells what is wrong

    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except ValueError:  # Python's limit of digits
        return json.loads(text, parse_int=_long_integer)


def shape(stream: io.BufferedReader) -> str:
    """Decide how a file holds its values: ``lines``, ``array``, ``keyed`` or ``values``.

    Args:
        stream: the file as UTF-8, at its beginning; it is read on from there.
    """
    first = _next_line(stream)
    start, whole = first.lstrip()[:1], first.endswith(b"\n") or len(first) < LOOK_AHEAD
    if start not in (b"[", b"{"):
        return "lines"

    # A whole line: one value in it, or the first line of a value that goes on.
    if whole:
        second = _next_line(stream).lstrip()
        try:
            value = parse(first.decode("utf-8", "surrogateescape"))
        except (ValueError, RecursionError):
            value = None
        if value is not None:
            return "lines" if second else _shape_of(value)
        ends_open = first.rstrip()[-1:] in b"{[,:"
        if start == b"[":
            return "lines" if second.startswith(b"{") and not ends_open else "array"
        goes_on = first.rstrip()[-1:] in (b":", b"[") or not second.startswith(b"{")
        if not (ends_open and second and goes_on):
            return "lines"
        return _shape_of_beginning(first + second + stream.read(LOOK_AHEAD))

    # A line longer than is looked at.
    if start == b"[":
        return "array"
    form = _shape_of_beginning(first)
    if form == "keyed":  # unless it is the first of several long lines
        while (part := stream.readline(LOOK_AHEAD)) and not part.endswith(b"\n"):
            pass
        form = "lines" if _next_line(stream) else "keyed"
    return form if form == "keyed" else "lines"


def read(path: str | Path, stream: io.BufferedReader, form: str) -> Iterator[Value]:
    """Yield the values of an ``array``, of a ``keyed`` object, or ``values`` in a row.

    Memory: one value, at most ``text_lines.LONGEST`` characters.

    Args:
        path: the file, for messages.
        stream: the file as UTF-8, at its beginning.
        form: what :func:`shape` returned.

    Raises:
        SidmillError: if a value is too long, or the values after it cannot be separated.
    """
    # Values without anything around them.
    text = _Text(path, stream)
    if form == "values":
        while text.next_mark():
            yield text.value()
        return

    # Values between brackets, parted by commas.
    closing, keyed = ("]", False) if form == "array" else ("}", True)
    text.next_mark()  # the opening bracket
    text.take()
    if text.next_mark() == closing:
        text.take()
    else:
        while True:
            yield text.entry() if keyed else text.value()
            mark = text.next_mark()
            if mark not in (",", closing):
                text.stop(f"{mark!r} where a comma or {closing} belongs" if mark else "it is cut")
            text.take()
            if mark == closing:
                break
    if text.next_mark():
        text.stop(f"more follows its closing {closing}")


class _Text:
    """The text of a file from the place that reading has come to."""

    def __init__(self, path: str | Path, stream: io.BufferedReader) -> None:
        self.path = path
        self.file = io.TextIOWrapper(stream, "utf-8", "surrogateescape", newline="")
        self.text, self.at, self.ended, self.number = "", 0, False, 0
        self.decoder = json.JSONDecoder()

    def next_mark(self) -> str:
        """The next character but white space; nothing at the end."""
        while True:
            space = SPACE.match(self.text, self.at)
            self.at = space.end() if space else self.at
            if self.at < len(self.text):
                return self.text[self.at]
            if not self._read_on():
                return ""

    def take(self) -> None:
        """Pass the next character."""
        self.at += 1

    def entry(self) -> Value:
        """Read a key and its value."""
        name = self._parse() if self.next_mark() == '"' else Value(None)
        if not isinstance(name.value, str) or self.next_mark() != ":":
            self.stop("no name and colon before a value")
        self.number -= 1  # a name is no element
        self.take()
        return self.value()._replace(key=str(name.value))

    def value(self) -> Value:
        """Read a value."""
        self.next_mark()
        return self._parse()

    def stop(self, reason: str) -> NoReturn:
        """Give up on the file.

        Raises:
            SidmillError: always.
        """
        raise SidmillError(
            f"{self.path}: cannot be read past element {self.number} of its JSON ({reason}): "
            f"correct what follows there"
        )

    def _parse(self) -> Value:
        """Parse the value here, reading on as long as it may be cut where the text ends."""
        while True:
            # An error close to the end of the text may be of a value that is cut there.
            problem, is_cut = None, False
            try:
                value, end = self.decoder.raw_decode(self.text, self.at)
                is_cut = end == len(self.text) and isinstance(value, int | float)
            except RecursionError:
                problem = TOO_DEEP
            except json.JSONDecodeError as error:
                problem = f"not JSON ({error.msg})"
                is_near_end = error.pos >= len(self.text) - NEAR_END
                is_cut = is_near_end or error.msg.startswith("Unterminated string")
            except ValueError:  # Python's limit of digits
                self.decoder = json.JSONDecoder(parse_int=_long_integer)
                continue
            if is_cut and self._read_on():
                continue
            break

        if problem:
            self._pass_over(problem)
            self.number += 1
            return Value(None, problem)
        bad = NOT_UTF8.search(self.text, self.at, end)
        self.at = end
        self.number += 1
        return Value(None, "not UTF-8") if bad else Value(value)

    def _read_on(self) -> bool:
        """Read as much again as is kept, so that a long value is parsed a few times only."""
        remainder = self.text[self.at :]
        if len(remainder) > text_lines.LONGEST:
            raise SidmillError(
                f"{self.path}: what follows element {self.number} of its JSON is "
                f"{text_lines.TOO_LONG}: correct it"
            )
        more = "" if self.ended else self.file.read(max(CHUNK, len(remainder)))
        self.ended = self.ended or not more
        self.text, self.at = remainder + more, 0
        return bool(more)

    def _pass_over(self, problem: str) -> None:
        """Go to the mark behind a value that cannot be parsed.

        Its strings have to be whole: a quote that is missing would turn text and marks around.
        """
        depth, passed = 0, 0
        while passed <= text_lines.LONGEST:
            token = TOKEN.search(self.text, self.at)
            mark = token[0] if token else ""
            is_string = mark.startswith('"')

            # Nothing here, or a string that may go on: read more.
            if token is None or (is_string and token.end() == len(self.text)):
                start = token.start() if token else len(self.text)
                passed, self.at = passed + start - self.at, start
                if not self._read_on():
                    break
                continue

            if is_string and not AFTER_A_STRING.match(self.text, token.end()):
                break
            if depth == 0 and mark in ("]", "}", ","):
                self.at = token.start()
                return
            depth += (mark in ("[", "{")) - (mark in ("]", "}"))
            passed, self.at = passed + token.end() - self.at, token.end()
        self.stop(problem)


def _long_integer(digits: str) -> int | str:
    """An integer, or its text where Python refuses to convert so many digits."""
    try:
        return int(digits)
    except ValueError:
        return digits


def _next_line(stream: io.BufferedReader) -> bytes:
    """The next line that is not blank, at most ``LOOK_AHEAD`` of it."""
    while line := stream.readline(LOOK_AHEAD):
        if not line.isspace():
            return line
    return b""


def _shape_of(value: object) -> str:
    """The shape of a file that is one JSON value in one line."""
    if isinstance(value, list):
        return "array"
    return "keyed" if isinstance(value, dict) and _is_keyed(value) else "lines"


def _is_keyed(entries: dict[str, Any]) -> bool:
    """Whether the entries of an object look like rows: all objects, or all flat lists.

    One row may have a few lists, too: names of fields hold no digit, ids of users do.
    """
    values = entries.values()
    if all(isinstance(value, dict) for value in values):
        return bool(entries)
    if len(entries) < MANY and not all(re.search(r"\d", name) for name in entries):
        return False
    return all(
        isinstance(value, list) and not any(isinstance(one, dict | list) for one in value)
        for value in values
    )


def _shape_of_beginning(beginning: bytes) -> str:
    """``keyed`` or ``values``, by the entries of an object that the first bytes of a file hold."""
    text = _Text("", io.BufferedReader(io.BytesIO(beginning)))
    text.next_mark()
    text.take()
    entries: dict[str, object] = {}
    try:
        while text.next_mark() == '"':
            entry = text.entry()
            entries[str(entry.key)] = entry.value
            if text.next_mark() != ",":
                break
            text.take()
    except SidmillError:
        pass  # the last entry is cut
    return "keyed" if _is_keyed(entries) else "values"
