"""What names the code of a rule: all that computes a result, and nothing else."""

import ast
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest import ROOT
from test_embed_shard import embed, make_text
from test_reassign import problem, run
from test_rqkmeans import SETTINGS as RQKMEANS
from test_rqkmeans import normal
from test_rqvae import train

from sidmill import quantize
from sidmill.core import provenance
from sidmill.embed.backends import lsa
from sidmill.formats import embedding_shards
from sidmill.quantize import rqkmeans
from sidmill.quantize.rqvae import init as rqvae_init
from sidmill.settings.embedding import Embedding
from sidmill.sids import strategies

SOURCES = sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "workflow/scripts").glob("*.py")])
LOCAL_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


def text_of(source: str) -> str:
    """What is named of a source."""
    tree, out = ast.parse(source), []
    provenance._write(tree, provenance._bound_outside(tree, provenance._walk(tree)), {}, out)
    return "".join(out)


SAMPLE = '''
import logging
logger = logging.getLogger(__name__)
LIMIT = 3
DEPTH = science(3, "levels of " "a SID", minimum=1)

def halve(rows, limit=LIMIT):
    """Say what."""
    kept = []
    for row in rows:
        half = row / 2  # why
        if half > limit:
            raise ValueError(f"{half} is above {limit}: " + "lower it", half)
        kept.append(half)
    logger.info("%d rows, %s", len(kept), kept)
    if not kept:
        logger.warning("none")
    return kept
'''

SAME = {
    "a comment": ("# why", "# another reason"),
    "a docstring": ("Say what.", "Say more."),
    "the meaning of a setting": ("levels of ", "tokens of "),
    "no docstring": ('    """Say what."""\n', ""),
    "layout": ("row / 2", "(row  /\n 2)"),
    "a word of an f-string under raise": ("is above", "is over"),
    "a value in an f-string under raise": ("{half} is", "{half:.2f} of {rows} is"),
    "a word of a text under raise": ("lower it", "lower it to 3"),
    "one text more under raise": ('"lower it"', '"lower " + "it"'),
    "a word of a log line": ("%d rows, %s", "%d lines: %s"),
    "a value of a log line": ("len(kept), kept)", "len(kept), rows)"),
    "the level of a log line": ("logger.info", "logger.debug"),
    "no log line": ('    logger.info("%d rows, %s", len(kept), kept)\n', ""),
    "no condition of a log line": ('    if not kept:\n        logger.warning("none")\n', ""),
    "the condition of a log line": ("if not kept:", "if len(kept) < 2:"),
    "a local variable": ("half", "part"),
    "another local variable": ("kept", "found"),
}
OTHER = {
    "a constant": ("row / 2", "row / 4"),
    "a constant of the module": ("LIMIT = 3", "LIMIT = 4"),
    "an operator": ("row / 2", "row // 2"),
    "the default of a setting": ("science(3", "science(4"),
    "the range of a setting": ("minimum=1", "minimum=2"),
    "a comparison": ("half > limit", "half >= limit"),
    "the class under raise": ("raise ValueError", "raise KeyError"),
    "a value beside the text under raise": ("it\", half)", "it\", row)"),
    "the name of an argument": ("limit", "most"),
    "the name of a function": ("halve", "split"),
    "another variable of two": ("kept.append(half)", "kept.append(row)"),
    "a function that a log line calls": ("len(kept), kept)", "len(kept), kept.pop())"),
    "a condition that acts": ("if not kept:", "if not kept.pop():"),
    "a default": ("limit=LIMIT", "limit=5"),
    "a message put together before": ("    kept = []", "    message = 'x'\n    kept = []"),
    "the order of calls": (
        "        kept.append(half)\n    logger",
        "    kept.append(half)\n    logger",
    ),
    "a name of the module": ("return kept", "return LIMIT"),
}  # fmt: skip


@pytest.mark.parametrize("change", [*SAME, *OTHER])
def test_what_counts_and_what_does_not(change):
    old, new = (SAME | OTHER)[change]
    assert old in SAMPLE
    after = SAMPLE.replace(old, new)
    ast.parse(after)
    assert (text_of(after) == text_of(SAMPLE)) == (change in SAME)


CLASHES = {
    "a lambda's argument": ("y = 1; g = lambda x: y", "x = 1; g = lambda x: x"),
    "a name of the module": ("total = rows; return total", "total = rows; return LIMIT"),
    "a builtin": ("n = rows\n    def g(): return max", "n = rows\n    def g(): return min"),
    "locals()": ("a = rows; return locals()", "b = rows; return locals()"),
    "an exception's name": (
        "try: a = 1\n    except E as b: return a",
        "try: a = 1\n    except E as b: return b",
    ),
    "a class body": ("class A:\n        a = 1", "class A:\n        b = 1"),
    "an import": ("import os as a\n    b = 1; return a", "import os as a\n    b = 1; return b"),
    "a pattern": (
        "b = 1\n    match rows:\n        case a: return a",
        "b = 1\n    match rows:\n        case a: return b",
    ),
    "nonlocal": (
        "a = b = 1\n    def g():\n        nonlocal a\n        a = 2\n    return b",
        "a = b = 1\n    def g():\n        nonlocal a\n        a = 2\n    return a",
    ),
    "an argument": ("b = 1; return rows", "rows = 1; return rows"),
    "a keyword": ("a = 1; return f(a=a)", "b = 1; return f(b=b)"),
    "an attribute": ("a = rows; a.b = 1", "a = rows; a.c = 1"),
}


@pytest.mark.parametrize("place", CLASHES)
def test_renaming_never_takes_one_meaning_for_another(place):
    one, other = (f"LIMIT = 3\ndef f(rows):\n    {body}\n" for body in CLASHES[place])
    assert text_of(one) != text_of(other)


class Rewording(ast.NodeTransformer):
    """Changes every word under ``raise`` and in log lines, and every docstring."""

    def __init__(self):
        self.inside = 0

    def visit_Raise(self, node):
        self.inside += 1
        node.exc = self.visit(node.exc) if node.exc else None
        self.inside -= 1
        return node

    def visit_Expr(self, node):
        if provenance._logs(node.value):
            self.inside += 1
            node.value.args = [
                self.visit(argument) if provenance._is_wording(argument) else argument
                for argument in node.value.args
            ]
            node.value.args.append(ast.Name("another_value"))
            self.inside -= 1
        elif provenance._is_text(node.value):
            node.value = ast.Constant("another docstring")
        else:
            self.generic_visit(node)
        return node

    def visit_Constant(self, node):
        if self.inside and isinstance(node.value, str):
            return ast.copy_location(ast.Constant(node.value + " another word"), node)
        return node

    def visit_FormattedValue(self, node):
        return node


def test_no_word_of_any_message_or_docstring_in_the_sources_counts():
    changed = 0
    for path in SOURCES:
        source = path.read_text(encoding="utf-8")
        reworded = ast.unparse(ast.fix_missing_locations(Rewording().visit(ast.parse(source))))
        assert text_of(reworded) == text_of(source), path
        changed += reworded != ast.unparse(ast.parse(source))
    assert changed > 100


class Slip(ast.NodeTransformer):
    """Gives one variable, where it is used for the n-th time, another name."""

    def __init__(self, name, place):
        self.name, self.left = name, place

    def visit_Name(self, node):
        if node.id == self.name:
            self.left -= 1
            if self.left == 0:
                node.id = "another_name"
        return node


def test_a_variable_renamed_throughout_is_no_change_and_in_one_place_it_is():
    """Over functions of the sources that have no other scope, message or log line in them."""
    chance, tried = random.Random(0), 0
    for path in chance.sample(SOURCES, 60):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        taken = provenance._bound_outside(tree, provenance._walk(tree))
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            inner = [node for node in ast.walk(function) if isinstance(node, LOCAL_SCOPES)]
            names = [*provenance._locals(function, taken)]
            if len(inner) > 1 or not names:
                continue
            name = chance.choice(names)
            source = ast.unparse(function)
            words = sum(isinstance(n, ast.Name) and n.id == name for n in ast.walk(function))
            if any(isinstance(node, ast.Raise) for node in ast.walk(function)) or words < 2:
                continue
            if any(map(provenance._logs, ast.walk(function))):
                continue
            whole = ast.parse(source)
            for node in ast.walk(whole):
                if isinstance(node, ast.Name) and node.id == name:
                    node.id = "another_name"
            assert text_of(ast.unparse(whole)) == text_of(source), (path, name)
            slipped = Slip(name, chance.randint(1, words)).visit(ast.parse(source))
            assert text_of(ast.unparse(slipped)) != text_of(source), (path, name)
            tried += 1
    assert tried > 50


def pythons():
    """Interpreters of this machine that start, this one first."""
    yield sys.executable
    found = [shutil.which(f"python3.{minor}") for minor in range(11, 16)]
    found += Path("~/.pyenv/versions").expanduser().glob("3.1[1-9].*/bin/python")
    for path in filter(None, found):
        if subprocess.run([path, "-c", ""], capture_output=True).returncode == 0:
            yield path


def test_the_text_is_the_same_on_every_python():
    """No field that a later version adds, no table that grows with Unicode, joined f-strings."""
    assert text_of("def f(a, *, b=1): return f'{a!r:>{b}}x' 'y' '\U000323af'") == (
        "Module(body=[FunctionDef(name='f'args=arguments(args=[arg(arg='a'),]"
        "kwonlyargs=[arg(arg='b'),]kw_defaults=[Constant(value=1),])"
        "body=[Return(value=JoinedStr(values=[FormattedValue(value=Name(id='a')conversion=114"
        "format_spec=JoinedStr(values=[Constant(value='>'),FormattedValue(value=Name(id='b')"
        "conversion=-1),])),Constant(value='xy\\U000323af'),])),]),])"
    )
    program = (
        "import hashlib, sys; from pathlib import Path; from sidmill.core import provenance\n"
        "texts = [provenance._parse(Path(path)).digest for path in sys.argv[1:]]\n"
        "print(hashlib.sha256(''.join(texts).encode()).hexdigest())"
    )
    files = [str(path) for path in SOURCES]
    printed = {
        subprocess.run(
            [python, "-c", program, *files],
            env={"PYTHONPATH": str(ROOT / "src")}, check=True, capture_output=True, timeout=300,
        ).stdout
        for python in pythons()
    }  # fmt: skip
    assert len(printed) == 1


def codes(folder) -> dict[tuple, str]:
    """The code of every rule, with every combination of its choices, of a copy of the sources."""
    provenance._file_of.cache_clear()
    found = {}
    for script in sorted((folder / "workflow/scripts").glob("*.py")):
        choices = provenance.choices_of(script)
        values = [[*choice.modules, "another"] for choice in choices.values()]
        for chosen in product(*values):
            named = dict(zip(choices, chosen, strict=True))
            found[script.stem, *chosen] = provenance.source_digest(script, named)
    return found


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of the sources, of which codes are taken."""
    for name in ("src", "workflow/scripts"):
        shutil.copytree(ROOT / name, tmp_path / name)
    parse, parsed = provenance._parse.__wrapped__, {}

    def by_content(path):
        content = path.read_bytes()
        if content not in parsed:
            parsed[content] = parse(path)
        return parsed[content]

    monkeypatch.setattr(provenance, "_parse", by_content)
    monkeypatch.setattr(provenance, "ROOT", tmp_path / "src")
    yield tmp_path
    monkeypatch.undo()
    provenance._file_of.cache_clear()


def edit(path, old, new):
    source = path.read_text(encoding="utf-8")
    assert old in source, (path, old)
    path.write_text(source.replace(old, new, 1), encoding="utf-8")


def test_an_edit_changes_the_codes_of_the_rules_that_compute_with_it_alone(copy):
    before = codes(copy)

    def changed(name, old, new):
        edit(copy / "src/sidmill" / name, old, new)
        after = codes(copy)
        edit(copy / "src/sidmill" / name, new, old)
        return {key for key in before if after[key] != before[key]}

    def rules(name, old, new):
        return {key[0] for key in changed(name, old, new)}

    assert changed("core/locks.py", "is still at work", "is at work still") == set()
    assert changed("core/locks.py", "LOCK_SH", "LOCK_EX") == set()
    assert changed("core/job.py", '"finished"', '"ended"') == set()
    assert changed("embed/progress.py", "BETWEEN_LINES = 30", "BETWEEN_LINES = 9") == set()
    assert changed("embed/compute.py", "texts were done by", "texts come from") == set()
    assert changed("embed/shard.py", "NAMED_IDS = 5", "NAMED_IDS = 6") != set()
    assert changed("embed/backends/openai.py", "import httpx2", "import httpx2, json") == {
        ("embed_shard", "openai"), ("measure_dimensions", "openai"),
    }  # fmt: skip
    assert changed("embed/retry.py", "import random", "import random, json") == {
        ("embed_shard", "openai"), ("measure_dimensions", "openai"),
    }  # fmt: skip
    assert changed("embed/batches.py", "import numpy as np", "import numpy as np, json") == {
        ("embed_shard", "sentence_transformers"), ("measure_dimensions", "sentence_transformers"),
    }  # fmt: skip
    assert changed("embed/chunks.py", "import json", "import json, os") == {
        key for key in before if key[0] == "embed_shard"
    }
    balanced = changed("quantize/load_balance.py", "import logging", "import logging, os")
    assert {key for key in balanced if key[0] == "train_rqkmeans"} == {
        ("train_rqkmeans", "sinkhorn"), ("train_rqkmeans", "capacity"),
    }  # fmt: skip
    assert changed("quantize/rqvae/fsq.py", "import ", "import os, ") == {("train_rqvae", "fsq")}
    assert rules("quantize/opq.py", "import logging", "import logging, os") == {"train_opq"}
    assert rules("sids/reassign.py", "MIN_BEAM = 32", "MIN_BEAM = 64") == {
            "resolve_collisions", "resolve_quantizer",
        }  # fmt: skip


def test_what_is_never_counted_is_there_and_is_what_runs_a_job():
    for name in provenance.PLUMBING:
        assert provenance._file_of(name), name
    for choice in provenance.CHOICES.values():
        assert all(provenance._file_of(name) for names in choice.modules.values() for name in names)
    assert {rule for choice in provenance.CHOICES.values() for rule in choice.rules} <= {
        path.stem for path in (ROOT / "workflow/scripts").glob("*.py")
    }


def test_a_rule_with_a_choice_has_to_name_it():
    with pytest.raises(ValueError, match="backend"):
        provenance.source_digest(ROOT / "workflow/scripts/embed_shard.py")
    with pytest.raises(ValueError, match="backend"):
        provenance.source_digest(ROOT / "workflow/scripts/fit_lsa.py", {"backend": "lsa"})


class Unused:
    """Stands for a module that a job must not call."""

    def __getattr__(self, name):
        raise AssertionError(f"{name} was called")


@pytest.mark.parametrize("backend", ["lsa", "precomputed"])
def test_a_backend_runs_without_the_modules_of_the_others(tmp_path, monkeypatch, backend):
    path = make_text(tmp_path / "text.parquet", 60, pa.int64())
    model = lsa.fit(path, Embedding(dim=4), 1)
    lsa.write(tmp_path / "lsa.safetensors", model)
    embed(tmp_path / "own", path, str(tmp_path / "lsa.safetensors"), 1, dim=4)
    own = next((tmp_path / "own").glob("part-*.parquet"))

    modules = provenance.CHOICES["backend"].modules
    used = {*modules[backend]}
    for name in {name for names in modules.values() for name in names} - used:
        monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.delattr(f"sidmill.embed.backends.{name.rpartition('.')[2]}", raising=False)
    settings = {"lsa": {"dim": 4}, "precomputed": {"path": str(own), "model": "own", "dim": None}}
    model_path = str(tmp_path / "lsa.safetensors") if backend == "lsa" else None
    _, found = embed(tmp_path / "again", path, model_path, 1, backend=backend, **settings[backend])
    whole = np.concatenate([vectors for _, vectors in embedding_shards.read(own)])
    np.testing.assert_allclose(found, whole, atol=1e-6)


def test_quantizers_run_without_the_modules_of_what_was_not_chosen(tmp_path, monkeypatch, rng):
    vectors = normal(0, 60, 12)
    monkeypatch.setattr(quantize, "load_balance", Unused(), raising=False)
    rqkmeans.fit(vectors, RQKMEANS, seed=0)
    with pytest.raises(AssertionError, match="was called"):
        rqkmeans.fit(vectors, replace(RQKMEANS, balance="capacity"), seed=0)

    np.save(tmp_path / "v.npy", vectors)
    monkeypatch.setattr(rqvae_init, "fsq", Unused())
    train(str(tmp_path / "v.npy"), tmp_path / "made", epochs=2)

    monkeypatch.setattr(strategies, "sinkhorn", Unused())
    run(*problem(rng, 20, [3, 3, 3]))
