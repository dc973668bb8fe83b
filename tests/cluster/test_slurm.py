"""The pipeline on a real Slurm, which slurm.py starts, through profiles/slurm as it is shipped."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

RUN_SECONDS = 1200  # at most; for a busy machine
pytestmark = [pytest.mark.slurm, pytest.mark.timeout(2 * RUN_SECONDS)]

TINY = ("--configfile", "tests/configs/tiny.yaml")
# What suits this one machine: no shared disk to wait for, jobs of a few seconds.
QUICK = ("--latency-wait=5", "--slurm-init-seconds-before-status-checks=12")
PROFILE = ("--profile", "profiles/slurm", "--workflow-profile", "none", *QUICK, *TINY)
VECTORS = "results/items/vectors.npy"
PUBLISHED = ("pid2sid.parquet", "index.json", "codes.parquet", "quality.json", "items/vectors.npy")
EMBEDDED = ("items/vectors.npy", "items/ids.parquet")
SHARDS = [f"results/logs/embed_shard.items.{shard:05d}-of-00002.log" for shard in range(2)]
STORE = "results/logs/store_vectors.items.log"
RUNS = []  # of Snakemake, that a test started
SECRET = "token-that-no-file-may-hold"

# Put before a script: does what a file named after its log says, if there is one.
PRELUDE = """
from pathlib import Path
fault = Path("faults", Path(snakemake.log[0]).name)
if fault.exists():
    exec(fault.read_text())
"""
FAIL_ONCE = "fault.unlink(); raise SystemExit('injected: the first attempt fails')"
# scancel takes a task of an array by the array and its number, not always by its own id.
HANG = """
import os, time
fault.unlink()
def hang(*arguments):
    array, task = (os.environ.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK"))
    job = f"{array}_{task}" if array else os.environ["SLURM_JOB_ID"]
    fault.with_suffix(".job").write_text(job)
    time.sleep(600)
"""
HANG_ONCE = HANG + "hang()"
HANG_AT_WORK = HANG + "import sidmill.core.job; sidmill.core.job._marked = hang"
NEED_MORE = "import time; needed = b'x' * (700 << 20); time.sleep(5)"


def slurm(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def missing_slurm() -> str:
    """Why these tests cannot run here, or nothing."""
    if not shutil.which("sinfo"):
        return "no Slurm: sinfo is not installed"
    try:
        slurm("sinfo", "--noheader")
    except (AssertionError, subprocess.TimeoutExpired) as error:
        return f"no Slurm answers: {error}".partition("\n")[0]
    return ""


@pytest.fixture(scope="session", autouse=True)
def needs_slurm():
    if reason := missing_slurm():
        pytest.skip(f"{reason} (python3 tests/cluster/slurm.py start)")


@pytest.fixture(autouse=True)
def nothing_is_left_running(tmp_path_factory):
    """A test that fails takes its run and its jobs along."""
    yield
    for run in RUNS:
        run.kill()
        run.wait()
    RUNS.clear()
    for job in jobs_below(tmp_path_factory.getbasetemp()):
        if job["job_state"] in {"RUNNING", "PENDING"}:
            slurm("scancel", str(job["job_id"]))


def jobs_below(folder: Path) -> list[dict]:
    """What Slurm knows of the jobs of a folder, in the order of their ids."""
    jobs = json.loads(slurm("squeue", "--states=all", "--json"))["jobs"]
    below = (job for job in jobs if Path(job["current_working_directory"]).is_relative_to(folder))
    return sorted(below, key=lambda job: job["job_id"])


def jobs_of(workflow) -> list[dict]:
    return jobs_below(workflow.folder)


def states(workflow) -> list[str]:
    return [job["job_state"] for job in jobs_of(workflow)]


def slurm_logs(workflow, rule: str) -> str:
    """What the jobs of a rule printed, those that ended badly."""
    logs = (workflow.folder / f".snakemake/slurm_logs/rule_{rule}").rglob("*.log")
    return "".join(path.read_text(encoding="utf-8") for path in logs)


def submit(workflow, *arguments: str) -> subprocess.Popen:
    command = workflow.command(*PROFILE, *arguments, cores=())
    command["env"]["SIDMILL_TEST_TOKEN"] = SECRET
    RUNS.append(subprocess.Popen(**command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
    return RUNS[-1]


def finish(process: subprocess.Popen, status: int = 0) -> str:
    printed, _ = process.communicate(timeout=RUN_SECONDS)
    assert process.returncode == status, printed
    return printed


def wait_for(ready, seconds: int = 300):
    deadline = time.monotonic() + seconds
    while not (found := ready()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.5)
    return found


def hanging_job(workflow, log: str) -> str:
    """The Slurm id of a job that HANG_ONCE holds, once it does."""
    file = workflow.folder / "faults" / f"{Path(log).stem}.job"
    return wait_for(lambda: file.exists() and file.read_text())


def inject(workflow, faults: dict[str, str]) -> None:
    """Let jobs, named by their logs, run into faults; their rules have to run again for it."""
    folder = workflow.folder / "faults"
    folder.mkdir()
    for log, text in faults.items():
        (folder / Path(log).name).write_text(text)
    for rule in {Path(log).name.partition(".")[0] for log in faults}:
        script = workflow.folder / f"workflow/scripts/{rule}.py"
        script.write_text(PRELUDE + script.read_text())


@pytest.fixture(scope="module")
def finished(make_workflow):
    """A run from nothing on Slurm that every test looks at; one that changes it copies it."""
    workflow = make_workflow()
    finish(submit(workflow))
    return workflow


@pytest.fixture
def copy(finished, make_workflow):
    workflow = make_workflow()
    for name in ("results", ".snakemake"):
        shutil.copytree(finished.folder / name, workflow.folder / name, copy_function=shutil.copy2)
    return workflow


def test_the_whole_pipeline_gives_the_bytes_of_a_local_run(finished, workflow):
    workflow.run(*TINY)
    for name in PUBLISHED:
        assert finished.bytes(name) == workflow.bytes(name), name
    assert set(states(finished)) == {"COMPLETED"}


def test_each_job_asks_for_what_the_profile_says(finished):
    jobs = {job["comment"]: job for job in jobs_of(finished)}
    assert set(jobs) == {
        "rule_demo_render_text_write_demo",  # small jobs of one chain, submitted together
        "rule_fit_lsa_wildcards_items",
        "rule_embed_shard_wildcards_items_00000_00002",  # shards are jobs
        "rule_embed_shard_wildcards_items_00001_00002",
        "rule_store_vectors_wildcards_items",
        "rule_train_rqkmeans_wildcards__",  # two wildcards, both empty
        "rule_codes_choose_codes_encode_items",
        "rule_resolve_collisions",
        "rule_quality_measure_quality_plot_quality",
        "rule_explore_sids",
    }
    shard = jobs["rule_embed_shard_wildcards_items_00001_00002"]
    asked = {key: shard[key] for key in ("partition", "tres_per_job", "cpus", "time_limit")}
    assert asked == {"partition": "gpu", "tres_per_job": "gres:gpu:1", "cpus": 8, "time_limit": 120}
    assert 32000 <= shard["memory_per_node"] < 32100  # and its share of the input
    train = jobs["rule_train_rqkmeans_wildcards__"]
    assert (train["partition"], train["tres_per_job"], train["cpus"]) == ("cpu", "", 8)


def test_jobs_need_nothing_of_the_submitting_host_but_the_shared_folders(finished):
    shared = (str(finished.folder), sys.prefix, str(Path(sys.executable).resolve().parents[1]))
    for job in jobs_of(finished):
        script = slurm("scontrol", "write", "batch_script", str(job["job_id"]), "-")
        paths = [word for word in shlex.split(script, comments=True) if word.startswith("/")]
        assert paths
        assert [path for path in paths if not path.startswith(shared)] == []
        assert SECRET not in script


def test_no_file_holds_what_the_environment_held(finished):
    files = [path for path in finished.folder.rglob("*") if path.is_file()]
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
    assert not list((finished.folder / ".snakemake/slurm_logs").rglob("*.log"))  # of good jobs


def test_jobs_of_two_tasks_give_the_bytes_of_one(finished, copy):
    """As rqkmeans.processes asks for; the tasks of a job are those of one srun."""
    for name in ("rqkmeans/quantizer.safetensors", "codes.parquet"):
        (copy.folder / "results" / name).unlink()
    tasks = [f"{rule}:tasks=2" for rule in ("train_rqkmeans", "encode_items")]
    wanted = ("--forcerun", "train_rqkmeans", "encode_items", "--set-resources", *tasks)
    finish(submit(copy, *wanted, "--", "results/codes.parquet"))
    jobs = jobs_of(copy)
    assert {(job["job_state"], job["tasks"], job["cpus"]) for job in jobs} == {("COMPLETED", 2, 16)}
    for rule in ("train_rqkmeans", "encode_items.rqkmeans"):
        log = (copy.folder / f"results/logs/{rule}.log").read_text()
        assert "2 processes, started by srun" in log, rule
    for name in ("rqkmeans/quantizer.safetensors", "rqkmeans/codes.parquet", "codes.parquet"):
        assert copy.bytes(name) == finished.bytes(name), name


def test_a_killed_task_ends_its_job_with_one_message_and_the_next_attempt_finishes(finished, copy):
    """The file that a fault writes kills the process of rank 1, once."""
    trained = "rqkmeans/quantizer.safetensors"
    (copy.folder / "results" / trained).unlink()
    module = copy.folder / "src/sidmill/quantize/rqkmeans_processes.py"
    text = module.read_text()
    fault = """
    if group.rank and Path("faults").exists():
        import os, signal
        Path("faults").rmdir()
        os.kill(os.getpid(), signal.SIGKILL)
"""
    before = "    items = vector_store.open_vectors"
    assert text.count(before) == 1
    module.write_text(text.replace(before, fault + before))
    (copy.folder / "faults").mkdir()
    tasks = ("--set-resources", "train_rqkmeans:tasks=2", "--retries=1")
    finish(submit(copy, *tasks, "--", f"results/{trained}"))
    assert states(copy) == ["FAILED", "COMPLETED"]
    failed = slurm_logs(copy, "train_rqkmeans")
    assert failed.count("one of the 2 processes that train results/rqkmeans/quantizer") == 1
    assert copy.bytes(trained) == finished.bytes(trained)


def test_failed_cancelled_and_oversized_jobs_are_tried_again(finished, copy):
    """Shards as a job array: one fails, one is cancelled; storing outgrows its memory."""
    inject(copy, {SHARDS[0]: FAIL_ONCE, SHARDS[1]: HANG_ONCE, STORE: NEED_MORE})
    memory = "store_vectors:mem_mb=700 * attempt"  # too little at first: it needs about 950
    run = submit(copy, "--slurm-array-jobs=embed_shard", f"--set-resources={memory}", "--", VECTORS)
    slurm("scancel", hanging_job(copy, SHARDS[1]))
    printed = finish(run)
    assert "SLURM status is: 'CANCELLED'" in printed
    assert "injected: the first attempt fails" in slurm_logs(copy, "embed_shard")
    assert "exceeded memory limit" in slurm_logs(copy, "store_vectors")
    shards = [job for job in jobs_of(copy) if "embed_shard" in job["comment"]]
    assert sorted(job["job_state"] for job in shards) == [
        "CANCELLED", "COMPLETED", "COMPLETED", "FAILED",
    ]  # fmt: skip
    # Second attempts that start together are an array, too.
    assert {job["array_task_id"] for job in shards if job["array_job_id"]} == {1, 2}
    assert sorted(job["memory_per_node"] // 1000 for job in shards) == [4, 4, 8, 8]
    stored = [job for job in jobs_of(copy) if "store_vectors" in job["comment"]]
    assert [job["memory_per_node"] for job in stored] == [700, 1400]
    assert stored[0]["job_state"] in {"FAILED", "OUT_OF_MEMORY"}
    assert stored[1]["job_state"] == "COMPLETED"
    for name in EMBEDDED:
        assert copy.bytes(name) == finished.bytes(name), name


def test_cancelled_and_timed_out_jobs_end_clearly_and_a_rerun_finishes(finished, copy):
    for name in EMBEDDED:  # else Snakemake would take these older ones for finished
        (copy.folder / "results" / name).unlink()
    inject(copy, dict.fromkeys(SHARDS, HANG_ONCE))
    run = submit(copy, "--retries=0", "--set-resources=embed_shard:runtime=1", "--", VECTORS)
    hanging_job(copy, SHARDS[0])
    slurm("scancel", hanging_job(copy, SHARDS[1]))
    printed = finish(run, status=1)
    assert "SLURM status is: 'CANCELLED'" in printed
    assert "SLURM status is: 'TIMEOUT'" in printed
    assert sorted(states(copy)) == ["CANCELLED", "TIMEOUT"]
    assert not list(copy.folder.glob("results/items/embeddings.parquet/*"))
    finish(submit(copy, "--", VECTORS))  # nothing to unlock
    assert states(copy).count("COMPLETED") == 3
    for name in EMBEDDED:
        assert copy.bytes(name) == finished.bytes(name), name


def test_jobs_of_a_killed_submission_keep_the_next_one_out_until_they_end(finished, copy):
    """SIGKILL leaves the job running; nobody unlocks anything."""
    inject(copy, {SHARDS[0]: HANG_AT_WORK})
    shard = "items/embeddings.parquet/part-00000-of-00002.parquet"
    run = submit(copy, "--", f"results/{shard}")
    hanging_job(copy, SHARDS[0])
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    assert states(copy) == ["RUNNING"]
    finish(submit(copy, "--retries=0", "--", f"results/{shard}"), status=1)
    assert "of an earlier run, which was killed, is still at work" in slurm_logs(
        copy, "embed_shard"
    )
    slurm("scancel", f"--name={jobs_of(copy)[0]['name']}")  # the run id that Snakemake prints
    wait_for(lambda: states(copy) == ["CANCELLED", "FAILED"])
    finish(submit(copy, "--", f"results/{shard}"))
    assert copy.bytes(shard) == finished.bytes(shard)
