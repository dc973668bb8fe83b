"""Vectors of a published version: the same bytes again, only the others are embedded."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidmill.core.errors import SidmillError
from sidmill.embed import fingerprint, reuse
from sidmill.embed.shard import ShardFiles, embed_shard
from sidmill.formats import catalogue_match, embedding_shards, item_text
from sidmill.io import parquet
from sidmill.settings.embedding import Embedding, Openai

FACTS = {
    "backend": "precomputed", "model": "mine", "revision": None, "pooling": "", "prompt": "",
    "normalize": False, "dim": 3, "dtype": "float32", "max_length": None,
}  # fmt: skip


def vectors_of(rows):
    """A vector that tells which row it is of."""
    rows = np.asarray(rows, dtype=np.float32)
    return np.column_stack([rows, rows + 0.25, -rows])


def publish(folder, n_items, n_shards):
    """Shards of published vectors; vector i is that of row i."""
    paths = []
    for shard in range(n_shards):
        rows = np.arange(*item_text.shard_bounds(n_items, shard, n_shards))
        path = folder / f"old-{shard}.parquet"
        embedding_shards.write(
            path, pa.int64(), FACTS, [(pa.chunked_array([rows]), vectors_of(rows))]
        )
        paths.append(str(path))
    return paths


def run(rows, published, folder, dim=3):
    """The vectors of a shard whose items have these published rows; -1 gets -1000 - place."""
    rows = np.asarray(rows, dtype=np.int64)
    places = pa.array(np.arange(len(rows)))
    path, shard_path = str(folder / "text.parquet"), str(folder / "part.parquet")
    table = pa.table({"pid": places, "text": places.cast(pa.string())})
    item_text.write(path, pa.int64(), [table])
    with reuse.fresh(path, 0, len(rows), rows, shard_path) as (fresh_text, fresh_shard):
        asked = [pid for table in item_text.read(fresh_text) for pid in table["pid"].to_pylist()]
        new = [(pa.chunked_array([asked], pa.int64()), vectors_of(-1000 - np.array(asked)))]
        embedding_shards.write(fresh_shard, pa.int64(), FACTS, new if asked else [])
        blocks = list(reuse.blocks(path, 0, len(rows), rows, published, fresh_shard, dim))
    assert not [path for path in folder.iterdir() if "fresh" in path.name]
    ids = [pid for pids, _ in blocks for pid in pids.to_pylist()]
    return ids, np.concatenate([vectors for _, vectors in blocks]), asked


@given(st.lists(st.integers(-1, 49), min_size=1, max_size=40), st.integers(1, 4), st.integers(2, 9))
@settings(max_examples=60, deadline=None)
def test_any_order_any_shards_any_row_groups(tmp_path_factory, rows, n_shards, group):
    folder = tmp_path_factory.mktemp("reuse")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "ROWS_PER_GROUP", group)
        ids, found, asked = run(rows, publish(folder, 50, n_shards), folder)
    places = np.arange(len(rows))
    assert ids == places.tolist()
    expected = vectors_of(np.where(np.array(rows) < 0, -1000 - places, rows))
    assert found.tobytes() == expected.tobytes()
    assert asked == [place for place, row in enumerate(rows) if row < 0]


def shard(folder, text_path, found, published, source, number=0, shards=1):
    path = folder / f"part-{number}-of-{shards}.parquet"
    files = ShardFiles(text_path, str(path), f"{path}.json", None, found, published)
    own = Embedding(backend="precomputed", model="mine", path=source, dim=3, normalize=False)
    embed_shard(files, own, Openai(), shard=number, shards=shards, code="test")
    return np.concatenate([vectors for _, vectors in embedding_shards.read(path)])


def test_only_the_others_are_asked_for_whatever_the_shards(tmp_path):
    """The source holds the new and the changed item alone: the rest comes from the version."""
    published = publish(tmp_path, 10, 2)
    rows = np.array([9, 0, -1, 3, 4, 12, 1])  # 12: removed once, and back
    changed = np.array([False, False, False, True, False, False, False])
    pids = pa.array([9, 0, 70, 3, 4, 71, 1])
    text_path, found = str(tmp_path / "text.parquet"), str(tmp_path / "match.parquet")
    item_text.write(text_path, pa.int64(), [pa.table({"pid": pids, "text": list("abcdefg")})])
    catalogue_match.write(found, pa.int64(), [(pids, catalogue_match.Match(rows, changed))])
    source = str(tmp_path / "own.parquet")
    own = pa.chunked_array([[70, 3, 71]])
    embedding_shards.write(source, pa.int64(), {}, [(own, vectors_of([-5, -6, -7]))])
    expected = vectors_of([9, 0, -5, -6, 4, -7, 1])
    for shards in (1, 2, 3):
        parts = [
            shard(tmp_path, text_path, found, published, source, n, shards) for n in range(shards)
        ]
        assert np.concatenate(parts).tobytes() == expected.tobytes()


def test_a_version_with_the_digest_of_older_programs_is_gone_on_from(tmp_path, caplog):
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.safetensors").write_bytes(bytes(3 << 20))
    whole, ends = fingerprint.folder_digest(model), fingerprint.ends_digest(model)
    found = FACTS | {"revision": whole}
    path = str(tmp_path / "part.parquet")
    embedding_shards.write(path, pa.int64(), FACTS | {"revision": ends}, [])
    assert reuse.continued_space(found, [path], str(model)) == FACTS | {"revision": ends}
    assert "is taken for the same model" in caplog.text
    # Any other difference is one.
    for changed in (found | {"prompt": "x"}, FACTS | {"revision": "another"}):
        embedding_shards.write(path, pa.int64(), FACTS | {"revision": ends}, [])
        (model / "model.safetensors").write_bytes(bytes([changed["prompt"] == ""] * (3 << 20)))
        with pytest.raises(SidmillError, match="was embedded with other settings"):
            reuse.continued_space(changed, [path], str(model))
    embedding_shards.write(path, pa.int64(), found, [])
    assert reuse.continued_space(found, [path], str(model)) == found


def test_another_space_is_refused_with_what_differs(tmp_path):
    published = publish(tmp_path, 4, 1)
    with pytest.raises(
        SidmillError, match="prompt: '' in the published version, 'query: ' in this run"
    ) as error:
        reuse.check(FACTS | {"prompt": "query: "}, published)
    assert "model" not in str(error.value).partition("(")[2].partition(")")[0]
    reuse.check(FACTS, published)
