"""Start a short job without importing pandas.

pyarrow imports the whole of pandas when it first meets a Python value, to ask whether it is a
Series: a quarter of a second, which is a fifth of a job that writes 20,000 rows.
"""

import sys
from collections.abc import Sequence
from types import ModuleType


class _NoPandas:
    """An import finder that finds nothing, and stops the search for pandas."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError(fullname)


def without_pandas() -> None:
    """Hide pandas while pyarrow looks for it; for processes that pass it no Series.

    If pandas is imported already, nothing changes. ``to_pandas`` still works afterwards.
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
