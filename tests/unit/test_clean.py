"""Values of a catalogue as plain text: what stays, what goes, and in which time."""

import html
import json
import sys
import time
import unicodedata
from html.entities import html5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidmill.items.clean import INVISIBLE, clean, plain_text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("Pens&notebooks", "Pens&notebooks"),
        ("/q?a=1&region=us&copy=2&lt=3", "/q?a=1&region=us&copy=2&lt=3"),
        ("R&D, AT&T, black&white &c.", "R&D, AT&T, black&white &c."),
        ("&notit; &nosuch; &; &#; &#x;", "&notit; &nosuch; &; &#; &#x;"),
        ("&lt;b&gt;x&lt;/b&gt; &#233;&#xE9;&hearts;", "x éé♥"),
        ("H<sub>2</sub>O and E=mc<sup class='x'>2</sup>", "H2O and E=mc2"),
        ("long<wbr>word", "longword"),
        ("<p>Fast.</p><script>var t=(new Date()).getTime();</script><style>.x{color:red}</style>"
         "<!-- hidden note --> Strong.", "Fast. Strong."),
        ("a<SCRIPT type='x' async>1 < 2 && b</Script >b", "a b"),
        ("a<!-- <script> --> b </script>", "a b"),
        ("a<script>'<!--'</script>b-->", "a b-->"),
        ("&lt;script&gt;x&lt;/script&gt;y", "y"),
        ("a<style>x", "a x"),
        ("a <!-- b", "a <!-- b"),
        ("<!DOCTYPE html><html><head></head><body>a<![CDATA[b]]></body></html>", "a b"),
        ("a<section><main>b</main></section><footer>c</footer>", "a b c"),
        ("scripted <scripts> and styles", "scripted <scripts> and styles"),
        ("a < b <= c <!> d", "a < b <= c <!> d"),
        ("می\u200cخواهم क्\u200dष", "می\u200cخواهم क्\u200dष"),
        ("\u202eevil\u202c \u200ertl\u200f \u2066x\u2069 a\u2061b \x7fc\u061c", "evil rtl x ab c"),
        ("a\x85b\x0bc\u2028d", "a b c d"),
    ],
)  # fmt: skip
def test_html_and_invisible_characters(value, text):
    assert clean(value) == text


def test_no_control_or_mark_of_direction_stays():
    """All of Unicode: what is invisible goes; letters, marks and joiners inside words stay."""
    kept_formats = {
        code for code in range(sys.maxunicode + 1)
        if unicodedata.category(chr(code)) in ("Cc", "Cf") and chr(code).isspace() is False
        and code not in INVISIBLE
    }  # fmt: skip
    assert all(unicodedata.category(chr(code)) == "Cf" for code in kept_formats)
    bidirectional = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    assert not {unicodedata.bidirectional(chr(code)) for code in kept_formats} & bidirectional
    # Signs that are drawn (Arabic, Syriac, Kaithi, hieroglyphs, shorthand, music), and two joiners.
    drawn = {*range(0x600, 0x606), 0x6DD, 0x70F, *range(0x890, 0x892), 0x8E2, 0x110BD, 0x110CD}
    drawn |= {*range(0x13430, 0x13440), *range(0x1BCA0, 0x1BCA4), *range(0x1D173, 0x1D17B)}
    assert kept_formats <= drawn | {0x200C, 0x200D}
    gone = {code for code in INVISIBLE if unicodedata.category(chr(code)) not in ("Cc", "Cf", "Cn")}
    assert not gone


@pytest.mark.parametrize("name", [name for name in html5 if name.endswith(";")][::37])
def test_entities_are_those_of_html(name):
    assert clean(f"x&{name}y") == " ".join(html.unescape(f"x&{name}y").translate(INVISIBLE).split())


@given(st.text(alphabet="&;#x12<>abcltgamp/ !-", max_size=40))
def test_text_without_a_semicolon_loses_no_letter_to_entities(value):
    bare = value.replace(";", "").replace("<", "").replace(">", "")
    assert clean(bare) == " ".join(bare.split())


@pytest.mark.parametrize(
    "piece", ["<script>", "<!--", "<style x='1'>", "</script>", "&lt;script&gt;", "-->", "<!"]
)
def test_cleaning_takes_time_in_proportion_to_the_text(piece):
    started = time.process_time()
    clean("<script>" + piece * (300_000 // len(piece)))
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"Brand": "N", "Size": None, "In": {"a": [1, 2]}}, "Brand: N, In: a: 1, 2"),
        (["a", ["b"], {}], "a, b"),
    ],
)
def test_json_as_text_reads_as_the_value_itself(value, text):
    """Amazon's details on the hub."""
    assert plain_text(value) == text
    assert plain_text(json.dumps(value)) == text
    assert plain_text(f" {json.dumps(value, indent=1)}\n") == text


@pytest.mark.parametrize(
    "value", ["[Import]", "{x}", "[a] b [c]", "[1, 2", "{'a': 1}", "[", "{}x{}"]
)
def test_text_in_brackets_that_is_no_json_stays(value):
    assert plain_text(value) == value


@pytest.mark.parametrize("value", ["[]", "{}", "[null]", '{"a": null}', "[[], {}]", " [ ] "])
def test_json_of_nothing_is_nothing(value):
    assert plain_text(value) == ""


def test_json_text_nested_too_deeply_is_text():
    deep = "[" * 100_000 + "]" * 100_000
    assert plain_text(deep) == deep
