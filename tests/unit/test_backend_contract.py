"""What every backend of the registry promises; a new one gets these tests by its entry."""

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from embedding_server import serving

from sidmill.core.errors import SidmillError
from sidmill.embed import backend, chunks, store
from sidmill.embed.backends import lsa
from sidmill.embed.shard import ShardFiles, embed_shard
from sidmill.formats import embedding_shards, item_text, vector_store
from sidmill.settings import base, registry
from sidmill.settings.embedding import Embedding, Openai, Store

ROWS = 23
TEXTS = [f"word{n % 7} of line{n % 5} and item{n}" for n in range(ROWS - 3)] + [
    "word1 of line2"
] * 3
PIDS = [3 * n + 1 for n in range(ROWS)]
KEYS = [
    *("backend", "model", "revision", "pooling", "prompt", "normalize", "dim"),
    *("dtype", "max_length"),
]
QUICK = {"retries": 0, "wait_s": 0.0}
# Three values of each machine setting, of the embedding and of a server.
MACHINE = {
    "batch_tokens": [None, 64, 4096],
    "device": ["cpu", "auto", "cpu"],
    "processes": [1, 2, 3],
}
SERVER = {
    "requests": [1, 3, 16],
    "texts_per_request": [1, 5, 64],
    "timeout_s": [5.0, 60.0, 120.0],
    "retries": [0, 2, 6],
    "wait_s": [0.0, 0.5, 1.0],
    "allow_http": [False, True, False],
}
PARAMS = [
    pytest.param(name, marks=[pytest.mark.model] if name == "sentence_transformers" else [])
    for name in registry.BACKENDS
]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Text, a fitted LSA, vectors of the user and a tiny model: what the backends need."""
    folder = tmp_path_factory.mktemp("contract")
    table = pa.table({"pid": pa.array(PIDS), "text": TEXTS})
    item_text.write(folder / "text.parquet", pa.int64(), [table])
    fitted = lsa.fit(folder / "text.parquet", Embedding(dim=6), 0)
    lsa.write(folder / "lsa.safetensors", fitted)
    vectors = np.random.default_rng(0).standard_normal((ROWS, 6)).astype(np.float32)
    order = np.random.default_rng(1).permutation(ROWS)
    own = pa.table({"pid": np.array(PIDS)[order], "embedding": vectors[order].tolist()})
    pq.write_table(own, folder / "own.parquet")
    return folder


class Case:
    """One backend with all it needs."""

    def __init__(self, name, folder, sources):
        self.name, self.folder, self.sources = name, folder, sources
        own = {
            "lsa": {"dim": 6},
            "precomputed": {"model": "m", "path": str(sources / "own.parquet")},
            "openai": {"model": "m"},
        }.get(name, {"model": str(sources / "model"), "max_length": 32, "dtype": "float32"})
        self.settings = Embedding(**{"backend": name, "dim": None, "device": "cpu"} | own)
        self.openai = Openai(**QUICK)

    def with_(self, **changes):
        """The same case with other settings of the embedding."""
        case = Case(self.name, self.folder, self.sources)
        case.settings = dataclasses.replace(self.settings, **changes)
        return case

    def run(self):
        def read_pids():
            return pa.array(PIDS)

        model, text = (str(self.sources / name) for name in ("lsa.safetensors", "text.parquet"))
        return backend.Run(self.openai, model, text, read_pids)

    def shards(self, where, count=1):
        """Embed all shards; return their files."""
        paths = []
        for shard in range(count):
            path = self.folder / where / f"part-{shard:05d}-of-{count:05d}.parquet"
            paths.append(str(path))
            text, model = (str(self.sources / n) for n in ("text.parquet", "lsa.safetensors"))
            files = ShardFiles(text, str(path), str(self.folder / "speed.json"), model)
            embed_shard(files, self.settings, self.openai, shard=shard, shards=count, code="1")
        return paths


@pytest.fixture(params=PARAMS)
def case(request, sources, tmp_path, monkeypatch):
    name = request.param
    if name == "sentence_transformers" and not (sources / "model").exists():
        import tiny_qwen3

        tiny_qwen3.build(sources / "model")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    entry = registry.BACKENDS[name]
    monkeypatch.setitem(
        registry.BACKENDS, name, entry._replace(chunk_rows=8 if entry.chunk_rows else 0)
    )
    with serving() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{server.server_port}/v1")
        yield Case(name, tmp_path, sources)


def read(paths):
    """All ids and vectors of some shards."""
    blocks = [block for path in paths for block in embedding_shards.read(path)]
    ids = [pid for pids, _ in blocks for pid in pids.to_pylist()]
    return ids, np.concatenate([vectors for _, vectors in blocks])


def contents(paths):
    return [open(path, "rb").read() for path in paths]  # noqa: PTH123


def test_a_second_run_has_the_same_bytes(case):
    assert contents(case.shards("a")) == contents(case.shards("b"))


def test_one_two_or_three_shards_have_the_same_rows_in_order(case):
    ids, vectors = read(case.shards("1"))
    assert ids == PIDS
    assert vectors.dtype == np.float32
    for count in (2, 3):
        paths = case.shards(str(count), count)
        more_ids, more = read(paths)
        assert more_ids == ids
        np.testing.assert_allclose(more, vectors, atol=1e-5)
        assert len({str(embedding_shards.fingerprint(path)) for path in paths}) == 1


def test_each_row_has_the_vector_of_its_own_text(case):
    _, vectors = read(case.shards("a"))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    if case.name == "precomputed":
        own = pq.read_table(case.sources / "own.parquet").to_pylist()
        wanted = {row["pid"]: np.array(row["embedding"]) for row in own}
        for pid, vector in zip(PIDS, vectors, strict=True):
            np.testing.assert_allclose(vector, wanted[pid] / np.linalg.norm(wanted[pid]), atol=1e-6)
        return
    loaded = backend.choose(case.settings, case.run())
    for row in (0, 9, ROWS - 1):
        alone = loaded.encode([TEXTS[row]], lambda count: None)
        np.testing.assert_allclose(alone[0], vectors[row], atol=1e-5)


def test_the_fingerprint_names_the_space_and_no_path(case):
    space = embedding_shards.fingerprint(case.shards("a")[0])
    assert sorted(space) == sorted(KEYS)
    assert space["backend"] == case.name
    assert space["dim"] == read(case.shards("a"))[1].shape[1]
    assert str(case.sources) not in str(space)
    for change in ({"normalize": False}, {"revision": "v2"}, {"prompt": "p: "}):
        if {*change} <= {*registry.BACKENDS[case.name].reads}:
            other = embedding_shards.fingerprint(case.with_(**change).shards("b")[0])
            is_folder = case.name == "sentence_transformers" and "revision" in change
            assert (other != space) == (not is_folder), change


@pytest.mark.parametrize("done", [1, 2])
def test_a_shard_that_was_interrupted_resumes_to_the_same_bytes(case, monkeypatch, done):
    whole = contents(case.shards("whole"))
    keep, kept = chunks.keep, []

    def interrupted(*arguments):
        keep(*arguments)
        kept.append(arguments)
        if len(kept) == done:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(chunks, "keep", interrupted)
        if registry.BACKENDS[case.name].chunk_rows:
            with pytest.raises(KeyboardInterrupt):
                case.shards("cut")
            assert not list((case.folder / "cut").glob("part-*"))
        else:
            case.shards("cut")
    assert contents(case.shards("cut")) == whole


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_vector_that_is_not_finite_reaches_no_store(case, monkeypatch, value):
    choose = backend.choose

    def spoiled(settings, run):
        loaded = choose(settings, run)

        def stream(texts, advance):
            for encoded in loaded.stream(texts, advance):
                encoded.vectors[-1, 0] = value
                yield encoded

        return loaded._replace(stream=stream)

    monkeypatch.setattr(backend, "choose", spoiled)
    names = ("text.parquet", "vectors.npy", "ids.parquet")
    text, vectors, ids = (case.sources / names[0], *(case.folder / name for name in names[1:]))
    with pytest.raises(SidmillError, match="a NaN or an infinity"):
        store.store(case.shards("bad"), str(text), str(vectors), str(ids), Store())
    assert not vectors.exists()

    # The remedy: the same shards without it.
    monkeypatch.setattr(backend, "choose", choose)
    store.store(case.shards("good"), str(text), str(vectors), str(ids), Store())
    assert vector_store.open_store(vectors, ids).ids.to_pylist() == PIDS


def test_a_width_that_the_backend_lacks_is_refused_and_its_own_is_not(case):
    width = read(case.shards("a"))[1].shape[1]
    with pytest.raises(SidmillError, match=r"embedding\.dim"):
        case.with_(dim=width + 1).shards("b")
    assert read(case.with_(dim=width).shards("c"))[1].shape[1] == width


SLOW = [pytest.param("processes", marks=pytest.mark.long)]  # each process imports torch


@pytest.mark.parametrize("key", [*(key for key in MACHINE if key != "processes"), *SERVER, *SLOW])
def test_machine_settings_change_no_byte(case, key):
    """An encoder's last bits may follow the shapes of its batches: see its ``load``."""
    found = []
    for number, value in enumerate((MACHINE | SERVER)[key]):
        other = case.with_(**{key: value} if key in MACHINE else {})
        if key in SERVER:
            if case.name != "openai":
                return
            other.openai = dataclasses.replace(case.openai, **{key: value})
        found.append(other.shards(f"{number}"))
    if case.name == "sentence_transformers" and key != "device":
        for paths in found[1:]:
            assert read(paths)[0] == PIDS
            np.testing.assert_allclose(read(paths)[1], read(found[0])[1], atol=1e-5)
    else:
        assert contents(found[0]) == contents(found[1]) == contents(found[2])


def test_every_machine_setting_is_tried():
    assert {*MACHINE} == {*base.machine_keys(Embedding)}
    assert {*SERVER} == {*base.machine_keys(Openai)}


class Spy:
    """Settings that note which of them are read."""

    def __init__(self, settings, asked):
        self._settings, self._asked = settings, asked

    def __getattr__(self, name):
        self._asked.add(name)
        return getattr(self._settings, name)


def test_the_registry_names_what_a_backend_reads(case):
    """More than is read would rerun jobs for nothing; less would leave a change without effect."""
    asked = set()
    module, _, name = registry.BACKENDS[case.name].function.partition(":")
    load = getattr(__import__(module, fromlist=[name]), name)
    loaded = load(Spy(case.settings, asked), case.run())
    loaded.encode(TEXTS, lambda count: None)
    if case.name == "precomputed":  # read for a .npy alone
        asked.add("ids_path")
    science = asked & {*base.science_keys(Embedding)} - {"backend"}
    unread = {"prompt"} - {
        *registry.BACKENDS[case.name].reads
    }  # refused before, named in the space
    assert science - unread == {*registry.BACKENDS[case.name].reads}
