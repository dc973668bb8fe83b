"""Tables without quotes: lines that are read as one block hold what lines hold one by one."""

import io

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidmill.io import delimited_text
from sidmill.io.delimited_text import LineBlock

LINES = st.lists(
    st.text(st.sampled_from("ab:\t |\x1f\u2028\x0b\x0cé"), max_size=6)
    | st.sampled_from(
        ["a::b", "a:::b", "::", " ", "  ", "", '"', 'a"b', "a\rb", "\r", "\0", "\ufeffa"]
    ),
    max_size=8,
)  # fmt: skip
SEPARATORS = ["\t", "|", ":", "::", ":::", "\x1f", " | ", "  ", "é", "a\n", None]


def numbered(text, separator):
    """Number and values of each line that has more than spaces."""
    lines = io.StringIO(text, newline="")
    return [
        (number, line.rstrip("\r\n").split(separator))
        for number, line in enumerate(lines, start=1)
        if line.strip(" \r\n")
    ]


@given(
    LINES, st.sampled_from(["\n", "\r\n"]), st.sampled_from(SEPARATORS), st.sampled_from([1, 7, 99])
)
@example(["a:::b", "a::", "::b", ":"], "\n", "::", 99)
@example(["x" * 200_000 + "\tb", "a\tb"], "\n", "\t", 99)  # more than csv reads by default
@settings(max_examples=300, deadline=None)
def test_blocks_hold_the_lines(lines, end, separator, chunk):
    text = end.join(lines)
    read = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delimited_text, "CHUNK", chunk)
        stream = io.StringIO(text, newline="")
        for block in delimited_text.plain_blocks("log", stream, separator):
            records = block.split() if isinstance(block, LineBlock) else block
            read += [(one.first, one.values) for one in records.records()]
    assert read == numbered(text, separator)


@given(LINES, st.sampled_from(["\t", "|", "::"]))
@settings(max_examples=100, deadline=None)
def test_columns_hold_the_lines(lines, separator):
    text = "\n".join(lines)
    for block in delimited_text.plain_blocks("log", io.StringIO(text, newline=""), separator):
        if isinstance(block, LineBlock):
            columns = block.columns(["x", "y"], ["y", "x"])
            values = block.split().values
            if columns is not None:
                assert [list(row) for row in zip(*columns.to_pydict().values(), strict=True)] == [
                    row[::-1] for row in values
                ]
            assert (columns is not None) == all(len(row) == 2 for row in values)


@pytest.mark.parametrize(("separator", "is_block"), [("\t", True), ("::", True), (None, False)])
def test_plain_lines_are_one_block(separator, is_block):
    text = "".join(f"{n}{separator or ' '}b\n" for n in range(9))
    (block,) = delimited_text.plain_blocks("log", io.StringIO(text, newline=""), separator)
    assert isinstance(block, LineBlock) is is_block
