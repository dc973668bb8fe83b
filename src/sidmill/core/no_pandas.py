"""Start a short job without what it never uses.

pyarrow imports the whole of pandas when it first meets a Python value, to ask whether it is a
Series: a quarter of a second, which is a fifth of a job that writes 20,000 rows.
"""

import sys


class _NoPandas:
    """Finds nothing, and lets nobody else find pandas."""

    def find_spec(self, fullname, path, target=None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError(fullname)


def without_pandas() -> None:
    """Let pyarrow believe that there is no pandas; for processes that hand it no Series.

    Nothing happens where pandas is imported already. ``to_pandas`` still works afterwards.
    """
    if "pandas" in sys.modules:
        return
    import pyarrow as pa

    hidden = _NoPandas()
    sys.meta_path.insert(0, hidden)
    try:
        pa.scalar(0)
    finally:
        sys.meta_path.remove(hidden)
