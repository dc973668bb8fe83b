"""What every collision strategy of the registry promises, whichever it is."""

import numpy as np
import pyarrow as pa
import pytest
from conftest import ROOT

from sidmill.core import provenance
from sidmill.core.errors import SidmillError
from sidmill.formats import code_files
from sidmill.numeric import residual_codec
from sidmill.settings import registry
from sidmill.settings.sids import Collisions
from sidmill.sids.published_sids import Kept
from sidmill.sids.resolve import resolve

NAMES = list(registry.STRATEGIES)
SIZES = [3, 4, 5]
BOOKS = [
    (np.random.default_rng(level).standard_normal((size, 3)) / 2**level).astype(np.float32)
    for level, size in enumerate(SIZES)
]


def catalogue(n_items, seed=0):
    """Vectors that fall together often, and their codes."""
    rng = np.random.default_rng(seed)
    kinds = rng.standard_normal((max(n_items // 2, 1), 3)).astype(np.float32)
    vectors = kinds[rng.integers(0, len(kinds), n_items)]
    blocks = residual_codec.encode(vectors, BOOKS, device="cpu", memory_mb=64)
    return vectors, np.concatenate(list(blocks))


def run(name, vectors, codes, kept=None, **settings):
    settings = Collisions(strategy=name, **settings)
    return resolve(codes, SIZES, vectors, BOOKS, np.arange(len(codes)), settings, kept)


def kept_of(name, codes, held, fixed):
    """The first ``fixed`` items keep the first held SIDs; the others are of items that are gone."""
    n_tokens = codes.shape[1] + registry.STRATEGIES[name].extra_tokens
    held = np.column_stack([held, np.zeros((len(held), n_tokens - held.shape[1]), np.int32)])
    sids = np.zeros((len(codes), n_tokens), np.int32)
    sids[:fixed] = held[:fixed]
    mask = np.arange(len(codes)) < fixed
    return Kept(sids, mask, np.zeros(len(codes), bool), held)


def test_a_last_token_does_not_depend_on_the_order_of_the_catalogue():
    vectors, codes = catalogue(40)
    rng = np.random.default_rng(1)
    for ids in (rng.permutation(1000)[:40].tolist(), [f"p{row}" for row in range(40)]):
        found = []
        for order in (np.arange(40), rng.permutation(40)):
            some = pa.chunked_array([pa.array(ids).take(pa.array(order))])
            settings = Collisions(strategy="suffix")
            sids = resolve(
                codes[order], SIZES, vectors[order], BOOKS, None, settings, ids=some
            ).sids
            found.append(dict(zip(some.to_pylist(), map(tuple, sids.tolist()), strict=True)))
        assert found[0] == found[1]
        assert max(sid[-1] for sid in found[0].values()) > 0


@pytest.mark.parametrize("name", NAMES)
def test_the_same_input_gives_the_same_bytes(tmp_path, name):
    vectors, codes = catalogue(40)
    written = []
    for number in range(2):
        done = run(name, vectors.copy(), codes.copy())
        path = tmp_path / f"{number}.parquet"
        code_files.write(path, "sid", pa.chunked_array([range(40)]), [done.sids], done.sizes)
        written.append((path.read_bytes(), done.cost))
    assert written[0] == written[1]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(4))
def test_sids_are_in_the_order_of_the_items_in_range_and_distinct(name, seed):
    vectors, codes = catalogue(40, seed)
    done = run(name, vectors, codes)
    entry = registry.STRATEGIES[name]
    assert done.sids.dtype == np.int32
    assert done.sids.shape == (40, 3 + entry.extra_tokens)
    assert len(done.sizes) == done.sids.shape[1]
    assert ((done.sids >= 0) & (done.sids < done.sizes)).all()
    assert (len(np.unique(done.sids, axis=0)) == 40) is entry.is_distinct

    # An item whose codes no other item has keeps them, in its own row.
    _, inverse, counts = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
    alone = counts[inverse] == 1
    assert alone.any()
    np.testing.assert_array_equal(done.sids[alone, :3], codes[alone])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fixed", [0, 5, 12])
def test_published_sids_never_move_and_are_given_to_no_other_item(name, fixed):
    vectors, codes = catalogue(30)
    rng = np.random.default_rng(1)
    held = np.stack(np.unravel_index(rng.permutation(60)[:12], SIZES), 1).astype(np.int32)
    kept = kept_of(name, codes, held, fixed)
    done = run(name, vectors, codes, kept)
    np.testing.assert_array_equal(done.sids[:fixed], kept.held[:fixed])
    if registry.STRATEGIES[name].is_distinct:
        others = set(map(tuple, done.sids[fixed:].tolist()))
        assert len(others) == 30 - fixed
        assert others.isdisjoint(map(tuple, kept.held.tolist()))


@pytest.mark.parametrize("name", NAMES)
def test_the_cost_is_reported(name):
    vectors, codes = catalogue(40)
    sids, _, cost = run(name, vectors, codes)
    moved = (sids[:, :3] != codes).any(axis=1)
    assert (cost["strategy"], cost["identical_text"]) == (name, "separate")
    assert cost["items_moved"] == moved.sum()
    assert sum(cost["moved_by_level"]) == moved.sum()
    errors = [
        np.square(vectors.astype(np.float64) - residual_codec.decode(some, BOOKS)).mean()
        for some in (codes, sids[:, :3])
    ]
    assert cost["added_mse"] == pytest.approx(errors[1] - errors[0], abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_one_item_has_the_sid_of_its_codes(name):
    vectors, codes = catalogue(1)
    done = run(name, vectors, codes)
    extra = [0] * registry.STRATEGIES[name].extra_tokens
    assert done.sids.tolist() == [[*codes[0].tolist(), *extra]]
    assert done.cost["items_moved"] == 0


@pytest.mark.parametrize("name", NAMES)
def test_items_that_are_all_equal_fill_the_code_space(name):
    """As many items as there are codes, all of one vector: the worst that can be placed."""
    vectors = np.ones((60, 3), np.float32)
    codes = np.tile(catalogue(1)[1], (60, 1))
    done = run(name, vectors, codes, suffix_size=60)
    if registry.STRATEGIES[name].is_distinct:
        assert len(np.unique(done.sids, axis=0)) == 60
    else:
        np.testing.assert_array_equal(done.sids, codes)


@pytest.mark.parametrize("name", NAMES)
def test_more_items_than_sids_are_refused_with_the_setting_to_change(name):
    vectors, codes = np.ones((61, 3), np.float32), np.tile(catalogue(1)[1], (61, 1))
    if not registry.STRATEGIES[name].is_distinct:
        assert len(run(name, vectors, codes, suffix_size=60).sids) == 61
        return
    with pytest.raises(SidmillError, match=r"collisions\.(strategy to none or suffix|suffix_size)"):
        run(name, vectors, codes, suffix_size=60)


@pytest.mark.parametrize("name", NAMES)
def test_given_sids_have_every_strategy_but_those_that_need_codebooks(name):
    codes = catalogue(20)[1]
    settings = Collisions(strategy=name)
    if registry.STRATEGIES[name].needs_codebooks:
        with pytest.raises(SidmillError, match="given SIDs have none"):
            resolve(codes, SIZES, None, [], None, settings)
        return
    done = resolve(codes, SIZES, None, [], None, settings)
    assert done.cost["added_mse"] is None
    assert (len(np.unique(done.sids, axis=0)) == 20) is registry.STRATEGIES[name].is_distinct


@pytest.mark.parametrize("name", NAMES)
def test_the_code_of_a_strategy_is_part_of_what_its_rule_depends_on(name):
    script = ROOT / "workflow/scripts/resolve_collisions.py"
    module = registry.STRATEGIES[name].function.partition(":")[0]
    assert module in provenance.sources(script, {"strategy": name})
