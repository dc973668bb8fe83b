"""Lines of a file of the user, read in bounded memory however long a line is."""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from typing import cast

import pyarrow as pa

from sidmill.core.errors import SidmillError

LONGEST = 64 << 20  # bytes; a longer line is a mistake or an attack
CHUNK = 1 << 18  # bytes that are read at once
TOO_LONG = "a line of more than 64 MiB"


def read(stream: BufferedIOBase) -> Iterator[bytes | None]:
    """Yield the lines of a text file with their ends; None for one that is too long.

    Memory: ``LONGEST``.
    """
    while line := stream.readline(LONGEST):
        if len(line) < LONGEST or line.endswith(b"\n"):
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(LONGEST)
        yield None


def blocks(stream: BufferedIOBase) -> Iterator[bytes | None]:
    """Yield the bytes of a text file as whole lines, about ``CHUNK`` at once.

    A line that is too long comes alone, as None, as :func:`read` yields it. Memory: ``LONGEST``.
    """
    while data := stream.read(CHUNK):
        data += stream.readline(LONGEST)
        begin = data.rfind(b"\n", 0, len(data) - 1) + 1  # of the last line
        n_bytes = len(data) - begin
        if n_bytes < LONGEST or (n_bytes == LONGEST and data.endswith(b"\n")):
            yield data
            continue
        if begin:
            yield data[:begin]
        while data and not data.endswith(b"\n"):
            data = stream.readline(LONGEST)
        yield None


@contextmanager
def opened(path: str | Path) -> Iterator[io.BufferedReader]:
    """Open a file for reading bytes, decompressed where its name ends in .gz or .zst.

    Raises:
        SidmillError: if it is not there, or cannot be read on where it is used.
    """
    if not Path(path).is_file():  # a pipe would be waited for
        raise SidmillError(f"{path}: no such file: check the path")
    try:
        with _decompressed(path) as stream:
            yield stream
    except (OSError, EOFError, zlib.error, pa.ArrowInvalid) as error:
        raise SidmillError(
            f"{path}: cannot be read to its end ({error}): is it whole, and compressed as its name "
            f"says?"
        ) from None


def _decompressed(path: str | Path) -> io.BufferedReader:
    if str(path).lower().endswith(".gz"):
        raw = cast(io.RawIOBase, gzip.open(path, "rb"))  # noqa: SIM115 - the caller closes it
    elif str(path).lower().endswith(".zst"):
        raw = pa.CompressedInputStream(pa.OSFile(str(path)), "zstd")
    else:
        raw = Path(path).open("rb", buffering=0)  # noqa: SIM115
    return io.BufferedReader(raw, 1 << 20)
