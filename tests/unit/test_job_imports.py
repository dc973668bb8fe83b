"""A budget of each job's start, in modules: it imports what it uses.

Seconds differ from machine to machine; the list of large packages that a script imports does not.
``BUDGET`` names them. A rule that is not named imports none. What functions import while a job runs
is counted in tests/workflow/test_start.py.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from conftest import ROOT

# Packages whose import takes a tenth of a second of CPU or more, or loads another one of these.
LARGE = {
    *("datasets", "faiss", "h5py", "httpx2", "huggingface_hub", "ir_measures", "jieba"),
    *("matplotlib", "pandas", "scipy", "sentence_transformers", "sklearn", "tokenizers", "torch"),
    *("transformers",),
}
LANGUAGE_MODEL = {"torch", "transformers"}
ENCODER = {*LANGUAGE_MODEL, "huggingface_hub", "sentence_transformers"}
BUDGET = {
    "build_index": {"faiss", "torch"},
    "compare_quantizers": {"matplotlib"},
    "describe_run": {"h5py"},
    "evaluate_generative": {"scipy", "torch"},
    "evaluate_quantizer": {"faiss"},
    "evaluate_recommender": {"scipy", "torch"},
    "expand_vocabulary": {*LANGUAGE_MODEL, "tokenizers"},
    "export_trie": {"torch"},
    "fit_lsa": {"scipy"},
    "fuse_folds": {"scipy"},
    "fuse_vectors": {"scipy"},
    "import_pretrained": {"torch"},
    "infer_recommender": {"torch"},
    "measure_churn": {"faiss"},
    "measure_index": {"faiss", "torch"},
    "measure_quality": {"faiss"},
    "measure_recommender": {"scipy", "torch"},
    "measure_retrieval": {"ir_measures"},
    "merge_reranks": ENCODER,
    "merge_shards": {"torch"},
    "mine_negatives": {"torch"},
    "plot_churn": {"matplotlib"},
    "plot_generative": {"matplotlib"},
    "plot_quality": {"matplotlib"},
    "plot_recommender": {"matplotlib"},
    "plot_retrieval": {"matplotlib"},
    "plot_training": {"matplotlib"},
    "recommend_generative": {"scipy", "torch"},
    "recommend_topk": {"faiss"},
    "rerank_shard": ENCODER,
    "resolve_collisions": {"scipy"},
    "resolve_quantizer": {"scipy"},
    "search_bm25": {"jieba", "scipy", "torch"},
    "search_shard": {"torch"},
    "sweep_codebooks": {"matplotlib"},
    "train_cross": ENCODER,
    "train_dual": ENCODER,
    "train_generative": {"torch"},
    "train_opq": {"faiss"},
    "train_recommender": {"torch"},
    "train_rqvae": {"torch"},
    "write_item_h5": {"h5py"},
    "write_mmap": {"h5py"},
    "write_pool": {"torch"},
    "write_sequence_h5": {"h5py"},
}
# What these import in turn, as far as it is large: by a process that does nothing else.
LOADED = {
    "embed_shard": set(),
    "fit_lsa": {"scipy"},
    "measure_quality": {"faiss"},
    "plot_quality": {"matplotlib"},
    "render_text": set(),
    "store_vectors": set(),
    "train_rqkmeans": set(),
}
SCRIPTS = {path.stem: path for path in sorted((ROOT / "workflow/scripts").glob("*.py"))}


def of_module(statements: list[ast.stmt]) -> Iterator[str]:
    """Names that a module imports when it is loaded: not for type checkers, not in functions."""
    for node in statements:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from of_module(node.orelse)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inner = ast.iter_child_nodes(node)
            yield from of_module([child for child in inner if isinstance(child, ast.stmt)])


@cache
def imported(path: Path) -> frozenset[str]:
    return frozenset(of_module(ast.parse(path.read_text(encoding="utf-8")).body))


def files_of(name: str) -> Iterator[Path]:
    """Files that Python loads for the import of a name of this package."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        base = ROOT.joinpath("src", *parts[:end])
        yield from (
            path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()
        )


def large_packages(script: Path) -> set[str]:
    """Large packages that a script and this package's modules behind it import at their start."""
    seen, waiting, found = set(), [script], set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        for name in imported(path):
            found.add(name.partition(".")[0])
            waiting += files_of(name) if name.startswith("sidmill") else []
    return found & LARGE


@pytest.mark.parametrize("rule", SCRIPTS)
def test_a_script_imports_what_its_budget_names(rule):
    assert large_packages(SCRIPTS[rule]) == BUDGET.get(rule, set())


def test_the_budget_names_rules():
    assert {*BUDGET, *LOADED} <= {*SCRIPTS}


@pytest.mark.parametrize("rule", LOADED)
def test_what_a_script_imports_loads_no_more(rule):
    tree = ast.parse(SCRIPTS[rule].read_text(encoding="utf-8"))
    lines = [
        ast.unparse(node) for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    program = "\n".join([*lines, "import sys", "print(*sys.modules)"])
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=300
    )
    loaded = {*done.stdout.split()}
    assert loaded & (LARGE | {"torch._dynamo"}) == LOADED[rule]


def test_no_import_is_missed():
    """Imports under conditions, in classes and in blocks count; those of functions do not."""
    source = (
        "import a\nfrom b import c\n"
        "if TYPE_CHECKING:\n import d\nelse:\n import e\n"
        "try:\n import f\nexcept ImportError:\n import g\n"
        "class C:\n import h\n def m(self):\n  import i\n"
        "def n():\n import j\n"
        "with x:\n import k\n"
    )
    assert {*of_module(ast.parse(source).body)} == {*"aefhk", "b.c"}


def test_what_rule_files_import_loads_neither_numpy_nor_pyarrow():
    """Snakemake's process reads them in every command, and lives as long as the run."""
    lines = [
        line
        for path in sorted((ROOT / "workflow/rules").glob("*.smk"))
        for line in re.findall(r"^from sidmill[^(\n]* import [^(\n]+$", path.read_text(), re.M)
    ]
    assert len(lines) > 15
    program = "\n".join([*lines, "import sys", "print(*sys.modules)"])
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60
    )
    assert not {*done.stdout.split()} & (LARGE | {"numpy", "pyarrow"})
