"""Words of a text in any script: what LSA, BM25 and the features of items count.

A word is a run of letters, digits and ``_`` with the combining marks behind them. Scripts written
without spaces have no such runs: there every character, with its marks, and every two neighbours
stand for words, unless the caller knows a better way to cut Han.

Source of the categories: https://www.unicode.org/reports/tr44/#General_Category_Values
"""

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import pairwise

# First and last code point of each range, as numbers: a character that stands for itself in a
# source file may be replaced by its normal form, and a range with it.
HAN = (
    (0x3005, 0x3007),  # iteration mark, closing mark, zero
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),  # compatibility ideographs
    (0x20000, 0x3FFFD),  # two planes that Unicode keeps for ideographs
)
KANA = (
    (0x3041, 0x3096),
    (0x309D, 0x309F),
    (0x30A1, 0x30FA),
    (0x30FC, 0x30FF),
    (0x31F0, 0x31FF),
    (0x1AFF0, 0x1AFFE),
    (0x1B000, 0x1B16F),
)
# Letters and signs of South East Asia; digits are left out, since numbers are words.
THAI = ((0x0E01, 0x0E3A), (0x0E40, 0x0E4E))
LAO = ((0x0E81, 0x0EBD), (0x0EC0, 0x0ECE), (0x0EDC, 0x0EDF))
BURMESE = (
    (0x1000, 0x103F),
    (0x1050, 0x108F),
    (0x109A, 0x109D),
    (0xA9E0, 0xA9EF),
    (0xA9FA, 0xA9FE),
    (0xAA60, 0xAA76),
    (0xAA7A, 0xAA7F),
)
KHMER = ((0x1780, 0x17D3), (0x17D7, 0x17D7), (0x17DC, 0x17DD))
TAI = ((0x1950, 0x1974), (0x1980, 0x19C9), (0x1A20, 0x1A7F), (0xAA80, 0xAADD))
UNSPACED = (*KANA, *THAI, *LAO, *BURMESE, *KHMER, *TAI)
SPACELESS = (*HAN, *UNSPACED)

# Characters that change how their neighbours look and no word: soft hyphen, joiners, byte order
# mark, the enclosing keycap, and all variation selectors.
UNSEEN = (
    (0x00AD, 0x00AD),
    (0x180B, 0x180F),
    (0x200C, 0x200D),
    (0x2060, 0x2060),
    (0x20E3, 0x20E3),
    (0xFE00, 0xFE0F),
    (0xFEFF, 0xFEFF),
    (0xE0100, 0xE01EF),
)


def _ranges(codes: Iterable[int]) -> list[tuple[int, int]]:
    """Join ascending code points to ranges."""
    ranges: list[tuple[int, int]] = []
    for code in codes:
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1] = (ranges[-1][0], code)
        else:
            ranges.append((code, code))
    return ranges


def _without_marks(script: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Cut the marks out of ranges."""
    for first, last in script:
        start = first
        for mark in MARK_LIST[bisect_left(MARK_LIST, first) : bisect_right(MARK_LIST, last)]:
            if start < mark:
                yield start, mark - 1
            start = mark + 1
        if start <= last:
            yield start, last


def _class(ranges: Iterable[tuple[int, int]]) -> str:
    """Write ranges, none of them ASCII, as the inside of a character class."""
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)


def _runs(*scripts: Iterable[tuple[int, int]]) -> re.Pattern[str]:
    """Match runs of each script and of other words, one group each; marks continue a run."""
    # First letters of a run: a mark never starts one.
    starts = [_class(_without_marks(script)) for script in scripts]
    starts = [*(f"[{start}]" for start in starts), rf"[^\W{''.join(starts)}]"]
    groups = (rf"({start}+(?:[{MARKS}]+{start}*)*)" for start in starts)
    return re.compile("|".join(groups))


# Marks stand on the first two planes; the variation selectors behind them are left out before.
MARK_LIST = [c for c in range(0x20000) if unicodedata.category(chr(c))[0] == "M"]
MARKS = _class(_ranges(MARK_LIST))
RUNS = _runs(SPACELESS)
PLAIN_RUNS = re.compile(r"\w+", re.ASCII)
CLUSTERS = re.compile(rf"[^{MARKS}][{MARKS}]*")
HIDDEN = re.compile(rf"[{_class(UNSEEN)}]+")


def words(line: str, cut_han: Callable[[str], Iterable[str]] | None = None) -> list[str]:
    """Cut a text into words, in their order.

    Case, full-width forms and composed forms make no difference (NFKC and case folding; a dotted
    capital I is an i), nor do characters that cannot be seen. Korean has spaces: its words stay
    whole. Text that is written without spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese) gives
    every character with its marks, then every two neighbours.

    Args:
        line: the text.
        cut_han: cuts a run of Han characters into words; None: as other text without spaces.
    """
    # ASCII takes a shorter way to the same words.
    if line.isascii():
        return PLAIN_RUNS.findall(line.lower())

    plain = folded(line)
    found: list[str] = []
    if cut_han is None:
        for run, word in RUNS.findall(plain):
            if word:
                found.append(word)
            else:
                _add_clusters(found, run)
        return found

    # With a cutter of Han, its runs are a group of their own.
    for han, run, word in _han_runs().findall(plain):
        if word:
            found.append(word)
        elif han:
            found += cut_han(han)
        else:
            _add_clusters(found, run)
    return found


@cache
def _han_runs() -> re.Pattern[str]:
    """Match runs with those of Han in a group of their own; most callers do without."""
    return _runs(HAN, UNSPACED)


def folded(line: str) -> str:
    """Return a text without differences of case, width, composition, and what cannot be seen."""
    plain = unicodedata.normalize("NFKC", line).casefold().replace("i\u0307", "i")
    return unicodedata.normalize("NFKC", HIDDEN.sub("", plain))


def _add_clusters(found: list[str], run: str) -> None:
    """Add every character of a run with its marks, then every two neighbours."""
    clusters = CLUSTERS.findall(run)
    found += clusters
    found += (first + second for first, second in pairwise(clusters))
