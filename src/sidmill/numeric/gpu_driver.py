"""Whether the machine may have a GPU, found out without torch."""

import ctypes

DRIVERS = ("libcuda.so.1", "libamdhip64.so", "nvcuda.dll")


def is_there() -> bool:
    """Whether a GPU may be there; only then is torch worth its import to ask it."""
    for name in DRIVERS:
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return True
    return False
