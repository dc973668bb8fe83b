"""A shard that is cut short goes on to the same bytes; equal texts are computed once."""

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from process_watch import running

from sidmill.core.errors import SidmillError
from sidmill.embed import (
    backend,
    chunks,
    compute,
    shard,
    store,
    throughput,
    workers,
)
from sidmill.embed.batches import prefetch
from sidmill.formats import catalogue_match, embedding_shards, item_text
from sidmill.io import json_report
from sidmill.settings import registry
from sidmill.settings.embedding import Embedding, EmbeddingCost, Openai, Store

DIM = 4
FILES = {"model_path", "match_path", "published"}


PLAIN = {"backend": "openai", "dim": None, "max_length": 48, "dtype": "float32", "device": "cpu"}


def chunked(monkeypatch, name, rows):
    """Let a backend have chunks of so many rows."""
    entry = registry.BACKENDS[name]._replace(chunk_rows=rows)
    monkeypatch.setitem(registry.BACKENDS, name, entry)


class Fake:
    """A backend that counts what it is asked, and can break off."""

    def __init__(self, monkeypatch, rows=10):
        self.asked = []
        self.left = None
        self.space = "a"
        chunked(monkeypatch, "openai", rows)
        monkeypatch.setattr(backend, "choose", lambda settings, run: self.backend())

    def backend(self):
        return backend.Backend(self.stream, {"model": self.space, "dim": DIM})

    def stream(self, parts, advance):
        for texts in parts:
            if self.left is not None:
                self.left -= 1
                if self.left < 0:
                    raise KeyboardInterrupt
            self.asked += texts
            found = [np.frombuffer(f"{line:>16}"[-16:].encode(), "<i4") for line in texts]
            vectors = np.array(found, np.float32).reshape(-1, DIM)
            yield throughput.Encoded(vectors, throughput.Work(texts=len(texts)))


@pytest.fixture
def fake(monkeypatch):
    return Fake(monkeypatch)


def write_text(folder, lines):
    folder.mkdir(parents=True, exist_ok=True)
    path = str(folder / "text.parquet")
    pids = pa.array(range(len(lines)), pa.int64())
    item_text.write(
        path, pa.int64(), [pa.table({"pid": pids, "text": pa.array(lines, pa.string())})]
    )
    return path


def embed(folder, text_path, number=0, shards=1, code="1", **changes):
    path = folder / f"e/part-{number:05d}-of-{shards:05d}.parquet"
    speed = folder / "speed.json"
    named = {key: changes.pop(key) for key in FILES & {*changes}}
    files = shard.ShardFiles(text_path, str(path), str(speed), **named)
    settings = Embedding(**PLAIN | changes)
    shard.embed_shard(files, settings, Openai(), shard=number, shards=shards, code=code)
    assert [entry.name for entry in path.parent.iterdir() if entry.name.startswith(".")] == []
    return path, json_report.read(speed)


LINES = [f"text {n * n % 37}" for n in range(95)]


def test_equal_texts_are_computed_once_and_every_row_gets_its_own(fake, tmp_path):
    path, figures = embed(tmp_path, write_text(tmp_path, LINES))
    assert sorted(fake.asked) == sorted(set(LINES))
    assert (figures["rows"], figures["texts"]) == (95, len(set(LINES)))
    found = [
        (pid, row)
        for pids, rows in embedding_shards.read(path)
        for pid, row in zip(pids, rows, strict=True)
    ]
    assert [pid.as_py() for pid, _ in found] == list(range(95))
    for (_, row), line in zip(found, LINES, strict=True):
        wanted = np.frombuffer(f"{line:>16}".encode(), "<i4").astype(np.float32)
        np.testing.assert_array_equal(row, wanted)


@given(st.lists(st.sampled_from("abcdefgh"), max_size=40), st.integers(1, 7))
@settings(max_examples=25, deadline=None)
def test_a_plan_computes_each_text_in_the_chunk_of_its_first_row(lines, rows):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = write_text(Path(folder), lines)
        plan = chunks.plan(path, f"{folder}/x", 0, len(lines), rows=rows, identity={})
        new = [line for n in range(len(plan.keys)) for line in chunks.texts(plan, path, n)]
        assert new == list(dict.fromkeys(lines))
        for n in range(len(plan.keys)):
            part = chunks.texts(plan, path, n)
            chunks.keep(plan, n, np.array([[ord(c)] for c in part], np.float32).reshape(-1, 1))
        blocks = [block[:, 0] for _, block in chunks.assemble(plan, path)]
        assert "".join(chr(int(v)) for block in blocks for v in block) == "".join(lines)


@pytest.mark.parametrize("done", [1, 4, 9])
def test_a_shard_cut_short_goes_on_from_its_last_chunk_to_the_same_bytes(fake, tmp_path, done):
    path = write_text(tmp_path, LINES)
    whole, _ = embed(tmp_path / "whole", path)
    fake.left, fake.asked = done, []
    with pytest.raises(KeyboardInterrupt):
        embed(tmp_path / "cut", path)
    assert not list((tmp_path / "cut/e").glob("part-*"))
    fake.left, first = None, fake.asked
    fake.asked = []
    cut, figures = embed(tmp_path / "cut", path)
    assert sorted(first + fake.asked) == sorted(set(LINES))
    assert figures["texts_kept"] == len(first)
    assert cut.read_bytes() == whole.read_bytes()


def flip(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def test_a_chunk_that_changes_on_disk_before_the_shard_is_written_is_named(
    fake, tmp_path, monkeypatch
):
    path = write_text(tmp_path, LINES)
    keep = chunks.keep

    def damaged(plan, chunk, found):
        keep(plan, chunk, found)
        if chunk == 1:
            flip(plan.path(chunk))

    monkeypatch.setattr(chunks, "keep", damaged)
    with pytest.raises(SidmillError, match=r"000001-\w+\.npy: bytes .* not those that were"):
        embed(tmp_path, path)
    monkeypatch.setattr(chunks, "keep", keep)
    fake.asked = []
    assert embed(tmp_path, path)[0].exists()
    assert len(fake.asked) <= 10


@pytest.mark.parametrize("change", ["code", "space", "text", "damage", "bit", "digests"])
def test_chunks_of_other_code_space_or_text_are_not_used(fake, tmp_path, change):
    path = write_text(tmp_path, LINES)
    fake.left = 3
    with pytest.raises(KeyboardInterrupt):
        embed(tmp_path, path)
    kept = sorted((tmp_path / "e").glob(".part*/*.npy"))
    assert len(kept) == 3
    fake.left, fake.asked = None, []
    lines = ["another", *LINES[1:]] if change == "text" else LINES
    if change == "space":
        fake.space = "b"
    if change == "damage":
        for file in kept:
            file.write_bytes(file.read_bytes()[:-3])
    if change == "bit":
        for file in kept:
            flip(file)
    if change == "digests":
        for file, name in zip(kept, ("[]", "{}", "{"), strict=True):
            file.with_suffix(".json").write_text(name)
    embed(tmp_path, write_text(tmp_path, lines), code="2" if change == "code" else "1")
    assert sorted(fake.asked) == sorted(set(lines))


def test_a_later_text_may_change_without_losing_the_chunks_before_it(fake, tmp_path):
    fake.left = 3
    with pytest.raises(KeyboardInterrupt):
        embed(tmp_path, write_text(tmp_path, LINES))
    fake.left = None
    _, figures = embed(tmp_path, write_text(tmp_path, [*LINES[:90], "new", *LINES[91:]]))
    assert figures["texts_kept"] > 0


def test_no_row_and_fewer_rows_than_shards(fake, tmp_path):
    path = write_text(tmp_path, ["a", "a"])
    rows = [len(list(embedding_shards.read(embed(tmp_path, path, n, 3)[0]))) for n in range(3)]
    assert rows == [0, 1, 1]


def published(folder, fake, text_path, n_known):
    """Publish the space of the fake; the last n_known items of text.parquet are known there."""
    part, match_path = str(folder / "published.parquet"), str(folder / "match.parquet")
    known = pa.chunked_array([pa.array(range(n_known), pa.int64())])
    block = np.full((n_known, DIM), 7, np.float32)
    embedding_shards.write(part, pa.int64(), fake.backend().fingerprint, [(known, block)])
    count = item_text.count(text_path)
    rows = np.concatenate([np.full(count - n_known, catalogue_match.NEW), np.arange(n_known)])
    pids = pa.array(range(count), pa.int64())
    found = catalogue_match.Match(rows, np.zeros(count, dtype=bool))
    catalogue_match.write(match_path, pa.int64(), [(pids, found)])
    return {"published": [part], "match_path": match_path}


def test_another_space_than_the_published_is_refused_before_a_text_is_embedded(fake, tmp_path):
    path = write_text(tmp_path, LINES)
    before = published(tmp_path, fake, path, 40)
    fake.space = "b"
    for _ in range(2):
        with pytest.raises(
            SidmillError, match="model: 'a' in the published version, 'b' in this run"
        ):
            embed(tmp_path, path, **before)
    assert fake.asked == []


def test_a_shard_with_nothing_to_embed_loads_no_model(fake, tmp_path, monkeypatch):
    path = write_text(tmp_path, LINES)
    before = published(tmp_path, fake, path, 60)
    loaded = []
    whole = fake.backend
    fake.backend = lambda: loaded.append(1) or whole()
    parts = [embed(tmp_path, path, n, 4, **before) for n in range(4)]
    assert len(loaded) == 2  # 35 items are new, of 95 in 4 shards
    assert [figures["texts"] > 0 for _, figures in parts] == [True, True, False, False]
    assert len({str(embedding_shards.fingerprint(part)) for part, _ in parts}) == 1
    found = np.concatenate([rows for part, _ in parts for _, rows in embedding_shards.read(part)])
    assert (found[35:] == 7).all()
    assert len(found) == 95
    throughput.report([tmp_path / "speed.json"], EmbeddingCost())


def test_the_first_shard_checks_the_space_even_with_nothing_to_embed(fake, tmp_path):
    path = write_text(tmp_path, LINES)
    before = published(tmp_path, fake, path, 95)
    fake.space = "b"
    with pytest.raises(SidmillError, match="model: 'a' in the published version, 'b' in this run"):
        embed(tmp_path, path, 0, 3, **before)


def test_the_store_clears_what_an_interrupted_run_of_other_shards_left(fake, tmp_path):
    path = write_text(tmp_path, [f"a{n}" for n in range(30)])
    fake.left = 1
    with pytest.raises(KeyboardInterrupt):
        embed(tmp_path, path, 1, 2)
    fake.left = None
    (tmp_path / "e/.part-00001-of-00002.parquet.chunks").rename(tmp_path / "kept")
    part, _ = embed(tmp_path, path)
    (tmp_path / "kept").rename(tmp_path / "e/.part-00001-of-00002.parquet.chunks")
    assert embedding_shards.read(part)
    store.store([str(part)], path, str(tmp_path / "v.npy"), str(tmp_path / "i.parquet"), Store())
    assert [entry.name for entry in (tmp_path / "e").iterdir()] == [part.name]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    import tiny_qwen3

    return tiny_qwen3.build(tmp_path_factory.mktemp("models") / "tiny")


def neural(model, monkeypatch):
    chunked(monkeypatch, "sentence_transformers", 40)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return {"backend": "sentence_transformers", "model": str(model)}


@pytest.mark.model
@pytest.mark.usefixtures("one_thread")
def test_two_processes_leave_the_bytes_of_one(model, monkeypatch, tmp_path, caplog):
    chosen = neural(model, monkeypatch)
    path = write_text(tmp_path, [f"{line} bolt, steel" for line in LINES])
    one, alone = embed(tmp_path / "one", path, **chosen)
    with caplog.at_level(logging.INFO):
        two, shared = embed(tmp_path / "two", path, **chosen, processes=2)
    assert two.read_bytes() == one.read_bytes()
    for key in ("rows", "texts", "tokens", "padded_tokens", "operations"):
        assert shared[key] == alone[key], key
    assert 0 < alone["matmul_share"] < 1.5
    assert "process 1: INFO sidmill.embed.backends.sentence_transformers: loaded" in caplog.text


@pytest.mark.model
def test_a_process_that_fails_says_so_and_stops_the_shard(model, monkeypatch, tmp_path, caplog):
    chosen = neural(model, monkeypatch)
    path = write_text(tmp_path, [f"{n}" for n in range(60)])
    with (
        caplog.at_level(logging.INFO),
        pytest.raises(SidmillError, match=r"process \d of the 2 .* what is done is kept"),
    ):
        embed(tmp_path, path, **chosen, dim=65, processes=2)
    assert "embedding.dim is 65" in caplog.text


@pytest.mark.model
@pytest.mark.usefixtures("one_thread")
def test_a_killed_process_of_the_encoder_goes_on_to_the_same_bytes(model, monkeypatch, tmp_path):
    """SIGKILL after the first chunk, in a process of its own."""
    chosen = neural(model, monkeypatch)
    path = write_text(tmp_path, [f"{line} {n}" for n, line in enumerate(LINES)])
    whole, _ = embed(tmp_path / "whole", path, **chosen)
    files = [path, str(tmp_path / "cut/e" / whole.name), "speed.json"]
    code = (
        "import json, os, signal, sys\n"
        "from sidmill.embed import chunks, shard\n"
        "from sidmill.settings.embedding import Embedding, Openai\n"
        "from sidmill.settings.registry import BACKENDS\n"
        "name = 'sentence_transformers'\n"
        "BACKENDS[name] = BACKENDS[name]._replace(chunk_rows=40)\n"
        "keep = chunks.keep\n"
        "def once(*a): keep(*a); os.kill(os.getpid(), signal.SIGKILL)\n"
        "chunks.keep = once\n"
        "files, own = json.loads(sys.argv[1])\n"
        "files, own = shard.ShardFiles(*files), Embedding(**own)\n"
        "shard.embed_shard(files, own, Openai(), shard=0, shards=1, code='1')\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, "-c", code, json.dumps([files, PLAIN | chosen])]
    assert subprocess.run(words, env=environment, cwd=tmp_path).returncode == -9
    cut, figures = embed(tmp_path / "cut", path, **chosen)
    assert figures["texts_kept"] == 40
    assert cut.read_bytes() == whole.read_bytes()


@pytest.fixture
def members(monkeypatch, tmp_path):
    """Let members run this code in the place of choosing a backend; return the task for them."""

    def make(code):
        patch = (
            "import os, time\n"
            "from sidmill.embed import backend\n"
            "from sidmill.core.errors import SidmillError\n"
            "def choose(settings, run):\n"
            "    process = run.process\n"
            f"    open({str(tmp_path)!r} + '/pids', 'a').write(f'{{os.getpid()}}\\n')\n"
            f"    {code}\n"
            "backend.choose = choose\n"
        )
        (tmp_path / "sitecustomize.py").write_text(patch)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
        return compute.Task(
            write_text(tmp_path, LINES), str(tmp_path / "e/x"), 0, 95, 10, "1", False, [], None,
            Embedding(), Openai(),
        )  # fmt: skip

    return make


def test_the_first_process_that_fails_ends_the_others(members, tmp_path, caplog):
    task = members("time.sleep(0 if process else 600); raise SidmillError('no GPU: get one')")
    began = time.monotonic()
    with caplog.at_level(logging.INFO), pytest.raises(SidmillError, match="process 1 of the 2"):
        workers.run(task, 2)
    assert time.monotonic() - began < 300
    assert "no GPU: get one" in caplog.text
    assert not any(map(running, (tmp_path / "pids").read_text().split()))


def test_prefetch_keeps_order_and_raises_in_its_place():
    def items():
        yield from range(5)
        raise ValueError("sixth")

    stream = prefetch(items(), 3)
    assert [next(stream) for _ in range(5)] == list(range(5))
    with pytest.raises(ValueError, match="sixth"):
        next(stream)
    assert list(prefetch(iter([]), 2)) == []


def test_prefetch_makes_no_more_than_asked():
    made = []

    def items():
        for n in range(100):
            made.append(n)
            yield n

    stream = prefetch(items(), 4)
    assert next(stream) == 0
    stream.close()
    assert len(made) <= 6


def test_cost_is_arithmetic(tmp_path):
    done = throughput.Work(texts=100, tokens=5000, padded_tokens=5100, squares=300_000)
    model = throughput.Model(1000, 10, causal=False, matmul_rate=1e6, device="cpu")
    figures = throughput.speed(done, model, rows=120, kept=20, seconds=50.0)
    for name in ("a", "b"):
        json_report.write(tmp_path / name, figures)
    asked = EmbeddingCost(items=3_600_000, price_per_hour=2.5)
    told = throughput.report([tmp_path / "a", tmp_path / "b"], asked)
    assert told["texts_per_second"] == pytest.approx(2)
    assert told["useful_share"] == pytest.approx(5000 / 5100)
    assert told["operations"] == 2 * (2 * 1000 * 5000 + 4 * 10 * 300_000)
    assert told["matmul_share"] == pytest.approx(told["operations"] / 100 / 1e6)
    assert told["for_items"]["machine_hours"] == pytest.approx(500)
    assert told["for_items"]["price"] == pytest.approx(1250)
    none = throughput.report([tmp_path / "a"], EmbeddingCost())["for_items"]
    assert (none["items"], none["price"]) == (120, None)
    json_report.write(tmp_path / "odd", {})
    with pytest.raises(SidmillError, match="odd: lacks rows"):
        throughput.report([tmp_path / "odd"], EmbeddingCost())
