"""Time and memory of a fusion of random interactions: peak of the process, temporary disk.

    python benchmarks/fusion_memory.py --interactions 10000000 --items 200000 --method graph

Users have 20 training interactions; items are drawn by a power law (rank to the power of -0.8). The
inputs are written first, in a process of their own, so that its memory does not count.
"""

import argparse
import json
import resource
import tempfile
import threading
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa

from sidmill.formats import sequence_table, vector_store
from sidmill.fuse.fuse import Files, fuse
from sidmill.settings.fuse import Fuse

LENGTH = 20
USERS_AT_ONCE = 8192
MIB = 2**20


def main() -> None:
    """Write inputs, fuse, print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--interactions", type=int, default=10_000_000)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--method", default="graph")
    parser.add_argument("--whiten", type=float, default=0.0)
    parser.add_argument("--memory-mb", type=int, default=512)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        names = "vectors.npy", "ids.parquet", "sequences.parquet", "fused.npy", "fused_ids.parquet"
        files = Files(*(Path(folder, name) for name in names))
        writer = get_context("spawn").Process(target=write, args=(files, options))
        writer.start()
        writer.join()
        settings = Fuse(method=options.method, whiten=options.whiten, memory_mb=options.memory_mb)

        # The temporary file is looked at while the fusion runs.
        largest, is_done = [0], threading.Event()

        def watch() -> None:
            while not is_done.wait(0.05):
                pairs = Path(f"{files.fused}.pairs/pairs")
                largest[0] = max(largest[0], pairs.stat().st_size if pairs.exists() else 0)

        watcher = threading.Thread(target=watch)
        watcher.start()
        before, started = peak(), time.process_time()
        fuse(files, settings, seed=0)
        is_done.set()
        watcher.join()
        figures = {
            "cpu_seconds": round(time.process_time() - started, 1),
            "peak_mib": round(peak()),
            "before_mib": round(before),
            "disk_mib": round(largest[0] / MIB),
        }
        print(json.dumps(vars(options) | figures))


def write(files: Files, options: argparse.Namespace) -> None:
    """Write random vectors and histories."""
    rng = np.random.default_rng(0)
    shape = (options.items, options.dim)
    vectors = rng.standard_normal(shape, dtype=np.float32)
    ids = pa.chunked_array([pa.array(np.arange(options.items))])
    sums = vector_store.write(files.vectors, shape, "float32", [vectors])
    vector_store.write_ids(files.ids, ids, shape, {"backend": "random"}, sums)

    # Inverse of the cumulated popularity, by table.
    popularity = np.cumsum(np.arange(1, options.items + 1) ** -0.8)
    popularity /= popularity[-1]
    n_users = options.interactions // LENGTH

    def tables():
        for first in range(0, n_users, USERS_AT_ONCE):
            size = min(USERS_AT_ONCE, n_users - first)
            items = np.searchsorted(popularity, rng.random((size, LENGTH)))
            offsets = pa.array(np.arange(0, size * LENGTH + 1, LENGTH, dtype=np.int32))
            splits = pa.array(np.zeros(size * LENGTH, np.int8))
            columns = [
                pa.array(map(str, range(first, first + size))),
                pa.ListArray.from_arrays(offsets, pa.array(items.ravel())),
                pa.ListArray.from_arrays(offsets, splits),
                pa.nulls(size, pa.list_(pa.int64())),
            ]
            yield pa.table(columns, schema=sequence_table.schema(pa.int64()))

    sequence_table.write(files.sequences, pa.int64(), tables())


def peak() -> float:
    """MiB of this process so far, at its peak."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
