"""The processes of one training: each takes its rows of every batch, sums go over all of them.

Every process ends each step with the same weights. A training of one process calls the same
functions, which then do nothing.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from sidmill.core import rendezvous
from sidmill.core.errors import SidmillError
from sidmill.numeric import nearest_torch, process_group

TIMEOUT = timedelta(hours=2)  # rank 0 measures and saves while the others wait


class Group(NamedTuple):
    """This process among those of one training.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
        port: of the store at which they find each other; 0 with one process.
    """

    rank: int = 0
    size: int = 1
    port: int = 0


ALONE = Group()


def open_store() -> TCPStore:
    """Open the store at which processes of this machine find each other, on a free port."""
    return process_group.open_store(TIMEOUT)


@contextmanager
def joined(group: Group, device: torch.device) -> Iterator[torch.device]:
    """Join the other processes of an RQ-VAE training.

    Args:
        group: this process.
        device: that the settings name; on GPUs each process takes the one of its rank.

    Yields:
        The device of this process.

    Raises:
        SidmillError: if the others do not answer.
    """
    member = rendezvous.local(*group) if group.size > 1 else None
    with process_group.joined(member, device, TIMEOUT) as own:
        yield own.device


def check_devices(n_processes: int, device: str) -> None:
    """Refuse more processes of an RQ-VAE training than there are GPUs: each takes one.

    Raises:
        SidmillError: naming both numbers.
    """
    if nearest_torch.pick_device(device).type != "cuda":
        return
    n_gpus = torch.cuda.device_count()
    if n_processes > n_gpus:
        raise SidmillError(
            f"rqvae.processes is {n_processes}, each takes a GPU of its own, and torch finds "
            f"{n_gpus}: lower rqvae.processes to at most {n_gpus}, or set rqvae.device to cpu"
        )


def local_rows(rows: np.ndarray, group: Group) -> np.ndarray:
    """Return the rows of a batch that this process takes: every ``size``-th."""
    return rows[group.rank :: group.size]


def all_reduce(tensors: Iterable[torch.Tensor], group: Group) -> None:
    """Replace tensors, in place, by their sums over all processes, in one message."""
    parts = list(tensors)
    if group.size == 1 or not parts:
        return
    flat = torch.cat([part.reshape(-1).float() for part in parts])
    dist.all_reduce(flat)
    totals = torch.split(flat, [part.numel() for part in parts])
    for part, total in zip(parts, totals, strict=True):
        part.copy_(total.view_as(part))


def broadcast(tensors: Iterable[torch.Tensor], group: Group) -> None:
    """Replace tensors, in place, by those of the first process."""
    if group.size > 1:
        for tensor in tensors:
            dist.broadcast(tensor, 0)


def barrier(group: Group) -> None:
    """Wait until all processes are here."""
    if group.size > 1:
        dist.barrier()
