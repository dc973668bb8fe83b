"""Words: every script, both ends of every range, and nothing that turns one word into another."""

import random
import unicodedata
from itertools import pairwise

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from sidmill.core import words as module
from sidmill.core.words import words

RANGES = {
    "Han": module.HAN,
    "kana": module.KANA,
    "Thai": module.THAI,
    "Lao": module.LAO,
    "Burmese": module.BURMESE,
    "Khmer": module.KHMER,
    "Tai": module.TAI,
}
SCRIPTS = {  # as the Unicode data of the package regex names them
    "Han": "Han",
    "kana": "Hiragana Katakana",
    "Thai": "Thai",
    "Lao": "Lao",
    "Burmese": "Myanmar",
    "Khmer": "Khmer",
    "Tai": "Tai_Le New_Tai_Lue Tai_Tham Tai_Viet",
}
ENDS = [(name, code) for name, ranges in RANGES.items() for pair in ranges for code in pair]


def category(code):
    return unicodedata.category(chr(code))


def is_stable(char):
    return module.folded(char) == char


# Every character that this Python knows, without surrogates and private use.
ASSIGNED = [chr(code) for code in range(0x32400) if category(code) not in ("Cn", "Cs", "Co")]
STABLE = [char for char in ASSIGNED if is_stable(char)]


# What was there before these rules, for text that they shall not touch.


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("M8-Bolt, ÉCOLE x2", "m8 bolt école x2"),
        ("it's snake_case v1.20", "it s snake_case v1 20"),
        ("不锈钢M8螺栓", "不 锈 钢 不锈 锈钢 m8 螺 栓 螺栓"),
        ("ネジ です", "ネ ジ ネジ で す です"),
        ("漢字かな", "漢 字 か な 漢字 字か かな"),
        ("Ａ４", "a4"),
        (" -- ", ""),
    ],
)
def test_english_and_chinese(line, wanted):
    assert words(line) == wanted.split()


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("무선 이어폰", "무선 이어폰"),
        ("가방가방가 친구", "가방가방가 친구"),
        ("दिन दान दीन", "दिन दान दीन"),
        ("বাংলা ভাষা", "বাংলা ভাষা"),
        ("தமிழ் மொழி", "தமிழ் மொழி"),
        ("שָׁלוֹם", "שָׁלוֹם"),
        ("كِتَابٌ", "كِتَابٌ"),
        ("İstanbul ISTANBUL istanbul", "istanbul istanbul istanbul"),
        ("STRASSE Straße", "strasse strasse"),
        ("ΟΔΟΣ οδος", "οδοσ οδοσ"),
        ("ไม้", "ไ ม้ ไม้"),
        ("ไม่", "ไ ม่ ไม่"),
        ("ပန်း", "ပ န်း ပန်း"),
        ("ខ្មែរ", "ខ្ មែ រ ខ្មែ មែរ"),
        ("ລາວ", "ລ າ ວ ລາ າວ"),
        ("ราคา ๑๒๓ บาท", "ร า ค า รา าค คา ๑๒๓ บ า ท บา าท"),
        ("1\ufe0f\u20e3 a", "1 a"),
        ("葛\U000e0100城", "葛 城 葛城"),
        ("co\u00adoperate", "cooperate"),
    ],
)
def test_other_scripts(line, wanted):
    assert words(line) == [unicodedata.normalize("NFKC", word) for word in wanted.split()]


# The ranges.


@pytest.mark.parametrize(("name", "code"), ENDS, ids=lambda value: str(value))
def test_both_ends_of_each_range_are_without_spaces(name, code):
    letter = next(chr(c) for c in range(RANGES[name][0][0], 0x110000) if category(c) == "Lo")
    found = words(letter + chr(code) + letter)
    if category(code)[0] == "M":
        assert found[:2] == [module.folded(letter + chr(code)), letter]
    elif is_stable(chr(code)):
        assert found[:3] == [letter, chr(code), letter]


@pytest.mark.parametrize("name", RANGES)
def test_no_range_takes_in_another_script(name):
    inside = {code for first, last in RANGES[name] for code in range(first, last + 1)}
    script = "|".join(rf"\p{{Script={one}}}" for one in SCRIPTS[name].split())
    common = {"Han": "\u3006", "kana": "\u30fc"}.get(name, "")
    for char in STABLE:
        if ord(char) in inside and char not in common:
            assert regex.match(script, char), f"U+{ord(char):04X} {unicodedata.name(char, '')}"


@pytest.mark.parametrize("name", RANGES)
def test_no_letter_of_a_script_without_spaces_is_missing(name):
    script = "|".join(rf"\p{{Script={one}}}" for one in SCRIPTS[name].split())
    letters = (char for char in STABLE if category(ord(char)) == "Lo" and regex.match(script, char))
    missing = [char for char in letters if not module.RUNS.match(char)[1]]
    # Marks of Tangut and Khitan, and the Vietnamese reading marks, are of the script Han too.
    assert all(ord(char) in range(0x16FE0, 0x17000) or char == "\u303c" for char in missing)


def test_hangul_and_its_neighbours_are_never_cut():
    for first, last in ((0xAC00, 0xD7A3), (0xA000, 0xA48C), (0xA722, 0xA787), (0xAB70, 0xABBF)):
        for code in (first, first + 1, (first + last) // 2, last - 1, last):
            line = chr(code) * 3
            assert words(line) == [module.folded(line)], f"U+{code:04X}"


# Marks.


def test_every_mark_continues_every_kind_of_word():
    for mark in ASSIGNED:
        if unicodedata.category(mark)[0] != "M":
            continue
        assert len(words(f"a{mark}b")) == 1, f"U+{ord(mark):04X}"
        assert len(words(f"\u0915{mark}\u0915")) == 1, f"U+{ord(mark):04X}"
        if unicodedata.normalize("NFKC", mark) == mark:
            assert len(words(f"\u0e01{mark}\u0e01")) == 3, f"U+{ord(mark):04X}"


def test_every_letter_and_digit_is_in_a_word():
    for char in STABLE:
        if char.isalnum():
            assert words(char), f"U+{ord(char):04X}"


def test_every_symbol_and_space_ends_a_word():
    for char in STABLE:
        kind = unicodedata.category(char)
        if kind[0] in "PSZ" and char != "_":
            assert words(f"a{char}b") == ["a", "b"], f"U+{ord(char):04X}"


# Properties.

ANY = st.text(st.characters(exclude_categories=["Cs"]))


@settings(max_examples=300, deadline=None)
@given(ANY)
def test_words_of_words_are_these_words(line):
    once = [word for word in words(line, lambda han: [han]) if len(word) > 1]
    assert all(word in words(word, lambda han: [han]) for word in once)


@settings(max_examples=300, deadline=None)
@given(ANY)
def test_neither_case_nor_composition_makes_a_difference(line):
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        assert words(unicodedata.normalize(form, line)) == words(line)
    assert words(line.casefold()) == words(line)


def test_ascii_takes_a_short_way_to_the_same_words():
    rng = random.Random(0)
    for _ in range(200):
        line = "".join(rng.choices([chr(code) for code in range(128)], k=60))
        long_way = words(line + " é")
        assert words(line) == long_way[:-1]


# A cutter for Han.


def test_a_cutter_gets_whole_runs_of_han_and_nothing_else():
    seen = []

    def cut(han):
        seen.append(han)
        return [han]

    line = "小明ABC硕士かな々〇ไม้ 한글"
    assert words(line, cut) == [
        "小明",
        "abc",
        "硕士",
        "か",
        "な",
        "かな",
        "々〇",
        "ไ",
        "ม้",
        "ไม้",
        "한글",
    ]
    assert seen == ["小明", "硕士", "々〇"]


def test_the_ends_of_han_reach_the_cutter():
    for first, last in module.HAN:
        for char in (chr(first), chr(last)):
            if is_stable(char):
                assert words(f"a{char}{char}b", lambda han: [f"<{han}>"]) == [
                    "a",
                    f"<{char * 2}>",
                    "b",
                ]


def test_ranges_ascend_and_do_not_overlap():
    ends = [code for pair in sorted((*module.SPACELESS,)) for code in pair]
    assert all(first <= last for first, last in pairwise(ends))
