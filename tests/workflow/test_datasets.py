"""Datasets of the demo from end to end, and a model that gets the tokens of its SIDs."""

import json
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
import tiny_qwen3
from conftest import ROOT

from sidmill.formats import code_files, dataset_rows, trie_file
from sidmill.numeric import sid_trie

pytestmark = [pytest.mark.workflow, pytest.mark.model]

TASKS = ("sft_video_rec", "sft_sid_to_title")
OVERLAY = """
datasets: {{tasks: [{tasks}], rows_per_file: 15, shards: {shards}}}
rl: {{test_size: {{sft_video_rec: 4}}}}
vocabulary: {{model: qwen3}}
"""
MADE = (
    "results/datasets/report.json",
    "results/datasets/rl/test",
    "results/datasets/sft_video_rec.test",
    "results/vocabulary/model",
    "results/trie.safetensors",
)


def files_of(workflow):
    folder = workflow.folder / "results/datasets/sft_video_rec"
    return {path.name: path.read_bytes() for path in dataset_rows.parts(folder)}


def test_datasets_of_the_demo(make_workflow):
    from transformers import AutoTokenizer, Qwen3ForCausalLM

    workflow = make_workflow()
    source = tiny_qwen3.build(workflow.folder / "qwen3")
    Qwen3ForCausalLM.from_pretrained(source).save_pretrained(source)
    one, two = (
        ("--configfile", "tests/configs/tiny.yaml", workflow.overlay(f"{n}.yaml", text), "--")
        for n in (1, 2)
        for text in [OVERLAY.format(tasks=", ".join(TASKS), shards=n)]
    )
    workflow.run(*one, *MADE)
    report = json.loads(workflow.bytes("datasets/report.json"))
    assert list(report["datasets"]) == list(TASKS)
    for task, counts in report["datasets"].items():
        left_out = sum(counts["left_out"].values())
        assert counts["read"] + counts["added"] == counts["written"] + left_out, task
        folder = workflow.folder / "results/datasets" / task
        rows = sum(pq.ParquetFile(path).metadata.num_rows for path in dataset_rows.parts(folder))
        assert rows == counts["written"] == counts["lint"]["rows"] > 0
        assert counts["lint"]["unknown_sids"] == 0
    rl = json.loads(workflow.bytes("datasets/counts/rl.json"))
    assert rl["test"]["sft_video_rec"] == 4
    assert rl["train"]["sft_video_rec"] == 36
    tokenizer = AutoTokenizer.from_pretrained(workflow.folder / "results/vocabulary/model")
    assert (
        len(tokenizer("<|sid_begin|><s_a_1><|sid_end|>", add_special_tokens=False).input_ids) == 3
    )
    results = workflow.folder / "results"
    tree = trie_file.read(results / "trie.safetensors", results / "pid2sid.parquet")
    sids = code_files.read(results / "pid2sid.parquet", "sid").codes
    assert (sid_trie.codes_of(tree, tree.sid_of_item).numpy() == sids).all()
    assert workflow.planned(*one, *MADE) == set()

    first = files_of(workflow)
    workflow.run(*two, "results/datasets/sft_video_rec")
    assert files_of(workflow) == first
    assert len(first) == 3

    words = ["--steps=20", "--users=6", "--k=4", f"--results={workflow.folder / 'results'}"]
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks/constrained_decoding.py", *words],
        env=workflow.command()["env"] | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["loss_last"] < figures["loss_first"]
    assert figures["constrained_users_with_k"] == figures["constrained_valid"] == 1
    assert figures["unconstrained_valid"] < 1
