"""Several processes that train as one: each takes a share of every batch, sums are shared.

``torchrun`` sets RANK, WORLD_SIZE and LOCAL_RANK; without them a training is one process and
nothing here does anything. Every process ends each step with the same weights.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist

MEMBER = "SIDMILL_RQVAE_MEMBER"  # WORLD_SIZE may be there for other reasons


class Team(NamedTuple):
    """This process among ``size``."""

    rank: int
    size: int


def is_member() -> bool:
    """Whether this process is one of several that :mod:`sidmill.quantize.rqvae.workers` started."""
    return MEMBER in os.environ


@contextmanager
def joined(device: torch.device) -> Iterator[tuple[Team, torch.device]]:
    """Join the processes that torchrun started; give this one's place and device."""
    size = int(os.environ["WORLD_SIZE"]) if is_member() else 1
    if size == 1:
        yield Team(0, 1), device
        return
    cuda = device.type == "cuda"
    if cuda:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield Team(dist.get_rank(), size), device
    finally:
        dist.destroy_process_group()


def share(rows: np.ndarray, team: Team) -> np.ndarray:
    """The rows of a batch that this process takes."""
    return rows[team.rank :: team.size]


def add_up(tensors: Iterable[torch.Tensor], team: Team) -> None:
    """Replace tensors, in place, by their sums over all processes: one message for all."""
    parts = list(tensors)
    if team.size == 1 or not parts:
        return
    flat = torch.cat([part.reshape(-1).float() for part in parts])
    dist.all_reduce(flat)
    for part, sums in zip(parts, flat.split([part.numel() for part in parts]), strict=True):
        part.copy_(sums.view_as(part))


def follow(tensors: Iterable[torch.Tensor], team: Team) -> None:
    """Replace tensors, in place, by those of the first process."""
    if team.size > 1:
        for tensor in tensors:
            dist.broadcast(tensor, 0)


def wait(team: Team) -> None:
    """Wait for all processes."""
    if team.size > 1:
        dist.barrier()
