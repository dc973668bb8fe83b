"""Atomic files, paths, the job wrapper, provenance, and the check of the configuration."""

import errno
import json
import logging
import os
import re
import subprocess
import sys
from contextlib import contextmanager, suppress
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from conftest import ROOT

from sidmill.core import (
    atomic,
    demo_guard,
    locks,
    logs,
    provenance,
)
from sidmill.core.atomic import link_or_copy, replacing, write_text
from sidmill.core.errors import SidmillError
from sidmill.core.job import job
from sidmill.core.listing import some
from sidmill.core.paths import expand, expand_one, files_of
from sidmill.settings.check import check

SCHEMA = ROOT / "workflow/schemas/config.schema.yaml"


@pytest.mark.parametrize("has_reflinks", [True, False])
def test_a_second_path_is_a_file_of_its_own(tmp_path, monkeypatch, has_reflinks):
    source, path = tmp_path / "source", tmp_path / "new folder" / "second"
    source.write_bytes(bytes(range(256)) * 4096)
    os.utime(source, (1000, 1000))
    if not has_reflinks:  # else as this file system has it
        monkeypatch.setattr(atomic, "FICLONE", -1)
    link_or_copy(source, path)
    link_or_copy(source, path)  # over what is there
    assert path.read_bytes() == source.read_bytes()
    assert [entry.name for entry in path.parent.iterdir()] == ["second"]

    # Snakemake touches the output of a job: that must not date the input anew.
    os.utime(path)
    assert source.stat().st_mtime == 1000
    with path.open("r+b") as file:
        file.write(b"changed")
    assert source.read_bytes()[:7] == bytes(range(7))
    source.unlink()
    assert path.read_bytes()[:7] == b"changed"


def test_a_missing_source_leaves_the_old_file(tmp_path):
    write_text(tmp_path / "second", "old")
    with pytest.raises(FileNotFoundError):
        link_or_copy(tmp_path / "source", tmp_path / "second")
    assert (tmp_path / "second").read_text() == "old"


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "new folder" / "out.txt"
    write_text(target, "old")
    with suppress(RuntimeError), replacing(target) as temporary:
        temporary.write_text("half")
        assert target.read_text() == "old"
        raise RuntimeError
    assert target.read_text() == "old"
    assert [path.name for path in target.parent.iterdir()] == ["out.txt"]


def test_what_a_killed_run_left_is_overwritten(tmp_path):
    (tmp_path / ".out.txt.partial").write_text("left by a kill, longer than what comes")
    write_text(tmp_path / "out.txt", "new")
    assert (tmp_path / "out.txt").read_text() == "new"
    assert len(list(tmp_path.iterdir())) == 1


ENTER = "locks.enter(state)"
RUN = "locks.enter(state); locks.hold_folder(state)"


@pytest.fixture
def state(tmp_path):
    """Snakemake's folder of state, with the lock of some run."""
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks/0.input.lock").write_text("results/pid2sid.parquet")
    return tmp_path


@contextmanager
def another(state, doing):
    """Another process that holds its locks until the block ends, and is killed then."""
    code = (
        "import sys, time, pathlib; from sidmill.core import locks; "
        f"state = pathlib.Path(sys.argv[1]); {doing}; print('here', flush=True); time.sleep(60)"
    )
    words = [sys.executable, "-c", code, str(state)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "here\n"
        yield
        process.kill()


def is_locked(state):
    return (state / "locks/0.input.lock").exists()


def enter(state):
    """What a Snakemake of its own process does, here."""
    locks.enter(state)
    os.close(locks._held.pop())


@pytest.mark.parametrize("doing", [ENTER, RUN])
def test_a_lock_stays_while_any_other_snakemake_lives_and_goes_with_it(state, doing):
    """One that has only begun may have taken Snakemake's lock already."""
    lock = (state / "locks/0.input.lock").read_text()
    with another(state, doing):
        (state / "locks/0.input.lock").write_text(lock)
        enter(state)
        assert is_locked(state)
    enter(state)
    assert not is_locked(state)


def test_two_runs_do_not_share_a_folder(state):
    with another(state, RUN), pytest.raises(SidmillError, match="another run is at work in"):
        locks.hold_folder(state)
    locks.hold_folder(state)
    os.close(locks._held.pop())


def test_the_lock_of_a_run_on_another_machine_is_left_alone(state):
    (state / locks.RUN).write_text("some-other-node")
    enter(state)
    assert is_locked(state)


def test_a_file_system_without_locks_clears_nothing(state, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    enter(state)
    assert is_locked(state)


def test_a_folder_of_somebody_else_can_be_looked_at(state, monkeypatch):
    def refuse(*arguments):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(locks.os, "open", refuse)
    locks.enter(state)
    assert is_locked(state)


def test_a_job_that_outlived_its_run_keeps_the_next_one_out(tmp_path):
    log = tmp_path / "logs/train_it.log"
    code = (
        "import sys, time; from types import SimpleNamespace; from sidmill.core.job import job\n"
        "with job(SimpleNamespace(log=[sys.argv[1]], rule='train_it')) as log:\n"
        "    log.info('at work'); time.sleep(60)"
    )
    log.parent.mkdir()
    words = [sys.executable, "-c", code, str(log)]
    snakemake = SimpleNamespace(log=[str(log)], rule="train_it")
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        assert "at work" in process.stderr.readline()
        with pytest.raises(SystemExit, match=r"job train_it of an earlier run"), job(snakemake):
            pass
        assert "started" in log.with_suffix(".jsonl").read_text(), "its log was emptied"
        log.unlink()  # as Snakemake does
        with pytest.raises(SystemExit, match=r"job train_it of an earlier run"), job(snakemake):
            pass
        process.kill()
    with job(snakemake):
        pass


def test_expand_keeps_one_file_even_if_a_rule_has_yet_to_write_it():
    path = "results/demo/no such items.jsonl"
    assert expand(path, (".jsonl",), "items.path") == [path]
    with pytest.raises(SidmillError, match=r"items\.path: no such file: data/x\.jsonl"):
        expand("data/x.jsonl", (".jsonl",), "items.path")


def test_expand_takes_a_file_whose_name_has_glob_characters(tmp_path):
    (tmp_path / "a[1].jsonl").write_text("x")
    path = str(tmp_path / "a[1].jsonl")
    assert expand(path, (".jsonl",), "items.path") == [path]


def test_a_folder_is_listed_file_by_file_without_what_is_hidden(tmp_path):
    """So that a file changed inside is seen, and what git or a download notes is not."""
    for name in ("b.bin", "a.json", "0_Pooling/config.json", ".git/index", "x/.cache/y", ".lock"):
        write_text(tmp_path / "model" / name, "")
    found = [name.removeprefix(f"{tmp_path}/model/") for name in files_of(str(tmp_path / "model"))]
    assert found == ["0_Pooling/config.json", "a.json", "b.bin"]


def test_a_setting_of_one_file_takes_one_and_says_what_else_it_got(tmp_path):
    for name in ("some/a.json", "some/b.json"):
        write_text(tmp_path / name, "")
    one, folder = str(tmp_path / "some/a.json"), str(tmp_path / "some")
    assert expand_one(one, "x.y") == one
    assert expand_one(f"{folder}/a*", "x.y") == one
    assert expand_one("results/made by a rule", "x.y") == "results/made by a rule"
    for path, what in ((folder, "is a folder"), (f"{folder}/*", "is 2 files")):
        with pytest.raises(SidmillError, match=rf"x\.y: '.*' {what}: name one file"):
            expand_one(path, "x.y")
    with pytest.raises(SidmillError, match=r"x\.y: no such file"):
        expand_one(f"{folder}/c.json", "x.y")


def test_a_list_of_names_is_never_long():
    for count in (0, 1, 20, 21, 5000):
        said = some(f"name {n}" for n in range(count))
        assert said.count("name") == min(count, 20)
        assert said.endswith(f"and {count - 20:,} more") == (count > 20)


def test_one_file_is_a_name_and_not_one_that_this_run_writes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = ("", "two/", "results/")
    for name in (*(f"{folder}a.safetensors" for folder in folders), "two/b.safetensors"):
        write_text(tmp_path / name, "x")

    def find(path):
        return expand_one(path, "recommender.load", (".safetensors",), foreign=True)

    assert find("a.safetensors") == find("*.safetensors") == "a.safetensors"
    with pytest.raises(SidmillError, match=r"recommender\.load: 'two' is 2 files: name one file"):
        find("two")
    with pytest.raises(SidmillError, match="lies in results/, which this run writes: copy it"):
        find("results/a.safetensors")


def test_expand_refuses_braces(tmp_path):
    (tmp_path / "a {b}.jsonl").write_text("x")
    for path in (tmp_path, tmp_path / "a*"):
        with pytest.raises(SidmillError, match=r"a \{b\}\.jsonl: rename it"):
            expand(str(path), (".jsonl",), "items.path")


def run_job(tmp_path, error):
    with job(SimpleNamespace(log=[str(tmp_path / "rule.log")], rule="train_it")) as log:
        log.info("started")
        if error:
            raise error


@pytest.fixture(autouse=True)
def _restore_logging():
    handlers = logging.getLogger().handlers[:]
    yield
    logging.getLogger().handlers[:] = handlers


@pytest.mark.parametrize(
    "error",
    [
        SidmillError("lower it to 3"),
        PermissionError(13, "Permission denied", "f.npy"),
        OSError(28, ""),
    ],
)
def test_a_users_mistake_ends_with_2_and_no_traceback(tmp_path, error):
    with pytest.raises(SystemExit) as stop:
        run_job(tmp_path, error)
    written = (tmp_path / "rule.log").read_text()
    assert stop.value.code == 2
    assert "Traceback" not in written
    assert "ERROR train_it: " in written
    expected = ("lower it to 3", "f.npy: Permission denied", "rule train_it: No space left")
    assert any(words in written for words in expected)


def test_a_programming_mistake_keeps_its_traceback(tmp_path):
    with pytest.raises(ZeroDivisionError):
        run_job(tmp_path, ZeroDivisionError("oops"))
    assert "Traceback" in (tmp_path / "rule.log").read_text()
    *_, error, last = json_lines(tmp_path)
    assert error["error"]["type"] == "ZeroDivisionError"
    assert "Traceback" in error["error"]["traceback"]
    assert last["message"] == "failed"


def json_lines(tmp_path):
    return [json.loads(line) for line in (tmp_path / "rule.jsonl").read_text().splitlines()]


def test_the_json_lines_say_what_the_log_says_with_its_values(tmp_path):
    rule = {"rule": "train_it", "wildcards": {"shard": "1"}, "threads": 2}
    with job(SimpleNamespace(log=[str(tmp_path / "rule.log")], **rule)) as log:
        log.info("%(rows)d rows\nof\u2028all", {"rows": np.int64(3), "loss": float("nan")})
        log.warning("%s", "wide", extra={"levels": [np.float32(0.5), None]})
    first, rows, wide, last = json_lines(tmp_path)
    assert (first["message"], first["fields"]["wildcards"]) == ("started", {"shard": "1"})
    assert rows["message"] == "3 rows\nof\u2028all"
    assert rows["fields"] == {"rows": 3, "loss": "nan"}
    assert (wide["level"], wide["fields"]) == ("WARNING", {"levels": [0.5, None]})
    assert last["message"] == "finished"
    assert last["fields"]["seconds"] >= 0
    assert {line["rule"] for line in (first, rows, wide, last)} == {"train_it"}
    assert "started" not in (tmp_path / "rule.log").read_text()


def test_a_mistake_is_an_error_and_the_job_ends_as_failed(tmp_path):
    with pytest.raises(SystemExit):
        run_job(tmp_path, SidmillError("lower it to 3"))
    assert [(line["level"], line["message"]) for line in json_lines(tmp_path)[-2:]] == [
        ("ERROR", "lower it to 3"), ("INFO", "failed"),
    ]  # fmt: skip


def test_logs_of_failed_attempts_stay_a_few_of_them(tmp_path):
    """As Snakemake does, the log for a person is removed before each attempt."""
    names = ("rule.log", "rule.jsonl")
    for attempt in range(logs.KEPT_ATTEMPTS + 3):
        (tmp_path / "rule.log").unlink(missing_ok=True)
        with pytest.raises(SystemExit):
            run_job(tmp_path, SidmillError(f"mistake {attempt}"))
    kept = range(1, logs.KEPT_ATTEMPTS + 1)
    wanted = {*names, *(f"{name}.{number}" for name in names for number in kept)}
    assert {path.name for path in tmp_path.iterdir()} == wanted
    for name in names:
        assert f"mistake {attempt}" in (tmp_path / name).read_text()
        for number in kept:
            said = (tmp_path / f"{name}.{number}").read_text()
            assert said.count("mistake") == said.count(f"mistake {attempt - number}") == 1
    form = r"(?m)^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ERROR train_it: mistake \d$"
    lines = [re.findall(form, (tmp_path / name).read_text()) for name in ("rule.log", "rule.log.1")]
    assert [len(found) for found in lines] == [1, 1]

    # One that ends well is not kept, and takes away none of those before.
    for _ in range(2):
        run_job(tmp_path, None)
    assert "mistake" not in (tmp_path / "rule.log").read_text()
    assert f"mistake {attempt}" in (tmp_path / "rule.log.1").read_text()
    assert f"mistake {attempt - 1}" in (tmp_path / "rule.log.2").read_text()


def test_the_log_of_an_attempt_that_was_killed_stays_without_its_cut_line(tmp_path):
    with pytest.raises(ZeroDivisionError):
        run_job(tmp_path, ZeroDivisionError("oops"))
    whole = (tmp_path / "rule.jsonl").read_bytes()
    (tmp_path / "rule.jsonl").write_bytes(whole[:-30] + b"\xff")
    (tmp_path / "rule.log").unlink()
    run_job(tmp_path, None)
    said = (tmp_path / "rule.log.1").read_text()
    assert "INFO train_it: started\n" in said
    assert "ZeroDivisionError: oops\n" in said
    assert "failed\n" in said or "rule train_it failed" in said


def test_secrets_stand_in_neither_log(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_0123456789")
    monkeypatch.setenv("OPENAI_API_KEY", "sk+0123456789[")
    monkeypatch.setenv("SHORT_TOKEN", "item")
    with job(SimpleNamespace(log=[str(tmp_path / "rule.log")], rule="train_it")) as log:
        log.info("item from https://me:pa@ss@host/a?b=c@d with hf_0123456789")
        log.info("%(url)s", {"url": "http://me@host:80/", "key": ["sk+0123456789["]})
    for name in ("rule.log", "rule.jsonl"):
        written = (tmp_path / name).read_text()
        assert not any(word in written for word in ("pa@ss", "hf_0", "sk+0", "me@", "me:"))
        assert "item from https://***@host/a?b=c@d with ***" in written
    assert json_lines(tmp_path)[2]["fields"] == {"url": "http://***@host:80/", "key": ["***"]}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A script that imports mill.a, which imports mill.b; nobody imports mill.c."""
    (tmp_path / "mill").mkdir()
    for name, source in {
        "__init__": "",
        "a": "from mill.b import half\n\ndef whole(x):\n    return half(x) * 2\n",
        "b": "def half(x):\n    return x / 2\n",
        "c": "x = 1\n",
    }.items():
        (tmp_path / f"mill/{name}.py").write_text(source)
    (tmp_path / "script.py").write_text('"""Doc."""\nfrom mill import a\n\na.whole(1)\n')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(provenance, "PACKAGE", "mill")
    monkeypatch.setattr(provenance, "ROOT", tmp_path)

    def digest():
        provenance._parse.cache_clear()
        provenance._file_of.cache_clear()
        return provenance.source_digest(tmp_path / "script.py")

    return SimpleNamespace(folder=tmp_path, digest=digest)


def edit(path, old, new):
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize(
    ("file", "old", "new", "changes"),
    [
        ("script.py", "a.whole(1)", "a.whole(2)", True),
        ("mill/a.py", "* 2", "* 3", True),
        ("mill/b.py", "/ 2", "/ 3", True),
        ("mill/c.py", "1", "2", False),
        ("mill/b.py", "def", "# a comment\ndef", False),
        ("mill/b.py", "    return", '    """Say what."""\n    return', False),
        ("script.py", "Doc.", "Other.", False),
    ],
)
def test_the_digest_changes_exactly_with_the_code_that_runs(package, file, old, new, changes):
    before = package.digest()
    edit(package.folder / file, old, new)
    assert (package.digest() != before) == changes


def test_a_digest_runs_no_code_of_the_package(package):
    edit(package.folder / "script.py", "from mill import a", "from mill.a import whole")
    before = package.digest()
    edit(package.folder / "mill/a.py", "\n\ndef", "\n\nraise RuntimeError\n\ndef")
    assert package.digest() != before
    assert not [name for name in sys.modules if name.partition(".")[0] == "mill"]


def test_the_digest_of_a_missing_script_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        provenance.source_digest(tmp_path / "none.py")


@pytest.fixture
def config():
    return yaml.safe_load((ROOT / "config.yaml").read_text())


def merge(config, overlay):
    for key, value in overlay.items():
        config[key] = merge(config[key], value) if isinstance(value, dict) else value
    return config


OVERLAYS = [*sorted((ROOT / "configs").glob("*.yaml")), *sorted((ROOT / "tests/configs").glob("*"))]


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_the_config_and_every_overlay_are_valid(config, overlay):
    check(config)
    changes = yaml.safe_load(overlay.read_text())
    for section, keys in changes.items():
        assert section in config
        assert not isinstance(keys, dict) or keys.keys() <= config[section].keys()
    check(merge(config, changes))


def test_all_problems_are_listed_at_once_with_hints(config):
    config["rqkmeans"]["n_iters"] = 5
    config["rqkmeans"]["n_levels"] = "3"
    config["collisions"]["strategy"] = "magic"
    del config["store"]["dtype"]
    with pytest.raises(SidmillError) as error:
        check(config)
    message = str(error.value)
    assert message.startswith("4 problem(s)")
    assert "rqkmeans: unknown key 'n_iters': did you mean 'n_iter'?" in message
    assert "rqkmeans.n_levels: found '3', a str, wanted integer (tokens per SID)" in message
    assert "collisions.strategy: found 'magic'" in message
    assert "store: missing dtype" in message


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("embedding", "dtype", "float16", "float16 overflows to NaN in Qwen3"),
        ("embedding", "backend", "sentence_transformers", "embedding.model: found null"),
        ("embedding", "backend", "precomputed", "embedding.path: found null"),
        ("embedding", "dim", None, "lsa needs a number of dimensions"),
        ("embedding", "prompt", "Instruct: ", "lsa takes no prompt"),
        ("rqkmeans", "codebook_size", [256, "x"], "rqkmeans.codebook_size.1: found 'x'"),
        ("rqkmeans", "device", "gpu", "several: cuda:0,cuda:1"),
        ("rqkmeans", "codebook_size", [4, 4], "2 sizes for 3 levels"),
        ("retrieval", "query_prompt", "Query:", "retrieval.query_prompt: found 'Query:'"),
        ("retrieval", "answer", "best", "wanted one of dual, bm25, fused, cross"),
        ("run", "seed", True, "run.seed: found True"),
        ("items", "fields", "title", "items.fields: found 'title', a str, wanted array"),
    ],
)
def test_one_wrong_value_names_its_place(config, section, key, value, message):
    config[section][key] = value
    with pytest.raises(SidmillError, match="problem") as error:
        check(config)
    assert message in str(error.value)


def test_the_schema_wants_every_key_and_no_other():
    def objects(node, path=""):
        if isinstance(node, dict):
            if "properties" in node and "type" in node:
                yield path, node
            for key, value in node.items():
                yield from objects(value, f"{path}/{key}")

    found = list(objects(yaml.safe_load(SCHEMA.read_text())))
    assert len(found) > 8
    for path, node in found:
        assert node["additionalProperties"] is False, path
        assert node["required"] == list(node["properties"]), path


def test_the_collector_is_off_while_a_job_imports_and_on_while_it_works(tmp_path):
    """And in a process that is no job it is left alone."""
    program = (
        "import gc, sys, weakref\nfrom types import SimpleNamespace\n"
        "snakemake = SimpleNamespace(log=[sys.argv[1]], rule='train_it')\n"
        "import pyarrow\nfrom sidmill.core.job import job\n"
        "assert not gc.isenabled()\n"
        "with job(snakemake):\n"
        "    assert gc.isenabled() and gc.get_freeze_count() > 10_000\n"
        "    class Knot: pass\n"
        "    knot = Knot(); knot.itself = knot; seen = weakref.ref(knot); del knot\n"
        "    gc.collect(); assert seen() is None\n"
        "import pyarrow as pa; pa.array([1]); assert 'pandas' not in sys.modules\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "rule.log")]
    subprocess.run(command, check=True, timeout=300)
    other = (
        "import gc; snakemake = __import__('json'); import sidmill.core.job; assert gc.isenabled()"
    )
    subprocess.run([sys.executable, "-c", other], check=True, timeout=300)


def test_pyarrow_starts_without_pandas_and_still_finds_it_when_asked():
    code = """
import sys
from sidmill.core.no_pandas import without_pandas
import sidmill.datasets.resolve, sidmill.datasets.write
without_pandas()
import pyarrow as pa
table = pa.table({"x": pa.array([1, 2])})
assert "pandas" not in sys.modules
assert table.to_pandas()["x"].tolist() == [1, 2]
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_what_is_hidden_from_one_thread_is_there_for_others():
    code = """
import importlib, importlib.util, sys
from concurrent.futures import ThreadPoolExecutor
from sidmill.core.no_pandas import hidden

def is_there(name):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        return False
    return True

with ThreadPoolExecutor(1) as other, hidden("colorsys", "json", "wave"):
    assert "json" in sys.modules and is_there("json")
    assert not is_there("colorsys") and not is_there("wave")
    assert other.submit(importlib.util.find_spec, "wave").result()
    assert other.submit(is_there, "colorsys").result() and is_there("colorsys")
    assert not is_there("wave")
assert is_there("wave")
"""
    subprocess.run(
        [sys.executable, "-c", "import json\n" + code], check=True, capture_output=True, timeout=60
    )


def test_the_demo_does_not_take_the_place_of_a_catalogue(tmp_path):
    state, made = tmp_path / ".snakemake", tmp_path / "results/items/text.parquet"
    demo_guard.refuse_demo(state, demo_guard.DEMO)
    demo_guard.note(state, "mine.jsonl")
    demo_guard.refuse_demo(state, demo_guard.DEMO)  # nothing is made yet
    write_text(made, "")
    demo_guard.refuse_demo(state, "mine.jsonl")
    demo_guard.refuse_demo(state, "other.jsonl")
    with pytest.raises(SidmillError, match=r"is made from mine\.jsonl, and the demo"):
        demo_guard.refuse_demo(state, demo_guard.DEMO)
    demo_guard.note(state, demo_guard.DEMO)
    demo_guard.refuse_demo(state, demo_guard.DEMO)


def test_the_demo_is_what_the_configuration_names():
    assert yaml.safe_load((ROOT / "config.yaml").read_text())["items"]["path"] == demo_guard.DEMO


class Folder:
    """A folder of results, and what Snakemake would say of it."""

    def __init__(self, path):
        self.path, self.state, self.records = path, path / ".snakemake", set()
        self.state.mkdir()

    def begin(self, *outputs):
        demo_guard.begin(self.state, outputs, self.records.__contains__)

    def make(self, name, record=True):
        (self.path / name).write_text("made")
        if record:
            self.records.add(name)

    def end(self):
        demo_guard.end(self.state, self.records.__contains__)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Folder(tmp_path)


def test_what_a_run_made_is_made_again(folder):
    for _ in range(3):
        folder.begin("a", "b")
        folder.make("a")
        folder.make("b")
        folder.end()


@pytest.mark.parametrize("again", [False, True])
def test_what_a_killed_run_left_is_made_again(folder, again):
    folder.begin("a", "b")
    folder.make("a", record=False)  # the job writes b next, and is killed
    if again:  # a run of other targets in between, which ends well
        folder.begin("c")
        folder.make("c")
        folder.end()
    folder.begin("a", "b")


def test_what_is_kept_of_a_failed_job_is_made_again(folder):
    """--keep-incomplete, and --drop-metadata, which leaves no record of anything."""
    folder.begin("a")
    folder.make("a", record=False)
    folder.end()
    folder.begin("a")


def test_a_run_that_is_refused_forgets_nothing_of_the_one_at_work(folder, monkeypatch):
    folder.begin("a", "b")
    monkeypatch.setattr(demo_guard, "_begun", set())  # another process
    folder.end()
    folder.make("b", record=False)  # and the first one is killed here
    folder.begin("a", "b")


@pytest.mark.parametrize("before", ["nothing", "failed", "made and deleted", "another target"])
@pytest.mark.parametrize("kind", ["file", "folder", "broken link"])
def test_what_a_user_put_there_is_refused(folder, before, kind):
    if before != "nothing":
        folder.begin("a" if before != "another target" else "b")
        folder.end()
    target = folder.path / "a"
    if kind == "folder":
        target.mkdir()
    elif kind == "broken link":
        target.symlink_to("nowhere")
    else:
        target.write_text("mine")
    for _ in range(2):  # the second try as well
        with pytest.raises(SidmillError, match="a: this run would write there, and no run"):
            folder.begin("a", "b")
    folder.begin("b")


def test_another_file_of_sids_in_the_place_of_one_that_a_run_made_is_refused(folder):
    name = "pid2sid.parquet"
    folder.begin(name)
    folder.make(name)
    folder.end()
    os.utime(name, (1, 1))  # a copy of the folder, or touch: the bytes are the same
    folder.begin(name)
    folder.make(name)
    folder.end()
    (folder.path / name).write_text("mine")
    with pytest.raises(SidmillError, match="has made what is there now"):
        folder.begin(name)
    (folder.path / name).rename("elsewhere")
    folder.begin(name)
    (folder.path / name).write_text("made, and killed before the end")
    folder.records.add(name)
    folder.begin(name)


@pytest.mark.parametrize("name", ["pid2sid.parquet", "codes.parquet", "my index.json", "run.json"])
@pytest.mark.parametrize("taken", [0, 1, 2])
def test_the_command_in_the_message_moves_the_file_and_writes_over_none(folder, name, taken):
    (folder.path / name).write_text("mine")
    for place in ("given", "given-2")[:taken]:
        (folder.path / place).mkdir()
        (folder.path / place / name).write_text("an older one")
    with pytest.raises(SidmillError) as caught:
        folder.begin(name)
    command = str(caught.value).partition("for instance: ")[2].partition(". To work")[0]
    subprocess.run(command, shell=True, check=True, cwd=folder.path)
    found = sorted(path.read_text() for path in folder.path.glob(f"given*/{name}"))
    assert found == ["an older one"] * taken + ["mine"]
    folder.begin(name)
    assert ("given.path" in str(caught.value)) == (name != "run.json")


def test_many_such_files_are_counted_and_twenty_named(folder):
    names = [f"f{number:02}" for number in range(33)]
    for name in names:
        (folder.path / name).touch()
    with pytest.raises(SidmillError, match=r"f00, .*, f19 and 13 more: this run would") as caught:
        folder.begin(*names)
    assert "f20" not in str(caught.value)
