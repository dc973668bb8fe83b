"""Items -> codes in several processes, of this machine or of the nodes of a Slurm job.

Each process encodes consecutive items and leaves their codes in a file; the files are put together
in order. The codes of an item depend on its own vector alone.

Shapes: N items, L levels, b rows of one block.
"""

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sidmill.core import rendezvous
from sidmill.core.rendezvous import Member
from sidmill.formats import category_file, quantizer_file, vector_store
from sidmill.numeric import category_codes, gpu_driver, row_blocks
from sidmill.settings import base
from sidmill.settings.quantize import Encoding

WORKER = "sidmill.quantize.encode_processes:encode_share"

FOLDER = ".codes-"  # the folders of the processes' codes begin with it


class Files(NamedTuple):
    """What is encoded.

    Attributes:
        quantizer: quantizer.safetensors.
        vectors: vectors.npy of a vector store.
        ids: ids.parquet of it.
        categories: categories.parquet, or None where the quantizer has none.
    """

    quantizer: str
    vectors: str
    ids: str
    categories: str | None = None


def encode(
    files: Files, settings: Encoding, output: str | Path, n_processes: int
) -> Iterator[np.ndarray]:
    """Encode items in some processes, see :func:`sidmill.numeric.category_codes.encode`.

    In a Slurm job of as many tasks, ``srun`` starts one process per task. Elsewhere the processes
    share the threads of this one. Memory: ``settings.memory_mb`` per process. The first process
    that fails ends the others.

    Args:
        files: what each process reads, at the same path on every machine.
        settings: see :class:`sidmill.settings.quantize.Encoding`.
        output: what the codes are written to: a folder beside it holds those of each process, 4
            bytes per item and level, until they are read.
        n_processes: how many; 1 encodes in this process.

    Yields:
        int32 (b, L), in the order of the vectors.

    Raises:
        SidmillError: if a process failed, with its message.
    """
    if n_processes == 1:
        yield from _encode(files, settings, rendezvous.ALONE)
        return

    # Each process leaves its codes in a folder; one of a job that was killed may be there.
    for leftover in Path(output).parent.glob(f"{FOLDER}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    folder = tempfile.mkdtemp(dir=Path(output).parent, prefix=FOLDER)
    try:
        rendezvous.run(
            WORKER,
            {"files": _plain(files), "settings": asdict(settings), "folder": folder},
            n_processes,
            task=f"encode {files.vectors}",
            modules=["torch"] if _needs_torch(settings.device) else [],
            launcher=rendezvous.srun(n_processes),
        )
        # Put together, in the order of the items.
        for rank in range(n_processes):
            part = np.load(_part(folder, rank), mmap_mode="r", allow_pickle=False)
            for start in range(0, len(part), row_blocks.MAX_BLOCK_ROWS):
                yield np.array(part[start : start + row_blocks.MAX_BLOCK_ROWS])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def encode_share(
    files: dict[str, Any], settings: dict[str, Any], folder: str, member: dict[str, Any] | None
) -> None:
    """Encode the items of one process, in that process; the arguments are JSON."""
    own = rendezvous.of_argument(member)
    if own is None:
        raise RuntimeError("srun has named no task in the environment of this process")
    section = base.read(Encoding, settings)
    section = replace(section, device=_own_devices(section.device, own))
    blocks = list(_encode(Files(**files), section, own))
    codes = np.concatenate(blocks) if blocks else np.empty((0, 0), dtype=np.int32)
    np.save(_part(folder, own.rank), codes)


def _encode(files: Files, settings: Encoding, member: Member) -> Iterator[np.ndarray]:
    """Encode the share of a process: consecutive whole blocks, as even as can be."""
    items = vector_store.open_store(files.vectors, files.ids)
    fitted = quantizer_file.read(files.quantizer)
    names = category_file.of_ids(files.categories or "", items.ids)
    n_blocks = -(-len(items.ids) // row_blocks.MAX_BLOCK_ROWS)
    low, high = (
        min(n_blocks * rank // member.size * row_blocks.MAX_BLOCK_ROWS, len(items.ids))
        for rank in (member.rank, member.rank + 1)
    )
    yield from category_codes.encode(
        fitted,
        items.vectors[low:high],
        None if names is None else names.slice(low, high - low),
        device=settings.device,
        memory_mb=settings.memory_mb,
    )


def _own_devices(names: str, member: Member) -> str:
    """The devices of one process, such as ``cuda:1,cuda:3``, of those that the settings name.

    Processes of one machine take the GPUs in turn. Tasks of ``srun`` take one each: how many of
    them a machine has differs from one to the next.
    """
    if not _needs_torch(names):
        return names
    from sidmill.numeric import nearest_torch

    devices = [str(device) for device in nearest_torch.pick_devices(names)]
    n_sharing = member.size if member.listener is not None else len(devices)
    own = devices[member.local_rank :: n_sharing] or [devices[member.local_rank % len(devices)]]
    return ",".join(own)


def _needs_torch(names: str) -> bool:
    """Whether torch encodes on devices of these names, or is asked for them."""
    return names != "cpu" and (names != "auto" or gpu_driver.is_there())


def _part(folder: str, rank: int) -> Path:
    return Path(folder, f"codes-{rank:05d}.npy")


def _plain(files: Files) -> dict[str, str | None]:
    """Paths as plain text, for JSON."""
    return {name: str(path) if path else None for name, path in files._asdict().items()}
