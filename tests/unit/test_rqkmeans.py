"""What fit() promises, checked without knowing how it works; faiss is the yardstick."""

import re
from dataclasses import replace

import faiss
import numpy as np
import pytest
import torch

from sidmill.core.errors import SidmillError
from sidmill.numeric import arrays, relative_scores, residual_codec
from sidmill.numeric.row_pieces import Piece
from sidmill.quantize import codebook_sizes, lloyd, rqkmeans, split_merge, training_devices
from sidmill.settings.quantize import Rqkmeans

SETTINGS = Rqkmeans(
    n_levels=3, codebook_size=4, n_iter=20, tolerance=1e-4, device="cpu", memory_mb=64
)

DEVICES = {"numpy": arrays.HOST, "torch": torch.device("cpu")}


def fit(vectors, seed=0, **changes):
    return rqkmeans.fit(vectors, replace(SETTINGS, **changes), seed=seed).codebooks


@pytest.fixture(autouse=True)
def _one_thread():
    """Small matrices: threads would only wait for each other."""
    before = torch.get_num_threads(), faiss.omp_get_max_threads()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    yield
    torch.set_num_threads(before[0])
    faiss.omp_set_num_threads(before[1])


@pytest.fixture(params=DEVICES, autouse=True)
def computes(request, monkeypatch):
    """What fit() promises holds whichever of the two computes: its name."""
    is_numpy = request.param == "numpy"
    monkeypatch.setattr(training_devices, "suits_numpy", lambda *_: is_numpy)
    return request.param


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def errors(vectors, codebooks):
    """Mean squared error before the first level, and after each."""
    codes = np.concatenate(
        list(residual_codec.encode(vectors, codebooks, device="cpu", memory_mb=64))
    )
    return [
        float(
            np.square(vectors - residual_codec.decode(codes[:, :n], codebooks)).mean(
                dtype=np.float64
            )
        )
        for n in range(len(codebooks) + 1)
    ]


def faiss_codebooks(vectors, sizes, n_iter, seed):
    left, codebooks = vectors.copy(), []
    for size in sizes:
        kmeans = faiss.Kmeans(
            left.shape[1],
            size,
            niter=n_iter,
            seed=seed,
            max_points_per_centroid=len(left),
            min_points_per_centroid=1,
        )
        kmeans.train(left)
        codebooks.append(kmeans.centroids)
        left -= kmeans.centroids[kmeans.index.search(left, 1)[1][:, 0]]
    return codebooks


def planted(seed, n_rows=2000, n_groups=16, dim=24, noise=0.1):
    random = np.random.default_rng(seed)
    centres = random.standard_normal((n_groups, dim))
    labels = random.integers(n_groups, size=n_rows)
    vectors = centres[labels] + noise * random.standard_normal((n_rows, dim))
    return vectors.astype(np.float32), labels


def test_each_level_explains_more():
    vectors = normal(0, 500, 8)
    found = errors(vectors, fit(vectors))
    assert found == sorted(set(found), reverse=True)


def test_no_error_rises_even_where_nothing_is_left():
    vectors = np.repeat(normal(1, 5, 8), 40, axis=0)  # five distinct rows
    found = errors(vectors, fit(vectors, codebook_size=8))
    assert found[1] < 1e-10
    assert found[2] <= found[1]
    assert found[3] <= found[2]


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("kind", ["noise", "planted", "mixed sizes"])
def test_error_is_at_most_that_of_faiss(kind, seed):
    vectors = planted(seed)[0] if kind == "planted" else normal(seed, 2000, 24)
    sizes = [16, 8, 12] if kind == "mixed sizes" else [16, 16, 16]
    ours = fit(vectors, codebook_size=sizes, seed=seed)
    theirs = faiss_codebooks(vectors, sizes, SETTINGS.n_iter, seed)
    for level, (mine, yardstick) in enumerate(
        zip(errors(vectors, ours), errors(vectors, theirs), strict=True)
    ):
        assert mine <= yardstick, f"level {level}"


@pytest.mark.parametrize("offset", [0, 30])
def test_products_of_bfloat16_cost_no_error(monkeypatch, offset):
    """Also far from the origin, where bfloat16 alone could not tell the scores apart."""
    vectors = normal(5, 3000, 24) + np.float32(offset)
    found = []
    for multiplies in (False, True):
        monkeypatch.setattr(relative_scores, "_multiplies_bfloat16", lambda is_so=multiplies: is_so)
        codebooks = fit(vectors, codebook_size=128, n_levels=2, device="cpu,cpu")
        found.append((errors(vectors, codebooks), b"".join(book.tobytes() for book in codebooks)))
    (plain, bytes_of_plain), (relative, bytes_of_relative) = found
    assert bytes_of_relative != bytes_of_plain
    np.testing.assert_allclose(relative[1:], plain[1:], rtol=0.01)


@pytest.mark.parametrize("seed", range(5))
def test_first_code_is_the_planted_group(seed):
    vectors, labels = planted(seed)
    codebooks = fit(vectors, n_levels=1, codebook_size=16, seed=seed)
    codes = np.concatenate(
        list(residual_codec.encode(vectors, codebooks, device="cpu", memory_mb=64))
    )
    assert len(set(zip(labels.tolist(), codes[:, 0].tolist(), strict=True))) == 16


def test_a_row_at_the_mean_does_not_take_every_row():
    """In 256 dimensions a zero row is nearer to every row than any other row is."""
    vectors = normal(2, 4000, 256)
    vectors[::2] *= np.float32(1e-4)
    codebooks = fit(vectors, n_levels=1, codebook_size=32)
    theirs = faiss_codebooks(vectors, [32], 20, 0)
    assert errors(vectors, codebooks)[1] <= errors(vectors, theirs)[1]


def test_same_seed_same_bytes_and_another_seed_others():
    vectors = normal(3, 600, 8)
    once, again, other = (np.stack(fit(vectors, seed=seed)).tobytes() for seed in (1, 1, 2))
    assert once == again
    assert once != other


def test_a_level_depends_on_no_later_one():
    vectors = normal(4, 600, 8)
    short = fit(vectors, n_levels=2)
    long = fit(vectors, n_levels=3)
    np.testing.assert_array_equal(np.stack(short), np.stack(long[:2]))


def test_one_size_per_level():
    codebooks = fit(normal(5, 300, 8), codebook_size=[4, 300, 2])
    assert [words.shape for words in codebooks] == [(4, 8), (300, 8), (2, 8)]
    assert {words.dtype for words in codebooks} == {np.dtype(np.float32)}


def test_as_many_codewords_as_rows_leave_no_error():
    vectors = normal(6, 100, 16)
    codebooks = fit(vectors, n_levels=1, codebook_size=100)
    assert errors(vectors, codebooks)[1] < 1e-6


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_memory_map_gives_the_same_bytes_as_an_array(tmp_path, dtype):
    vectors = normal(7, 700, 8).astype(dtype)
    np.save(tmp_path / "v.npy", vectors)
    mapped = np.load(tmp_path / "v.npy", mmap_mode="r")
    for limit in (None, 100):
        found, expected = (fit(rows, max_points_per_centroid=limit) for rows in (mapped, vectors))
        np.testing.assert_array_equal(np.stack(found), np.stack(expected))


def test_a_sample_is_close_to_all_rows():
    vectors, _ = planted(8, n_rows=4000)
    settings = {"codebook_size": 16, "n_levels": 1}
    whole = errors(vectors, fit(vectors, **settings))
    part = errors(vectors, fit(vectors, **settings, max_points_per_centroid=40))
    assert part != whole
    assert part[1] < 1.05 * whole[1]


MEMORY = [
    {},
    {"max_points_per_centroid": 40},
    {"balance": "capacity"},
    {"balance": "sinkhorn"},
    {"codebook_size": [300, 40], "n_levels": 2},
]


@pytest.mark.parametrize("changes", MEMORY)
def test_memory_changes_no_byte_and_too_little_is_refused_with_the_number(changes):
    """The sample and the blocks follow from the science alone."""
    vectors, _ = planted(9, n_rows=6000, dim=64)
    changes = {"codebook_size": 70, "n_levels": 2, "n_iter": 3} | changes

    def fitted(memory_mb):
        found = rqkmeans.fit(vectors, replace(SETTINGS, **changes, memory_mb=memory_mb), seed=0)
        return [array.tobytes() for array in (*found.codebooks, *found.prices)], found.balance

    with pytest.raises(SidmillError, match=r"memory_mb 1 is too small") as error:
        fitted(1)
    enough = int(re.search(r"rqkmeans\.memory_mb to at least (\d+)", str(error.value)).group(1))
    with pytest.raises(SidmillError, match=f"at least {enough},"):
        fitted(enough - 1)
    assert fitted(enough) == fitted(64) == fitted(4096)


def test_the_memory_a_training_needs_grows_with_the_sample_and_stops_at_its_largest_block():
    """At OneRec's size the sample is 4 GiB; a block never takes more than its constant."""
    assert rqkmeans.memory_needed(10**6, 4096, [8192] * 3) == 4096 + 512
    assert rqkmeans.memory_needed(10**6, 64, [2**20]) <= 256 + rqkmeans.BLOCK_MB
    assert rqkmeans.memory_needed(100, 64, [8]) == 1


def test_empty_clusters_are_filled():
    """The sample misses a far group that the passes over every row must find."""
    vectors = np.concatenate([normal(10, 5000, 8), 100 + normal(11, 5, 8)])
    codebooks = fit(vectors, n_levels=1, codebook_size=3)
    codes = np.concatenate(
        list(residual_codec.encode(vectors, codebooks, device="cpu", memory_mb=64))
    )
    assert set(codes[:, 0]) == {0, 1, 2}


def test_swap_never_raises_the_error(computes):
    vectors, _ = planted(12)
    device = DEVICES[computes]
    sample = arrays.from_host(vectors, device)
    generator = arrays.generator(device, 0)
    clusters = lloyd.empty(sample[:16])
    spare = arrays.empty([len(sample) * 16], device)
    codes = lloyd.visit(clusters, [Piece(0, sample)], None, hartigan=False, buffers=[spare])
    lloyd.centre(clusters)
    before = lloyd.explained(clusters)
    after = split_merge.swap(clusters, sample, codes, 100, generator)
    assert after.n_pairs > 0
    assert after.gain > 0
    assert lloyd.explained(clusters) - before == pytest.approx(after.gain, rel=0.01)
    counts = np.bincount(arrays.to_host(after.codes), minlength=16)
    np.testing.assert_array_equal(counts, arrays.to_host(clusters.counts))


def test_a_level_recovers_from_a_cluster_that_holds_nearly_all_rows(monkeypatch):
    """Few pairs gain at first: halves of the large cluster, then halves of those."""
    vectors = normal(21, 2000, 64)
    usual = errors(vectors, fit(vectors, n_levels=1, codebook_size=64))[-1]

    def seed_centroids(sample, size, *_):
        module = arrays.of(sample)
        return module.concatenate([sample[: size - 1], module.zeros_like(sample[:1])])

    monkeypatch.setattr(rqkmeans.kmeans_pp, "seed_centroids", seed_centroids)
    unlucky = errors(vectors, fit(vectors, n_levels=1, codebook_size=64))[-1]
    assert unlucky < 1.02 * usual


def test_too_few_vectors_says_what_to_change():
    with pytest.raises(SidmillError, match=r"lower rqkmeans\.codebook_size to at most 3"):
        fit(normal(13, 3, 8))


def test_a_list_of_the_wrong_length_says_so():
    with pytest.raises(SidmillError, match="lists 2 sizes for 3 levels"):
        fit(normal(14, 30, 8), codebook_size=[4, 4])


@pytest.mark.parametrize("limit", [None, 2])
def test_names_the_first_row_that_is_not_finite(limit):
    vectors = normal(15, 100, 8)
    vectors[6, 2] = np.nan
    vectors[40] = np.inf
    with pytest.raises(SidmillError, match="first at row 6"):
        fit(vectors, max_points_per_centroid=limit)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("max_rows", [np.inf, 5, 0])
@pytest.mark.parametrize("at_once", [1, 50, 2**18])
def test_the_cheapest_merge_is_that_of_all_pairs(monkeypatch, seed, max_rows, at_once, computes):
    """Oracle: a loop over pairs in float64, over whole numbers, where float32 is exact."""
    monkeypatch.setattr(split_merge, "VALUES_AT_ONCE", at_once)
    rng = np.random.default_rng(seed)
    n_codes = int(rng.integers(2, 12))
    centroids, counts = rng.integers(-4, 5, (n_codes, 3)), rng.integers(0, 5, n_codes)
    sums = (centroids * counts[:, None]).astype("f8")
    of_clusters = (centroids.astype("f4"), sums, counts.astype("f8"))
    clusters = lloyd.Clusters(*(arrays.from_host(each, DEVICES[computes]) for each in of_clusters))
    cost, partner = split_merge._cheapest_merge(clusters, 4, max_rows)
    for one in range(n_codes):
        if not counts[one]:
            assert (cost[one], partner[one]) == (0, one)
            continue
        prices = {
            other: counts[one] * counts[other] / (counts[one] + counts[other]) * gap
            for other in range(n_codes)
            if other != one and counts[other] and counts[one] + counts[other] <= max_rows
            for gap in [np.square(centroids[one] - centroids[other]).sum()]
        }
        assert cost[one] == pytest.approx(min(prices.values(), default=np.inf))
        if prices:
            assert prices[int(partner[one])] == pytest.approx(min(prices.values()))


def test_sizes_are_lowered_to_the_items_where_that_is_allowed(rng):
    vectors, settings = rng.standard_normal((5, 3)).astype(np.float32), Rqkmeans(device="cpu")
    settings = replace(settings, n_levels=2, codebook_size=[8, 3])
    lowered = codebook_sizes.capped(settings, 5, is_capped=True)
    assert [len(book) for book in rqkmeans.fit(vectors, lowered, seed=0).codebooks] == [5, 3]
    assert codebook_sizes.capped(settings, 8, is_capped=True) is settings
    with pytest.raises(SidmillError, match="5 vectors cannot fill 8 codewords"):
        rqkmeans.fit(vectors, codebook_sizes.capped(settings, 5, is_capped=False), seed=0)
