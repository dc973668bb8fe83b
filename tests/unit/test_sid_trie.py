"""The trie of SIDs in arrays: built, searched, written, read back, refused."""

import json
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file

from sidmill.core import checksums
from sidmill.core.errors import SidmillError
from sidmill.formats import code_files, trie_file
from sidmill.io import tensors
from sidmill.numeric import sid_trie

CODES = np.array([[1, 0, 2], [0, 1, 1], [1, 0, 2], [1, 0, 0], [0, 1, 1], [0, 0, 1]], np.int32)
SIZES = (2, 2, 3)


@st.composite
def catalogues(draw):
    """Codes and sizes: few codes, so that many items share a prefix or a SID."""
    sizes = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    n_items = draw(st.integers(1, 50))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return np.stack([rng.integers(0, size, n_items) for size in sizes], axis=1), sizes


def prefixes_of(trie):
    """Every prefix of the trie, depth by depth, by a walk over parents and children."""
    depths = [[()]]
    for tokens, offsets in zip(trie.tokens, trie.first_child, strict=True):
        bounds, tokens = offsets.tolist(), tokens.tolist()
        depths.append(
            [
                (*prefix, token)
                for node, prefix in enumerate(depths[-1])
                for token in tokens[bounds[node] : bounds[node + 1]]
            ]
        )
    return depths


@given(catalogues())
@settings(max_examples=60, deadline=None)
def test_nodes_are_the_prefixes_in_lexicographic_order(catalogue):
    codes, sizes = catalogue
    trie = sid_trie.build(codes, sizes)
    for depth, prefixes in enumerate(prefixes_of(trie)):
        assert prefixes == sorted({tuple(row[:depth]) for row in codes.tolist()})
    leaves = sid_trie.codes_of(trie, trie.sid_of_item)
    assert leaves.tolist() == codes.tolist()
    assert (trie.sizes, trie.n_levels, trie.n_items) == (tuple(sizes), len(sizes), len(codes))


@given(catalogues())
@settings(max_examples=60, deadline=None)
def test_items_of_a_sid_are_those_that_have_it(catalogue):
    codes, sizes = catalogue
    trie = sid_trie.build(codes, sizes)
    bounds = trie.first_item.tolist()
    for sid, code in enumerate(np.unique(codes, axis=0)):
        wanted = np.flatnonzero((codes == code).all(axis=1))
        assert trie.items[bounds[sid] : bounds[sid + 1]].tolist() == wanted.tolist()

    order = torch.from_numpy(np.random.default_rng(0).integers(0, 3, len(codes)))
    ordered = sid_trie.order_items(trie, order)
    for sid in range(trie.n_sids):
        found = ordered.items[bounds[sid] : bounds[sid + 1]].tolist()
        known = trie.items[bounds[sid] : bounds[sid + 1]].tolist()
        assert found == sorted(known, key=lambda item: (order[item], item))


@given(catalogues())
@settings(max_examples=60, deadline=None)
def test_find_knows_the_sids_of_items_and_no_others(catalogue):
    codes, sizes = catalogue
    trie = sid_trie.build(codes, sizes)
    number = {tuple(sid): rank for rank, sid in enumerate(np.unique(codes, axis=0).tolist())}
    every = np.stack(np.meshgrid(*[np.arange(-1, size + 1) for size in sizes], indexing="ij"), -1)
    wanted = [number.get(tuple(sid), -1) for sid in every.reshape(-1, len(sizes)).tolist()]
    found = sid_trie.find(trie, torch.from_numpy(every))
    assert found.flatten().tolist() == wanted
    assert (sid_trie.codes_of(trie, found)[found < 0] == -1).all()


def test_step_leads_from_no_node_nowhere():
    trie = sid_trie.build(CODES, SIZES)
    nodes = sid_trie.step(trie, 0, torch.tensor([0, 0, -1, 0]), torch.tensor([0, 1, 0, 7]))
    assert nodes.tolist() == [0, 1, -1, -1]


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64, np.uint16])
def test_any_integers_and_layout_give_the_same_trie(dtype):
    trie = sid_trie.build(CODES, SIZES)
    other = sid_trie.build(np.asfortranarray(CODES.astype(dtype)))
    assert other.sizes == SIZES
    for one, two in zip(parts(trie), parts(other), strict=True):
        assert one.dtype == two.dtype
        assert one.tolist() == two.tolist()


def parts(trie):
    return [*trie.tokens, *trie.first_child, trie.sid_of_item, trie.first_item, trie.items]


def test_dtypes_are_those_of_the_file():
    trie = sid_trie.build(CODES, SIZES)
    assert {part.dtype for part in trie.tokens} == {torch.int32}
    assert {part.dtype for part in parts(trie)[3:]} == {torch.int64}
    moved = trie.to("cpu")
    assert (moved.n_sids, moved.device) == (trie.n_sids, torch.device("cpu"))


@pytest.mark.parametrize(
    ("codes", "sizes", "message"),
    [
        (np.empty((0, 3), np.int32), SIZES, "0 SIDs of 3 levels"),
        (CODES[:, :0], [], "6 SIDs of 0 levels"),
        (CODES, (2, 2), "2 sizes for SIDs of 3 levels"),
        (CODES, (2, 2, 2), "code 2 of level 2 is outside"),
        (CODES - 1, SIZES, "code -1 of level 0 is outside"),
    ],
)
def test_codes_that_make_no_trie_are_refused(codes, sizes, message):
    with pytest.raises(SidmillError, match=message):
        sid_trie.build(codes, sizes)


def test_memory_of_building_is_some_tens_of_bytes_an_item():
    codes = np.random.default_rng(0).integers(0, 256, (200_000, 4), dtype=np.int32)
    tracemalloc.start()
    try:
        trie = sid_trie.build(codes, [256] * 4)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert trie.n_sids > 190_000
    assert peak < 100 * len(codes)


# The file.


@pytest.fixture
def written(tmp_path):
    import pyarrow as pa

    ids = pa.chunked_array([pa.array([f"item {row}" for row in range(len(CODES))])])
    code_files.write(tmp_path / "pid2sid.parquet", "sid", ids, [CODES], list(SIZES))
    trie = sid_trie.build(CODES, SIZES)
    trie_file.write(tmp_path / "trie.safetensors", trie, tmp_path / "pid2sid.parquet")
    return tmp_path / "trie.safetensors"


def test_a_trie_is_read_as_it_was_written(written):
    trie = trie_file.read(written, written.with_name("pid2sid.parquet"))
    assert trie.sizes == SIZES
    for one, two in zip(parts(trie), parts(sid_trie.build(CODES, SIZES)), strict=True):
        assert one.dtype == two.dtype
        assert one.tolist() == two.tolist()


def test_equal_tries_are_equal_bytes(written):
    first = written.read_bytes()
    again = sid_trie.order_items(sid_trie.build(CODES, SIZES), torch.zeros(6, dtype=torch.int64))
    trie_file.write(written, again, written.with_name("pid2sid.parquet"))
    assert written.read_bytes() == first
    assert [path.name for path in written.parent.iterdir() if path.name.startswith(".")] == []


def test_a_reader_with_safetensors_alone_finds_the_items_of_a_sid(written):
    """The steps that docs/formats.md gives for a server in another language."""
    arrays = load_file(written)
    with safe_open(written, framework="numpy") as file:
        facts = json.loads(file.metadata()["sidmill"])
    assert (facts["kind"], facts["version"], facts["sizes"]) == ("sid_trie", 1, list(SIZES))
    assert facts["forms"]["lcrec"]["token"] == "<{letter}_{code}>"
    assert facts["pid2sid"] == checksums.of_file(written.with_name("pid2sid.parquet"))

    node = 0
    for level, token in enumerate([1, 0, 2]):
        first, last = arrays[f"first_child.{level}"][node : node + 2]
        node = first + arrays[f"tokens.{level}"][first:last].tolist().index(token)
    first, last = arrays["first_item"][node : node + 2]
    assert arrays["items"][first:last].tolist() == [0, 2]


def test_a_trie_of_other_items_is_refused(written, tmp_path):
    other = tmp_path / "other.parquet"
    other.write_bytes(b"other")
    with pytest.raises(SidmillError, match=r"was not made of .*other\.parquet"):
        trie_file.read(written, other)


@pytest.mark.parametrize("place", [3, 100, -1])
def test_a_flipped_bit_is_refused(written, place):
    content = bytearray(written.read_bytes())
    content[place] ^= 1
    written.write_bytes(content)
    with pytest.raises(SidmillError, match=r"trie\.safetensors"):
        trie_file.read(written)


def test_a_cut_or_a_missing_file_is_refused(written):
    written.write_bytes(written.read_bytes()[:-9])
    with pytest.raises(SidmillError, match="not a readable trie of SIDs"):
        trie_file.read(written)
    written.unlink()
    with pytest.raises(SidmillError, match="no such file"):
        trie_file.read(written)


def change(name, place, value):
    def apply(arrays, _):
        arrays[name][place] = value

    return apply


WRONG = {
    "another kind": (lambda _, facts: facts.update(kind="quantizer"), "holds no trie of SIDs"),
    "a newer version": (lambda _, facts: facts.update(version=2), "version 2, this SIDMill"),
    "no sizes": (lambda _, facts: facts.pop("sizes"), "arrays are not those"),
    "sizes of words": (lambda _, facts: facts.update(sizes="232"), "arrays are not those"),
    "a level too many": (lambda _, facts: facts.update(sizes=[2, 2, 3, 1]), "arrays are not"),
    "too small a size": (lambda _, facts: facts.update(sizes=[2, 2, 2]), r"tokens\.2 do not"),
    "no items": (lambda arrays, _: arrays.pop("items"), "arrays are not those"),
    "floats": (lambda arrays, _: arrays.update(items=np.ones(6, np.float32)), "arrays are not"),
    "falling tokens": (change("tokens.0", 0, 1), r"tokens\.0 do not ascend"),
    "a token below 0": (change("tokens.1", 0, -1), r"tokens\.1 do not ascend"),
    "a node without children": (change("first_child.2", 1, 0), r"first_child\.2 are not"),
    "offsets that end early": (change("first_child.1", -1, 2), r"first_child\.1 are not"),
    "an item twice": (change("items", 0, 0), "does not hold each item once"),
    "an item beyond the last": (change("items", 0, 6), r"items leave \[0, 6\)"),
    "a SID without items": (change("first_item", 1, 0), "first_item are not the offsets"),
    "an item of another SID": (change("sid_of_item", 0, 1), "sid_of_item and items differ"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_file_that_is_no_such_trie_is_refused(written, case):
    """Files with a right digest: what another program may have written."""
    damage, message = WRONG[case]
    arrays, facts = tensors.read(written, "trie")
    damage(arrays, facts)
    tensors.write(written, arrays, facts)
    with pytest.raises(SidmillError, match=message):
        trie_file.read(written)
