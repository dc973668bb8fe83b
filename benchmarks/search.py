"""Search: SIDMill from the file against faiss in memory.

Both find the k nearest of unit vectors for a batch of queries by inner product. SIDMill reads the
vectors from their memory map, block by block, in two shards whose results it merges; the yardstick
is IndexFlatIP, which holds them in memory, loaded from the same file. ``quality_ratio`` is the
share of faiss' neighbours that SIDMill found (1: all; ties may differ). Approximate indexes are
built and measured with ``--index`` on several settings: recall against exact search, and time.

``--data=clusters`` is noise around centres, 200 vectors each, which is easy for inverted files;
``--data=spectrum`` is Gaussian with variances 1, 1/2, 1/3, ..., as the axes of embeddings fall off.

    python benchmarks/search.py                            100,000 x 256, 1,000 queries, k 50
    python benchmarks/search.py --rows=1000000             the size of docs/measurements.md
    python benchmarks/search.py --data=spectrum --index=ivfpq --index=hnsw
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from itertools import pairwise, product
from pathlib import Path

import _paired
import numpy as np

BLOCK_ROWS = 65_536
ARRAYS = ("vectors", "queries")


def main() -> None:
    """Make vectors, run both sides in turn, compare; then the indexes that were asked for."""
    options = _options()
    if options.side:
        SIDES[options.side](options)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        shared = [__file__, *_paired.flags(options, folder)]
        _paired.run([*shared, "--side=make"])
        sides = {name: [*shared, f"--side={name}"] for name in ("sidmill", "faiss")}
        medians = _paired.alternate(sides, options.repeats)
        figures = {"rows": options.rows, "dim": options.dim, "queries": options.queries}
        for name in sides:
            figures |= _alone(Path(folder), name)
        for kind in options.index:
            _paired.run([*shared, f"--side={kind}"])
            figures[kind] = json.loads(Path(folder, f"{kind}.json").read_text())
        _paired.report(medians, figures, _agreement(Path(folder)))


def make(options: argparse.Namespace) -> None:
    """Write unit vectors and queries, block by block."""
    rng = np.random.default_rng(options.seed)
    centres = rng.standard_normal((max(1, options.rows // 200), options.dim), dtype=np.float32)
    spread = np.arange(1, options.dim + 1, dtype=np.float32) ** -0.5
    for name, rows in zip(ARRAYS, (options.rows, options.queries), strict=True):
        shape = (rows, options.dim)
        out = np.lib.format.open_memmap(
            Path(options.folder, f"{name}.npy"), "w+", np.float32, shape
        )
        for start in range(0, rows, BLOCK_ROWS):
            n = min(BLOCK_ROWS, rows - start)
            block = rng.standard_normal((n, options.dim), dtype=np.float32)
            if options.data == "clusters":
                block += centres[rng.integers(len(centres), size=n)]
            else:
                block *= spread
            out[start : start + n] = block / np.linalg.norm(block, axis=1, keepdims=True)


def run_sidmill(options: argparse.Namespace) -> None:
    """Search with SIDMill."""
    from sidmill.numeric import exact_search
    from sidmill.settings.retrieval import Retrieval

    vectors, queries = _load(options)
    settings = Retrieval(device="cpu", memory_mb=options.memory_mb)
    ranks = np.arange(options.rows)
    began, cpu = time.perf_counter(), time.process_time()
    cuts = [options.rows * shard // options.shards for shard in range(options.shards + 1)]
    parts = [
        exact_search.search(
            vectors, queries, options.k, settings, ranks=ranks, rows=range(start, stop)
        )
        for start, stop in pairwise(cuts)
    ]
    found = exact_search.merge(parts, ranks)
    _save(options, "sidmill", found.rows, time.perf_counter() - began, time.process_time() - cpu)


def run_faiss(options: argparse.Namespace) -> None:
    """Search with faiss' IndexFlatIP; reading the file counts, as it does for SIDMill."""
    import faiss

    began = time.perf_counter()
    index = faiss.IndexFlatIP(options.dim)
    index.add(np.load(Path(options.folder, "vectors.npy")))
    loaded, cpu = time.perf_counter(), time.process_time()
    print(f"faiss: {loaded - began:.2f} s to load", file=sys.stderr)
    _, rows = index.search(np.load(Path(options.folder, "queries.npy")), options.k)
    _save(options, "faiss", rows, time.perf_counter() - loaded, time.process_time() - cpu)


def run_index(options: argparse.Namespace) -> None:
    """Build an approximate index and measure it at several settings."""
    from sidmill.retrieval import index
    from sidmill.settings.retrieval import Faiss

    vectors, queries = _load(options)
    settings = Faiss(
        links=options.links,
        ef_construction=options.ef_construction,
        train_sample=options.train_sample,
        repeatable=bool(options.repeatable),
    )
    kind = options.side
    path = Path(options.folder, f"{kind}.faiss")
    began, cpu = time.perf_counter(), time.process_time()
    recipe = index.build(vectors, path, kind, settings, options.seed)

    # Size, time and memory of the building.
    built = {
        "factory": recipe,
        "build_seconds": round(time.perf_counter() - began, 1),
        "build_cpu_seconds": round(time.process_time() - cpu, 1),
        "mib": round(path.stat().st_size / 2**20, 1),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    print(f"{kind}: {built}", file=sys.stderr, flush=True)

    # Recall and time at each effort, against the exact search that ran before.
    exact = np.load(Path(options.folder, "sidmill.npy"))
    plane = []
    for effort, candidates in product(EFFORTS[kind], (options.k, 4 * options.k)):
        began, cpu = time.perf_counter(), time.process_time()
        effort_settings = Faiss(nprobe=effort, ef_search=effort, candidates=candidates)
        ranks = np.arange(options.rows)
        found = index.search(path, vectors, queries, ranks, options.k, effort_settings)
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        plane.append(
            {
                "effort": effort,
                "candidates": candidates,
                "recall": round(index.recall(found.rows, exact), 4),
                "ms_per_query": round(1000 * seconds / options.queries, 3),
                "cpu_ms_per_query": round(1000 * cpu / options.queries, 3),
            }
        )
        print(f"{kind}: {plane[-1]}", file=sys.stderr, flush=True)
    Path(options.folder, f"{kind}.json").write_text(json.dumps({**built, "plane": plane}))


def _load(options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    folder = Path(options.folder)
    return np.load(folder / "vectors.npy", mmap_mode="r"), np.load(folder / "queries.npy")


def _save(
    options: argparse.Namespace, name: str, rows: np.ndarray, seconds: float, cpu: float
) -> None:
    print(f"{name}: {seconds:.2f} s to search, {cpu:.2f} s of CPU", file=sys.stderr)
    np.save(Path(options.folder, f"{name}.npy"), rows)
    with Path(options.folder, f"{name}.seconds").open("a") as out:
        out.write(f"{seconds} {cpu}\n")


def _alone(folder: Path, name: str) -> dict[str, float]:
    """The search alone, without starting Python or loading into memory: medians, and the least."""
    times = np.loadtxt(folder / f"{name}.seconds", ndmin=2)  # (repeats, 2)
    figures = {}
    for key, column in zip(("search_seconds", "search_cpu_seconds"), times.T, strict=True):
        figures[f"{name}_{key}"] = round(float(np.median(column)), 3)
        figures[f"{name}_{key}_least"] = round(float(column.min()), 3)
    return figures


def _agreement(folder: Path) -> float:
    ours, theirs = (np.load(folder / f"{name}.npy") for name in ("sidmill", "faiss"))
    return sum(np.isin(a, b).mean() for a, b in zip(theirs, ours, strict=True)) / len(ours)


CELLS, WALKS = (1, 4, 16, 64, 256), (16, 64, 128, 256, 512)  # nprobe, efSearch
EFFORTS = {"ivf_flat": CELLS, "ivfpq": CELLS, "opq": CELLS, "hnsw": WALKS}
SIDES = {"make": make, "sidmill": run_sidmill, "faiss": run_faiss}
SIDES |= dict.fromkeys(EFFORTS, run_index)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--k", type=int, default=50)
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--memory-mb", type=int, default=512, help="memory_mb of SIDMill")
    parser.add_argument("--data", choices=("clusters", "spectrum"), default="clusters")
    parser.add_argument(
        "--index", action="append", default=[], choices=EFFORTS, help="measure this index too"
    )
    parser.add_argument("--links", type=int, default=32, help="of hnsw")
    parser.add_argument("--ef-construction", type=int, default=100, help="of hnsw")
    parser.add_argument("--train-sample", type=int, default=200_000)
    parser.add_argument("--repeatable", type=int, default=1, help="0: hnsw and opq on all threads")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--folder", help="where the temporary folder goes")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
