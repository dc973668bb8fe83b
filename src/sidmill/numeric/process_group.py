"""The processes that share one computation, and the messages between them.

Every process reads the rows that are its own from the shared file and keeps a copy of all results;
a computation of one process calls the same functions, which then do nothing.

How they are started and find each other: :mod:`sidmill.core.rendezvous`. Messages go through gloo
where computations run on CPUs, and through NCCL where each process has a GPU.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import xxhash

from sidmill.core.errors import SidmillError
from sidmill.core.processes import PeerEndedError
from sidmill.core.rendezvous import Member
from sidmill.numeric import arrays
from sidmill.numeric.arrays import Array, Device

if TYPE_CHECKING:
    import torch

TIMEOUT = timedelta(minutes=30)  # without a message: then the node of a process is gone


class Group(NamedTuple):
    """This process among those that share a computation.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
        device: where messages are: a CPU for gloo, this process's GPU for NCCL; None for a process
            alone, which needs no torch.
    """

    rank: int = 0
    size: int = 1
    device: Device = None


ALONE = Group()


@contextmanager
def joined(
    member: Member | None, device: "torch.device", timeout: timedelta = TIMEOUT
) -> Iterator[Group]:
    """Join the other processes of a computation, and leave them at its end.

    Args:
        member: of this process; None for a computation of one.
        device: that of :func:`pick_device`. ``cuda`` without an index is the GPU of the number that
            the process has on its machine.
        timeout: without a message, until the others are given up.

    Yields:
        The group, whose device is the one of this process.

    Raises:
        SidmillError: if the machine has fewer GPUs than processes, or the others do not answer.
    """
    # A process alone has nothing to join; of several, each takes a GPU of its own.
    if member is None:
        yield Group(device=device)
        return
    import torch
    import torch.distributed as dist
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    is_cuda = device.type == "cuda"
    if is_cuda:
        device = device if device.index is not None else _own_gpu(member)
        torch.cuda.set_device(device)

    # Find the other processes at the store, and leave them at the end.
    keeps_store = member.rank == 0 and not member.has_store
    try:
        store = TCPStore(
            member.host,
            member.port,
            is_master=keeps_store,
            timeout=timeout,
            wait_for_workers=False,
            master_listen_fd=member.listener if keeps_store else None,
        )
        dist.init_process_group(
            "nccl" if is_cuda else "gloo",
            store=store,
            rank=member.rank,
            world_size=member.size,
            timeout=timeout,
        )
    except RuntimeError as error:
        raise _unreachable(member, error) from error
    try:
        yield Group(member.rank, member.size, device)
    finally:
        dist.destroy_process_group()


def pick_device(names: str, member: Member | None) -> "torch.device":
    """The device of one process of several.

    Args:
        names: ``auto``, a kind of device, or one device per process of a machine, with commas
            between them: a process takes the one of its number there.
        member: the process; None for the only one, which takes the first device.

    Returns:
        A device; a GPU has no index where ``names`` gives a kind alone.

    Raises:
        SidmillError: if torch does not know or reach a device, or there is none for the process.
    """
    import torch

    from sidmill.numeric import nearest_torch

    devices = nearest_torch.pick_devices(names)
    if member is None:
        return devices[0]
    if names in ("auto", devices[0].type):
        return torch.device(devices[0].type)
    if member.local_rank >= len(devices):
        raise SidmillError(
            f"process {member.local_rank + 1} of this machine has no device among {names}: name "
            "one per process, or auto"
        )
    return devices[member.local_rank]


def _own_gpu(member: Member) -> "torch.device":
    """The GPU of this process, which no other process of the machine uses."""
    import torch

    n_gpus = torch.cuda.device_count()

    # Slurm may show each task a GPU of its own and no other: --ntasks-per-gpu, --gpus-per-task.
    index = 0 if n_gpus == 1 and "SLURM_PROCID" in os.environ else member.local_rank
    if index >= n_gpus:
        raise SidmillError(
            f"process {member.local_rank + 1} of this machine needs a GPU of its own, and torch "
            f"finds {n_gpus}: start at most {n_gpus} processes here, or set device to cpu"
        )
    return torch.device("cuda", index)


def _unreachable(member: Member, error: RuntimeError) -> SidmillError:
    reason = str(error).partition("\n")[0]
    return SidmillError(
        f"process {member.rank} of {member.size} cannot reach the others at "
        f"{member.host}:{member.port} ({reason}): let the nodes reach each other there, or name "
        "another address in MASTER_ADDR and MASTER_PORT"
    )


def gather(group: Group, own: Array, lengths: Sequence[int]) -> list[Array]:
    """Give every process the rows of all.

    Args:
        group: the processes.
        own: the rows of this process, on the device of the group or in NumPy.
        lengths: rows of each process, known to all of them.

    Returns:
        The rows of each process, in the order of their numbers.

    Raises:
        PeerEndedError: if another process is gone.
    """
    if group.size == 1:
        return [own]
    import torch
    import torch.distributed as dist

    if isinstance(own, np.ndarray):  # tensors share the memory of arrays
        tensor = torch.from_numpy(np.ascontiguousarray(own))
        return [arrays.to_host(part) for part in gather(group, tensor, lengths)]
    own = own.contiguous()
    parts = [
        own if rank == group.rank else own.new_empty((length, *own.shape[1:]))
        for rank, length in enumerate(lengths)
    ]
    with _explained():  # all at the same time
        works = [
            dist.broadcast(part, rank, async_op=True)
            for rank, part in enumerate(parts)
            if len(part)
        ]
        for work in works:
            work.wait()
    return parts


def require_same(group: Group, content: bytes | memoryview, what: str) -> None:
    """Stop where processes differ in what has to be the same in all of them.

    Args:
        group: the processes.
        content: compared by its digest.
        what: that it is, for the message.

    Raises:
        SidmillError: naming the process.
        PeerEndedError: if another process is gone.
    """
    if group.size == 1:
        return
    import torch

    digest = xxhash.xxh3_64_intdigest(content) >> 1  # fits int64
    own = torch.tensor([digest], dtype=torch.int64, device=group.device)
    digests = torch.cat(gather(group, own, [1] * group.size)).tolist()
    other = next((rank for rank, found in enumerate(digests) if found != digests[0]), None)
    if other is not None:
        raise SidmillError(
            f"process {other} of {group.size} does not have the {what} of process 0: use machines "
            "of one kind with as many threads for each process, and the same files, settings and "
            "packages on all of them"
        )


@contextmanager
def _explained() -> Iterator[None]:
    """Say that another process is gone where a message to it fails."""
    try:
        yield
    except RuntimeError as error:  # what gloo, NCCL and the store raise
        reason = str(error).partition("\n")[0]
        raise PeerEndedError(
            f"another process of this computation has ended, or did not answer for "
            f"{TIMEOUT.seconds // 60} minutes ({reason}): see its message; what is done is kept, "
            f"run again"
        ) from error
