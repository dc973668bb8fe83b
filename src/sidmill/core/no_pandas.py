"""Keep libraries from importing pandas only to ask whether a value is one of its tables.

pyarrow imports the whole of pandas when it first meets a Python value, to ask whether it is a
Series: a quarter of a second, which is a fifth of a job that writes 20,000 rows. Snakemake does the
same for the parameters of the first job that runs a script.
"""

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType


class _Hider:
    """An import finder that finds nothing, and stops the search of its thread for some modules."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.thread = threading.get_ident()

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> None:
        if fullname in self.names and threading.get_ident() == self.thread:
            raise ModuleNotFoundError(fullname)


@contextmanager
def hidden(*names: str) -> Iterator[None]:
    """Let modules count as not installed, in this thread, that are not imported yet."""
    hider = _Hider(names)
    sys.meta_path.insert(0, hider)
    try:
        yield
    finally:
        sys.meta_path.remove(hider)


def without_pandas() -> None:
    """Hide pandas while pyarrow looks for it; for processes that pass it no Series.

    If pandas is imported already, nothing changes. ``to_pandas`` still works afterwards.
    """
    if "pandas" in sys.modules:
        return
    import pyarrow as pa

    with hidden("pandas"):
        pa.scalar(0)
