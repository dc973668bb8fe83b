"""Describe any file that SIDMill makes or reads, from a small part of it.

Name and content decide the form; docs/formats.md lists all forms.
"""

from pathlib import Path

import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.core.listing import some
from sidmill.report.inspect import (
    arrays,
    containers,
    tables,
    texts,
)
from sidmill.report.inspect.facts import ANOTHER, Budget, Description

# What the readers raise for damage that their formats do not foresee.
DAMAGE = (
    *(OSError, EOFError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError),
    *(RuntimeError, MemoryError, pa.ArrowException),
)
BY_SUFFIX = {
    ".npy": arrays.describe_npy,
    ".safetensors": containers.describe_safetensors,
    ".pt": containers.describe_checkpoint,
    ".pth": containers.describe_checkpoint,
    ".h5": containers.describe_hdf5,
    ".hdf5": containers.describe_hdf5,
    ".faiss": containers.describe_faiss,
    ".json": texts.describe_json,
    ".jsonl": texts.describe_lines,
    ".topk": texts.describe_run,
    ".trec": texts.describe_run,
    ".tsv": texts.describe_table,
    ".csv": texts.describe_table,
    ".log": texts.describe_text,
    ".md": texts.describe_text,
    ".html": texts.describe_text,
    ".svg": texts.describe_text,
    ".regex": texts.describe_text,
    ".yaml": texts.describe_text,
}


def describe(path: str, rows: int, whole: bool) -> Description:
    """Describe a file or a folder of SIDMill.

    Memory is bounded whatever the size: about 256 MiB of vectors or a million rows are looked at,
    unless ``whole``; then ids take 8 bytes each, and codes 8 L.

    Args:
        path: the file; or a folder of parquet files, or of a model.
        rows: how many rows to show.
        whole: look at all rows.

    Raises:
        SidmillError: if there is no such file, no such format, or it is damaged.
    """
    budget = Budget(max(rows, 0), whole)
    try:
        return _describe(path, Path(path), budget)
    except DAMAGE as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise SidmillError(
            f"{path}: cannot be read ({reason:.200}): if it is not whole, {ANOTHER}"
        ) from None


def _describe(path: str, file: Path, budget: Budget) -> Description:
    # Folders, and files that cannot be described.
    if file.is_dir():
        return _describe_folder(path, file, budget)
    if not file.exists():
        raise SidmillError(f"{path}: no such file")
    if not file.stat().st_size:
        raise SidmillError(f"{path}: it is empty: {ANOTHER}")
    if file.name.endswith(".partial"):
        raise SidmillError(f"{path}: is being written, or was left by a kill: no result")

    # Files that are known by their whole name, then those known by their suffix.
    if file.name == "mmap.json":
        return arrays.describe_maps(path, budget)
    if arrays.MAP.fullmatch(file.name):
        return arrays.describe_map(path, budget)
    # a state of a training, and the log of an attempt that failed: NAME.log.1
    suffixes = [part for part in file.suffixes if part != ".state" and not part[1:].isdecimal()]
    if suffixes[-1:] == [".parquet"]:
        return tables.describe(path, [file], budget)
    describe_one = BY_SUFFIX.get(suffixes[-1] if suffixes else "")
    if describe_one is None:
        raise SidmillError(
            f"{path}: no format of SIDMill ends in {file.suffix or 'no suffix'!r}: known are "
            f"parquet, mmap_*, {some(suffix[1:] for suffix in BY_SUFFIX)}"
        )
    description = describe_one(path, budget)
    if file.name.endswith(".state"):
        description.kind = f"state of a training that is not finished ({description.kind})"
    return description


def _describe_folder(path: str, folder: Path, budget: Budget) -> Description:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    if (folder / "config.json").is_file() or (folder / "modules.json").is_file():
        description = Description(
            path, "folder of a model", sum(file.stat().st_size for file in files)
        )
        for name in ("config.json", "training.json"):
            if (folder / name).is_file():
                description.facts[name] = texts.describe_json(str(folder / name), budget).facts
        description.facts["files"] = [str(file.relative_to(folder)) for file in files]
        return description
    return tables.describe(path, tables.parts_of(folder), budget)
