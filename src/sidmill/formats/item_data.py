"""``item_data.h5``: item ids and embeddings in HDF5, as SIDMill or others wrote them.

    item_ids    int64 (n,)
    embeddings  float32 (n, D)

Other datasets are of no concern here. Format: https://docs.h5py.org
"""

from pathlib import Path

import h5py

from sidmill.core.errors import SidmillError


def open_item_data(path: str | Path) -> tuple[h5py.Dataset, h5py.Dataset]:
    """Open ``item_ids`` and ``embeddings`` read-only; both stay on disk.

    Raises:
        SidmillError: if the file is not HDF5, or lacks one of them in its form.
    """
    try:
        file = h5py.File(path, "r")
    except FileNotFoundError:
        raise SidmillError(f"{path}: no such file") from None
    except OSError as error:
        raise SidmillError(f"{path}: not a readable HDF5 file ({error}): write it again") from None
    missing = [name for name in ("item_ids", "embeddings") if name not in file]
    if missing:
        raise SidmillError(
            f"{path}: has no dataset {' and no dataset '.join(missing)}, only {sorted(file)}: "
            "write it as docs/formats.md says"
        )
    ids, embeddings = file["item_ids"], file["embeddings"]
    if embeddings.ndim != 2 or embeddings.dtype != "float32" or ids.shape != embeddings.shape[:1]:
        raise SidmillError(
            f"{path}: embeddings are {embeddings.dtype} {embeddings.shape} for item_ids "
            f"{ids.shape}, wanted float32 (n, D) and (n,)"
        )
    return ids, embeddings
