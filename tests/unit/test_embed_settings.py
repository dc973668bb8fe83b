"""The table of settings says the truth: what a backend does not read changes no vector."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from embedding_server import serving

from sidmill.core.errors import SidmillError
from sidmill.core.secrets import in_order
from sidmill.embed.backend import DEFAULT_RUN, choose
from sidmill.embed.backends import lsa
from sidmill.embed.shard import ShardFiles, embed_shard
from sidmill.formats import embedding_shards, item_text
from sidmill.settings import base
from sidmill.settings.check import check
from sidmill.settings.embedding import Embedding, Openai
from sidmill.settings.registry import BACKENDS, settings_read, tokenizer_settings

ROOT = Path(__file__).parents[2]
CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())
MACHINE = {*base.machine_keys(Embedding)}
ELSEWHERE = {"shards", "lsa_sample", "lsa_features"}  # of the workflow, and of the rule that fits
LINES = [f"word{n % 7} of{n % 5} line{n}" for n in range(30)]
OTHER = {  # another value of each setting
    "model": "another",
    "revision": "v2",
    "path": "other.npy",
    "ids_path": "other.txt",
    "fields": {"embedding": "v", "pid": "p"},
    "rows": "catalogue",
    "dim": 3,
    "max_length": 7,
    "dtype": "bfloat16",
    "attention": "eager",
    "compiled": True,
    "prompt": "about: ",
    "normalize": False,
}


def test_the_registry_names_every_setting_and_no_other():
    known = {*CONFIG["embedding"]} - MACHINE - ELSEWHERE - {"backend"}
    assert known == {*OTHER}
    assert {key for entry in BACKENDS.values() for key in entry.reads} == known
    backends_known = base.schema(Embedding)["properties"]["backend"]["enum"]
    assert [*BACKENDS] == backends_known


@pytest.mark.parametrize("key", OTHER)
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_a_backend_does_not_read_is_no_parameter_of_its_jobs(backend, key):
    own = CONFIG["embedding"] | {"backend": backend}
    before, after = (settings_read(one) for one in (own, own | {key: OTHER[key]}))
    assert (before != after) == (key in BACKENDS[backend].reads)


def test_the_order_of_keys_is_no_change():
    """Snakemake compares params as text; a section goes into them in order."""
    one, other = {"pid": "a", "embedding": "b"}, {"embedding": "b", "pid": "a"}
    found = [
        str(settings_read({"backend": "precomputed", "fields": in_order(fields)}))
        for fields in (one, other)
    ]
    assert found[0] == found[1]


@pytest.fixture
def embed(tmp_path, monkeypatch):
    """Embed with some settings, and return vectors and fingerprint."""
    table = pa.table({"pid": pa.array(range(30), pa.int64()), "text": LINES})
    item_text.write(tmp_path / "text.parquet", pa.int64(), [table])
    fitted = lsa.fit(tmp_path / "text.parquet", Embedding(dim=4), 0)
    lsa.write(tmp_path / "lsa.safetensors", fitted)
    vectors = np.random.default_rng(0).standard_normal((30, 6)).tolist()
    pq.write_table(
        pa.table({"pid": range(30), "embedding": vectors, "p": range(30)[::-1], "v": vectors}),
        tmp_path / "own.parquet",
    )

    def run(backend, **changes):
        own = CONFIG["embedding"] | {"backend": backend, "model": "m", "dim": None}
        own |= {"dim": 4} if backend == "lsa" else {}
        own |= {"path": str(tmp_path / "own.parquet")} if backend == "precomputed" else {}
        own = {key: value for key, value in (own | changes).items() if key not in ELSEWHERE}
        names = ("text.parquet", "shard.parquet", "speed.json", "lsa.safetensors")
        files = ShardFiles(*(str(tmp_path / name) for name in names))
        settings = base.read(Embedding, settings_read(own) | {key: own[key] for key in MACHINE})
        embed_shard(files, settings, Openai(), shard=0, shards=1, code="")
        [(_, found)] = embedding_shards.read(tmp_path / "shard.parquet")
        return found.tolist(), embedding_shards.fingerprint(tmp_path / "shard.parquet")

    with serving() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{server.server_port}/v1")
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        yield run


@pytest.mark.parametrize("backend", ["lsa", "openai", "precomputed"])
def test_what_the_table_leaves_out_changes_no_vector(embed, backend):
    before = embed(backend)
    for key in sorted({*OTHER} - {*BACKENDS[backend].reads}):
        assert embed(backend, **{key: OTHER[key]}) == before, key


@pytest.mark.parametrize("backend", ["openai", "precomputed"])
def test_what_the_table_names_changes_something(embed, backend):
    before = embed(backend)
    for key in BACKENDS[backend].reads:
        try:
            after = embed(backend, **{key: OTHER[key]})
        except SidmillError:  # a file that is not there, a width that is wrong
            continue
        assert after != before or key == "rows", key


# Rows in the order of the catalogue.


@pytest.mark.parametrize("kind", ["npy", "parquet"])
def test_rows_in_the_order_of_the_catalogue(embed, tmp_path, kind):
    vectors = np.random.default_rng(1).standard_normal((30, 6)).astype(np.float32)
    path = tmp_path / f"bare.{kind}"
    if kind == "npy":
        np.save(path, vectors)
    else:
        pq.write_table(pa.table({"embedding": vectors.tolist()}), path, row_group_size=7)
    found, _ = embed("precomputed", path=str(path), rows="catalogue", normalize=False)
    np.testing.assert_array_equal(np.array(found, np.float32), vectors)
    np.save(tmp_path / "short.npy", vectors[1:])
    with pytest.raises(SidmillError, match=r"has 29 rows, .*text\.parquet has 30 ids"):
        embed("precomputed", path=str(tmp_path / "short.npy"), rows="catalogue")


def test_a_file_without_ids_and_its_remedies(embed, tmp_path):
    np.save(tmp_path / "bare.npy", np.ones((30, 6), np.float32))
    path = str(tmp_path / "bare.npy")
    with pytest.raises(SidmillError, match=r"ids_path is null.* or set embedding.rows: catalogue"):
        embed("precomputed", path=path)
    embed("precomputed", path=path, rows="catalogue")
    (tmp_path / "ids.txt").write_text("".join(f"{n}\n" for n in range(30)))
    embed("precomputed", path=path, ids_path=str(tmp_path / "ids.txt"))


# The configuration.


def merged(**changes):
    return CONFIG | {section: CONFIG[section] | keys for section, keys in changes.items()}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_query_prompt_goes_with_every_backend_that_takes_prompts(backend):
    own = {
        "backend": backend,
        "model": "m",
        "path": "x.parquet" if backend == "precomputed" else None,
    }
    queries = {"corpus": "items", "queries": "q.jsonl", "query_prompt": "Instruct: x\nQuery:"}
    config = merged(embedding=own, retrieval=queries)
    if "prompt" in BACKENDS[backend].reads:
        check(config)
    else:
        with pytest.raises(SidmillError, match=f"backend {backend} takes no prompt"):
            check(config)


@pytest.mark.parametrize("name", ["own.npy", "OWN.NPY"])
def test_a_npy_wants_ids_or_the_order_of_the_catalogue(name):
    own = {"backend": "precomputed", "model": "m", "path": name}
    with pytest.raises(SidmillError, match=r"a .npy holds no ids: .* embedding.rows: catalogue"):
        check(merged(embedding=own))
    check(merged(embedding=own | {"rows": "catalogue"}))
    check(merged(embedding=own | {"ids_path": "ids.txt"}))
    with pytest.raises(SidmillError, match=r"set embedding\.rows: ids, or ids_path to null"):
        check(merged(embedding=own | {"ids_path": "ids.txt", "rows": "catalogue"}))


@pytest.mark.parametrize("features", ["auto", "words", "model"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_tokens_of_words_do_not_follow_the_model(backend, features):
    own = {"backend": backend, "model": "a", "revision": None}
    before, after = (tokenizer_settings(one, features) for one in (own, own | {"model": "b"}))
    uses = features == "model" or (features == "auto" and backend == "sentence_transformers")
    assert (before != after) == uses


@pytest.mark.parametrize("name", [*BACKENDS, "glove"])
def test_every_backend_of_the_registry_is_one(name):
    with pytest.raises((SidmillError, ValueError)) as error:
        choose(Embedding(backend=name), DEFAULT_RUN)
    assert ("choose lsa" in str(error.value)) == (name == "glove")


def test_the_page_says_what_the_table_says():
    page = (ROOT / "docs/embedding.md").read_text()
    for backend, entry in BACKENDS.items():
        line = re.search(rf"^\| `{backend}` \| (`.*) \|$", page, re.M)[1]
        named = {*re.findall(r"`(\w+)`", line)} - ELSEWHERE - {"openai"}
        assert named == {*entry.reads}, backend
