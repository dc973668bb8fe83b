"""The category level: who gets which code, and what a quantizer makes of it."""

import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from test_quantizer_contract import SPACE, bytes_of, train

from sidmill import api
from sidmill.cli import commands
from sidmill.core.errors import SidmillError
from sidmill.formats import category_file, code_files, quantizer_file
from sidmill.numeric import category_codes, latents, mlp, residual_codec
from sidmill.quantize import category_level, category_tree
from sidmill.settings.category_level import CategoryLevel
from sidmill.settings.registry import TRAINED
from sidmill.settings.sids import Collisions
from sidmill.sids.resolve import resolve

DIM = 12
# Items per category; the rest of the 600 have none.
COUNTS = {"large": 260, "middle": 120, "small": 60, "tiny": 30, "rare": 3, "single": 1}
N_ITEMS = 600
SETTINGS = CategoryLevel(field="kind", size=16, min_load=0.25, max_load=1.5)


@pytest.fixture(scope="module")
def items():
    """Vectors in overlapping groups by category, and the names, some None."""
    rng = np.random.default_rng(0)
    names = [name for name, count in COUNTS.items() for _ in range(count)]
    names += [None] * (N_ITEMS - len(names))
    centres = {name: 2 * rng.standard_normal(DIM) for name in dict.fromkeys(names)}
    vectors = np.stack([centres[name] for name in names]) + rng.standard_normal((N_ITEMS, DIM))
    order = rng.permutation(N_ITEMS)
    return vectors[order].astype(np.float32), [names[row] for row in order.tolist()]


def fit(vectors, names, settings=SETTINGS):
    return category_level.fit(vectors, pa.array(names, pa.string()), settings, SPACE)


def nearest(rows, means):
    """The nearest mean of each row, in double precision."""
    differences = np.asarray(rows, np.float64)[:, None] - np.asarray(means, np.float64)
    return np.square(differences).sum(axis=2).argmin(axis=1)


def category_of_code(categories):
    """The number of the category that each code belongs to."""
    names = [name.partition(" (")[0] for name in categories.code_names()]
    return np.array([categories.names.index(name) for name in names])


def encode(quantizer, vectors, names, memory_mb=64):
    categories = pa.array(names, pa.string())
    return np.concatenate(
        list(
            category_codes.encode(quantizer, vectors, categories, device="cpu", memory_mb=memory_mb)
        )
    )


def test_a_category_that_is_neither_merged_nor_split_is_one_code(items):
    vectors, names = items
    fitted = fit(vectors, names)
    categories = fitted.quantizer.categories
    assert categories.names == ["large", "middle", "small", "tiny"]  # rare ones are merged
    owners = category_of_code(categories)
    whole = [name for number, name in enumerate(categories.names) if (owners == number).sum() == 1]
    assert "tiny" in whole
    for name in whole:
        (code,) = np.flatnonzero(owners == categories.names.index(name))
        of_name = np.array([other == name for other in names])
        assert (fitted.codes[of_name] == code).all()
    for name, number in categories.numbers.items():
        of_name = np.array([other == name for other in names])
        assert (owners[fitted.codes[of_name]] == number).all()


def test_rare_names_and_missing_ones_belong_to_the_nearest_mean(items):
    vectors, names = items
    fitted = fit(vectors, names)
    categories = fitted.quantizer.categories
    by_name = {
        name: vectors[[other == name for other in names]].astype(np.float64).mean(axis=0)
        for name in COUNTS
    }
    means = np.stack([by_name[name] for name in categories.names])
    np.testing.assert_allclose(categories.means, means, rtol=1e-5, atol=1e-6)
    for name in ("rare", "single"):
        assert categories.numbers[name] == nearest(by_name[name][None], means)[0]
    missing = np.array([name is None for name in names])
    owners = category_of_code(categories)
    np.testing.assert_array_equal(owners[fitted.codes[missing]], nearest(vectors[missing], means))


@pytest.mark.parametrize(("size", "max_load"), [(4, 1.5), (5, 1.0), (16, 1.5), (64, 1.0), (64, 4)])
def test_loads_stay_below_the_bound_and_are_even_within_a_category(items, size, max_load):
    vectors, names = items
    settings = CategoryLevel(field="kind", size=size, min_load=0, max_load=max_load)
    fitted = fit(vectors, names, settings)
    categories = fitted.quantizer.categories
    loads, owners = np.bincount(fitted.codes), category_of_code(categories)
    assert len(loads) == len(fitted.quantizer.codebooks[0]) <= size
    assert loads.min() > 0
    n_categories = len(categories.names)
    if size > n_categories:
        bound = max(max_load * N_ITEMS / size, N_ITEMS / (size - n_categories))
        assert loads.max() <= math.ceil(bound)
    for number in range(n_categories):
        own = loads[owners == number]
        assert own.max() - own.min() <= 1


@pytest.mark.parametrize("sample", [category_tree.SAMPLE_ROWS, 24])
def test_the_order_of_items_changes_nothing(items, monkeypatch, sample):
    monkeypatch.setattr(category_tree, "SAMPLE_ROWS", sample)
    vectors, names = items
    fitted = fit(vectors, names)
    order = np.random.default_rng(1).permutation(N_ITEMS)
    again = fit(vectors[order], [names[row] for row in order.tolist()])
    np.testing.assert_array_equal(again.codes, fitted.codes[order])
    one, other = again.quantizer.categories, fitted.quantizer.categories
    assert one.numbers == other.numbers
    for name in ("roots", "ways"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for name in ("codewords", "means", "normals", "thresholds"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-5, atol=1e-6)


def test_memory_and_repetition_change_no_byte(items, tmp_path):
    vectors, names = items
    wide = np.tile(vectors, (1, 400))  # several blocks and several passes for 16 MiB
    fits = [
        fit(wide, names, CategoryLevel(field="kind", size=16, max_load=1.5, memory_mb=memory))
        for memory in (16, 1024, 1024)
    ]
    made = [bytes_of(one.quantizer, tmp_path / str(number)) for number, one in enumerate(fits)]
    assert made[0] == made[1] == made[2]


def test_new_items_follow_the_category_or_else_the_vector(items):
    vectors, names = items
    fitted = fit(vectors, names)
    quantizer, categories = fitted.quantizer, fitted.quantizer.categories
    np.testing.assert_array_equal(encode(quantizer, vectors, names)[:, 0], fitted.codes)

    # A category of one code is followed wherever the vector lies; others by the vector inside it.
    owners = category_of_code(categories)
    far = np.float32(50) * np.random.default_rng(2).standard_normal((40, DIM)).astype(np.float32)
    for name, number in categories.numbers.items():
        found = encode(quantizer, far, [name] * len(far))[:, 0]
        assert (owners[found] == number).all()

    # An unknown name counts as none: the category of the nearest mean.
    unknown = encode(quantizer, vectors, ["never seen"] * N_ITEMS)
    np.testing.assert_array_equal(unknown, encode(quantizer, vectors, [None] * N_ITEMS))
    np.testing.assert_array_equal(owners[unknown[:, 0]], nearest(vectors, categories.means))

    # Blocks and neighbours change nothing.
    alone = [encode(quantizer, vectors[row : row + 1], [names[row]])[0] for row in range(20)]
    np.testing.assert_array_equal(alone, encode(quantizer, vectors, names)[:20])


def test_a_codeword_is_the_mean_of_its_items(items):
    vectors, names = items
    fitted = fit(vectors, names)
    left = np.concatenate(list(category_level.residuals(vectors, fitted)))
    np.testing.assert_array_equal(left, vectors - fitted.quantizer.codebooks[0][fitted.codes])
    for code in np.unique(fitted.codes):
        assert np.abs(left[fitted.codes == code].mean(axis=0)).max() < 1e-5


def test_equal_vectors_are_not_split():
    vectors = np.ones((100, DIM), np.float32)
    fitted = fit(vectors, ["one"] * 100)
    assert fitted.quantizer.codebook_sizes == [1]
    assert not fitted.codes.any()
    some = np.repeat(np.eye(DIM, dtype=np.float32)[:3], 40, axis=0)
    codes = fit(some, ["one"] * 120).codes.reshape(3, 40)
    assert (codes == codes[:, :1]).all()
    assert len(np.unique(codes)) == 3


@pytest.mark.parametrize("name", TRAINED)
def test_any_quantizer_follows_the_level_and_decodes_as_a_sum(items, tmp_path, name):
    vectors, names = items
    level = fit(vectors, names)
    left = np.concatenate(list(category_level.residuals(vectors, level)))
    learned = train(name, left, tmp_path)
    fingerprint = category_level.residual_fingerprint(level.quantizer)
    joined = category_level.join(level.quantizer, learned._replace(fingerprint=fingerprint))
    assert joined.fingerprint == SPACE
    assert joined.codebook_sizes == [len(level.quantizer.codebooks[0]), *learned.codebook_sizes]

    # Saved and loaded, it encodes as level and quantizer do one after the other.
    api.save(tmp_path / "joined.safetensors", joined)
    loaded = api.load(tmp_path / "joined.safetensors")
    assert bytes_of(loaded, tmp_path / "a") == bytes_of(joined, tmp_path / "b")
    codes = api.encode(loaded, vectors, categories=names, device="cpu")
    np.testing.assert_array_equal(codes[:, 0], level.codes)
    np.testing.assert_array_equal(codes[:, 1:], api.encode(learned, left, device="cpu"))

    # Codes decode to the sum of both, and latents are near the sum of their codewords.
    expected = level.quantizer.codebooks[0][level.codes] + api.decode(learned, codes[:, 1:])
    np.testing.assert_allclose(api.decode(loaded, codes), expected, rtol=1e-4, atol=1e-4)
    with latents.projected(
        vectors, loaded, codes, tmp_path, device="cpu", memory_mb=64
    ) as projected:
        first = projected - loaded.codebooks[0][codes[:, 0]]
        size = learned.codebooks[0].shape[1]
        plain = np.asarray(mlp.load(learned.encoder, "cpu")(left))
        np.testing.assert_allclose(first[:, :size], plain, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(first[:, size:], 0, atol=1e-4)

        # Collisions move items under their category; a last token moves nothing.
        sizes = loaded.codebook_sizes
        found = resolve(codes, sizes, projected, loaded.codebooks, None, Collisions())
        assert len(np.unique(found.sids, axis=0)) == N_ITEMS
        np.testing.assert_array_equal(found.sids[:, 0], codes[:, 0])
        unique = resolve(
            codes, sizes, projected, loaded.codebooks, None, Collisions(strategy="suffix")
        )
        assert len(np.unique(unique.sids, axis=0)) == N_ITEMS
        np.testing.assert_array_equal(unique.sids[:, :-1], codes)


def test_a_level_without_learned_levels_encodes_too(items):
    vectors, names = items
    level = fit(vectors, names)
    codes = encode(level.quantizer, vectors, names)
    np.testing.assert_array_equal(codes, level.codes[:, None])
    decoded = residual_codec.decode(codes, level.quantizer.codebooks)
    np.testing.assert_array_equal(decoded, level.quantizer.codebooks[0][level.codes])


def test_categories_are_asked_for_where_they_are_needed(items, tmp_path):
    vectors, names = items
    quantizer = fit(vectors, names).quantizer
    with pytest.raises(SidmillError, match="'kind' of the catalogue: name the category of each"):
        api.encode(quantizer, vectors)
    with pytest.raises(SidmillError, match="5 categories for 600 vectors"):
        api.encode(quantizer, vectors, categories=names[:5])
    with pytest.raises(SidmillError, match="first level of this category is a category"):
        api.save(tmp_path / "q.pt", quantizer)
    other = quantizer._replace(fingerprint={"backend": "other"})
    with pytest.raises(SidmillError, match="not trained on what this category level leaves"):
        category_level.join(quantizer, other)


def test_the_commands_look_categories_up_by_id(items, tmp_path):
    vectors, names = items
    fitted = fit(vectors, names)
    api.save(tmp_path / "q.safetensors", fitted.quantizer._replace(fingerprint={}))
    ids = [f"item {row}" for row in range(N_ITEMS)]
    lists = pa.FixedSizeListArray.from_arrays(vectors.ravel(), DIM)
    pq.write_table(pa.table({"pid": ids, "embedding": lists}), tmp_path / "v.parquet")
    order = np.random.default_rng(3).permutation(N_ITEMS)
    table = pa.table({"pid": ids, "category": pa.array(names)}).take(order)
    category_file.write(tmp_path / "categories.parquet", pa.string(), [table])

    def run(command, *more):
        files = ["--quantizer", tmp_path / "q.safetensors", "--vectors", tmp_path / "v.parquet"]
        return CliRunner().invoke(commands, [command, *map(str, [*files, *more])])

    out, categories = ["--out", tmp_path / "c.parquet"], tmp_path / "categories.parquet"
    done = run("encode", *out, "--categories", categories)
    assert done.exit_code == 0, done.output
    codes = code_files.read(tmp_path / "c.parquet", "codes")
    assert codes.ids.to_pylist() == ids
    np.testing.assert_array_equal(codes.codes[:, 0], fitted.codes)
    refused = run("encode", *out)
    assert "name the category of each item" in refused.output + str(refused.exception)
    done = run("evaluate", "--categories", categories)
    assert done.exit_code == 0, done.output
    assert f"category, {len(fitted.quantizer.codebooks[0])} codes, on 600 x 12" in done.output


def test_refusals_say_what_to_change(items):
    vectors, names = items
    with pytest.raises(SidmillError, match="size: found 601 codes for 600 items: lower it"):
        fit(vectors, names, CategoryLevel(field="kind", size=601))
    with pytest.raises(SidmillError, match="field: kind: no item has a category there"):
        fit(vectors, [None] * N_ITEMS)
    each_its_own = [f"name {row}" for row in range(N_ITEMS)]
    with pytest.raises(SidmillError, match="largest of 600 categories has 1 items") as error:
        fit(vectors, each_its_own)
    assert "lower min_load, raise size" in str(error.value)
    lower = CategoryLevel(field="kind", size=16, min_load=0)
    assert len(fit(vectors, each_its_own, lower).quantizer.codebooks[0]) == 16
    larger = CategoryLevel(field="kind", size=600, min_load=0.25)
    assert len(fit(vectors, each_its_own, larger).quantizer.codebooks[0]) == 600
    broken = vectors.copy()
    broken[7, 3] = np.nan
    with pytest.raises(SidmillError, match="not finite"):
        fit(broken, names)


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("ways", lambda ways: np.zeros_like(ways), "do not lead to"),
        ("roots", lambda roots: roots[1:], "category.root is int32"),
        ("normals", lambda normals: normals * np.nan, "category.normal is float32"),
        ("numbers", lambda numbers: numbers | {"tiny": 99}, "do not lead to"),
    ],
)
def test_a_damaged_level_is_refused(items, tmp_path, part, value, message):
    quantizer = fit(*items).quantizer
    categories = quantizer.categories
    broken = categories._replace(**{part: value(getattr(categories, part))})
    with pytest.raises(SidmillError, match=f"{message}.*train the quantizer again"):
        quantizer_file.write(tmp_path / "q", quantizer._replace(categories=broken))
    assert not (tmp_path / "q").exists()
