"""Residual k-means in several processes, of this machine or of the nodes of a Slurm job.

The processes read the same files, and the first one keeps the state of the training after every
pass. The result is read out of the last state; its bytes are those of one process.

The process that starts them and waits never loads torch.
"""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sidmill.core import rendezvous
from sidmill.core.errors import SidmillError
from sidmill.formats import catalogue_match, vector_store
from sidmill.quantize import resume
from sidmill.quantize.resume import Fitted
from sidmill.settings import base
from sidmill.settings.quantize import Rqkmeans

if TYPE_CHECKING:
    from sidmill.numeric.process_group import Group

WORKER = "sidmill.quantize.rqkmeans_processes:fit_worker"
MODULES = ("sidmill.quantize.rqkmeans", "torch.distributed")


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
        return _fit(files, settings, run)
    launcher = rendezvous.srun(n_processes)
    if launcher is None:
        _check_devices(settings.device, n_processes)
    rendezvous.run(
        WORKER,
        {"files": files._asdict(), "settings": asdict(settings), "run": run._asdict()},
        n_processes,
        task=f"train {Path(run.state_path).with_suffix('')}",
        modules=MODULES,
        launcher=launcher,
    )
    return resume.read_finished(run.state_path)


def fit_worker(
    files: dict[str, Any],
    settings: dict[str, Any],
    run: dict[str, Any],
    member: dict[str, Any] | None,
) -> None:
    """Train in one process of several; the arguments are JSON, and the result is in the state."""
    from sidmill.numeric import process_group

    section, own = base.read(Rqkmeans, settings), rendezvous.of_argument(member)
    device = process_group.pick_device(section.device, own)
    with process_group.joined(own, device) as group:
        if group.rank:  # the lines of the first process are those of all
            logging.getLogger("sidmill").setLevel(logging.WARNING)
        _fit(Files(**files), section, Run(**run), group)


def _fit(files: Files, settings: Rqkmeans, run: Run, group: "Group | None" = None) -> Fitted:
    """Train in this process, the only one or one of a group."""
    from sidmill.quantize import rqkmeans

    items = vector_store.open_vectors(files.vectors, files.ids)
    known = catalogue_match.published_codes(files.match, files.ledger)
    shared: dict[str, Any] = {} if group is None else {"group": group}
    return rqkmeans.fit(items.vectors, settings, **run._asdict(), known=known, **shared)


def _check_devices(names: str, n_processes: int) -> None:
    """Refuse a list of devices that is not one per process of this machine."""
    n_named = len(names.split(","))
    is_list = n_named > 1 or ":" in names
    if is_list and n_named != n_processes:
        raise SidmillError(
            f"rqkmeans.device names {n_named} device(s), {names}, for {n_processes} processes of "
            f"this machine: name one per process, or set rqkmeans.device to auto"
        )
