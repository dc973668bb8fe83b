"""``sidmill status``: Snakemake's reasons in short, and how a job went last time."""

import json
import os
import socket
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from sidmill.commands import plan, reasons
from sidmill.commands.status import counts, table

PARAMS = (
    "Params have changed since last execution: Union of exclusive params before and now across all "
    "output: before: {before} now: {now} "
)


@pytest.mark.parametrize(
    ("reason", "found"),
    [
        ("Missing output files: a, b", {"missing": "not made yet"}),
        ("Updated input files: a", {"input": "a changed"}),
        ("Updated input files: a, b, c", {"input": "a, b and 1 more changed"}),
        (
            "Set of input files has changed since last execution",
            {"input set": "other input files than last time"},
        ),
        ("Code has changed since last execution", {"code": "code changed"}),
        (
            "Missing output files: a; Input files updated by another job: b, c",
            {"missing": "not made yet", "upstream": "after make_b"},
        ),
        (
            PARAMS.format(
                before="{'n_iter': 5, 'revision': 'c70291f7f7a4'}",
                now="{'n_iter': 6, 'revision': 'c70291f7f7a4'}",
            ),
            {"params": "n_iter 5 -> 6"},
        ),
        (
            PARAMS.format(before="{'code': '0123456789ab'}", now="{'code': 'ba9876543210'}"),
            {"params": "code changed"},
        ),
        (
            PARAMS.format(before="{'seed': 42},{'task': '01'}", now="{'seed': 43},{'task': '02'}"),
            {"params": "seed 42 -> 43, task or prompts changed"},
        ),
        (
            PARAMS.format(
                before="{'path': 'a; Missing output files: {b}'},{'code': '01'}",
                now="{'path': 'c'},{'code': '02'}",
            ),
            {"params": "path 'a; Missing output files: {b}' -> 'c', code changed"},
        ),
        (
            f"Updated input files: a; {PARAMS.format(before='1', now='2')}",
            {"input": "a changed", "params": "settings changed: 1 -> 2"},
        ),
        (PARAMS.format(before="42", now="43"), {"params": "settings changed: 42 -> 43"}),
        ("Something new", {"other": "Something new"}),
    ],
)
def test_a_reason_is_told_in_short(reason, found):
    assert reasons.explain(reason, {"b": "make_b", "c": "make_b"}) == found


def write_log(folder, *lines):
    path = folder / "train.jsonl"
    whole = [{"level": "INFO", "time": "t", **line} for line in lines]
    path.write_text("".join(json.dumps(line) + "\n" for line in whole))
    return str(folder / "train.log")


STARTED = {"message": "started", "fields": {"host": socket.gethostname(), "pid": os.getpid()}}


def test_how_a_job_went_is_read_from_its_log(tmp_path):
    assert (
        plan.last_time("", False) == plan.last_time(str(tmp_path / "none.log"), False) == ("", "")
    )
    assert plan.last_time(write_log(tmp_path, STARTED, {"message": "finished"}), False) == ("", "")
    wrong = {"level": "ERROR", "message": "lower it to 3"}
    log = write_log(tmp_path, STARTED, wrong, {"message": "failed"})
    assert plan.last_time(log, False) == ("failed", "lower it to 3")
    assert plan.last_time(write_log(tmp_path, STARTED), False)[0] == "running"
    elsewhere = {"message": "started", "fields": {"host": "another", "pid": os.getpid()}}
    assert plan.last_time(write_log(tmp_path, elsewhere), False)[0] == "interrupted"
    assert plan.last_time(write_log(tmp_path, elsewhere), True)[0] == "running"
    gone = {"message": "started", "fields": {"host": socket.gethostname(), "pid": 2**22 + 1}}
    assert (
        plan.last_time(write_log(tmp_path, gone, {"message": "x" * 99999}), False)[0]
        == "interrupted"
    )
    (tmp_path / "train.jsonl").write_bytes(b"\xff\x00{")
    assert plan.last_time(log, False)[0] == "interrupted"


def line(what, rule, output, **more):
    return {"what": what, "rule": rule, "wildcards": {}, "output": output, "log": [], **more}


@pytest.fixture
def planned(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("text", "vectors", "index", "sids"):
        (tmp_path / name).touch()
    write_log(tmp_path, STARTED, {"level": "ERROR", "message": "\x1b[31mno"}, {"message": "failed"})
    rules = {
        "render": ["text"], "embed": ["shard"], "store": ["vectors"], "train": ["books"],
        "encode": ["codes"], "index": ["index"], "resolve": ["sids"], "all": [],
    }  # fmt: skip
    jobs = [line("job", rule, output) for rule, output in rules.items()]
    jobs[3]["log"] = ["train.log"]
    causes = {
        "train": "Missing output files: books",
        "encode": "Missing output files: codes; Input files updated by another job: books",
        "resolve": "Input files updated by another job: codes",
        "index": "Incomplete output files: index",
        "all": "Input files updated by another job: sids",
    }
    to_run = [
        line("to_run", rule, rules[rule], reason=why) | {"log": jobs[3]["log"] * (rule == "train")}
        for rule, why in causes.items()
    ]
    return plan.read([*jobs, *jobs, *to_run, {"what": "locked"}])


def test_every_job_has_one_state(planned):
    assert {job.rule: job.state for job in planned.jobs} == {
        "render": "done", "embed": "gone", "store": "done", "train": "failed", "encode": "missing",
        "index": "interrupted", "resolve": "waiting",
    }  # fmt: skip
    assert [job.rule for job in planned.jobs][:3] == ["render", "embed", "store"]
    assert sum(counts(planned.jobs).values()) == len(planned.jobs)


def test_the_table_fits_and_says_how_to_go_on(planned):
    shown = table(planned, ("a b.yaml",), ("results/x",))
    lines = shown.splitlines()
    assert max(map(len, lines[:-1])) <= 95  # colours take no column
    assert "\x1b[31mno" not in shown
    assert "locked: " in shown
    assert "\nto continue: snakemake --cores 8 --configfile 'a b.yaml' -- results/x" in shown


def test_shards_of_one_state_are_one_line():
    shards = [
        plan.Job("embed", {"collection": "items", "shard": str(n), "shards": "3"}, [], state, [])
        for n, state in enumerate(["done", "done", "missing"])
    ]
    shown = table(plan.Plan(shards, False), (), ())
    assert "embed items (2 of 3)" in shown
    assert "embed items (1 of 3)" in shown
    assert len(table(plan.Plan(shards[:2], False), (), ()).splitlines()) == 3


def test_what_snakemake_complains_of_is_told_without_its_frames():
    text = 'Using profile\nWorkflowError in file "x":\n1 problem\n  File "x", line 3, in <module>\n'
    assert plan._complaint(text) == '  WorkflowError in file "x":\n  1 problem'


def test_the_sentences_of_this_version_of_snakemake_were_looked_at():
    """With another version: run ``sidmill status`` after each kind of change, then name it here."""
    assert version("snakemake") == "9.27.1"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_killed_process_that_no_parent_has_collected_does_not_run(tmp_path):
    child = subprocess.Popen(["sleep", "60"])
    fields = {"host": socket.gethostname(), "pid": child.pid}
    line = {"time": "now", "level": "INFO", "message": "started", "fields": fields}
    (tmp_path / "job.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    assert plan.last_time(str(tmp_path / "job.log"), locked=False)[0] == "running"
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it is dead, and keeps its number
    assert plan.last_time(str(tmp_path / "job.log"), locked=False)[0] == "interrupted"
    child.wait()
