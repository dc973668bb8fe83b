"""docs/recipes/tables.md: its right lines give SIDMill's answers, its wrong lines still do not.

Skipped without the programs: ``make recipes`` installs them.
"""

from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import recipe_pages

from sidmill.formats import code_files, embedding_shards, quantizer_file, sequence_data
from sidmill.settings.sids import Quality
from sidmill.sids import quality

for _name in ("polars", "duckdb"):
    pytest.importorskip(_name, reason="make recipes installs it")

N, SIZES = 500, [8192] * 3
SECTIONS = recipe_pages.sections("tables.md")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Files of a catalogue as SIDMill writes them, with collisions, and SIDMill's own figures."""
    folder = tmp_path_factory.mktemp("tables")
    rng = np.random.default_rng(0)
    sids = rng.integers(0, 8192, (40, 3)).astype(np.int32)
    sids[20:, :2] = sids[:20, :2] // 2048 * 2048  # prefixes that SIDs share
    sids[:2] = [0, 0, 1], [64, 0, 1]  # equal as a number of 32 bits
    codes = sids[np.arange(N) % 41 % 40]
    ids = pa.chunked_array([rng.permutation(N) + 10**9])
    code_files.write(folder / "results/pid2sid.parquet", "sid", ids, [codes], SIZES)
    whole = pq.read_table(folder / "results/pid2sid.parquet")
    (folder / "published/1").mkdir(parents=True)
    pq.write_table(whole.drop_columns(["tokens"]), folder / "published/1/pid2sid.parquet")
    code_files.write_index(ids, codes, path=folder / "results/index.json")

    # Histories, and embeddings whose last shard was killed.
    users = sequence_data.Block(["u1", "u2"], np.array([0, 2, 3]), np.array([1, 2, 3]), None)
    sequence_data.write(folder / "results/h5/sequence.h5", 2, False, [users])
    shards = folder / "results/items/embeddings.parquet"
    vectors = rng.standard_normal((N, 4)).astype(np.float32)
    path = shards / "part-00000-of-00001.parquet"
    embedding_shards.write(path, pa.int64(), {}, [(ids, vectors)])
    (shards / ".part-00001-of-00002.parquet.partial").write_bytes(path.read_bytes()[:99])

    # Before collisions were resolved: fewer codes.
    few = sids[np.arange(N) % 7]
    code_files.write(folder / "results/codes.parquet", "codes", ids, [few], SIZES)

    before = code_files.read(folder / "results/codes.parquet", "codes")
    coded = code_files.read(folder / "results/pid2sid.parquet", "sid")
    given = quantizer_file.Quantizer(quantizer_file.GIVEN, [], {}, {})
    figures = quality.measure(before, coded, None, given, None, Quality(), 0)
    return folder, coded, figures["before"], figures["after"]


def answers(coded, before, after):
    """What SIDMill says, by section and block."""
    near = partial(pytest.approx, rel=1e-12)
    first = coded.codes[:, 0]
    return {
        "Collisions: group by tokens": [
            near(after["collision_rate"]), near(after["colliding_items_rate"]),
            near(before["collision_rate"]),
        ],
        "Numbers for SIDs: not by hand": [after["distinct"]],
        "Prefixes: DuckDB counts from 1, and its ranges include the end": [
            after["levels"][1]["prefixes"]
        ],
        "Items below a prefix: the bar in a token is a pattern": [int((first == 64).sum())],
        "Ids of index.json: ids of ten digits are dates to pandas": [coded.ids.to_pylist()],
        "User ids of sequence.h5: bytes, unless asked": [2],
        "Embeddings: a folder that is named like a file": [len(coded.ids)],
        "Tables that went through another program": [3 * len(coded.ids)],
        "Versions with and without tokens: name the columns": [after["distinct"]],
    }  # fmt: skip


@pytest.fixture
def check(results, monkeypatch, tmp_path):
    """A function that runs a block of the page in the folder that it reads."""
    monkeypatch.chdir(results[0])

    def run(block, wanted):
        known = {}
        exec(SECTIONS[""][0], known)
        known["load_dataset"] = partial(known["load_dataset"], cache_dir=str(tmp_path))
        return recipe_pages.broken(block, known, lambda value: value == wanted)

    return run


def blocks():
    return [
        pytest.param(heading, number, id=f"{heading.partition(':')[0]} {number + 1}")
        for heading, codes in SECTIONS.items()
        for number in range(len(codes))
        if heading
    ]


@pytest.mark.parametrize(("heading", "number"), blocks())
def test_right_lines_are_right_and_obvious_ones_are_not(heading, number, results, check):
    wanted = answers(*results[1:])[heading][number]
    block = SECTIONS[heading][number]
    assert check(block, wanted) == []
    for obvious in recipe_pages.with_obvious_lines(block):
        assert check(obvious, wanted)


def test_the_page_names_the_versions_that_were_run():
    assert recipe_pages.outdated("tables.md") == []
