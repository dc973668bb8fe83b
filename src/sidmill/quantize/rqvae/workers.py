"""Start the processes of a training through torchrun, and be one of them.

Source: https://docs.pytorch.org/docs/stable/elastic/run.html
"""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import torch

from sidmill.core.atomic import write_text
from sidmill.core.errors import SidmillError
from sidmill.numeric import nearest_torch
from sidmill.quantize.rqvae import distributed

logger = logging.getLogger(__name__)

REQUEST = "request.json"  # what to train, for the processes
FAILURE = "failure.txt"  # what a process ended with
# all that a job's environment may set: one that is left would count in each process
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def run(processes: int, arguments: dict, folder: Path) -> None:
    """Run ``fit(**arguments)`` in ``processes`` processes; its checkpoints stay in ``folder``.

    The processes share the threads of this one evenly.

    Raises:
        SidmillError: if there are fewer GPUs than processes, or with what one of them ended.
    """
    check_devices(processes, arguments["device"])
    from sidmill.quantize.rqvae import worker

    request, failure = folder / REQUEST, folder / FAILURE
    failure.unlink(missing_ok=True)
    write_text(request, json.dumps(arguments))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*torchrun, f"--nproc-per-node={processes}", "-m", worker.__name__, str(request)]
    threads = str(max(1, torch.get_num_threads() // processes))
    environment = {**os.environ, **dict.fromkeys(THREADS, threads), distributed.MEMBER: "1"}
    source = str(Path(__file__).parents[3])
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [source, os.environ.get("PYTHONPATH")])
    )
    try:
        done = subprocess.run(command, env=environment)
    finally:
        request.unlink()
    if done.returncode:
        said = failure.read_text(encoding="utf-8") if failure.exists() else ""
        failure.unlink(missing_ok=True)
        raise SidmillError(
            said or f"a process of {processes} failed with {done.returncode}: see above"
        )


def check_devices(processes: int, device: str) -> None:
    """Refuse more processes than there are GPUs: each takes one.

    Raises:
        SidmillError: naming both numbers.
    """
    if nearest_torch.pick_device(device).type != "cuda":
        return
    n_gpus = torch.cuda.device_count()
    if processes > n_gpus:
        raise SidmillError(
            f"rqvae.processes is {processes}, each takes a GPU of its own, and torch finds "
            f"{n_gpus}: lower rqvae.processes to at most {n_gpus}, or set rqvae.device to cpu"
        )
