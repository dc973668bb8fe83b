"""The log, the memory maps and the HDF5 pair of the demo, and the examples of their page."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

pytestmark = pytest.mark.workflow

TINY = ("--configfile", "tests/configs/tiny.yaml", "--")
FILES = (
    "results/interactions/sequences.parquet",
    "results/mmap/mmap.json",
    "results/h5/item_data.h5",
    "results/h5/sequence.h5",
)


@pytest.fixture(scope="module")
def exported(make_workflow):
    workflow = make_workflow()
    workflow.run(*TINY, *FILES)
    return workflow


def test_the_demo_makes_all_forms_once(exported):
    report = json.loads(exported.bytes("interactions/report.json"))
    assert report["users"] == report["splits"]["test"]["users"] == 40
    assert not any(report["leakage"].values())
    shape = json.loads(exported.bytes("mmap/mmap.json"))["mmap_emb_shape"]
    assert shape == [201, 16]
    assert len(exported.bytes("mmap/mmap_emb_201_16")) == 201 * 16 * 4
    index = np.frombuffer(exported.bytes("mmap/mmap_idx_201"), dtype=np.int32)
    assert index.tolist() == list(range(201))
    assert exported.planned(*TINY, *FILES) == set()


def test_a_setting_reruns_what_it_makes(exported):
    changed = exported.overlay("overlay.yaml", "interactions: {split: leave_last_out}\n")
    files = ("--configfile", "tests/configs/tiny.yaml", changed, "--", *FILES)
    assert exported.planned(*files) == {"read_interactions", "write_sequence_h5"}
    changed = exported.overlay("overlay.yaml", "h5: {max_feature_len: 9}\n")
    assert exported.planned(*files) == {"write_item_h5"}
    changed = exported.overlay("overlay.yaml", "interactions: {memory_mb: 99}\n")
    assert exported.planned(*files) == set()


def test_files_of_other_recommenders_are_made_on_demand(exported):
    peers = "results/peers"
    files = (
        f"{peers}/lcrec/My-log/My-log.inter.json",
        f"{peers}/minionerec/My-log/My-log.train.inter",
        f"{peers}/missrec/My-log/My-log.feat1CLS",
        f"{peers}/user_sequence/train/part-00000.jsonl",
        f"{peers}/onerec/metadata.parquet",
    )
    exported.run(*TINY, *files)
    assert all((exported.folder / file).is_file() for file in files)
    assert len(exported.bytes("peers/missrec/My-log/My-log.feat1CLS")) == 201 * 16 * 4
    assert len(json.loads(exported.bytes("peers/lcrec/My-log/My-log.inter.json"))) == 40
    assert exported.planned(*TINY, *files) == set()


def test_no_log_is_a_message(exported):
    none = exported.overlay("none.yaml", "interactions: {path: null}\n")
    done = exported.snakemake(
        "--configfile", "tests/configs/tiny.yaml", none, "--forcerun", "read_interactions",
        "--", "results/interactions/sequences.parquet",
    )  # fmt: skip
    assert done.returncode != 0
    assert "interactions.path is null" in done.stdout + done.stderr
    assert "Traceback (most recent" not in done.stdout + done.stderr


@pytest.mark.parametrize("number", [0, 1])
def test_the_examples_of_the_page_run(exported, number):
    exported.run(*TINY, *FILES)
    page = (ROOT / "docs/interactions.md").read_text()
    code = re.findall(r"(?s)```python\n(.*?)```", page)[number]
    environment = exported.command()["env"] | {"PYTHONPATH": str(ROOT / "src")}
    subprocess.run(
        [sys.executable, "-c", code], cwd=exported.folder, env=environment, check=True, timeout=200
    )
