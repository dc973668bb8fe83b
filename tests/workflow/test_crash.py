"""Runs that are killed, disks that are full, files that rot: what is named, and what a rerun mends.

SIDMILL_KILLS says at how many seeded random moments the pipeline is killed.
"""

import os
import random
import shutil
import signal
import subprocess
import time

import pytest

pytestmark = pytest.mark.workflow

KILLS = int(os.environ.get("SIDMILL_KILLS", "5"))
KILLS_PER_FOLDER = 10
TINY = ("--configfile", "tests/configs/tiny.yaml")
TARGETS = (
    *("all", "results/rqvae/codes.parquet", "results/recommender/metrics.json"),
    *("results/datasets/report.json", "results/h5/item_data.h5"),
    *("results/generative/rqkmeans/metrics.json", "results/generative/rqkmeans/topk.parquet"),
)
OF_THE_MOMENT = {"benchmarks", "logs", "speed"}  # what they hold is time
TEMPORARY = (".*partial", "*.state", ".scratch*")


def artefacts(workflow):
    folder = workflow.folder / "results"
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and OF_THE_MOMENT.isdisjoint(path.relative_to(folder).parts)
    }


@pytest.fixture(scope="module")
def finished(make_workflow):
    workflow = make_workflow()
    began = time.monotonic()
    workflow.run(*TINY, "--", *TARGETS)
    workflow.seconds = time.monotonic() - began
    workflow.artefacts = artefacts(workflow)
    return workflow


@pytest.fixture
def copy(finished, tmp_path):
    """The finished run in a folder of its own, to be damaged."""
    shutil.copytree(finished.folder, tmp_path / "copy", symlinks=True)
    other = object.__new__(type(finished))
    other.folder = tmp_path / "copy"
    return other


@pytest.mark.timeout(3600)
def test_killed_at_random_moments_it_ends_in_the_same_bytes(finished, make_workflow):
    """Every process of the run is killed at once; nobody unlocks anything."""
    moments = random.Random(7)
    landed = 0
    while landed < KILLS:
        workflow = make_workflow()
        for _ in range(min(KILLS_PER_FOLDER, KILLS - landed)):
            process = workflow.start(*TINY, "--", *TARGETS)
            try:
                wait = moments.uniform(0, 2 * finished.seconds / KILLS_PER_FOLDER)
                assert process.wait(wait) == 0, "a run after a kill failed"
                break
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                landed += 1
        workflow.run(*TINY, "--", *TARGETS)
        found = artefacts(workflow)
        assert sorted(found) == sorted(finished.artefacts)
        different = [name for name, data in found.items() if data != finished.artefacts[name]]
        assert not different
        left = [path for pattern in TEMPORARY for path in workflow.folder.rglob(pattern)]
        assert not left
        shutil.rmtree(workflow.folder)


def test_a_second_run_in_a_folder_is_refused_and_harms_nothing(make_workflow, finished):
    workflow = make_workflow()
    first = workflow.start(*TINY)
    deadline = time.monotonic() + 300
    while not (workflow.folder / "results/items/text.parquet").exists():
        assert first.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    second = workflow.snakemake(*TINY)
    assert second.returncode != 0
    assert "lock" in second.stdout + second.stderr
    workflow.run("--dry-run", *TINY)
    assert first.wait(300) == 0
    assert workflow.bytes("pid2sid.parquet") == finished.bytes("pid2sid.parquet")


@pytest.mark.parametrize(
    ("fault", "name", "place", "target"),
    [
        ("flip", "items/vectors.npy", -1000, "rqkmeans/codes.parquet"),
        ("flip", "items/embeddings.parquet/part-00001-of-00002.parquet", 2000, "items/vectors.npy"),
        ("cut", "items/embeddings.parquet/part-00001-of-00002.parquet", 2000, "items/vectors.npy"),
        ("cut", "items/vectors.npy", 1000, "rqkmeans/codes.parquet"),
        ("flip", "rqkmeans/quantizer.safetensors", -500, "rqkmeans/codes.parquet"),
        ("flip", "rqvae/quantizer.safetensors", -5000, "rqvae/codes.parquet"),
    ],
)
def test_a_damaged_file_is_named_and_made_again(copy, finished, fault, name, place, target):
    path = copy.folder / "results" / name
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data if fault == "flip" else data[:place])
    target = f"results/{target}"
    done = copy.snakemake(*TINY, "--forcerun", target, "--", target)
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert f"results/{name}: " in said, said
    assert "Traceback" not in said
    path.unlink()
    copy.run(*TINY, "--", target)
    assert artefacts(copy) == finished.artefacts


@pytest.fixture
def small_disk(tmp_path):
    """A function that mounts, or mounts anew, a disk of some KiB."""
    folder = tmp_path / "small disk"
    folder.mkdir()

    def mount(options):
        words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if subprocess.run(words, capture_output=True).returncode:
            pytest.skip("mounting a file system needs root")
        return folder

    yield mount
    subprocess.run(["umount", str(folder)], capture_output=True)


def test_a_full_disk_is_named_and_a_larger_one_mends_it(make_workflow, finished, small_disk):
    workflow = make_workflow()
    (workflow.folder / "results").symlink_to(small_disk("size=150k"))
    done = workflow.snakemake(*TINY)
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "No space left on device: resolve that and run again" in said
    assert "Traceback" not in said
    left = [path for pattern in TEMPORARY for path in workflow.folder.rglob(pattern)]
    assert not left
    small_disk("remount,size=50m")
    workflow.run(*TINY)
    for name in ("pid2sid.parquet", "quality.json", "explorer.html"):
        assert workflow.bytes(name) == finished.bytes(name)


def test_a_folder_that_cannot_be_written_is_named(make_workflow, finished, small_disk):
    workflow = make_workflow()
    (workflow.folder / "results").symlink_to(small_disk("size=50m"))
    workflow.run(*TINY, "--", "results/items/text.parquet")
    small_disk("remount,ro")
    done = workflow.snakemake(*TINY)
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "Read-only file system" in said
    small_disk("remount,rw")
    workflow.run(*TINY)
    assert workflow.bytes("pid2sid.parquet") == finished.bytes("pid2sid.parquet")


# Training that begins with the import of torch, so that there is time to kill it.
OTHER = "rqkmeans: {codebook_size: 12, n_iter: 5, device: 'cpu,cpu'}"


@pytest.mark.long
def test_what_a_failed_run_began_to_replace_does_not_pass_for_finished(copy, finished):
    """Snakemake deletes a job's outputs when it begins, and calls their absence no reason."""
    wrong = copy.overlay("wrong.yaml", "rqkmeans: {codebook_size: 1000}")
    for _ in range(2):  # the second time is no different
        done = copy.snakemake(*TINY, wrong)
        assert done.returncode != 0
        assert "1000" in done.stdout + done.stderr
    assert {"train_rqkmeans", "resolve_collisions", "measure_quality"} <= copy.planned(*TINY)
    copy.run(*TINY)
    assert artefacts(copy) == finished.artefacts


@pytest.mark.long
def test_what_a_killed_run_began_to_replace_does_not_pass_for_finished(copy, make_workflow):
    fresh = make_workflow()
    overlay = fresh.overlay("other.yaml", OTHER)
    fresh.run(*TINY, overlay)
    copy.overlay("other.yaml", OTHER)
    (copy.folder / "results/logs/train_rqkmeans.log").unlink()
    copy.kill_when("logs/train_rqkmeans.log", *TINY, overlay)
    assert not (copy.folder / "results/rqkmeans/quantizer.safetensors").exists()
    copy.run(*TINY, overlay)
    for name in ("pid2sid.parquet", "quality.json", "explorer.html"):
        assert copy.bytes(name) == fresh.bytes(name)
