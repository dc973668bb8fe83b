"""What the explorer's data promises; tests/workflow/test_explorer_page.py drives the page."""

import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from sidmill.core.errors import SidmillError
from sidmill.formats import code_files, item_text, quantizer_file
from sidmill.quantize import category_level
from sidmill.report import explorer
from sidmill.settings.category_level import CategoryLevel
from sidmill.settings.report import Explorer
from sidmill.settings.sids import Collisions
from sidmill.sids import resolve

TEMPLATE = Path(__file__).parents[2] / "workflow/resources/explorer.html.jinja"


@pytest.fixture
def explore(tmp_path):
    """Write the three inputs and the page; return what write() says and the page's data."""

    def run(sids, codes=None, texts=None, pids=None, text_pids=None, **settings):
        sids = np.asarray(sids, dtype=np.int32)
        codes = sids if codes is None else np.asarray(codes, dtype=np.int32)
        pids = pa.chunked_array([pa.array(range(len(sids)) if pids is None else pids)])
        texts = [f"item {row}" for row in range(len(sids))] if texts is None else texts
        for name, column, rows in (("pid2sid", "sid", sids), ("codes", "codes", codes)):
            sizes = (rows.max(axis=0) + 1).tolist()
            code_files.write(tmp_path / f"{name}.parquet", column, pids, [rows], sizes)
        owners = pids if text_pids is None else pa.chunked_array([pa.array(text_pids)])
        table = pa.table({"pid": owners, "text": pa.array(texts, pa.string())})
        item_text.write(tmp_path / "text.parquet", owners.type, [table])
        sources = explorer.Sources(
            TEMPLATE,
            *(tmp_path / f"{name}.parquet" for name in ("pid2sid", "codes", "text")),
            settings.pop("quantizer", None),
        )
        seed = settings.pop("seed", 0)
        settings = Explorer(**({"title": "catalogue", "max_items": 1000} | settings))
        shown = explorer.write(tmp_path / "page.html", sources, settings, seed)
        page = (tmp_path / "page.html").read_text(encoding="utf-8")
        return shown, Page(page).data, page

    return run


class Page(HTMLParser):
    """Read the page as a browser does: ``data`` is what the data script holds."""

    def __init__(self, page):
        super().__init__()
        self.found, self.inside = [], False
        self.feed(page)
        self.data = json.loads("".join(self.found))

    def handle_starttag(self, tag, attrs):
        self.inside = dict(attrs).get("id") == "data"

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.found.append(data)


def rows_of(data):
    n_levels = len(data["sizes"])
    return [tuple(data["sids"][at : at + n_levels]) for at in range(0, len(data["sids"]), n_levels)]


def test_items_stand_in_sid_order_with_their_own_texts_and_ids(explore, rng):
    sids = rng.integers(0, 4, (60, 3))
    pids = [f"p{row}" for row in range(60)]
    _, data, _ = explore(sids, pids=pids, texts=[f"text of p{row}" for row in range(60)])
    assert rows_of(data) == sorted(map(tuple, sids.tolist()))
    assert data["texts"] == [f"text of {pid}" for pid in data["pids"]]
    of = dict(zip(pids, map(tuple, sids.tolist()), strict=True))
    assert [of[pid] for pid in data["pids"]] == rows_of(data)
    assert data["totals"] is None


def test_no_text_ends_the_script_and_no_digit_is_lost(explore):
    texts = [
        '<script>alert("x")</script><!--',
        "a & b </SCRIPT >",
        "line\u2028and\u2029end",
        "中文",
    ]
    pids = [2**60 + 1, -1, 2**53 + 1, 0]
    _, data, page = explore([[0], [1], [2], [3]], pids=pids, texts=texts, title="<b>R&D</b>")
    assert data["texts"] == texts
    assert data["pids"] == [str(pid) for pid in pids]
    assert page.count("</script") == page.count("<script") == 2
    assert "<h1>&lt;b&gt;R&amp;D&lt;/b&gt;</h1>" in page


def test_the_page_asks_for_nothing(explore):
    _, _, page = explore([[0], [1]])
    assert not re.search(r"""https?:|//[a-z]|@import|\burl\(|\bsrc=""", page)
    assert "default-src 'none'" in page


def test_figures_agree_with_a_count(explore, rng):
    codes = rng.integers(0, 3, (50, 2))
    sids = codes.copy()
    sids[::7, 1] += 3
    shown, data, _ = explore(sids, codes)
    groups = Counter(map(tuple, sids.tolist()))
    assert shown.items == shown.shown == 50
    assert shown.distinct == len(groups)
    assert shown.shared_sids == sum(n > 1 for n in groups.values())
    assert shown.shared_items == sum(n for n in groups.values() if n > 1)
    assert shown.moved_items == 8
    old = {data["pids"][int(row)]: tuple(was) for row, was in data["moved"].items()}
    assert old == {str(row): tuple(codes[row].tolist()) for row in range(0, 50, 7)}


def test_a_suffix_above_zero_numbers_an_item_and_moves_none(explore):
    shown, data, _ = explore([[5, 0], [5, 1], [6, 0]], codes=[[5], [5], [6]])
    assert (shown.moved_items, shown.numbered_items) == (0, 1)
    assert (data["moved"], data["numbered"]) == ({}, [1])
    assert data["code_levels"] == 1


@pytest.mark.parametrize("strategy", ["none", "reassign", "sinkhorn", "suffix"])
def test_moved_means_what_the_resolution_says(explore, rng, strategy):
    codes = rng.integers(0, 4, (60, 2)).astype(np.int32)
    codes[:30] = [1, 1]
    books = [rng.standard_normal((size, 8)).astype(np.float32) for size in (4, 40)]
    vectors = rng.standard_normal((60, 8)).astype(np.float32)
    settings = Collisions(strategy=strategy, suffix_size=64, sinkhorn_epsilon=0.01)
    done = resolve.resolve(codes, [4, 40], vectors, books, np.arange(60), settings)
    shown, _, _ = explore(done.sids, codes)
    assert shown.moved_items == done.cost["items_moved"]
    assert (shown.moved_items > 0) == (strategy in ("reassign", "sinkhorn"))
    assert (shown.numbered_items > 0) == (strategy == "suffix")


def test_a_sample_is_seeded_and_counts_all_items(explore, rng):
    sids = rng.integers(0, 6, (400, 3))
    codes = sids.copy()
    codes[:100, 2] += 6
    shown, data, page = explore(sids, codes, max_items=100, seed=3)
    assert (shown.items, shown.shown) == (400, 100)
    assert len(set(data["pids"])) == 100
    for level in range(3):
        everyone = Counter(tuple(row[: level + 1]) for row in sids.tolist())
        prefixes = dict.fromkeys(row[: level + 1] for row in rows_of(data))
        assert data["totals"][level] == [everyone[prefix] for prefix in prefixes]
    assert any(
        n == Counter(map(tuple, sids.tolist()))[sid] > 1
        for sid, n in Counter(rows_of(data)).items()
    )
    assert data["moved"]
    assert explore(sids, codes, max_items=100, seed=3)[2] == page
    assert explore(sids, codes, max_items=100, seed=4)[1]["pids"] != data["pids"]


def test_one_huge_collision_does_not_fill_a_sample(explore):
    sids = np.zeros((300, 2), dtype=int)
    sids[200:, 0] = 1 + np.arange(100)
    shown, data, _ = explore(sids, max_items=60)
    assert shown.shown == 60
    assert data["totals"][1][0] == 200
    assert len(set(rows_of(data))) > 10


def test_long_texts_are_cut_and_still_told_apart(explore):
    long = "x" * 500
    texts = [long, long + "y", "same", "same", "a", "b"]
    _, data, _ = explore([[0], [0], [1], [1], [2], [3]], texts=texts)
    assert max(map(len, data["texts"])) == explorer.TEXT_CHARACTERS
    assert data["texts"][0].endswith("…")
    assert data["same_text"] == [2]


@pytest.mark.parametrize("text_pids", [[1, 0, 2], [0, 1], [0, 1, 2, 3]])
def test_other_items_are_refused(explore, tmp_path, text_pids):
    texts = ["text"] * len(text_pids)
    with pytest.raises(SidmillError, match="not of the same items in the same order"):
        explore([[0], [1], [2]], texts=texts, text_pids=text_pids)
    assert not (tmp_path / "page.html").exists()


def test_more_text_than_a_row_group(explore, rng):
    n_items = 9000
    sids = rng.integers(0, 20, (n_items, 2))
    _, data, _ = explore(sids, texts=[f"text {row}" for row in range(n_items)], max_items=500)
    assert data["texts"] == [f"text {pid}" for pid in data["pids"]]


def test_first_tokens_have_the_names_of_their_categories(explore, tmp_path, rng):
    vectors = rng.standard_normal((60, 8)).astype(np.float32)
    names = ["</script><b>", *["saws & blades"] * 29, *["glue"] * 30]
    settings = CategoryLevel(field="kind", size=4, min_load=0, max_load=1.0)
    level = category_level.fit(vectors, pa.array(names), settings, {})
    quantizer_file.write(tmp_path / "quantizer.safetensors", level.quantizer)
    sids = np.column_stack([level.codes, np.arange(60)])
    _, data, page = explore(sids, quantizer=tmp_path / "quantizer.safetensors")
    assert data["first_names"] == [
        "</script><b>", "glue (1 of 2)", "glue (2 of 2)", "saws & blades"
    ]  # fmt: skip
    assert "</script><b>" not in page
    named = {data["first_names"][sid[0]].partition(" (")[0] for sid in rows_of(data)}
    assert named == set(names)
    assert explore(sids)[1]["first_names"] is None
