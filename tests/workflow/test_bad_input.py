"""Bad input ends a run with one readable message and nothing half-written; mended, it runs."""

import gzip
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sidmill.formats import quantizer_file

pytestmark = pytest.mark.workflow

COLOURS, THINGS = ("red", "blue", "green"), ("cup", "pan", "lid", "jug")
GOOD = [
    {"id": f"B{i}", "title": f"{COLOURS[i % 3]} {THINGS[i % 4]} {i}"}
    for i in range(40)
]  # fmt: skip
BASE = {
    "items": {"path": "data/items.jsonl", "id_field": "id", "fields": ["title"]},
    "embedding": {"dim": 4, "shards": 2},
    "rqkmeans": {"codebook_size": 4, "n_iter": 3},
}
CONFIG = "overlay.yaml"


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def catalogue(data, name="data/items.jsonl"):
    """A fault: the catalogue holds other bytes."""

    def spoil(workflow):
        (workflow.folder / name).write_bytes(data)

    return spoil


def setting(section, **values):
    """A fault: some settings are others."""

    def spoil(workflow):
        write_config(workflow, {**BASE, section: BASE.get(section, {}) | values})

    return spoil


def write_config(workflow, config):
    (workflow.folder / CONFIG).write_text(json.dumps(config))


def with_row(row):
    return catalogue(lines(GOOD[:3]) + row + b"\n" + lines(GOOD[3:]))


def embeddings(table):
    """A fault: precomputed embeddings with something wrong."""

    def spoil(workflow):
        pq.write_table(pa.table(table()), workflow.folder / "mine.parquet")
        setting("embedding", backend="precomputed", model="mine", path="mine.parquet", dim=None)(
            workflow
        )

    return spoil


def vectors(change=None, pids=None):
    def table():
        values = np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32)
        if change:
            change(values)
        names = [row["id"] for row in GOOD] if pids is None else pids
        column = pa.FixedSizeListArray.from_arrays(values.ravel(), 4).cast(pa.list_(pa.float32()))
        return {"pid": names[: len(column)], "embedding": column}

    return table


def put(place, value):
    def change(values):
        values[place] = value

    return change


FAULTS = {
    "no catalogue": (setting("items", path="data/none.jsonl"), ["data/none.jsonl"]),
    "empty glob": (setting("items", path="data/*.csv"), ["items.path", "no file matches"]),
    "empty file": (catalogue(b""), ["data/items.jsonl", "empty"]),
    "not JSON": (with_row(b"{oops"), ["items.jsonl, row 4", "not JSON"]),
    "latin-1": (with_row(b'{"id": "x", "title": "caf\xe9"}'), ["items.jsonl, row 4", "not UTF-8"]),
    "a list": (with_row(b"[1]"), ["items.jsonl, row 4", "wanted an object"]),
    "repeated id": (
        with_row(b'{"id": "B1", "title": "x"}'),
        ["row 4", "'B1' stands already", "row 2"],
    ),
    "missing id": (with_row(b'{"title": "x"}'), ["row 4", "no id in field 'id'"]),
    "integer among strings": (with_row(b'{"id": 7, "title": "x"}'), ["row 4", "items.id_type"]),
    "empty text": (with_row(b'{"id": "x", "title": "  "}'), ["row 4", "no text in title"]),
    "not gzip": (
        lambda w: (
            catalogue(lines(GOOD), "data/i.jsonl.gz")(w),
            setting("items", path="data/i.jsonl.gz")(w),
        ),
        ["data/i.jsonl.gz", "cannot be read to its end"],
    ),
    "half a gzip": (
        lambda w: (
            catalogue(gzip.compress(lines(GOOD))[:-30], "data/i.jsonl.gz")(w),
            setting("items", path="data/i.jsonl.gz")(w),
        ),
        ["data/i.jsonl.gz", "cannot be read to its end"],
    ),
    "unknown kind": (
        lambda w: (catalogue(b"x", "data/i.xlsx")(w), setting("items", path="data/i.xlsx")(w)),
        ["data/i.xlsx", "unknown kind of file"],
    ),
    "misspelt field": (
        setting("items", fields=["titel"]),
        ["no text in titel", "the row has id, title"],
    ),
    "misspelt id field": (setting("items", id_field="asin"), ["items.id_field", "'asin'"]),
    "broken template": (setting("items", template="{title"), ["items.template"]),
    "unknown key": (
        setting("rqkmeans", n_iters=3),
        ["unknown key 'n_iters'", "did you mean 'n_iter'"],
    ),
    "all at once": (
        lambda w: write_config(
            w,
            {
                "items": {"path": "data/none.jsonl"},
                "evaluation": {"sequences": "data/gone.parquet"},
                "interactions": {"path": "data/*.log"},
            },
        ),
        ["items.path: no such", "evaluation.sequences: no such", "interactions.path: no file"],
    ),
    "settings that do not fit": (
        setting("recommender", hidden_dim=6, n_heads=4),
        ["recommender.hidden_dim: found 6", "a multiple of 8"],
    ),
    "damaged parquet": (
        lambda w: (
            catalogue(b"PAR1 and no more", "data/i.parquet")(w),
            setting("items", path="data/i.parquet")(w),
        ),
        ["data/i.parquet: not a readable parquet file"],
    ),
    "unknown section": (
        lambda w: write_config(w, BASE | {"rqkmean": {}}),
        ["'rqkmean'", "'rqkmeans'"],
    ),
    "number as text": (setting("rqkmeans", n_levels="3"), ["rqkmeans.n_levels", "found '3'"]),
    "zero shards": (
        setting("embedding", shards=0),
        ["embedding.shards", "found 0, wanted at least 1"],
    ),
    "unknown backend": (
        setting("embedding", backend="word2vec"),
        ["embedding.backend", "word2vec"],
    ),
    "backend without a model": (
        setting("embedding", backend="sentence_transformers"),
        ["embedding.model", "hub id or a folder"],
    ),
    "codebook larger than the catalogue": (
        setting("rqkmeans", codebook_size=64),
        ["40 vectors cannot fill 64", "at most 40"],
    ),
    "a size too few": (setting("rqkmeans", codebook_size=[4, 4]), ["2 sizes for 3 levels"]),
    "code space too small": (
        setting("rqkmeans", codebook_size=4, n_levels=2),
        ["40 items cannot have distinct SIDs", "16 codes"],
    ),
    "more dimensions than words": (setting("embedding", dim=500), ["embedding.dim"]),
    "NaN": (embeddings(vectors(put((5, 1), np.nan))), ["NaN", "'B5'"]),
    "zero vector": (embeddings(vectors(put(7, 0.0))), ["all zeros", "'B7'"]),
    "vectors missing": (
        embeddings(vectors(pids=["Z"] + [r["id"] for r in GOOD[1:]])),
        ["'B0'", "mine"],
    ),
    "vectors repeated": (
        embeddings(vectors(pids=["B1"] + [r["id"] for r in GOOD[1:]])),
        ["'B1'", "mine"],
    ),
    "embeddings in results": (
        setting("embedding", backend="precomputed", model="m", path="results/x.parquet", dim=None),
        ["embedding.path", "lies in results/"],
    ),
    "wrong column": (
        embeddings(lambda: {"pid": ["B0"], "vector": [[1.0]]}),
        ["'embedding'", "mine"],
    ),
}


@pytest.fixture(scope="module")
def shop(make_workflow):
    workflow = make_workflow()
    (workflow.folder / "data").mkdir()
    return workflow


def reset(workflow):
    shutil.rmtree(workflow.folder / "results", ignore_errors=True)
    catalogue(lines(GOOD))(workflow)
    write_config(workflow, BASE)


def whole_files(workflow):
    """Names of what is in results but logs."""
    results = workflow.folder / "results"
    files = (path.relative_to(results) for path in results.rglob("*") if path.is_file())
    return {str(path) for path in files if path.parts[0] not in ("logs", "benchmarks")}


@pytest.mark.parametrize("name", FAULTS)
def test_bad_input_is_named_and_leaves_nothing_half_written(shop, name):
    fault, words = FAULTS[name]
    reset(shop)
    fault(shop)
    done = shop.snakemake("--configfile", CONFIG, "--", "results/pid2sid.parquet")
    printed = done.stdout + done.stderr
    assert done.returncode != 0
    for word in words:
        assert word in printed
    assert "Traceback" not in printed
    left = whole_files(shop)
    assert "pid2sid.parquet" not in left
    assert not [path for path in left if path.endswith(".partial")]


def test_the_mended_input_runs(shop):
    """After all those faults, in the same folder, with what the last one left."""
    catalogue(lines(GOOD))(shop)
    write_config(shop, BASE)
    shop.run("--configfile", CONFIG, "--", "results/pid2sid.parquet")
    assert pq.read_table(shop.folder / "results/pid2sid.parquet").num_rows == 40


def test_a_path_that_is_gone_is_refused_although_results_are_there(shop):
    setting("items", path="data/misspelt.jsonl")(shop)
    done = shop.snakemake("--configfile", CONFIG, "--", "results/pid2sid.parquet")
    assert done.returncode != 0
    assert "items.path: no such file: data/misspelt.jsonl" in done.stdout + done.stderr


def test_rejects_make_the_bad_row_a_listed_one(shop):
    reset(shop)
    with_row(b"{oops")(shop)
    setting("items", on_bad_rows="reject")(shop)
    shop.run("--configfile", CONFIG, "--", "results/pid2sid.parquet")
    rejects = pq.read_table(shop.folder / "results/items/rejects.parquet").to_pylist()
    assert [(row["row"], row["reason"][:8]) for row in rejects] == [(4, "not JSON")]


def test_a_quantizer_of_other_embeddings_is_refused_and_recovered(shop):
    reset(shop)
    shop.run("--configfile", CONFIG, "--", "results/pid2sid.parquet")
    path = shop.folder / "results/rqkmeans/quantizer.safetensors"
    fitted = quantizer_file.read(path)
    quantizer_file.write(path, fitted._replace(fingerprint=fitted.fingerprint | {"model": "other"}))
    done = shop.snakemake("--configfile", CONFIG, "--", "results/pid2sid.parquet")
    assert done.returncode != 0
    assert "was trained on other embeddings (model: 'other'" in done.stdout + done.stderr
    path.unlink()
    shop.run("--configfile", CONFIG, "--", "results/pid2sid.parquet")


@pytest.mark.parametrize(
    ("setting", "target"),
    [
        ("interactions.path", "interactions/sequences.parquet"),
        ("interactions.path", "generative/rqkmeans/metrics.json"),
        ("vocabulary.model", "vocabulary/model"),
        ("pretrained.path", "pretrained/quantizer.safetensors"),
        ("published.path", "published/quantizer.safetensors"),
        ("given.path", "given/codes.parquet"),
        ("retrieval.queries", "queries/text.parquet"),
    ],
)
def test_a_setting_that_a_target_needs_is_asked_for_before_a_job_runs(shop, setting, target):
    reset(shop)
    section, _, key = setting.partition(".")
    write_config(shop, BASE | {"interactions": {"path": None}} | {section: {key: None}})
    done = shop.snakemake("--configfile", CONFIG, "--dry-run", "--", f"results/{target}")
    assert done.returncode == 1
    assert f"{setting} is null: name " in done.stdout + done.stderr
    assert shop.snakemake("--configfile", CONFIG, "--dry-run").returncode == 0
