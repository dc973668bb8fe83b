"""The processes of one training: each takes its rows of every batch, sums go over all of them.

Every process ends each step with the same weights. A training of one process calls the same
functions, which then do nothing.
"""

from collections.abc import Iterable
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist

from sidmill.core.errors import SidmillError
from sidmill.numeric import nearest_torch
from sidmill.numeric.process_group import Group

TIMEOUT = timedelta(hours=2)  # rank 0 measures and saves while the others wait


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
