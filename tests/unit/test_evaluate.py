"""One quantizer measured: by the library, and from the command line."""

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import yaml
from click.testing import CliRunner
from conftest import ROOT
from test_alignment import write as write_sequences

from sidmill import api
from sidmill.cli import commands
from sidmill.commands import source
from sidmill.core.errors import SidmillError
from sidmill.formats import embedding_shards, quantizer_file, vector_store
from sidmill.settings.sids import Evaluation
from sidmill.sids.evaluate import evaluate

SETTINGS = Evaluation(neighbour_queries=50, n_neighbours=10)
FINGERPRINT = {"backend": "test", "dim": 8}


@pytest.fixture(scope="module")
def fitted():
    """Vectors, and a quantizer of them."""
    vectors = np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32)
    quantizer = api.fit(vectors, n_levels=2, codebook_size=16, seed=0)
    return vectors, quantizer._replace(fingerprint=FINGERPRINT)


def test_figures_equal_brute_force(fitted):
    vectors, quantizer = fitted
    codes = api.encode(quantizer, vectors)
    found = evaluate(
        quantizer, vectors, codes, None, Evaluation(neighbour_queries=999, n_neighbours=10), seed=0
    )
    distinct, counts = np.unique(codes, axis=0, return_counts=True)
    assert found["distinct"] == len(distinct)
    assert found["collision_rate"] == pytest.approx(1 - len(distinct) / 300)
    assert found["colliding_items_rate"] == pytest.approx(counts[counts > 1].sum() / 300)
    loss = np.square(vectors - api.decode(quantizer, codes)).sum() / np.square(vectors).sum()
    assert found["relative_loss"] == pytest.approx(loss, rel=1e-5)
    assert [level["used"] for level in found["levels"]] == [
        len(np.unique(codes[:, level])) for level in range(2)
    ]
    assert found["capacity"] == 256
    assert "harmful" not in found  # without texts nobody can tell
    assert found["co_consumption"] is None


def test_a_quantizer_that_loses_nothing_keeps_all_neighbours(rng):
    vectors = rng.standard_normal((60, 4)).astype(np.float32)
    quantizer = quantizer_file.Quantizer("rqkmeans", [vectors], {}, {})
    codes = np.arange(60, dtype=np.int32)[:, None]
    found = evaluate(quantizer, vectors, codes, None, SETTINGS, seed=0)
    assert found["neighbour_preservation"]["jaccard"] == 1.0
    assert found["neighbour_preservation"]["rbo"] == pytest.approx(1)
    assert found["relative_loss"] == 0


def test_codes_at_random_keep_neighbours_by_chance_only(rng):
    vectors = rng.standard_normal((500, 4)).astype(np.float32)
    book = rng.standard_normal((500, 4)).astype(np.float32)
    quantizer = quantizer_file.Quantizer("rqkmeans", [book], {}, {})
    codes = np.arange(500, dtype=np.int32)[:, None]
    found = evaluate(quantizer, vectors, codes, None, SETTINGS, seed=0)["neighbour_preservation"]
    assert found["jaccard"] < 0.05
    assert found["rbo"] < 0.05


@pytest.fixture
def files(fitted, tmp_path):
    """The same vectors as .npy, as .npy with ids, and as shards; a quantizer; histories."""
    vectors, quantizer = fitted
    ids = pa.chunked_array([np.arange(300)])
    quantizer_file.write(tmp_path / "quantizer.safetensors", quantizer)
    np.save(tmp_path / "bare.npy", vectors)
    (tmp_path / "store").mkdir()
    np.save(tmp_path / "store/vectors.npy", vectors)
    vector_store.write_ids(tmp_path / "store/ids.parquet", ids, vectors.shape, FINGERPRINT)
    for part, rows in enumerate((slice(0, 200), slice(200, 300))):
        path = tmp_path / f"embeddings.parquet/part-{part}.parquet"
        path.parent.mkdir(exist_ok=True)
        pids = ids.slice(rows.start, rows.stop - rows.start)
        embedding_shards.write(path, pa.int64(), FINGERPRINT, [(pids, vectors[rows])])
    write_sequences(tmp_path / "sequences.parquet", [[(item, 0) for item in range(0, 300, 3)]])
    return tmp_path


def call(files, *arguments):
    return CliRunner().invoke(
        commands,
        ["evaluate", "--quantizer", str(files / "quantizer.safetensors"), *map(str, arguments)],
        catch_exceptions=False,
    )


def test_every_form_of_vectors_gives_the_same_figures(files):
    outputs = [
        call(files, "--vectors", files / name, "--json").output
        for name in ("bare.npy", "store/vectors.npy", "embeddings.parquet")
    ]
    assert outputs[0] == outputs[1] == outputs[2]
    assert json.loads(outputs[0])["items"] == 300


def test_shards_are_copied_where_there_is_room_and_the_copy_goes(files, tmp_path, monkeypatch):
    shards, scratch = str(files / "embeddings.parquet"), tmp_path / "scratch"
    scratch.mkdir()
    with source.open_vectors(shards, None, str(scratch)) as opened:
        assert scratch in Path(opened.vectors.filename).parents
    assert not list(scratch.iterdir())
    call(files, "--vectors", shards, "--scratch", scratch)
    assert not list(scratch.iterdir())
    asked = []
    room = SimpleNamespace(free=300 * 8 * 4 - 1)  # a byte less than the vectors
    monkeypatch.setattr(shutil, "disk_usage", lambda path: asked.append(path) or room)
    with pytest.raises(SidmillError, match=r"scratch has .* free, a copy of 300 vectors of 8 .*--"):
        call(files, "--vectors", shards, "--scratch", scratch)
    assert scratch in asked[0].parents
    assert not list(scratch.iterdir())


def test_the_table_says_what_the_json_says(files):
    arguments = ("--vectors", files / "embeddings.parquet", "--sequences")
    arguments += (files / "sequences.parquet",)
    table = call(files, *arguments).output
    figures = json.loads(call(files, *arguments, "--json").output)
    assert f"{figures['collision_rate']:.4f}" in table
    assert f"{figures['neighbour_preservation']['rbo']:.4f}" in table
    assert figures["co_consumption"]["pairs"] == 99
    assert f"{figures['co_consumption']['1']['share']:.4f}" in table
    assert len([line for line in table.splitlines() if line.strip().startswith(("1 ", "2 "))]) == 2


def test_mistakes_say_what_to_do(files, fitted):
    vectors, quantizer = fitted
    with pytest.raises(SidmillError, match="needs the ids"):
        call(files, "--vectors", files / "bare.npy", "--sequences", files / "sequences.parquet")
    with pytest.raises(SidmillError, match="holds its own ids"):
        call(files, "--vectors", files / "embeddings.parquet", "--ids", files / "x.parquet")
    with pytest.raises(SidmillError, match="no such file"):
        call(files, "--vectors", files / "missing.npy")
    other = quantizer._replace(fingerprint={"backend": "other", "dim": 8})
    quantizer_file.write(files / "quantizer.safetensors", other)
    with pytest.raises(SidmillError, match="trained on other embeddings"):
        call(files, "--vectors", files / "embeddings.parquet")
    np.save(files / "bare.npy", vectors[:, :5])
    with pytest.raises(SidmillError, match="do not fit a quantizer of dimension 8"):
        call(files, "--vectors", files / "bare.npy")


def test_the_command_has_the_defaults_of_the_config():
    settings = yaml.safe_load((ROOT / "config.yaml").read_text())
    wanted = {**settings["run"], **settings["encoding"], **settings["evaluation"]}
    defaults = {option.name: option.default for option in commands.commands["evaluate"].params}
    del wanted["sequences"]  # a file or none
    del wanted["processes"]  # a command is one
    assert {name: defaults[name] for name in wanted} == wanted


def test_help_is_instant():
    began = resource.getrusage(resource.RUSAGE_CHILDREN)
    code = "import sys, sidmill.cli; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "src", check=False)
    assert done.returncode == 0
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime < 3
