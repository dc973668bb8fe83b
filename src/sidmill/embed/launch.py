"""Several processes share a shard, one GPU each; they meet in the chunks that they leave."""

import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

from sidmill.core.atomic import write_text
from sidmill.core.errors import SidmillError
from sidmill.embed import chunks
from sidmill.embed.compute import Done, Task
from sidmill.formats import report

logger = logging.getLogger(__name__)

SUMS = ("rows", "texts", "texts_kept", "texts_cut", "tokens", "padded_tokens")


def run(task: Task, processes: int) -> Done:
    """Let processes compute the chunks of a shard, and add up what they did.

    Threads are shared out evenly, unless ``OMP_NUM_THREADS`` says how many each has. Nothing of
    the settings is written to a command line.

    Raises:
        SidmillError: if one of them failed; what it said is in the log.
    """
    from sidmill.embed import member as program  # here, since it imports this module

    folder = chunks.folder_of(task.shard_path)
    request = folder / "request.json"
    write_text(request, json.dumps(task._asdict()))
    threads = str(max(1, len(os.sched_getaffinity(0)) // processes))
    source = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))
    environment = {"OMP_NUM_THREADS": threads, **os.environ, "PYTHONPATH": path}
    members = []
    for process in range(processes):
        words = [sys.executable, "-m", program.__name__, str(request), str(process), str(processes)]
        members.append(subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True))
    try:
        listeners = [
            threading.Thread(target=_listen, args=pair, daemon=True) for pair in enumerate(members)
        ]
        for listener in listeners:
            listener.start()
        codes = [member.wait() for member in members]
        for listener in listeners:
            listener.join()
    finally:
        for member in members:
            if member.poll() is None:
                member.kill()
    if any(codes):
        raise SidmillError(
            f"{sum(map(bool, codes))} of {processes} processes that embed {task.shard_path} "
            f"failed: what they said is above; what is done is kept, run again"
        )
    parts = [report.read(result_path(folder, process)) for process in range(processes)]
    return Done(parts[0]["fingerprint"], _together([part["figures"] for part in parts]))


def result_path(folder: Path, process: int) -> Path:
    """File in which a process says what it did."""
    return folder / f"process-{process}.json"


def _listen(process: int, member: subprocess.Popen) -> None:
    for line in member.stderr:
        logger.info("process %d: %s", process, line.rstrip())


def _together(parts: list[dict]) -> dict:
    """Add up the figures of processes that ran side by side."""
    whole = dict(parts[0]) | {key: sum(part[key] for part in parts) for key in SUMS}
    seconds = max(part["seconds"] for part in parts)
    whole |= {
        "useful_share": whole["tokens"] / whole["padded_tokens"]
        if whole["padded_tokens"]
        else None,
        "seconds": seconds,
        "texts_per_second": whole["texts"] / seconds,
        "tokens_per_second": whole["tokens"] / seconds,
    }
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
