"""The name of an embedding space: two sets of vectors compare only when their fingerprints agree.

A fingerprint travels with the vectors through every later file. It holds no path of the machine,
so the same model in another folder, or on another computer, names the same space.
"""

import hashlib
from pathlib import Path
from typing import Any

from sidmill.core import checksums
from sidmill.settings.embedding import Embedding

Fingerprint = dict[str, Any]  # JSON: text, numbers, true, false, null

DIGITS = 12  # hex digits kept of a SHA-256
MIB = 1 << 20


def make(
    settings: Embedding,
    *,
    model: str,
    revision: str | None,
    pooling: str,
    dim: int,
    dtype: str,
    max_length: int | None,
) -> Fingerprint:
    """Return the fingerprint of an embedding space, its keys in this order.

    Args:
        settings: name backend, prompt and whether vectors have unit length.
        model: the name of the model, without a path.
        revision: commit, version or content digest of the model.
        pooling: how one vector is made of a text's tokens; empty where that is unknown.
        dim: D.
        dtype: of the arithmetic; empty where that is unknown.
        max_length: tokens after which a text is cut, None where that is unknown.
    """
    return {
        "backend": settings.backend,
        "model": model,
        "revision": revision,
        "pooling": pooling,
        "prompt": settings.prompt,
        "normalize": settings.normalize,
        "dim": dim,
        "dtype": dtype,
        "max_length": max_length,
    }


def file_digest(path: str | Path) -> str:
    """Return 12 hex digits of the SHA-256 of a whole file."""
    return checksums.of_file(path)[:DIGITS]


def folder_digest(path: str | Path) -> str:
    """Return 12 hex digits that name the content of a model folder.

    It is the SHA-256 over the sorted relative names of all files and the SHA-256 of each: every
    byte counts, and a folder of 16 GB takes some ten seconds, or as long as its disk. Hidden files
    and folders (``.git``, download records) do not count.
    """
    root = Path(path)
    digest = hashlib.sha256()
    for file in sorted(entry for entry in root.rglob("*") if entry.is_file()):
        name = file.relative_to(root)
        if any(part.startswith(".") for part in name.parts):
            continue
        digest.update(f"{name.as_posix()}\0{checksums.of_file(file)}\0".encode())
    return digest.hexdigest()[:DIGITS]


def ends_digest(path: str | Path) -> str:
    """Return the digest of a model folder as older versions of this program computed it.

    It reads the first and last MiB of each file alone. Versions that were published with it go on
    from it, see :func:`sidmill.embed.reuse.continued_space`.
    """
    root = Path(path)
    digest = hashlib.sha256()
    for file in sorted(entry for entry in root.rglob("*") if entry.is_file()):
        name = file.relative_to(root)
        if any(part.startswith(".") for part in name.parts):
            continue
        size = file.stat().st_size
        digest.update(f"{name.as_posix()}\0{size}\0".encode())
        with file.open("rb") as content:
            digest.update(content.read(MIB))
            content.seek(max(size - MIB, 0))
            digest.update(content.read(MIB))
    return digest.hexdigest()[:DIGITS]
