"""Any value of a catalogue as one line of plain text.

Text is unescaped from HTML and stripped of its tags, of what they hide (scripts, styles, comments)
and of invisible characters; white space is folded to single spaces.

Source: https://html.spec.whatwg.org/multipage/named-characters.html,
https://www.unicode.org/reports/tr44/#General_Category_Values
"""

import html
import math
import re
from html.entities import html5
from typing import Any

from sidmill.io import json_values

# Entities end in a semicolon here: "Pens&notebooks" and "?a=1&region=us" are none.
ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
HIDING = re.compile(r"<!--|<(script|style)(?:\s[^<>]*+)?>", re.IGNORECASE)
MARKUP = re.compile(r"<!doctype[^<>]*+>|<!\[CDATA\[|\]\]>", re.IGNORECASE)
ATTRIBUTES = r"""(?:\s++[\w:.-]++\s*+=\s*+(?:"[^"<]*+"|'[^'<]*+'|[^\s"'<>]++))*+\s*+/?>"""
TIGHT_TAGS = re.compile(rf"</?(?:sub|sup|wbr){ATTRIBUTES}", re.IGNORECASE)  # H<sub>2</sub>O
TAGS = re.compile(
    r"</?(?:a|article|aside|b|big|blockquote|body|br|caption|center|code|dd|div|dl|dt|em|"
    r"figcaption|figure|font|footer|h[1-6]|head|header|hr|html|i|iframe|img|li|link|main|meta|nav|"
    r"noscript|ol|p|pre|q|s|script|section|small|span|strike|strong|style|table|tbody|td|tfoot|th|"
    rf"thead|tr|tt|u|ul){ATTRIBUTES}",
    re.IGNORECASE,
)
# Controls but white space, the soft hyphen, marks of direction, joins of words, byte order marks,
# interlinear marks and tags. The joiners of letters, U+200C and U+200D, are part of words.
INVISIBLE_RANGES = (
    ("\x00", "\x08"), ("\x0e", "\x1f"), ("\x7f", "\x84"), ("\x86", "\x9f"), ("\xad", "\xad"),
    ("\u061c", "\u061c"), ("\u180e", "\u180e"), ("\u200b", "\u200b"), ("\u200e", "\u200f"),
    ("\u202a", "\u202e"), ("\u2060", "\u206f"), ("\ufeff", "\ufeff"), ("\ufff9", "\ufffb"),
    ("\U000e0001", "\U000e0001"), ("\U000e0020", "\U000e007f"),
)  # fmt: skip
INVISIBLE = dict.fromkeys(
    code for first, last in INVISIBLE_RANGES for code in range(ord(first), ord(last) + 1)
)


class UnreadableError(ValueError):
    """A value that has no text; the message says why."""


def plain_text(value: object) -> str:
    """Write any value of a catalogue as clean text; null and NaN as nothing, lists with commas.

    A text that is a JSON object or array, as Amazon's ``details`` are, is read as that.

    Raises:
        UnreadableError: if it is binary.
        RecursionError: if it is nested too deeply.
    """
    if isinstance(value, str):
        if _is_plain(value):
            return value
        found = _json_text(value)
        return clean(value) if found is None else plain_text(found)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bytes):
        raise UnreadableError(f"{value!r:.40} is binary, wanted text")
    if isinstance(value, dict):
        pairs = ((plain_text(key), plain_text(entry)) for key, entry in value.items())
        return ", ".join(f"{key}: {entry}" for key, entry in pairs if entry)
    if isinstance(value, list | tuple):
        return ", ".join(filter(None, map(plain_text, value)))
    return clean(str(value))


def _is_plain(text: str) -> bool:
    """Whether cleaning leaves a text as it is, by what can be told at once; most texts are so."""
    return (
        text.isprintable()
        and "&" not in text
        and "<" not in text
        and "}" not in text
        and "]" not in text
        and "  " not in text
        and text[:1] != " "
        and text[-1:] != " "
    )


def clean(text: str) -> str:
    """Unescape HTML, drop tags, what they hide and invisible characters, fold white space."""
    if "&" in text:
        text = ENTITY.sub(_character, ENTITY.sub(_character, text))  # many are escaped twice
    if "<" in text:
        text = MARKUP.sub(" ", _drop_hidden(text))
        text = TAGS.sub(" ", TIGHT_TAGS.sub("", text))
    if not text.isprintable():  # nothing invisible is, and no white space but the space
        text = text.translate(INVISIBLE)
    return " ".join(text.split())


def _character(entity: re.Match[str]) -> str:
    """What an entity stands for; itself where there is none of that name."""
    name = entity[0][1:]
    return html.unescape(entity[0]) if name[0] == "#" else html5.get(name, entity[0])


def _drop_hidden(text: str) -> str:
    """Drop comments, scripts and styles with what they hold; one that is not closed stays.

    Takes time in proportion to the text: an end that was looked for in vain is not looked for
    again.
    """
    kept, at, unclosed = [], 0, set()
    for opened in HIDING.finditer(text):
        if opened.start() < at:
            continue
        kind = (opened[1] or "!--").lower()
        closing = "-->" if kind == "!--" else rf"</{kind}\s*+>"
        closed = None
        if kind not in unclosed:
            closed = re.compile(closing, re.IGNORECASE).search(text, opened.end())
        if closed is None:
            unclosed.add(kind)
            continue
        kept.append(text[at : opened.start()])
        at = closed.end()
    return " ".join([*kept, text[at:]])


def _json_text(text: str) -> dict[str, Any] | list[Any] | None:
    """The object or array that a text is in JSON, or None."""
    if "}" not in text and "]" not in text:
        return None
    inner = text.strip()
    if inner[:1] + inner[-1:] not in ("{}", "[]"):
        return None
    try:
        value = json_values.parse(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict | list) else None
