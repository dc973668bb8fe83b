"""A published version: whole or absent, never written again, and what was published."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from sidmill.cli import commands
from sidmill.commands import publishing
from sidmill.core.errors import SidmillError
from sidmill.formats import quantizer_file, version_folder
from sidmill.io import json_report

FACTS = {"version": 1, "items": 3, "reserved": 0}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Files of a run, and its version.json."""
    monkeypatch.chdir(tmp_path)
    shards = tmp_path / "results/items/embeddings.parquet"
    shards.mkdir(parents=True)
    sources = {}
    for name in version_folder.NEEDED:
        sources[name.partition(".")[0]] = f"results/{name}"
        (tmp_path / "results" / name).write_text(name)
    quantizer = quantizer_file.Quantizer("rqkmeans", [np.zeros((2, 4), np.float32)], {}, {})
    quantizer_file.write("results/quantizer.safetensors", quantizer)  # the card reads it
    for number in range(2):
        (shards / f"part-{number}.parquet").write_text(f"shard {number}")
    sources["shards"] = [f"results/items/embeddings.parquet/part-{n}.parquet" for n in range(2)]
    sources |= {"lsa": [], "parent": []}
    json_report.write("results/version.json", version_folder.describe(sources, FACTS))
    return tmp_path


def test_a_version_holds_what_the_manifest_says(run):
    manifest = publishing.publish("results/version.json", "versions/1")
    found = version_folder.find("versions/1", "published.path")
    assert (
        version_folder.verify(found["all"])
        == manifest
        == json_report.read("versions/1/manifest.json")
    )
    assert (manifest["version"], manifest["parent"]) == (1, None)
    assert found["ledger"] == ["versions/1/ledger.parquet"]
    assert [path[-14:] for path in found["embeddings"]] == ["part-0.parquet", "part-1.parquet"]
    assert "lsa" not in found
    assert not list(run.glob("versions/.*"))


def test_it_stays_when_the_run_goes_on(run):
    """Outputs are replaced and not written into: a link keeps what was published."""
    from sidmill.core.atomic import write_text

    publishing.publish("results/version.json", "versions/1")
    write_text("results/pid2sid.parquet", "another")
    version_folder.verify(version_folder.find("versions/1", "published.path")["all"])


@pytest.mark.parametrize("link", [True, False])
def test_links_or_copies_are_the_same(run, monkeypatch, link):
    def no_link(source, target):
        raise OSError(18, "Invalid cross-device link")

    if not link:
        monkeypatch.setattr(publishing.os, "link", no_link)
    publishing.publish("results/version.json", "versions/1")
    same = (run / "results/codes.parquet").samefile(run / "versions/1/codes.parquet")
    assert same == link
    version_folder.verify(version_folder.find("versions/1", "published.path")["all"])


def test_a_version_is_never_written_again(run):
    publishing.publish("results/version.json", "versions/1")
    before = (run / "versions/1/manifest.json").stat().st_mtime_ns
    with pytest.raises(SidmillError, match="never written again"):
        publishing.publish("results/version.json", "versions/1")
    (run / "empty").mkdir()
    with pytest.raises(SidmillError, match="is there already"):
        publishing.publish("results/version.json", "empty")
    assert (run / "versions/1/manifest.json").stat().st_mtime_ns == before


def test_a_run_that_went_on_is_refused_and_leaves_nothing(run):
    (run / "results/text.parquet").write_text("another catalogue")
    with pytest.raises(SidmillError, match=r"results/text\.parquet: changed since"):
        publishing.publish("results/version.json", "versions/1")
    (run / "results/text.parquet").unlink()
    with pytest.raises(SidmillError, match=r"results/text\.parquet: no such file"):
        publishing.publish("results/version.json", "versions/1")
    assert not list(run.glob("versions/*"))
    assert not list(run.glob("versions/.*"))


def test_what_a_kill_left_is_made_anew(run):
    left = run / "versions/.1.partial"
    left.mkdir(parents=True)
    (left / "stray").write_text("half")
    publishing.publish("results/version.json", "versions/1")
    assert not left.exists()
    assert not (run / "versions/1/stray").exists()


def test_a_changed_byte_and_a_lost_file_are_named(run):
    publishing.publish("results/version.json", "versions/1")
    found = version_folder.find("versions/1", "published.path")
    path = run / "versions/1/embeddings.parquet/part-1.parquet"
    path.unlink()
    with pytest.raises(SidmillError, match=r"versions/1 lacks embeddings\.parquet/part-1\.parquet"):
        version_folder.find("versions/1", "published.path")
    path.write_text("shard X")
    with pytest.raises(SidmillError, match=r"part-1\.parquet: 7 bytes, .* was changed after it"):
        version_folder.verify(found["all"])


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("[]", "a JSON list, wanted an object"),
        ("{", "not JSON"),
        ('{"form": 2, "files": {}}', "no manifest of form 1"),
        ('{"form": 1, "files": {"../../etc/passwd": {}}}', "names files outside of its folder"),
        ('{"form": 1, "files": {"a": 3}}', "names files outside of its folder"),
    ],
)
def test_a_foreign_manifest_is_refused(run, manifest, message):
    (run / "odd").mkdir()
    (run / "odd/manifest.json").write_text(manifest)
    with pytest.raises(SidmillError, match=message):
        version_folder.find("odd", "published.path")


def test_a_folder_that_is_no_version_is_refused(run):
    with pytest.raises(SidmillError, match=r"published\.path: no manifest\.json in results"):
        version_folder.find("results", "published.path")


def test_the_command_says_what_it_made(run):
    runner = CliRunner()
    done = runner.invoke(commands, ["publish", "versions/1"])
    assert done.output == "versions/1: version 1, the first of its line; 3 items, 0 SIDs reserved\n"
    manifest = json.loads((run / "versions/1/manifest.json").read_text())
    assert "source" not in json.dumps(manifest)
    missing = runner.invoke(commands, ["publish", "versions/2", "--run", "nowhere.json"])
    assert "run snakemake nowhere.json" in str(missing.exception)
