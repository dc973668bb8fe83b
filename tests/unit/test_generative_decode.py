"""Decoding against oracles: plain loops over dictionaries, exact scores, and itself permuted."""

import itertools
import math
import weakref
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from sidmill.core.errors import SidmillError
from sidmill.numeric import sid_trie
from sidmill.recommend.generative import decode


class Case:
    """A catalogue, some users, and scores of tokens that depend on the prefix (or do not)."""

    def __init__(self, seed, n_items, n_users, sizes, with_ties):
        self.rng = np.random.default_rng(seed)
        self.sizes, self.n_users, self.with_ties = sizes, n_users, with_ties
        columns = [self.rng.integers(0, size, n_items) for size in sizes]
        self.codes = np.stack(columns, axis=1).astype(np.int32)
        self.trie = sid_trie.build(self.codes, sizes)
        self.sids = np.unique(self.codes, axis=0)
        # One table of scores per level: (B, prefixes, K_l).
        self.tables = [
            torch.from_numpy(self.draw((n_users, math.prod(sizes[:level]), size)))
            for level, size in enumerate(sizes)
        ]
        self.additive = [torch.from_numpy(self.draw((n_users, size))) for size in sizes]

    def draw(self, shape):
        """Small integers where scores shall tie: their sums are exact."""
        values = self.rng.integers(-2, 2, shape) if self.with_ties else self.rng.normal(size=shape)
        return values.astype(np.float32)

    def token_scores(self, level, prefixes):
        assert prefixes.dtype == torch.int64
        assert prefixes.shape[0] == self.n_users
        rows = torch.zeros(prefixes.shape[:2], dtype=torch.int64)
        for size, column in zip(self.sizes, prefixes.unbind(dim=2), strict=False):
            rows = rows * size + column
        return self.tables[level][torch.arange(self.n_users).unsqueeze(1), rows]

    def oracle(self, user):
        """Score of each SID, one token after the other."""
        scores = []
        for sid in self.sids.tolist():
            score, row = np.float32(0), 0
            for level, code in enumerate(sid):
                score += self.tables[level][user, row, code].numpy()
                row = row * self.sizes[level] + code
            scores.append(score)
        return np.array(scores)


@st.composite
def cases(draw):
    return Case(
        draw(st.integers(0, 2**32 - 1)),
        draw(st.integers(1, 40)),
        draw(st.integers(1, 4)),
        draw(st.lists(st.integers(1, 5), min_size=1, max_size=4)),
        draw(st.booleans()),
    )


def best(scores, k):
    """The k best of (B, S), ties by lower number, as Beams."""
    values, sids = scores.sort(dim=1, descending=True, stable=True)
    values, sids = values[:, :k], sids[:, :k]
    missing = k - values.shape[1]
    pad = torch.nn.functional.pad
    return decode.Beams(
        pad(values, (0, missing), value=-torch.inf), pad(sids, (0, missing), value=-1)
    )


def assert_same(found, wanted):
    assert found.scores.dtype == torch.float32
    for one, two in zip(found, wanted, strict=True):
        assert one.tolist() == two.tolist()


@given(cases(), st.integers(0, 1))
@settings(max_examples=80, deadline=None)
def test_exact_is_the_sum_along_each_sid(case, memory_mb):
    scores = decode.exact(case.trie, case.token_scores, case.n_users, memory_mb)
    assert scores.dtype == torch.float32
    for user in range(case.n_users):
        np.testing.assert_array_equal(scores[user].numpy(), case.oracle(user))


def test_exact_is_the_product_of_softmaxes_over_a_nested_dict():
    """An autoregressive model: probabilities of a random tree, multiplied by hand."""
    case = Case(7, 30, 2, [4, 3, 5], with_ties=False)
    case.tables = [table.log_softmax(dim=2) for table in case.tables]
    tree = {}
    for sid in case.codes.tolist():
        node = tree
        for code in sid:
            node = node.setdefault(code, {})

    def walk(node, prefix, chance, user):
        if len(prefix) == len(case.sizes):
            yield prefix, chance
        row = 0
        for size, code in zip(case.sizes, prefix, strict=False):
            row = row * size + code
        for code in sorted(node):
            odds = case.tables[len(prefix)][user, row].exp().double()
            yield from walk(node[code], (*prefix, code), chance * odds[code].item(), user)

    scores = decode.exact(case.trie, case.token_scores, 2, 1)
    for user in range(2):
        chances = dict(walk(tree, (), 1.0, user))
        assert list(chances) == list(map(tuple, case.sids.tolist()))
        np.testing.assert_allclose(scores[user].exp().numpy(), list(chances.values()), rtol=1e-5)


@given(cases(), st.data())
@settings(max_examples=120, deadline=None)
def test_a_wide_beam_is_exact(case, data):
    k = data.draw(st.integers(1, case.trie.n_sids + 3))
    width = max(k, case.trie.n_sids)
    scores = decode.exact(case.trie, case.token_scores, case.n_users, 1)
    found = decode.beam(case.trie, case.token_scores, case.n_users, width, k)
    assert_same(found, best(scores, k))


@given(cases(), st.data())
@settings(max_examples=120, deadline=None)
def test_a_narrow_beam_is_that_of_a_plain_loop(case, data):
    """Beams of one user at a time, in Python: sort the continuations, keep the first ``width``."""
    width = data.draw(st.integers(1, 6))
    k = data.draw(st.integers(1, width))
    found = decode.beam(case.trie, case.token_scores, case.n_users, width, k)
    number = {tuple(sid): rank for rank, sid in enumerate(case.sids.tolist())}
    for user in range(case.n_users):
        beams = [((), 0, np.float32(0))]
        for level, size in enumerate(case.sizes):
            known = {sid[: level + 1] for sid in number}
            scores = case.tables[level][user]
            longer = [
                (
                    (*prefix, code),
                    row * size + code,
                    score + scores[row, code].numpy(),
                )
                for prefix, row, score in beams
                for code in range(size)
                if (*prefix, code) in known
            ]
            beams = sorted(longer, key=lambda one: (-one[2], one[0]))[:width]
        wanted = [number[prefix] for prefix, _, _ in beams[:k]]
        assert found.sids[user].tolist() == wanted + [-1] * (k - len(wanted))
        assert found.scores[user, : len(wanted)].tolist() == [score for *_, score in beams[:k]]
        assert (found.scores[user, len(wanted) :] == -torch.inf).all()


@given(cases(), st.integers(1, 4))
@settings(max_examples=150, deadline=None)
def test_every_prefix_that_a_model_sees_is_known(case, width):
    known = [{tuple(sid[:depth]) for sid in case.sids.tolist()} for depth in range(len(case.sizes))]

    def token_scores(level, asked):
        for user in asked.tolist():
            prefixes = list(map(tuple, user))
            assert len(set(prefixes)) == len(prefixes)
            assert set(prefixes) <= known[level]
        widths.append(asked.shape[1])
        return case.token_scores(level, asked)

    widths = []
    decode.beam(case.trie, token_scores, case.n_users, width, 1)
    assert widths == [min(width, len(prefixes)) for prefixes in known]
    decode.exact(case.trie, token_scores, case.n_users, 1)


@given(cases(), st.data())
@settings(max_examples=150, deadline=None)
def test_search_is_exact_at_any_width(case, data):
    def token_scores(level, prefixes):
        return case.additive[level].unsqueeze(1).expand(-1, prefixes.shape[1], -1)

    k = data.draw(st.integers(1, case.trie.n_sids + 2))
    width = data.draw(st.integers(k, k + 4))
    scores = decode.exact(case.trie, token_scores, case.n_users, 1)
    assert torch.equal(decode.exact_additive(case.trie, case.additive), scores)
    wanted = best(scores, k)
    assert_same(decode.search(case.trie, case.additive, width, k), wanted)

    # The same by widening alone, until no beam is dropped.
    with mock.patch.object(decode, "_covers", lambda trie, width: width >= 2 * trie.n_sids + k):
        assert_same(decode.search(case.trie, case.additive, width, k), wanted)


def test_a_score_as_high_as_the_bound_is_not_proven():
    """The SID below the dropped prefix has the same score, and is the lower one."""
    trie = sid_trie.build(np.array([[0, 1], [1, 0]]))
    additive = [torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 1.0]])]
    with mock.patch.object(decode, "_covers", return_value=False):
        assert decode.search(trie, additive, 1, 1).sids.tolist() == [[0]]


def test_search_widens_for_the_users_that_need_it_alone(monkeypatch):
    """The first user's best token leads to his worst SID; the other's answer is plain at once."""
    codes = [sid for sid in itertools.product(range(4), repeat=4) if sid[0] or sid == (0, 3, 3, 3)]
    trie = sid_trie.build(np.array(codes))
    first = torch.tensor([[1.0, 0.9, 0.0, 0.0], [0.0, 0.0, 9.0, 0.0]])
    later = torch.tensor([[5.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 9.0]])
    calls, plain = [], decode._search_beams

    def counted(trie, token_scores, n_users, width, *others):
        calls.append((n_users, width))
        return plain(trie, token_scores, n_users, width, *others)

    monkeypatch.setattr(decode, "_search_beams", counted)
    found = decode.search(trie, [first, later, later, later], 1, 1)
    assert sid_trie.codes_of(trie, found.sids).tolist() == [[[1, 0, 0, 0]], [[2, 3, 3, 3]]]
    assert calls == [(2, 1), (1, 2)]


def test_search_takes_users_in_groups(monkeypatch):
    case = Case(3, 40, 4, [5, 5, 5], with_ties=True)
    whole = decode.search(case.trie, case.additive, 3, 3)
    monkeypatch.setattr(decode, "SEARCH_BYTES", 1)
    assert_same(decode.search(case.trie, case.additive, 3, 3), whole)


@given(cases())
@settings(max_examples=60, deadline=None)
def test_permuted_items_and_codes_permute_the_answers(case):
    """Other names for the tokens of each level, and the items in another order."""
    rng = np.random.default_rng(case.rng.integers(2**32))
    names = [rng.permutation(size) for size in case.sizes]  # new code of each code
    order = rng.permutation(len(case.codes))
    codes = np.stack([name[case.codes[order, level]] for level, name in enumerate(names)], axis=1)
    other = sid_trie.build(codes, case.sizes)
    additive = [
        scores[:, np.argsort(name)] for scores, name in zip(case.additive, names, strict=True)
    ]
    scores = [
        decode.exact(trie, decode._constant_scores(rows), case.n_users, 1)[:, trie.sid_of_item]
        for trie, rows in ((case.trie, case.additive), (other, additive))
    ]
    assert torch.equal(scores[0][:, order], scores[1])


@pytest.mark.parametrize("with_ties", [True, False])
def test_unconstrained_is_the_beam_of_a_full_trie(with_ties):
    case = Case(5, 4, 3, [3, 4, 2], with_ties)
    every = np.array(list(itertools.product(*map(range, case.sizes))))
    full = sid_trie.build(every, case.sizes)
    for width in (1, 3, 11, 24, 30):
        found = decode.unconstrained(case.token_scores, case.sizes, 3, width, torch.device("cpu"))
        wanted = decode.beam(full, case.token_scores, 3, width, width)
        assert found.scores.tolist() == wanted.scores.tolist()
        assert found.tokens.tolist() == sid_trie.codes_of(full, wanted.sids).tolist()


def test_the_share_of_illegal_answers():
    trie = sid_trie.build(np.array([[0, 0], [1, 1]]))
    scores = [torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0]])]
    found = decode.unconstrained(
        decode._constant_scores(scores), trie.sizes, 1, 3, torch.device("cpu")
    )
    assert found.tokens.tolist() == [[[0, 0], [0, 1], [1, 0]]]
    assert sid_trie.find(trie, found.tokens).tolist() == [[0, -1, -1]]


def test_scores_of_minus_infinity_are_answers_and_come_last():
    trie = sid_trie.build(np.array([[0], [1], [2]]), [4])
    scores = [torch.tensor([[-torch.inf, 0.0, -torch.inf, 5.0]])]
    found = decode.beam(trie, decode._constant_scores(scores), 1, 4, 4)
    assert found.sids.tolist() == [[1, 0, 2, -1]]
    assert_same(decode.search(trie, scores, 4, 4), found)


def test_a_nan_is_refused():
    trie = sid_trie.build(np.array([[0, 0], [1, 0]]))
    scores = [torch.tensor([[0.0, torch.nan]]), torch.zeros(1, 1)]
    token_scores = decode._constant_scores(scores)
    for run in (
        lambda: decode.exact(trie, token_scores, 1, 1),
        lambda: decode.beam(trie, token_scores, 1, 1, 1),
        lambda: decode.search(trie, scores, 1, 1),
        lambda: decode.exact_additive(trie, scores),
        lambda: decode.unconstrained(token_scores, trie.sizes, 1, 1, torch.device("cpu")),
    ):
        with pytest.raises(SidmillError, match="token scores of level 0 are NaN"):
            run()


def test_no_users_get_no_answers():
    case = Case(0, 9, 0, [3, 3], with_ties=False)
    every = decode.exact(case.trie, case.token_scores, 0, 1)
    assert every.shape == (0, case.trie.n_sids)
    for found in (
        decode.beam(case.trie, case.token_scores, 0, 4, 2),
        decode.search(case.trie, case.additive, 4, 2),
        decode.items_of(case.trie, decode.search(case.trie, case.additive, 4, 4), None, 2),
    ):
        assert [part.shape for part in found] == [(0, 2), (0, 2)]


@pytest.mark.parametrize(("width", "k"), [(0, 0), (3, 0), (3, 4)])
def test_widths_that_cannot_be_are_refused(width, k):
    case = Case(0, 5, 1, [2, 2], with_ties=False)
    with pytest.raises(SidmillError, match=f"{k} answers from {width} beams"):
        decode.beam(case.trie, case.token_scores, 1, width, k)
    with pytest.raises(SidmillError, match=f"{k} answers from {width} beams"):
        decode.search(case.trie, case.additive, width, k)


# From SIDs to items.


@given(cases(), st.data())
@settings(max_examples=100, deadline=None)
def test_items_follow_their_sids_in_their_order(case, data):
    k = data.draw(st.integers(1, 12))
    width = data.draw(st.integers(1, 5))
    beams = decode.beam(case.trie, case.token_scores, case.n_users, width, width)
    order = torch.from_numpy(case.rng.integers(0, 4, len(case.codes)))
    found = decode.items_of(case.trie, beams, order, k)
    for user in range(case.n_users):
        wanted = [
            (item, score)
            for sid, score in zip(
                beams.sids[user].tolist(), beams.scores[user].tolist(), strict=True
            )
            for item in sorted(
                torch.nonzero(case.trie.sid_of_item == sid).flatten().tolist(),
                key=lambda item: (order[item].item(), item),
            )
        ][:k]
        wanted += [(-1, -math.inf)] * (k - len(wanted))
        assert (
            list(zip(found.items[user].tolist(), found.scores[user].tolist(), strict=True))
            == wanted
        )
    ordered = sid_trie.order_items(case.trie, order)
    assert_same(decode.items_of(ordered, beams, None, k), found)


# Memory.


class Allocated(TorchDispatchMode):
    """Bytes of the tensors that operations made, views aside, at most at one time."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.known = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for part in made if isinstance(made, tuple | list) else [made]:
            storage = part.untyped_storage() if isinstance(part, torch.Tensor) else None
            if storage is not None and storage._cdata not in self.known:
                self.known.add(storage._cdata)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self.release, storage._cdata, storage.nbytes())
        return made

    def release(self, number, n_bytes):
        self.known.discard(number)
        self.now -= n_bytes


@pytest.mark.parametrize("memory_mb", [4, 16])
def test_exact_stays_within_its_memory(memory_mb):
    """Blocks of a trie of 262,144 SIDs, of which the last level alone would take 24 MiB."""
    codes = np.array(list(itertools.product(range(64), repeat=3)), dtype=np.int32)
    trie = sid_trie.build(codes)
    n_users, most = 8, 0

    def token_scores(level, prefixes):
        nonlocal most
        most = max(most, prefixes.shape[1])
        return torch.zeros(n_users, prefixes.shape[1], trie.sizes[level])

    with Allocated() as allocated:
        scores = decode.exact(trie, token_scores, n_users, memory_mb)
    assert scores.shape == (n_users, 64**3)
    assert 1 < most < 4096
    result = 4 * n_users * trie.n_sids
    assert result + 2**20 < allocated.peak < result + memory_mb * 2**20


def test_a_root_of_many_children_does_not_square_them():
    """20 beams at a root of 2,000 tokens: 2,000 candidates, then 20 beams with one child each."""
    rng = np.random.default_rng(0)
    codes = np.stack([np.arange(2000), rng.integers(0, 2000, 2000)], axis=1)
    trie = sid_trie.build(codes, [2000, 2000])
    additive = [torch.from_numpy(rng.normal(size=(1, 2000)).astype(np.float32)) for _ in range(2)]
    shapes = []
    plain = decode._children

    def watched(*given):
        shapes.append(plain(*given)[1].shape)
        return plain(*given)

    decode._children = watched
    try:
        decode.beam(trie, decode._constant_scores(additive), 1, 20, 20)
    finally:
        decode._children = plain
    assert shapes == [(1, 2000), (1, 20)]


@pytest.mark.gpu
def test_a_gpu_gives_the_same_answers():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    for seed in range(20):
        case = Case(seed, 200, 6, [7, 6, 5], with_ties=True)
        moved = [level.cuda() for level in case.additive]
        trie = case.trie.to("cuda")
        scores = decode._constant_scores(case.additive), decode._constant_scores(moved)
        here = decode.beam(case.trie, scores[0], 6, 9, 5)
        there = decode.beam(trie, scores[1], 6, 9, 5)
        assert_same(decode.Beams(*(part.cpu() for part in there)), here)
        there = decode.search(trie, moved, 5, 5)
        assert_same(
            decode.Beams(*(part.cpu() for part in there)),
            decode.search(case.trie, case.additive, 5, 5),
        )
        lists = decode.items_of(trie, there, torch.arange(200).cuda(), 8)
        assert (
            lists.items.cpu().tolist()
            == decode.items_of(
                case.trie, decode.Beams(*(part.cpu() for part in there)), torch.arange(200), 8
            ).items.tolist()
        )
