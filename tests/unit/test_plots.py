"""What the figures promise: the same bytes for the same numbers, and words that are true."""

import re
from xml.etree import ElementTree

import matplotlib as mpl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidmill.report import plots

FIGURES = [plots.code_usage, plots.prefix_sizes, plots.reconstruction]


def level(number, codebook_size, usage, loss, histogram=None):
    histogram = histogram or {"1": 6, "2-3": 4}
    return {
        "level": number,
        "codebook_size": codebook_size,
        "used": len(usage),
        "utilisation": len(usage) / codebook_size,
        "perplexity": 3.2,
        "gini": 0.25,
        "largest_share": usage[0] / sum(usage),
        "relative_loss": loss,
        "prefixes": sum(histogram.values()),
        "largest_prefix": 3,
        "usage": usage,
        "prefix_size_histogram": histogram,
    }


def quality(before, after=None, strategy="reassign"):
    return {
        "items": sum(before[0]["usage"]),
        "before": {"levels": before},
        "after": {"levels": after or before},
        "resolution": {"strategy": strategy},
    }


def levels(n_levels, codebook_size=4):
    usage = list(range(codebook_size, 0, -1))
    return [level(1 + index, codebook_size, usage, 0.5**index) for index in range(n_levels)]


def words(path):
    """Texts of a figure: glyphs are drawn as paths, with the words in a comment beside them."""
    return re.findall(r"<!-- (.*?) -->", path.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("draw", FIGURES)
def test_bytes_depend_on_the_numbers_alone(draw, tmp_path):
    figures = quality(levels(3), [*levels(2), level(3, 4, [4, 3, 2, 1], 0.3)])
    draw(figures, tmp_path / "one.svg")
    with mpl.rc_context({"font.size": 30, "svg.hashsalt": "other", "axes.facecolor": "red"}):
        draw(figures, tmp_path / "two.svg")
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


@pytest.mark.parametrize("draw", FIGURES)
@pytest.mark.parametrize("n_levels", [1, 8])
def test_every_level_is_drawn(draw, n_levels, tmp_path):
    draw(quality(levels(n_levels)), tmp_path / "figure.svg")
    ElementTree.parse(tmp_path / "figure.svg")
    found = [
        text
        for text in words(tmp_path / "figure.svg")
        if re.fullmatch(r"level \d|\d tokens?", text)
    ]
    assert [int(re.search(r"\d", text)[0]) for text in found] == list(range(1, n_levels + 1))


def test_a_large_codebook_gives_a_small_file(tmp_path):
    usage = sorted((1 + (7 * index) % 1000 for index in range(2048)), reverse=True)
    figures = quality([{**level(1, 65536, usage, 0.5), "used": 65000}])
    plots.code_usage(figures, tmp_path / "usage.svg")
    assert (tmp_path / "usage.svg").stat().st_size < 100_000
    assert any("65,000 of 65,536 codes used" in text for text in words(tmp_path / "usage.svg"))


@pytest.mark.parametrize("draw", FIGURES)
def test_the_key_names_the_quantizer_only_where_it_differs(draw, tmp_path):
    moved = level(2, 4, [3, 3, 2, 2], 0.6, {"1": 10})
    draw(quality(levels(2), [*levels(1), moved]), tmp_path / "moved.svg")
    draw(quality(levels(2)), tmp_path / "same.svg")
    assert any(text.startswith("as quantized") for text in words(tmp_path / "moved.svg"))
    assert not any(text.startswith("as quantized") for text in words(tmp_path / "same.svg"))


def test_a_suffix_has_no_loss(tmp_path):
    suffix = level(3, 2, [9, 1], None, {"1": 10})
    figures = quality(levels(2), [*levels(2), suffix], strategy="suffix")
    plots.reconstruction(figures, tmp_path / "loss.svg")
    texts = words(tmp_path / "loss.svg")
    assert [text for text in texts if "%" in text] == ["100%", "50.0%"]
    assert any("suffix" in text and "not part" in text for text in texts)


def test_bars_are_shares_of_the_prefixes(tmp_path):
    figures = quality([level(1, 4, [5, 5], 0.5, {"1": 1, "2-3": 2, "4-7": 5})])
    plots.prefix_sizes(figures, tmp_path / "sizes.svg")
    shares = [text for text in words(tmp_path / "sizes.svg") if text.endswith("%")]
    assert shares == ["12%", "25%", "62%"]


@pytest.mark.parametrize("draw", FIGURES)
def test_a_failure_leaves_no_file(draw, tmp_path):
    with pytest.raises(KeyError):
        draw(quality([{"level": 1, "codebook_size": 4, "usage": [1]}]), tmp_path / "figure.svg")
    assert list(tmp_path.iterdir()) == []


@given(st.floats(min_value=1e-12, max_value=1, exclude_max=True), st.integers(1, 4))
def test_per_cent_never_rounds_to_none_or_all(share, significant):
    said = plots._percent(share, significant)
    assert said not in ("100%", "0%")
    if not said.startswith("<") and share < 0.99999:
        assert float(said[:-1]) == pytest.approx(100 * share, rel=0.5, abs=1e-4)
        assert 0 < float(said[:-1]) < 100
