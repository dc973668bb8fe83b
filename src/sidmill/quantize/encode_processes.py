"""Items -> codes in several processes, of this machine or of the nodes of a Slurm job.

Each process encodes consecutive items and leaves their codes in a file; the files are put together
in order. The codes of an item depend on its own vector alone.

Shapes: N items, L levels, b rows of one block.
"""

import logging
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sidmill.core import processes, rendezvous
from sidmill.core.rendezvous import Member
from sidmill.formats import category_file, quantizer_file, vector_store
from sidmill.numeric import category_codes, row_blocks
from sidmill.settings import base
from sidmill.settings.quantize import Encoding

logger = logging.getLogger(__name__)

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
        yield from _encode(files, settings, Member(0, 1, 0, rendezvous.HOST, 0, has_store=False))
        return
    for left in Path(output).parent.glob(f"{FOLDER}*"):  # of a job that was killed
        shutil.rmtree(left, ignore_errors=True)
    folder = tempfile.mkdtemp(dir=Path(output).parent, prefix=FOLDER)
    try:
        common = {"files": _plain(files), "settings": asdict(settings), "folder": folder}
        launcher = rendezvous.srun(n_processes)
        local = [rendezvous.local(rank, n_processes, port=0) for rank in range(n_processes)]
        shares = [None] if launcher else [member._asdict() for member in local]
        arguments = [common | {"member": member} for member in shares]
        logger.info("%d processes, started by %s", n_processes, "srun" if launcher else "this one")
        processes.run(WORKER, arguments, task=f"encode {files.vectors}", launcher=launcher)

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
    own = Member(**member) if member else rendezvous.of_environment()
    if own is None:
        raise RuntimeError("srun has named no task in the environment of this process")
    section = base.read(Encoding, settings)
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


def _part(folder: str, rank: int) -> Path:
    return Path(folder, f"codes-{rank:05d}.npy")


def _plain(files: Files) -> dict[str, str | None]:
    """Paths as plain text, for JSON."""
    return {name: str(path) if path else None for name, path in files._asdict().items()}
