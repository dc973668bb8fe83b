"""SIDs as text: written and read back, and found in what a model writes."""

import numpy as np
import pytest

from sidmill.core.errors import SidmillError
from sidmill.formats import sid_text


@pytest.mark.parametrize("form", ["onerec", "lcrec"])
@pytest.mark.parametrize("n_levels", [1, 3, 4])
def test_what_is_written_is_read_back(rng, form, n_levels):
    codes = rng.integers(0, 300, (50, n_levels)).astype(np.int32)
    text = "".join(sid_text.render(codes, form).to_pylist())
    assert sid_text.parse(text, n_levels, form) == [tuple(row) for row in codes.tolist()]
    assert sid_text.find(text, n_levels, form) == (sid_text.parse(text, n_levels, form), [])


def test_the_two_forms():
    codes = np.array([[12, 7, 200]], np.int32)
    assert sid_text.render(codes)[0].as_py() == ("<|sid_begin|><s_a_12><s_b_7><s_c_200><|sid_end|>")
    assert sid_text.render(codes, "lcrec")[0].as_py() == "<a_12><b_7><c_200>"
    assert sid_text.vocabulary([2, 1]) == [
        "<|sid_begin|>", "<|sid_end|>", "<s_a_0>", "<s_a_1>", "<s_b_0>"
    ]  # fmt: skip


def test_strict_reading_names_the_place():
    with pytest.raises(SidmillError, match="character 48"):
        sid_text.parse("<|sid_begin|><s_a_12><s_b_7><s_c_200><|sid_end|> ", 3)


def test_lenient_reading_finds_sids_and_reports_the_rest():
    good = "<|sid_begin|><s_a_1><s_b_2><|sid_end|>"
    short, twisted = "<|sid_begin|><s_a_1><|sid_end|>", "<s_b_1><s_a_2>"
    found = sid_text.find(f"Try {good}{short}{good} or {twisted}.", 2)
    assert found.sids == [(1, 2), (1, 2)]
    assert found.malformed == [short, twisted]
