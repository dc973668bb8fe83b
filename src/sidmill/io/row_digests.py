"""Digests of a large file by portions, so that a reader of a part checks that part alone.

Function: XXH3, 64 bits (https://xxhash.com): as fast as memory, so checking costs no more than
reading. It finds bytes that a disk or a network changed; it is no protection against an attacker.
"""

import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import xxhash

from sidmill.core.errors import SidmillError
from sidmill.io.remedy import remedy

PORTION = 2**23  # bytes, in files that are written; the last portion may be shorter


class Summing:
    """A file being written, with the digests of what was written to it."""

    def __init__(self, out: BinaryIO) -> None:
        """Write to ``out``, which is at its start."""
        self._out = out
        self._hash = xxhash.xxh3_64()
        self._room = PORTION
        self._digests: list[str] = []

    def write(self, data: bytes | memoryview) -> int:
        """Write all of ``data``."""
        view = memoryview(data)
        rest = view.cast("B") if view.nbytes else memoryview(b"")  # an empty array has no cast
        self._out.write(rest)
        while len(rest) >= self._room:
            self._hash.update(rest[: self._room])
            rest = rest[self._room :]
            self._digests.append(self._hash.hexdigest())
            self._hash = xxhash.xxh3_64()
            self._room = PORTION
        self._hash.update(rest)
        self._room -= len(rest)
        return len(data)

    def digests(self) -> list[str]:
        """One per portion, of all that was written."""
        last = [self._hash.hexdigest()] if self._room < PORTION else []
        return [*self._digests, *last]


class CheckedFile:
    """A file whose portions are checked as they are read, each once, before a byte is handed out.

    A reader in order reads each byte of the file once. A reader of single rows reads a portion
    whole when it first needs a byte of it, and afterwards those rows alone. Threads may share it.
    Memory: one portion.
    """

    def __init__(self, path: str | Path, digests: list[str], portion_bytes: int) -> None:
        """Check against ``digests``, one for each portion of the file.

        Raises:
            SidmillError: if the file has another number of portions.
        """
        self.path = Path(path)
        self._digests = digests
        self._portion_bytes = portion_bytes
        self._size = self.path.stat().st_size
        self._checked = [False] * len(digests)
        self._held = -1  # the portion that the buffer holds
        self._buffer = memoryview(b"")
        self._lock = threading.Lock()
        if len(digests) != -(-self._size // portion_bytes):
            raise SidmillError(
                f"{path}: has {self._size} bytes, not those that were written: {remedy(path)}"
            )

    def read(self, file: int, offset: int, out: memoryview) -> None:
        """Fill ``out`` with the bytes from ``offset`` on.

        Args:
            file: descriptor of the file, open for reading.
            offset: of the first byte.
            out: writable, of bytes.

        Raises:
            SidmillError: naming the file and the first portion that differs.
        """
        n_read = 0
        while n_read < len(out):
            portion, start = divmod(offset + n_read, self._portion_bytes)
            target = out[n_read : n_read + self._portion_bytes - start]
            with self._lock:
                if not self._checked[portion]:
                    self._load_portion(file, portion)
                is_held = self._held == portion
                if is_held:
                    target[:] = self._buffer[start : start + len(target)]
            if not is_held:
                _read_exactly(file, offset + n_read, target, self.path)
            n_read += len(target)

    def check(self, offsets: np.ndarray, n_bytes: int) -> None:
        """Check the portions of some rows, where that was not done yet.

        Args:
            offsets: int64 (n,), first byte of each row.
            n_bytes: of a row, at most those of a portion.

        Raises:
            SidmillError: naming the file and the first portion that differs.
        """
        ends = offsets + n_bytes - 1
        portions = np.unique(np.r_[offsets, ends] // self._portion_bytes).tolist()
        missing = [portion for portion in portions if not self._checked[portion]]
        if not missing:
            return
        with self.path.open("rb", buffering=0) as file, self._lock:
            for portion in missing:
                self._load_portion(file.fileno(), portion)

    def trust_rest(self) -> None:
        """Check no portion any more: other processes have checked those that were not read here."""
        self._checked = [True] * len(self._digests)

    def _load_portion(self, file: int, portion: int) -> None:
        """Read a portion into the buffer and check it."""
        first = portion * self._portion_bytes
        n_bytes = min(self._portion_bytes, self._size - first)
        if len(self._buffer) < n_bytes:
            self._buffer = memoryview(bytearray(n_bytes))
        self._held = -1
        content = self._buffer[:n_bytes]
        _read_exactly(file, first, content, self.path)
        _compare(self.path, content, self._digests[portion], first)
        self._held = portion
        self._checked[portion] = True


def _read_exactly(file: int, offset: int, out: memoryview, path: str | Path) -> None:
    n_read = 0
    while n_read < len(out):
        n_bytes = os.preadv(file, [out[n_read:]], offset + n_read)
        if n_bytes == 0:
            raise SidmillError(f"{path} is shorter than its header says: {remedy(path)}")
        n_read += n_bytes


def _compare(path: str | Path, content: memoryview, digest: str, first: int) -> None:
    """Refuse a portion that begins with byte ``first`` and has another digest."""
    if xxhash.xxh3_64_hexdigest(content) != digest:
        raise SidmillError(
            f"{path}: bytes {first} to {first + len(content)} are not those that were written "
            f"(a damaged disk or copy): {remedy(path)}"
        )


def check(
    path: str | Path, digests: list[str], portions: Iterable[int], portion_bytes: int
) -> None:
    """Read portions of a file and compare them with their digests. Memory: one portion.

    Args:
        path: the file.
        digests: of all its portions.
        portions: numbers of those to read.
        portion_bytes: of every portion but the last.

    Raises:
        SidmillError: naming the file and the first portion that differs.
    """
    with Path(path).open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        buffer = memoryview(bytearray(min(portion_bytes, size)))
        for portion in portions:
            file.seek(portion * portion_bytes)
            content = buffer[: max(min(portion_bytes, size - portion * portion_bytes), 0)]
            filled = 0
            while filled < len(content) and (n_bytes := file.readinto(content[filled:])):
                filled += n_bytes
            _compare(path, content[:filled], digests[portion], portion * portion_bytes)
