"""The pipeline with embeddings from a server: what it took is told, who was asked is not."""

import json

import pandas as pd
import pytest
from embedding_server import WIDTH, serving

pytestmark = pytest.mark.workflow
TINY = ("--configfile", "tests/configs/tiny.yaml", "openai.yaml")
KEY = "sk-very-secret-word"


def test_embeddings_of_a_server_with_figures_and_without_its_secrets(workflow, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    workflow.overlay(
        "openai.yaml",
        "embedding: {backend: openai, model: tiny, dim: 4}\n"
        "openai: {texts_per_request: 16, wait_s: 0.01}\n"
        "embedding_cost: {items: 1000000, price_per_hour: 2.0}\n"
        "matryoshka: {dims: [2, 4, 6]}\n",
    )
    files = [
        f"results/items/{name}" for name in ("embedding.json", "matryoshka.json", "ids.parquet")
    ]
    with serving() as server:
        server.faults = ["count", (503, {}), "cut"]
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{server.server_port}/tenant-word")
        printed = workflow.run(*TINY, "--", *files)
    # What only a server knows is no reason to ask it again; what changes its vectors is.
    for name, text, planned in (
        ("same.yaml", "{max_length: 256, dtype: float32, rows: catalogue}", set()),
        ("other.yaml", '{prompt: "about: "}', {"embed_shard", "store_vectors", "report_embedding"}),
    ):
        workflow.overlay(name, f"embedding: {text}\n")
        assert workflow.planned(*TINY, name, "--", *files) - {"measure_dimensions"} == planned
    folder = workflow.folder / "results/items"
    speed = json.loads((folder / "embedding.json").read_text())
    assert (speed["shards"], speed["rows"]) == (2, 200)
    assert speed["for_items"]["price"] > 0
    kept = json.loads((folder / "matryoshka.json").read_text())
    assert kept["full_dim"] == WIDTH
    assert kept["jaccard"]["6"] == 1 > kept["jaccard"]["4"] > kept["jaccard"]["2"]
    found = pd.read_parquet(folder / "embeddings.parquet")
    assert len(found["embedding"][0]) == 4
    assert len(found) == 200
    contents = [file.read_bytes() for file in workflow.folder.rglob("*") if file.is_file()]
    for secret in (KEY, "tenant-word"):
        assert secret not in printed
        assert not any(secret.encode() in content for content in contents)
