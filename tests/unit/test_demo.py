"""The demo catalogue: reproducible, well formed, its structure there but not for free."""

import json
import re
from collections import Counter
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from sidmill.core.errors import SidmillError
from sidmill.items import demo
from sidmill.settings.items import Demo

CHINESE = re.compile("[\u4e00-\u9fff]")
TOKEN = re.compile("[\u4e00-\u9fff]+|[a-z0-9]+")


@pytest.fixture(scope="module")
def catalogue():
    return demo.make(Demo(n_items=1000, n_users=100), seed=7)


@pytest.fixture(scope="module")
def items(catalogue):
    return catalogue[0]


@pytest.fixture(scope="module")
def histories(catalogue):
    return catalogue[1]


def text(item):
    return f"{item.get('title') or ''}\n{item.get('description') or ''}".strip()


def tokens(words):
    """Words, and for Chinese runs of one and two characters."""
    found = []
    for word in TOKEN.findall(words.lower()):
        found += [*word, *map("".join, pairwise(word))] if CHINESE.match(word) else [word]
    return found


def written(folder, seed):
    paths = folder / f"items-{seed}.jsonl", folder / f"interactions-{seed}.jsonl"
    demo.write(*paths, Demo(n_items=100, n_users=10), seed=seed)
    return [path.read_bytes() for path in paths]


def test_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    first, second = written(tmp_path, 1), written(tmp_path, 1)
    other = written(tmp_path, 2)
    assert first == second
    assert first[0] != other[0]
    assert first[1] != other[1]


def test_files_hold_what_make_gives(tmp_path):
    expected = demo.make(Demo(n_items=100, n_users=10), seed=1)
    for content, rows in zip(written(tmp_path, 1), expected, strict=True):
        assert [json.loads(line) for line in content.decode().splitlines()] == rows
        assert b"\\u4e" not in content
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "interactions-1.jsonl",
        "items-1.jsonl",
    ]


@pytest.mark.parametrize("n_items", [50, 51, 333])
def test_any_size_from_the_smallest_up(n_items):
    items, histories = demo.make(Demo(n_items=n_items, n_users=20), seed=3)
    assert [item["item_id"] for item in items] == list(range(1, n_items + 1))
    assert [history["user_id"] for history in histories] == list(range(1, 21))
    assert len({tuple(item["categories"]) for item in items}) >= 5
    assert len({item["categories"][0] for item in items}) >= 2
    assert all(5 <= len(history["item_ids"]) <= 60 for history in histories)


@pytest.mark.parametrize(
    ("n_items", "n_users", "advice"),
    [(49, 5, "raise n_items to 50"), (0, 5, "raise n_items"), (50, 0, "raise n_users to 1")],
)
def test_too_small_says_what_to_do(n_items, n_users, advice):
    with pytest.raises(SidmillError, match=advice):
        demo.make(Demo(n_items=n_items, n_users=n_users), seed=1)


def test_every_item_has_text_and_three_levels(items):
    for item in items:
        assert text(item)
        assert len(item["categories"]) == 3
        assert "{" not in text(item)
        assert not re.search(r"<\d", text(item))


def test_fields_are_untidy_here_and_there(items):
    assert 0 < sum(item["title"] is None for item in items) < 30
    assert any(item.get("description", "") is None for item in items)
    assert any("description" not in item for item in items)
    assert any(item["brand"] is None for item in items)
    for oddity in ("&nbsp;", "&amp;", "<br>", "\u00a0", "\u3000", "  "):
        assert any(oddity in text(item) for item in items), oddity
    lengths = sorted(len(item.get("description") or "") for item in items)
    assert lengths[0] == 0
    assert lengths[-1] > 600


def test_some_texts_stand_under_two_ids_of_one_leaf(items):
    leaves = {}
    for item in items:
        leaves.setdefault(text(item), []).append(tuple(item["categories"]))
    repeated = [found for found in leaves.values() if len(found) > 1]
    assert 6 <= sum(len(found) - 1 for found in repeated) <= 12
    assert all(len(set(found)) == 1 for found in repeated)


def test_chinese_share_and_shared_tree(items):
    chinese = [item for item in items if CHINESE.search(text(item))]
    assert 0.12 < len(chinese) / len(items) < 0.18
    english_leaves = {tuple(item["categories"]) for item in items if item not in chinese}
    assert {tuple(item["categories"]) for item in chinese} <= english_leaves


def test_a_brand_spans_few_branches(items):
    branches = {}
    for item in items:
        if item["brand"]:
            branches.setdefault(item["brand"], set()).add(tuple(item["categories"][:2]))
    assert {len(found) for found in branches.values()} <= {1, 2, 3}


def test_id_order_says_nothing_of_the_category(items):
    departments = [item["categories"][0] for item in items]
    chance = sum((count / len(items)) ** 2 for count in Counter(departments).values())
    neighbours = np.mean([one == two for one, two in pairwise(departments)])
    assert abs(neighbours - chance) < 0.05


def test_histories_run_through_2025(items, histories):
    for history in histories:
        ids, seconds = history["item_ids"], history["timestamps"]
        assert 5 <= len(ids) == len(seconds) <= 60
        assert len(set(ids)) == len(ids)
        assert min(ids) >= 1
        assert max(ids) <= len(items)
        assert all(earlier < later for earlier, later in pairwise(seconds))
        assert {datetime.fromtimestamp(at, UTC).year for at in (seconds[0], seconds[-1])} == {2025}


def test_histories_are_coherent_beyond_chance(items, histories):
    branch = {item["item_id"]: tuple(item["categories"][:2]) for item in items}
    seen = Counter(branch[one] for history in histories for one in history["item_ids"])
    chance = sum((count / seen.total()) ** 2 for count in seen.values())
    kept = np.mean(
        [
            branch[one] == branch[two]
            for history in histories
            for one, two in pairwise(history["item_ids"])
        ]
    )
    assert chance < 0.15
    assert 0.6 < kept < 0.97


def test_popularity_is_skewed(items, histories):
    counts = Counter(one for history in histories for one in history["item_ids"])
    top = sum(count for _, count in counts.most_common(len(items) // 10))
    assert top > 0.2 * counts.total()


@pytest.fixture(scope="module")
def neighbours(items):
    vectors = TfidfVectorizer(analyzer=tokens, sublinear_tf=True).fit_transform(map(text, items))
    similar = (vectors @ vectors.T).toarray()
    np.fill_diagonal(similar, -1)
    return np.argpartition(-similar, 10, axis=1)[:, :10]


@pytest.mark.parametrize(
    ("level", "least", "most"), [(1, 0.6, 0.9), (2, 0.45, 0.85), (3, 0.3, 0.8)]
)
def test_planted_tree_is_found_again_but_not_for_free(items, neighbours, level, least, most):
    names = ["/".join(item["categories"][:level]) for item in items]
    labels = np.unique(names, return_inverse=True)[1]
    purity = (labels[neighbours] == labels[:, None]).mean()
    chance = ((np.bincount(labels) / len(items)) ** 2).sum()
    assert purity > 3 * chance
    assert least < purity < most
