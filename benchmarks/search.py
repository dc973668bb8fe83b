"""Search: SIDMill from the file against faiss in memory.

Both find the k nearest of unit vectors for a batch of queries by inner product. SIDMill reads the
vectors from their memory map, block by block, in two shards whose results it merges; the yardstick
is IndexFlatIP, which holds them in memory, loaded from the same file. ``quality_ratio`` is the
share of faiss' neighbours that SIDMill found (1: all; ties may differ). Approximate indexes are
measured beside them with ``--index``, once built.

    python benchmarks/search.py                            100,000 x 256, 1,000 queries, k 50
    python benchmarks/search.py --rows=1000000             the size of docs/performance.md
    python benchmarks/search.py --index=ivfpq --index=hnsw
"""

import argparse
import json
import sys
import tempfile
import time
from itertools import pairwise
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
        shared = [
            __file__,
            f"--rows={options.rows}",
            f"--dim={options.dim}",
            f"--queries={options.queries}",
            f"--k={options.k}",
            f"--shards={options.shards}",
            f"--memory-mb={options.memory_mb}",
            f"--seed={options.seed}",
            f"--folder={folder}",
        ]
        _paired.run([*shared, "--side=make"])
        sides = {name: [*shared, f"--side={name}"] for name in ("sidmill", "faiss")}
        medians = _paired.alternate(sides, options.repeats)
        figures = {"rows": options.rows, "dim": options.dim, "queries": options.queries}
        for name in sides:
            figures[f"{name}_search_seconds"] = _seconds(Path(folder), name)
        for kind in options.index:
            _paired.run([*shared, "--side=index", f"--index={kind}"])
            figures[kind] = json.loads(Path(folder, f"{kind}.json").read_text())
        _paired.report(medians, figures, _agreement(Path(folder)))


def make(options: argparse.Namespace) -> None:
    """Write clustered unit vectors, and queries near some of them, block by block."""
    rng = np.random.default_rng(options.seed)
    centres = rng.standard_normal((max(1, options.rows // 200), options.dim), dtype=np.float32)
    for name, rows in zip(ARRAYS, (options.rows, options.queries), strict=True):
        shape = (rows, options.dim)
        out = np.lib.format.open_memmap(
            Path(options.folder, f"{name}.npy"), "w+", np.float32, shape
        )
        for start in range(0, rows, BLOCK_ROWS):
            n = min(BLOCK_ROWS, rows - start)
            block = centres[rng.integers(len(centres), size=n)]
            block += rng.standard_normal(block.shape, dtype=np.float32)
            out[start : start + n] = block / np.linalg.norm(block, axis=1, keepdims=True)


def run_sidmill(options: argparse.Namespace) -> None:
    """Search with SIDMill."""
    from sidmill.retrieval import exact

    vectors, queries = _load(options)
    ranks = np.arange(options.rows)
    began = time.perf_counter()
    cuts = [options.rows * shard // options.shards for shard in range(options.shards + 1)]
    parts = [
        exact.search(
            vectors,
            queries,
            ranks,
            start=start,
            stop=stop,
            top_k=options.k,
            search_batch=1000,
            device="cpu",
            memory_mb=options.memory_mb,
        )
        for start, stop in pairwise(cuts)
    ]
    found = exact.merge(parts, ranks)
    _save(options, "sidmill", found.rows, time.perf_counter() - began)


def run_faiss(options: argparse.Namespace) -> None:
    """Search with faiss' IndexFlatIP; reading the file counts, as it does for SIDMill."""
    import faiss

    began = time.perf_counter()
    index = faiss.IndexFlatIP(options.dim)
    index.add(np.load(Path(options.folder, "vectors.npy")))
    loaded = time.perf_counter()
    print(f"faiss: {loaded - began:.2f} s to load", file=sys.stderr)
    _, rows = index.search(np.load(Path(options.folder, "queries.npy")), options.k)
    _save(options, "faiss", rows, time.perf_counter() - loaded)


def run_index(options: argparse.Namespace) -> None:
    """Build an approximate index and measure it at several settings."""
    import pyarrow as pa

    from sidmill.formats.vectors import VectorStore
    from sidmill.retrieval import index

    vectors, queries = _load(options)
    path, kind = Path(options.folder, "index.faiss"), options.index[0]
    began = time.perf_counter()
    index.build(
        vectors,
        path,
        index=kind,
        lists=None,
        code_bytes=32,
        links=16,
        ef_construction=64,
        train_sample=100_000,
        seed=options.seed,
    )
    built = time.perf_counter() - began
    corpus = VectorStore(vectors, pa.chunked_array([pa.array(np.arange(options.rows))]), {})
    plane = []
    for effort in (1, 4, 16, 64):
        figures = index.measure(
            path,
            corpus,
            queries,
            top_k=options.k,
            search_batch=1000,
            memory_mb=options.memory_mb,
            device="cpu",
            nprobe=effort,
            ef_search=effort,
            candidates=4 * options.k,
            measured_queries=options.queries,
            seed=options.seed,
        )
        plane.append({"effort": effort, **figures})
        print(f"{kind}: {plane[-1]}", file=sys.stderr)
    result = {"build_seconds": round(built, 1), "plane": plane}
    Path(options.folder, f"{kind}.json").write_text(json.dumps(result))


def _load(options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    folder = Path(options.folder)
    return np.load(folder / "vectors.npy", mmap_mode="r"), np.load(folder / "queries.npy")


def _save(options: argparse.Namespace, name: str, rows: np.ndarray, seconds: float) -> None:
    print(f"{name}: {seconds:.2f} s to search", file=sys.stderr)
    np.save(Path(options.folder, f"{name}.npy"), rows)
    with Path(options.folder, f"{name}.seconds").open("a") as out:
        out.write(f"{seconds}\n")


def _seconds(folder: Path, name: str) -> float:
    """Median of the search alone, without starting Python or loading into memory."""
    times = [float(line) for line in (folder / f"{name}.seconds").read_text().split()]
    return round(float(np.median(times)), 3)


def _agreement(folder: Path) -> float:
    ours, theirs = (np.load(folder / f"{name}.npy") for name in ("sidmill", "faiss"))
    return sum(np.isin(a, b).mean() for a, b in zip(theirs, ours, strict=True)) / len(ours)


SIDES = {"make": make, "sidmill": run_sidmill, "faiss": run_faiss, "index": run_index}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--k", type=int, default=50)
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--memory-mb", type=int, default=512, help="memory_mb of SIDMill")
    parser.add_argument("--index", action="append", default=[], help="measure this index too")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--folder", help="where the temporary folder goes")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
