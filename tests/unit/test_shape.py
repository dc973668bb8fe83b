"""The workflow keeps its shape: names, thin adapters, sections as signatures, one lock."""

import ast
import inspect
import re
from typing import get_type_hints

import pytest
import yaml
from conftest import ROOT

from sidmill import api
from sidmill.datasets import (
    counts,
    lint,
    mix,
    vocabulary,
    write,
)
from sidmill.datasets import resolve as resolve_rows
from sidmill.embed import (
    cost,
    dimensions,
    export,
    shard,
    store,
)
from sidmill.embed.backends import lsa, openai
from sidmill.formats import code_files
from sidmill.interactions import export as histories
from sidmill.interactions import read as read_histories
from sidmill.items import demo, render
from sidmill.numeric import residual_codec
from sidmill.quantize import (
    opq,
    pca_grid,
    pretrained,
    rqkmeans,
)
from sidmill.quantize.rqvae import fit as rqvae
from sidmill.quantize.rqvae import fsq
from sidmill.recommend import evaluate as recommender_metrics
from sidmill.recommend import topk, train
from sidmill.report import comparison, explorer
from sidmill.retrieval import (
    bm25,
    choose,
    cross,
    dual,
    fuse,
    index,
    measure,
    mine,
    read,
    rerank,
    search,
    training_data,
)
from sidmill.sids import (
    churn,
    evaluate,
    given,
    published_sids,
    quality,
    resolve,
)

RULE_FILES = sorted((ROOT / "workflow/rules").glob("*.smk"))
SCRIPTS = sorted((ROOT / "workflow/scripts").glob("*.py"))
RULES = {
    match[1]: match[2]
    for file in RULE_FILES
    for match in re.finditer(r"(?ms)^rule (\w+):\n(.*?)(?=^rule |\Z)", file.read_text())
}
ORDER = ["input", "output", "log", "benchmark", "conda", "threads", "params", "message", "script"]
LSA = {"lsa_sample", "lsa_features"}
REJECTING = {"on_bad_rows", "max_reject_share"}
# The keys of a section that feeds several functions, or rules that choose by a key.
PARTS = {
    "embedding, to fit": LSA | {"dim"},
    "datasets, first pass": {"windows", "history_max", "target_max", "shards"},
    "datasets, second pass": {"form", "language", "rows_per_file", "shards"},
    "datasets, bounds": {"max_unknown_share", "max_left_out_share"},
    "retrieval, to read passages": {"corpus", "corpus_ids", "form", *REJECTING},
    "retrieval, to read queries": {"queries", "query_ids", "form", *REJECTING},
    "retrieval, to read judgements": {"qrels", *REJECTING},
    "retrieval, to search": {
        *("shards", "top_k", "exclude_own", "search_batch", "device", "memory_mb")
    },
    "retrieval, to answer": {"query_ids", "corpus_ids", "topk_names"},
    "faiss, to measure": {"nprobe", "ef_search", "candidates", "measured_queries"},
}
CHOSEN_BY_RULES = {
    "embedding": LSA,
    "faiss, to build": PARTS["faiss, to measure"],
    "fusion": {"runs"},
    "training": {"dual", "cross", "queries"},
    "mining": {"pool"},
    "cross": {"source"},
    "rerank": {"run"},
    "retrieval_metrics": {"runs"},
    "h5": {"splits"},
    "published": {"path"},
    "given": {"measure_neighbours"},
    "recommender": {"train_from", "mmap_path"},
}
CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())
# Functions that take the type of their section.
TYPED = [demo.write, render.render, read_histories.read, histories.write_sequence_h5]
DATASET_FILES = {"task_path", "pid2sid", "product_pid2sid", "shard", "seed"}
FUNCTIONS = {
    "embedding": (
        shard.embed_shard,
        {"shard", "model_path", "match_path", "published", "code", "http"},
    ),
    "embedding, to fit": (lsa.fit, {"seed"}),
    "openai": (openai.load, {"model", "revision", "dim", "prompt", "normalize"}),
    "embedding_cost": (cost.reckon, set()),
    "matryoshka": (dimensions.measure, set()),
    "store": (store.store, set()),
    "h5": (export.write_item_h5, {"backend", "model", "revision"}),
    "rqkmeans": (rqkmeans.fit, {"seed", "state_path", "code"}),
    "rqvae": (
        rqvae.fit,
        {
            *("seed", "folder", "code", "fingerprint", "warm_start", "grid_steps"),
            *("ids_path", "sequences_path"),
        },
    ),
    "fsq": (fsq.codebooks, {"n_levels"}),
    "pretrained": (pretrained.load, {"dim", "fingerprint"}),
    "given": (given.load, {"id_type"}),
    "opq": (opq.fit, {"seed", "codebook_sizes"}),
    "pca_grid": (pca_grid.fit, {"seed", "codebook_sizes"}),
    "encoding": (residual_codec.encode, set()),
    "collisions": (resolve.resolve, set()),
    "published": (published_sids.build, set()),
    "churn": (churn.measure, {"seed"}),
    "index": (code_files.write_index, set()),
    "quality": (quality.measure, {"seed"}),
    "evaluation": (evaluate.evaluate, {"seed"}),
    "comparison": (comparison.compare, {"codebook_sizes"}),
    "retrieval, to read passages": (read.read_corpus, set()),
    "retrieval, to read queries": (read.read_queries, set()),
    "retrieval, to read judgements": (read.read_qrels, set()),
    "retrieval, to search": (
        search.search_shard,
        {"shard", "nprobe", "ef_search", "candidates"},
    ),
    "retrieval, to answer": (choose.choose, set()),
    "faiss, to build": (index.build, {"index", "seed"}),
    "faiss, to measure": (
        index.measure,
        {"seed", "top_k", "search_batch", "memory_mb", "device"},
    ),
    "bm25": (bm25.search, {"top_k", "exclude_own"}),
    "fusion": (fuse.fuse, set()),
    "training": (training_data.read_training, {"kind", "path"}),
    "dual": (dual.train, {"query_prompt", "prompt", "seed", "code"}),
    "mining": (mine.mine, {"search_batch", "device", "memory_mb"}),
    "cross": (cross.train, {"seed", "code"}),
    "rerank": (rerank.rerank_shard, {"shard"}),
    "retrieval_metrics": (measure.measure, {"seed"}),
    "datasets, first pass": (
        resolve_rows.resolve,
        {*DATASET_FILES, "dataset", "split", "paths", "texts"},
    ),
    "datasets, second pass": (
        write.write_parts,
        {*DATASET_FILES, "rows_paths", "counts_paths", "prompts_folder", "texts"},
    ),
    "datasets, bounds": (counts.total, set()),
    "lint": (lint.lint, set()),
    "mixture": (mix.mix, {"seed"}),
    "rl": (mix.mix, {"seed"}),
    "vocabulary": (vocabulary.expand, {"seed"}),
    "explorer": (
        explorer.write,
        {"seed", "template_path", "pid2sid_path", "codes_path", "text_path"},
    ),
    "recommender": (train.fit, {"seed", "state_path", "code"}),
    "recommender_evaluation": (recommender_metrics.evaluate, {"seed"}),
    "recommender_topk": (topk.recommend, set()),
}


def test_every_rule_has_a_script_of_its_name_and_every_script_a_rule():
    assert set(RULES) == {script.stem for script in SCRIPTS}


@pytest.mark.parametrize("name", RULES)
def test_a_rule_says_the_same_name_everywhere_in_one_order(name):
    body = RULES[name]
    assert f'"../scripts/{name}.py"' in body
    assert f'code=code_of("{name}.py"' in body
    assert re.search(rf'"results/logs/{name}[.{{\w}}-]*\.log"', body)
    assert re.search(rf'"results/benchmarks/{name}[.{{\w}}-]*\.tsv"', body)
    directives = re.findall(r"(?m)^    (\w+):", body)
    assert directives == [directive for directive in ORDER if directive in directives]


@pytest.mark.parametrize("file", RULE_FILES, ids=lambda path: path.stem)
def test_a_rule_file_opens_with_what_it_reads_and_leaves(file):
    text = file.read_text()
    assert "lambda" not in text
    if file.stem.startswith("common"):
        assert not re.search(r"(?m)^rule ", text)
    else:
        opening = ast.get_docstring(ast.parse(text[: text.index("\n\n\nrule")]))
        assert "READS " in opening
        assert "LEAVES " in opening


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_an_adapter(script):
    banned = (
        ast.FunctionDef,
        ast.ClassDef,
        ast.For,
        ast.While,
        ast.Try,
        ast.Lambda,
        ast.comprehension,
    )
    for node in ast.walk(ast.parse(script.read_text())):
        assert not isinstance(node, banned)
        if isinstance(node, ast.If):
            assert ast.unparse(node.test) == "TYPE_CHECKING"


def test_the_snakefile_is_a_table_of_contents():
    lines = (ROOT / "Snakefile").read_text().splitlines()
    assert len(lines) < 60
    assert not [line for line in lines if line.startswith("def ")]


@pytest.mark.parametrize("section", FUNCTIONS)
def test_a_section_is_the_keyword_arguments_of_its_function(section):
    function, others = FUNCTIONS[section]
    wanted = PARTS.get(section, set(CONFIG[section.partition(",")[0]]))
    wanted = wanted - CHOSEN_BY_RULES.get(section, set())
    parameters = inspect.signature(function).parameters.values()
    keywords = {p.name: p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
    assert set(keywords) == wanted | others
    assert all(p.default is inspect.Parameter.empty for p in keywords.values())


def test_the_python_interface_has_the_defaults_of_the_config():
    parameters = inspect.signature(api.fit).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
    settings = {**CONFIG["run"], **CONFIG["rqkmeans"]}
    assert defaults == {name: settings[name] for name in defaults}
    assert {"n_iter", "tolerance", "seed"} <= set(defaults)


def section_of(function):
    """Name of the section whose type a function takes as ``settings``."""
    return get_type_hints(function)["settings"].SECTION


def test_every_section_feeds_a_function():
    loose = {name.partition(",")[0] for name in FUNCTIONS}
    typed = {section_of(function) for function in TYPED}
    assert set(CONFIG) == loose | typed | {"run", "quantizer"}


def locked():
    names = ("requirements.lock", "requirements-dev.lock")
    lines = "\n".join((ROOT / name).read_text() for name in names).split()
    return dict(line.lower().replace("_", "-").split("==") for line in lines)


def test_the_lock_pins_everything_that_the_project_asks_for():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    assert {re.split(r"[=<>]", name)[0] for name in wanted} <= set(locked())


@pytest.mark.parametrize("path", sorted((ROOT / "envs").glob("*.yaml")), ids=lambda path: path.name)
def test_environments_name_the_versions_of_the_lock_file(path):
    packages = yaml.safe_load(path.read_text())["dependencies"]
    pins = [
        pin for entry in packages for pin in (entry["pip"] if isinstance(entry, dict) else [entry])
    ]
    pins = dict(re.split(r"={1,2}", pin) for pin in pins if not pin.startswith(("python", "pip")))
    assert len(pins) > 5
    assert pins == {name: locked()[name] for name in pins}


def test_every_conda_environment_exists():
    named = {name for body in RULES.values() for name in re.findall(r'"../../envs/(.+?)"', body)}
    assert named == {path.name for path in (ROOT / "envs").glob("*.yaml")}
