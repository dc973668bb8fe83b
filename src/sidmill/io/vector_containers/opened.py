"""Open a container of vectors by the ending of its name."""

from pathlib import Path

from sidmill.core.errors import SidmillError
from sidmill.io.vector_containers.container import Container, Names

TABLES = tuple(f"{kind}{end}" for kind in (".csv", ".tsv") for end in ("", ".gz", ".zst"))
SUFFIXES = (".npz", ".pt", ".pth", ".safetensors", *TABLES, ".faiss", ".index", ".lance")


def is_container(path: str | Path) -> bool:
    """Whether a file or folder is read here, by its name."""
    return str(path).rstrip("/").lower().endswith(SUFFIXES)


def open_container(path: str | Path, names: Names) -> Container:
    """Open vectors that another program wrote. What runs code when it is read is refused.

    Args:
        path: a file that :func:`is_container`.
        names: of the arrays or columns in it.

    Raises:
        SidmillError: if it cannot be read, or has no vectors.
    """
    # Modules are imported where they are needed: torch and faiss take seconds.
    name = str(path).rstrip("/")
    kind = Path(name).suffix.lower()
    if kind == ".npz":
        from sidmill.io.vector_containers import numpy_files

        return _filled(name, numpy_files.open_npz(name, names))
    if kind in (".pt", ".pth", ".safetensors"):
        from sidmill.io.vector_containers import torch_files

        is_safe = kind == ".safetensors"
        opener = torch_files.open_safetensors if is_safe else torch_files.open_pt
        return _filled(name, opener(name, names))
    if kind in (".faiss", ".index", ".lance"):
        from sidmill.io.vector_containers import stores

        return _filled(
            name, stores.open_lance(name, names) if kind == ".lance" else stores.open_faiss(name)
        )
    from sidmill.io.vector_containers import text_tables

    return _filled(name, text_tables.open_table(name, names))


def _filled(path: str, opened: Container) -> Container:
    if 0 in opened.shape:
        raise SidmillError(f"{path}: vectors of shape {opened.shape}: it is empty")
    return opened
