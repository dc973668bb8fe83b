"""Lines of a file of the user: one of any length, as a bomb of zeros holds, stays out of memory."""

from collections.abc import Iterator
from io import BufferedIOBase

LONGEST = 64 << 20  # bytes; a longer one is a mistake, or meant to do harm
TOO_LONG = "a line of more than 64 MiB"


def read(stream: BufferedIOBase) -> Iterator[bytes | None]:
    """Yield the lines with their ends; None for one that is too long. Memory: ``LONGEST``."""
    while line := stream.readline(LONGEST):
        if len(line) < LONGEST or line.endswith(b"\n"):
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(LONGEST)
        yield None
