"""How processes of one task are started on machines, and how each finds the others.

They are started by torchrun or ``srun``, which name each process in its environment, or by this
process (:mod:`sidmill.core.processes`), which names it in the arguments.
"""

import logging
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sidmill.core import processes, threads
from sidmill.core.errors import SidmillError
from sidmill.core.processes import Inherited, Launcher

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
FIRST_PORT, N_PORTS = 20_000, 12_000  # of the ports that steps of Slurm meet at


class Member(NamedTuple):
    """How a process finds the others.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
        local_rank: number of this process among those of its machine.
        host: name or address of the machine with the store at which they meet.
        port: of that store.
        has_store: whether another process keeps the store; otherwise that of rank 0 does.
        listener: descriptor of the socket that listens at the port, where these processes have
            inherited one.
    """

    rank: int
    size: int
    local_rank: int
    host: str
    port: int
    has_store: bool
    listener: int | None = None


ALONE = Member(rank=0, size=1, local_rank=0, host=HOST, port=0, has_store=False)


def run(
    function: str,
    arguments: Mapping[str, object],
    n_processes: int,
    *,
    task: str,
    modules: Sequence[str] = (),
    launcher: Launcher | None = None,
) -> list[Any]:
    """Call a function in processes that can find each other, see :mod:`sidmill.core.processes`.

    Args:
        function: ``module:function``; its argument ``member`` is for :func:`of_argument`.
        arguments: the others, the same for every process, JSON.
        n_processes: how many.
        task: what the processes do, as a verb and its object.
        modules: imported once for all processes of this machine.
        launcher: :func:`srun`, or None: this process starts them.

    Returns:
        What each call returned, see :func:`sidmill.core.processes.run`.

    Raises:
        SidmillError: if a process failed, with its message.
    """
    logger.info("%d processes, started by %s", n_processes, "srun" if launcher else "this one")
    if launcher is not None:
        return processes.run(
            function, [{**arguments, "member": None}], task=task, launcher=launcher
        )

    # The socket is open before the processes are there: whoever comes first waits for the store.
    processes.open_standard_streams()
    with socket.create_server((HOST, 0), backlog=n_processes) as listener:
        port, number = listener.getsockname()[1], listener.fileno()
        members = [
            Member(rank, n_processes, rank, HOST, port, has_store=False, listener=number)
            for rank in range(n_processes)
        ]
        return processes.run(
            function,
            [{**arguments, "member": member._asdict()} for member in members],
            task=task,
            inherited=Inherited(modules, [number]),
        )


def of_argument(member: Mapping[str, Any] | None) -> Member | None:
    """The process that :func:`run` names in the argument ``member``, or ``srun`` elsewhere."""
    return Member(**member) if member else of_environment()


def of_environment() -> Member | None:
    """Find this process in what torchrun or ``srun`` says in its environment; None if alone.

    Raises:
        SidmillError: if the environment names a process and not where it meets the others.
    """
    found = os.environ
    if "RANK" in found and "WORLD_SIZE" in found:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")
        rank, size, local_rank, port = (int(found.get(name, "0")) for name in names)
        if size > 1 and not ("MASTER_ADDR" in found and port):
            raise SidmillError(
                f"RANK and WORLD_SIZE name process {rank} of {size}, and MASTER_ADDR or "
                "MASTER_PORT is missing: start the processes with torchrun, or set both"
            )
        has_store = found.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        host = found.get("MASTER_ADDR", HOST)
        return Member(rank, size, local_rank, host, port, has_store) if size > 1 else None
    if "SLURM_PROCID" in found and int(found.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        return _of_slurm()
    return None


def _of_slurm() -> Member:
    """A task of ``srun``: the processes meet on the first node of the step."""
    found = os.environ
    host = found.get("MASTER_ADDR") or _first_host(found["SLURM_STEP_NODELIST"])
    step = int(found["SLURM_JOB_ID"]) * 31 + int(found.get("SLURM_STEP_ID", "0"))
    return Member(
        rank=int(found["SLURM_PROCID"]),
        size=int(found["SLURM_STEP_NUM_TASKS"]),
        local_rank=int(found.get("SLURM_LOCALID", "0")),
        host=host,
        port=int(found.get("MASTER_PORT") or FIRST_PORT + step % N_PORTS),
        has_store=False,
    )


def _first_host(nodes: str) -> str:
    """The first of the nodes that Slurm lists, as in ``node[03-05,12]``."""
    if "[" not in nodes:
        return nodes.partition(",")[0]
    listed = subprocess.run(
        ["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True
    )
    return listed.stdout.split()[0]


def srun(n_processes: int) -> Launcher | None:
    """``srun``, with the threads of this process for each task, in a Slurm job that has these.

    Elsewhere, such as in a workflow that runs inside one allocation, it is None.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if job is None or shutil.which("scontrol") is None:  # containers often lack Slurm's programs
        return None
    shown = subprocess.run(
        ["scontrol", "show", "job", "--oneliner", job], capture_output=True, text=True, check=False
    )
    granted = {name: int(n) for name, n in re.findall(r"\b(Num\w+)=(\d+)", shown.stdout)}
    n_cpus = n_processes * threads.granted()
    if granted.get("NumTasks", 0) < n_processes or granted.get("NumCPUs", n_cpus) < n_cpus:
        return None
    command = [
        "srun",
        f"--ntasks={n_processes}",
        f"--cpus-per-task={threads.granted()}",
        "--overlap",  # this process is a step of the job itself, and waits
        "--mem=0",  # all memory of the job on a node
        "--kill-on-bad-exit=1",
    ]
    return Launcher(command, n_processes)
