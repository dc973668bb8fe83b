"""What source files compute, remembered between runs: no file is parsed twice.

Digests are stored by the SHA-256 of a file's bytes, not by its name, size or times: to read and
hash all sources takes some milliseconds, and a file that changed is always seen, whatever its times
say.

The cache is a file in Snakemake's folder of state, so a read-only checkout can be used, and whoever
can write it can write the results as well. It starts with a checksum: a file that is damaged, or
made by other code or another Python, is ignored and replaced. Of processes that save at the same
time the last one's file stays; what it lacks, the next run computes again.
"""

import atexit
import hashlib
import json
import os
import sys
from contextlib import suppress
from pathlib import Path

from sidmill.core import provenance

NAME = "sidmill.sources"  # in Snakemake's folder of state
MOST_ENTRIES = 4096  # those that were used last: older versions of sources go


def begin(state: Path, *, save: bool) -> None:
    """Use the cache of a folder of state until this process ends.

    Args:
        state: Snakemake's folder of state, ``.snakemake``.
        save: write what was parsed when the process ends. A folder that cannot be written stays as
            it is.
    """
    provenance.known.update(read(state / NAME))
    if save:
        atexit.register(_save, state / NAME, {*provenance.known})


def read(path: Path) -> provenance.Known:
    """Read a cache; empty if there is none that holds for this code."""
    try:
        checksum, _, text = path.read_bytes().partition(b"\n")
        if checksum.decode() != _checksum(text):
            return {}
        return {key: (digest, tuple(names)) for key, (digest, names) in json.loads(text).items()}
    except (OSError, ValueError):
        return {}


def write(path: Path, known: provenance.Known) -> None:
    """Write a cache, atomically. After a crash of the machine the checksum tells a part."""
    text = json.dumps(dict([*known.items()][-MOST_ENTRIES:])).encode()
    temporary = path.with_name(f".{path.name}.{os.getpid()}")  # no other process writes it
    try:
        temporary.write_bytes(_checksum(text).encode() + b"\n" + text)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _save(path: Path, before: set[str]) -> None:
    if not before.issuperset(provenance.known) and path.parent.is_dir():
        with suppress(OSError):  # a read-only folder, a full disk
            write(path, provenance.known)


def _checksum(text: bytes) -> str:
    """The digest of a cache's text together with what the text depends on."""
    code = Path(str(provenance.__file__)).read_bytes()
    return hashlib.sha256(b"\n".join([sys.version.encode(), code, text])).hexdigest()
