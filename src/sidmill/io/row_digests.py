"""Digests of a large file by portions, so that a reader of a part checks that part alone.

Function: XXH3, 64 bits (https://xxhash.com): as fast as memory, so checking costs no more than
reading. It finds bytes that a disk or a network changed; it is no protection against an attacker.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import xxhash

from sidmill.core.errors import SidmillError
from sidmill.io.remedy import remedy

PORTION = 2**26  # bytes; the last portion may be shorter


class Summing:
    """A file being written, with the digests of what was written to it."""

    def __init__(self, out: BinaryIO) -> None:
        """Write to ``out``, which is at its start."""
        self._out = out
        self._hash = xxhash.xxh3_64()
        self._room = PORTION
        self._done: list[str] = []

    def write(self, data: bytes | memoryview) -> int:
        """Write all of ``data``."""
        view = memoryview(data)
        rest = view.cast("B") if view.nbytes else memoryview(b"")  # an empty array has no cast
        self._out.write(rest)
        while len(rest) >= self._room:
            self._hash.update(rest[: self._room])
            rest = rest[self._room :]
            self._done.append(self._hash.hexdigest())
            self._hash = xxhash.xxh3_64()
            self._room = PORTION
        self._hash.update(rest)
        self._room -= len(rest)
        return len(data)

    def digests(self) -> list[str]:
        """One per portion, of all that was written."""
        return [*self._done, *([self._hash.hexdigest()] if self._room < PORTION else [])]


def check(path: str | Path, digests: list[str], portions: Iterable[int]) -> None:
    """Read portions of a file and hold them against their digests. Memory: 64 MiB.

    Args:
        path: the file.
        digests: of all its portions.
        portions: numbers of those to read.

    Raises:
        SidmillError: naming the file and the first portion that differs.
    """
    with Path(path).open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        buffer = memoryview(bytearray(min(PORTION, size)))
        for portion in portions:
            file.seek(portion * PORTION)
            part = buffer[: max(min(PORTION, size - portion * PORTION), 0)]
            filled = 0
            while filled < len(part) and (found := file.readinto(part[filled:])):
                filled += found
            if xxhash.xxh3_64_hexdigest(part[:filled]) != digests[portion]:
                first = portion * PORTION
                raise SidmillError(
                    f"{path}: bytes {first} to {first + filled} are not those that were written "
                    f"(a damaged disk or copy): {remedy(path)}"
                )
