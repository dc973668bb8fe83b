"""A published version is a dataset: its card is valid, datasets opens it, the hub takes it."""

import re
import shlex
import shutil
import subprocess
import sys

import hub_server
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import whole_results
import yaml
from click.testing import CliRunner
from huggingface_hub import DatasetCard

from sidmill.cli import commands
from sidmill.commands import publishing
from sidmill.formats import quantizer_file, version_folder
from sidmill.io import json_report
from sidmill.quantize import category_level
from sidmill.report import card
from sidmill.report.runs import Figure
from sidmill.settings.category_level import CategoryLevel


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    """A version that was published from sound results."""
    folder = tmp_path_factory.mktemp("run")
    results = whole_results.make(folder / "results")
    names = ("pid2sid.parquet", "ledger.parquet", "codes.parquet")
    sources = {name.partition(".")[0]: str(results / name) for name in names}
    sources["text"] = str(results / "items/text.parquet")
    sources["quantizer"] = str(results / "rqkmeans/quantizer.safetensors")
    sources["shards"] = sorted(map(str, (results / "items/embeddings.parquet").iterdir()))
    facts = {
        "version": 3, "items": whole_results.N, "reserved": 0, "quantizer": "rqkmeans",
        "fingerprint": {"model": "a|b<c>", "dim": 4}, "collisions": {"strategy": "reassign"},
    }  # fmt: skip
    json_report.write(results / "version.json", version_folder.describe(sources, facts))
    publishing.publish(
        results / "version.json", folder / "v3", title="Shop: IDs #1", license_id="cc-by-4.0"
    )
    return folder / "v3"


def test_the_card_is_one_of_the_hubs_library(version):
    loaded = DatasetCard.load(version / "README.md")
    assert loaded.data.pretty_name == "Shop: IDs #1"
    assert loaded.data.license == "cc-by-4.0"
    assert loaded.data.size_categories == ["n<1K"]
    names = [one["config_name"] for one in loaded.data.configs]
    assert names == ["sids", "codes", "text", "embeddings", "ledger"]
    assert [one.get("default") for one in loaded.data.configs] == [True, None, None, None, None]
    assert "| model | a\\|b&lt;c> |" in loaded.text
    assert "# Shop: IDs #1" in loaded.text


def test_the_card_is_part_of_the_version(version):
    found = version_folder.find(version, "published.path")
    assert str(version / "README.md") in found["all"]
    version_folder.verify(found["all"])


def test_datasets_opens_every_configuration(version):
    """In a process of its own: the library keeps what it opened in a cache."""
    code = (
        "import sys, datasets\n"
        "folder, cache = sys.argv[1:]\n"
        "for name in datasets.get_dataset_config_names(folder, cache_dir=cache):\n"
        "    rows = datasets.load_dataset(folder, name, split='train', cache_dir=cache)\n"
        "    print(name, len(rows), *rows.column_names)\n"
        "print(datasets.load_dataset(folder, split='train', cache_dir=cache)[0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(version), str(version.parent / "cache")],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:4] == [
        "sids 40 pid sid tokens",
        "codes 40 pid codes",
        "text 40 pid text",
        "embeddings 40 pid embedding",
    ]
    first = pq.read_table(version / "pid2sid.parquet").slice(0, 1).to_pylist()[0]
    assert lines[-1] == str(first)


def test_figures_of_recommenders_are_on_the_card_and_those_of_codes_once(version):
    manifest = json_report.read(version / "manifest.json")
    figures = {
        "collision rate": Figure(0.5),
        "generative rqkmeans, HR@10 valid": Figure(0.15, 0.14, 0.16),
        "recommender, HR@10 valid": Figure(0.25),
    }
    text = card.render(version, manifest, figures, title="T", license_id=None)
    assert "| generative rqkmeans, HR@10 valid | 0.1500 | 0.1400 to 0.1600 |" in text
    assert "| recommender, HR@10 valid | 0.2500 |  |" in text
    assert "0.5000" not in text
    assert "Licence: not stated." in text
    assert "license" not in yaml.safe_load(text.split("---")[1])


@pytest.mark.parametrize("has_categories", [False, True])
def test_the_command_for_new_items_runs_as_the_card_has_it(
    version, tmp_path, monkeypatch, has_categories
):
    folder = shutil.copytree(version, tmp_path / "version")
    vectors = np.random.default_rng(0).standard_normal((40, whole_results.DIM)).astype(np.float32)
    if has_categories:
        names = pa.chunked_array([["a", "b"] * 20])
        settings = CategoryLevel(field="kind|<of>", size=2, min_load=0, max_load=9.0)
        level = category_level.fit(vectors, names, settings, {})
        quantizer_file.write(folder / "quantizer.safetensors", level.quantizer)
    manifest = json_report.read(folder / "manifest.json")
    text = card.render(folder, manifest, {}, title="T", license_id=None)
    assert ("`kind\\|&lt;of>` of the catalogue" in text) == has_categories

    # What the card says that there has to be: vectors, and their ids and categories.
    np.save(folder / "new.npy", vectors[:3])
    (folder / "ids.txt").write_text("x\ny\nz\n", encoding="utf-8")
    rows = {"pid": ["z", "x", "y"], "category": ["a", None, "b"]}
    pq.write_table(pa.table(rows), folder / "categories.parquet")
    command = re.search(r"(?s)```sh\n(sidmill .+?)\n```", text)[1]
    monkeypatch.chdir(folder)
    words = shlex.split(command.replace("\\\n", " "))
    done = CliRunner().invoke(commands, words[1:], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert pq.read_metadata(folder / "new.parquet").num_rows == 3


@pytest.mark.parametrize(
    ("n_items", "category"), [(999, "n<1K"), (1000, "1K<n<10K"), (5_000_000, "1M<n<10M")]
)
def test_sizes_are_the_categories_of_the_hub(version, n_items, category):
    manifest = json_report.read(version / "manifest.json") | {"items": n_items}
    text = card.render(version, manifest, {}, title="T", license_id=None)
    assert yaml.safe_load(text.split("---")[1])["size_categories"] == [category]


@pytest.fixture
def hub(monkeypatch):
    """The stand-in, as the hub of huggingface_hub."""
    import huggingface_hub.constants
    import huggingface_hub.hf_api

    with hub_server.running() as running:
        for module in (huggingface_hub.constants, huggingface_hub.hf_api):
            monkeypatch.setattr(module, "ENDPOINT", running.address, raising=False)
        monkeypatch.setenv("HF_TOKEN", hub_server.TOKEN)
        yield running


def publish(version, *words):
    words = ["publish", str(version), "--hub", "shop/ids", *words]
    return CliRunner().invoke(commands, words, catch_exceptions=True)


def test_nothing_is_sent_before_it_was_shown(version, hub):
    done = publish(version)
    assert done.exit_code == 0, done.output
    assert "nothing was sent: --upload sends them" in done.output
    assert "embeddings.parquet/part-00001-of-00002.parquet" in done.output
    assert hub.requests == []


def test_all_files_of_the_version_are_sent_and_tagged(version, hub):
    done = publish(version, "--upload", "--private")
    assert done.exit_code == 0, done.output
    sent = hub.files["shop/ids"]
    here = {str(path.relative_to(version)): path for path in version.rglob("*") if path.is_file()}
    assert {name: path.read_bytes() for name, path in here.items()} == sent
    assert hub.tags == {"shop/ids": ["v3"]}
    assert hub.private == {"shop/ids"}

    # Again, into the dataset that is there: files of other versions go, and the tag is known.
    hub.files["shop/ids"] |= {"embeddings.parquet/part-9.parquet": b"old", ".gitattributes": b"x"}
    again = publish(version, "--upload")
    assert "all files were uploaded, but the commit" in str(again.exception)
    assert "hf repos tag delete shop/ids v3" in str(again.exception)
    assert sorted(hub.files["shop/ids"]) == sorted([*here, ".gitattributes"])
    hub.tags.clear()  # the remedy
    assert publish(version, "--upload").exit_code == 0


def test_a_changed_version_is_not_sent(version, hub, tmp_path):
    copy = shutil.copytree(version, tmp_path / "copy")
    table = pq.read_table(copy / "text.parquet")
    pq.write_table(table.set_column(1, "text", pa.array(["x"] * len(table))), copy / "text.parquet")
    done = publish(copy, "--upload")
    assert "was changed after it was published" in str(done.exception)
    assert hub.requests == []


def test_a_wrong_token_or_name_is_said_with_a_remedy(version, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    said = str(publish(version, "--upload").exception)
    assert "shop/ids on http://127.0.0.1" in said
    assert "hf auth login" in said
    assert "hf_other" not in said
    done = CliRunner().invoke(commands, ["publish", str(version), "--upload"])
    assert "--upload without --hub" in str(done.exception)
