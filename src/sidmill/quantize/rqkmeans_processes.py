"""Residual k-means in several processes, of this machine or of the nodes of a Slurm job.

The processes read the same files, and the first one keeps the state of the training after every
pass. The result is read out of the last state; its bytes are those of one process.
"""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from sidmill.core import processes, rendezvous
from sidmill.core.rendezvous import Member
from sidmill.formats import catalogue_match, vector_store
from sidmill.numeric import process_group
from sidmill.numeric.process_group import ALONE, Group
from sidmill.quantize import rqkmeans
from sidmill.quantize.resume import Fitted
from sidmill.settings import base
from sidmill.settings.quantize import Rqkmeans

logger = logging.getLogger(__name__)

WORKER = "sidmill.quantize.rqkmeans_processes:fit_worker"


class Files(NamedTuple):
    """What a training reads.

    Attributes:
        vectors: vectors.npy of a vector store.
        ids: ids.parquet of it.
        match: the items that have published codes, or None.
        ledger: the published codes, or None.
    """

    vectors: str
    ids: str
    match: str | None = None
    ledger: str | None = None


class Run(NamedTuple):
    """What a training is besides its settings: see :func:`sidmill.quantize.rqkmeans.fit`."""

    seed: int
    state_path: str
    code: str


def fit(files: Files, settings: Rqkmeans, run: Run, n_processes: int) -> Fitted:
    """Fit residual k-means in some processes.

    In a Slurm job of as many tasks, ``srun`` starts one process per task, with the cores of a task
    each. Elsewhere the processes are started here and share the threads of this one. The first
    process that fails ends the others; the next call continues from the state.

    Args:
        files: what each process reads, at the same path on every machine.
        settings: see :class:`sidmill.settings.quantize.Rqkmeans`.
        run: seed, state and code.
        n_processes: how many; 1 trains in this process.

    Returns:
        The codebooks, see :func:`sidmill.quantize.rqkmeans.fit`.

    Raises:
        SidmillError: if a process failed, with its message.
    """
    if n_processes == 1:
        return _fit(files, settings, run, ALONE)
    common = {"files": files._asdict(), "settings": asdict(settings), "run": run._asdict()}
    task = f"train {Path(run.state_path).with_suffix('')}"
    launcher = rendezvous.srun(n_processes)
    logger.info("%d processes, started by %s", n_processes, "srun" if launcher else "this one")
    if launcher is not None:
        processes.run(WORKER, [common | {"member": None}], task=task, launcher=launcher)
    else:
        store = process_group.open_store()
        local = [rendezvous.local(rank, n_processes, store.port) for rank in range(n_processes)]
        arguments = [common | {"member": member._asdict()} for member in local]
        processes.run(WORKER, arguments, task=task)
    return rqkmeans.read_finished(run.state_path)


def fit_worker(
    files: dict[str, Any],
    settings: dict[str, Any],
    run: dict[str, Any],
    member: dict[str, Any] | None,
) -> None:
    """Train in one process of several; the arguments are JSON, and the result is in the state."""
    from sidmill.numeric import nearest_torch

    section = base.read(Rqkmeans, settings)
    own = Member(**member) if member else rendezvous.of_environment()
    device = nearest_torch.pick_devices(section.device)[0]
    with process_group.joined(own, device) as group:
        if group.rank:  # the lines of the first process are those of all
            logging.getLogger("sidmill").setLevel(logging.WARNING)
        _fit(Files(**files), section, Run(**run), group)


def _fit(files: Files, settings: Rqkmeans, run: Run, group: Group) -> Fitted:
    items = vector_store.open_store(files.vectors, files.ids)
    known = catalogue_match.published_codes(files.match, files.ledger)
    return rqkmeans.fit(items.vectors, settings, **run._asdict(), known=known, group=group)
