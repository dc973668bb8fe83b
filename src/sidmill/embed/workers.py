"""Several processes share a shard, one GPU each; they meet in the chunks that they leave."""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from sidmill.core.atomic import write_text
from sidmill.core.errors import SidmillError
from sidmill.embed import chunks, compute, throughput
from sidmill.embed.compute import Done, Task
from sidmill.io import json_report

logger = logging.getLogger(__name__)

LOOK_S = 0.2  # between looks at whether a process has ended
LAST_WORDS_S = 10  # for what an ended process has said
THREAD_LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def run(task: Task, processes: int) -> Done:
    """Let processes compute the chunks of a shard, and add up what they did.

    The threads of this process, by ``OMP_NUM_THREADS`` or its cores, are shared out evenly. The
    first process that fails ends the others, and so does the end of this one, however it comes:
    see :mod:`sidmill.embed.worker`. Nothing of the settings is written to a command line.

    Raises:
        SidmillError: if one of them failed; what it said is in the log.
    """
    from sidmill.embed import worker

    folder = chunks.folder_of(task.shard_path)
    request = folder / "request.json"
    write_text(request, json.dumps(compute.as_json(task)))
    environment = _environment(processes)
    members: list[subprocess.Popen] = []
    listeners = []
    try:
        for process in range(processes):
            words = [sys.executable, "-m", worker.__name__]
            words += [str(request), str(process), str(processes)]
            member = subprocess.Popen(
                words, env=environment, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            members.append(member)
            listeners.append(threading.Thread(target=_listen, args=(process, member), daemon=True))
            listeners[-1].start()
        codes = _wait(members)
    finally:
        for member in members:
            member.kill()
            member.wait()
            member.stdin.close()
        for listener in listeners:
            listener.join(LAST_WORDS_S)
    failed = [process for process, code in enumerate(codes) if code]
    if failed:
        raise SidmillError(
            f"process {failed[0]} of the {processes} that embed {task.shard_path} failed: what it "
            f"said is above; what is done is kept, run again"
        )
    parts = [json_report.read(result_path(folder, process)) for process in range(processes)]
    return Done(parts[0]["fingerprint"], _together([part["figures"] for part in parts]))


def result_path(folder: Path, process: int) -> Path:
    """File in which a process says what it did."""
    return folder / f"process-{process}.json"


def _environment(processes: int) -> dict[str, str]:
    """Environment of each process: its share of the threads, and where this package lies."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    threads = int(told) if told.isdecimal() else len(os.sched_getaffinity(0))
    share = dict.fromkeys(THREAD_LIMITS, str(max(1, threads // processes)))
    source = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))
    return {**os.environ, **share, "PYTHONPATH": path}


def _wait(members: list[subprocess.Popen]) -> list[int | None]:
    """Exit codes once all have ended or one has failed; None of those that still run."""
    while True:
        codes = [member.poll() for member in members]
        if any(codes) or None not in codes:
            return codes
        time.sleep(LOOK_S)


def _listen(process: int, member: subprocess.Popen) -> None:
    with member.stderr as said:
        for line in said:
            logger.info("process %d: %s", process, line.rstrip())


def _together(parts: list[dict]) -> dict:
    """Add up the figures of processes that ran side by side."""
    whole = dict(parts[0]) | {key: sum(part[key] for part in parts) for key in throughput.COUNTS}
    seconds = max(part["seconds"] for part in parts)
    whole |= throughput.rates(whole, seconds)
    known = [part for part in parts if part["operations"] is not None]
    if known:
        done = sum(part["operations"] for part in known)
        rate = sum(part["matmul_rate"] for part in known)
        whole |= {
            "operations": done,
            "operations_per_second": done / seconds,
            "matmul_rate": rate,
            "matmul_share": done / seconds / rate,
            "device": known[0]["device"],
        }
    return whole
