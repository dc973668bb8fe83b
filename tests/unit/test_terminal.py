"""Messages are harmless wherever they are shown: no control or mark of direction passes."""

import io
import json
import logging
import sys
import unicodedata

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidmill import cli
from sidmill.core.errors import SidmillError
from sidmill.core.logs import JsonLines, Lines
from sidmill.core.terminal import (
    MOST_NAMES,
    UNSAFE,
    names,
    safe_lines,
)

EVIL = "\x1b]0;title\x07 \x1b[31m \x9b2J \u202ertl\u2066 \ud800 \x7f \r \u2028 \x00 \u200b end"


def unsafe(shown):
    return {letter for letter in shown if unicodedata.category(letter) in UNSAFE} - {"\n"}


@given(st.text(alphabet=st.characters(), max_size=30))
def test_no_unsafe_character_passes_an_error(text):
    shown = str(SidmillError(text))
    assert not unsafe(shown)
    shown.encode()
    assert str(SidmillError(shown)) == shown


def test_every_character_of_unicode_is_safe_in_an_error():
    shown = str(SidmillError("".join(map(chr, range(sys.maxunicode + 1)))))
    assert not unsafe(shown)


@pytest.mark.parametrize("text", ["plain", "two\nlines", "水壶 é 👍", "", "tab\\t"])
def test_harmless_text_stays_as_it_is(text):
    assert safe_lines(text) == text


def test_the_command_line_shows_errors_harmless(monkeypatch, capsys):
    @click.command()
    def bad():
        raise SidmillError(f"{EVIL}: mend it")

    monkeypatch.setitem(cli.commands.commands, "bad", bad)
    monkeypatch.setattr(sys, "argv", ["sidmill", "bad"])
    with pytest.raises(SystemExit):
        cli.main()
    shown = capsys.readouterr().err
    assert "mend it" in shown
    assert not unsafe(shown)


@pytest.mark.parametrize("level", [logging.INFO, logging.WARNING, logging.ERROR])
def test_logs_take_any_text_and_hold_nothing_unsafe(level):
    """File names of the user go into lines of progress too; a lone surrogate is no traceback."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    handler = logging.StreamHandler(stream)
    handler.handleError = lambda record: pytest.fail("the log could not be written")
    for formatter in (Lines(), JsonLines("rule")):
        handler.setFormatter(formatter)
        handler.handle(logging.makeLogRecord(
            {"name": "x", "levelno": level, "levelname": "X", "msg": "%s", "args": (EVIL,)}
        ))  # fmt: skip
    plain, as_json = stream.buffer.getvalue().decode().splitlines()
    assert not unsafe(plain)
    assert json.loads(as_json)["message"] == EVIL


@pytest.mark.parametrize("count", [0, 1, MOST_NAMES, MOST_NAMES + 1, 5000])
def test_names_are_few_and_short(count):
    shown = names(f"{EVIL}{n}" + "x" * 10_000 for n in range(count))
    assert not unsafe(shown)
    assert len(shown) < MOST_NAMES * 80
    assert (" more" in shown) == (count > MOST_NAMES)


@pytest.mark.parametrize("shape", ["csv", "jsonl", "json"])
def test_field_names_of_a_catalogue_are_harmless_in_every_message(tmp_path, shape):
    from sidmill.items.render import render
    from sidmill.settings.items import Items

    row = {EVIL.replace("\ud800", "").replace("\r", "").replace("\x00", ""): "1", "title": "x"}
    content = {
        "csv": ",".join(f'"{name}"' for name in row) + "\n1,x\n",
        "jsonl": json.dumps(row) + "\n",
        "json": json.dumps([row]),
    }[shape]
    path = tmp_path / f"i.{shape}"
    path.write_text(content, encoding="utf-8")
    for id_field, fields in (("pid", ["title"]), ("title", [EVIL]), (EVIL, ["title"])):
        settings = Items(path=str(path), id_field=id_field, fields=fields, max_reject_share=1)
        with pytest.raises(SidmillError) as error:
            render(*(str(tmp_path / name) for name in "ab"), settings)
        assert not unsafe(str(error.value))
