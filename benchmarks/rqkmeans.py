"""Residual k-means: SIDMill against faiss.Kmeans or semantic-id, level by level.

Both read the same .npy as a memory map, train on every row, and may use every core. faiss runs as
its users run it: 20 iterations a level, and the residuals held in memory. The squared error of
both is measured by one third program. ``quality_ratio`` is the worst of the levels' error ratios.

    python benchmarks/rqkmeans.py                     200,000 x 1024, K 1024, L 3
    python benchmarks/rqkmeans.py --rows 50000 --dim 256 --codes 256
    python benchmarks/rqkmeans.py --rows 1000000 --limit-mb 3072 --alone
    python benchmarks/rqkmeans.py --rows 50000 --dim 256 --codes 256 --yardstick semantic_id
    python benchmarks/rqkmeans.py --rows 500000 --dim 128 --yardstick torch
    python benchmarks/rqkmeans.py --rows 50000 --dim 256 --codes 256 --crowded
    python benchmarks/rqkmeans.py --processes 2

--yardstick semantic_id takes the package semantic-id in place of faiss, which has to be installed
beforehand: RQKMeans on the CPU, as many iterations, one start in place of its ten.

--yardstick torch trains with SIDMill on both sides: with NumPy, and with torch.

With --crowded SIDMill runs in turn by itself and beside two busy loops, and the ratio of the CPU
time is printed: threads that spin while they wait cost more where others want the cores.

With --processes SIDMill runs in turn in one process and in that many, which share its threads, as
rule train_rqkmeans starts them. Imports count, those of the processes too, which come one after the
other. Memory is measured in runs of their own. ``same_bytes`` says whether the codebooks are equal.

With --alone only SIDMill runs, under --limit-mb of data if that is given, and no ratio is printed.

The vectors are a two-level mixture: 64 groups of 16 subgroups, noise around them, unit norm.
"""

import argparse
import json
import logging
import resource
import statistics
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import _paired
import numpy as np

if TYPE_CHECKING:
    from sidmill.settings.quantize import Rqkmeans

GROUPS, SUBGROUPS = 64, 16
SUBGROUP_RADIUS = 0.6  # the group centres have norm 1
BLOCK_ROWS = 10_000
BUSY_LOOPS = 2


def main() -> None:
    """Make the vectors, run both sides in turn, compare."""
    options = _options()
    if options.side:
        SIDES[options.side](options)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        shared = [__file__, *_paired.flags(options, folder)]
        _paired.run([*shared, "--side=vectors"])
        if options.alone:
            print(json.dumps(_paired.run([*shared, "--side=sidmill"])._asdict()))
            return
        if options.processes:
            _report_processes(shared, options)
            return
        if options.crowded:
            _report_crowd([*shared, "--side=sidmill"], options.repeats)
            return
        medians = _paired.alternate(
            {name: [*shared, f"--side={name}"] for name in ("sidmill", options.yardstick)},
            options.repeats,
        )
        errors = {}
        for name in medians:
            _paired.run([*shared, "--side=error", f"--codebooks={name}"])
            errors[name] = json.loads(Path(folder, f"{name}.json").read_text())
    ratios = [ours / theirs for ours, theirs in zip(*errors.values(), strict=True)]
    figures = {
        "rows": options.rows,
        "dim": options.dim,
        "codes": options.codes,
        **{f"{name}_mse": value for name, value in errors.items()},
        "mse_ratios": [round(ratio, 4) for ratio in ratios],
    }
    _paired.report(medians, figures, max(ratios))


def _report_crowd(side: list[str], repeats: int) -> None:
    """Run a side by itself and beside busy loops, in turn, and print the medians."""
    quiet, crowded = [], []
    for _ in range(repeats):
        quiet.append(_paired.run(side))
        with _paired.busy_loops(BUSY_LOOPS):
            crowded.append(_paired.run(side))
    cpu = [statistics.median(run.cpu_seconds for run in runs) for runs in (quiet, crowded)]
    figures = {"quiet_cpu_seconds": cpu[0], "crowded_cpu_seconds": cpu[1]}
    print(json.dumps({"cpu_ratio": round(cpu[1] / cpu[0], 4), **figures}))


def _report_processes(shared: list[str], options: argparse.Namespace) -> None:
    """Run one process and several in turn, and print the medians."""
    names = ("several", "one")
    medians = _paired.alternate(
        {name: [*shared, f"--side={name}"] for name in names},
        options.repeats,
        _paired.run_tree_twice,
    )
    folder = next(value.partition("=")[2] for value in shared if value.startswith("--folder="))
    found = [Path(folder, f"{name}.npy").read_bytes() for name in names]
    figures = {"processes": options.processes, "same_bytes": found[0] == found[1]}
    _paired.report(medians, figures, 1.0)


def make_vectors(options: argparse.Namespace) -> None:
    """Write vectors.npy, block by block, and ids.parquet."""
    import pyarrow as pa

    from sidmill.formats import vector_store

    random = np.random.default_rng(options.seed)
    groups = _unit(random.standard_normal((GROUPS, 1, options.dim), dtype=np.float32))
    offsets = _unit(random.standard_normal((GROUPS, SUBGROUPS, options.dim), dtype=np.float32))
    centres = (groups + SUBGROUP_RADIUS * offsets).reshape(-1, options.dim)
    scale = np.float32(options.noise / np.sqrt(options.dim))
    vectors = np.lib.format.open_memmap(
        Path(options.folder, "vectors.npy"),
        mode="w+",
        dtype=np.float32,
        shape=(options.rows, options.dim),
    )
    for start in range(0, options.rows, BLOCK_ROWS):
        block = centres[random.integers(len(centres), size=min(BLOCK_ROWS, options.rows - start))]
        block += scale * random.standard_normal(block.shape, dtype=np.float32)
        vectors[start : start + len(block)] = _unit(block)
    vectors.flush()
    ids = pa.chunked_array([pa.array(np.arange(options.rows))])
    vector_store.write_ids(Path(options.folder, "ids.parquet"), ids, vectors.shape, {})


def run_sidmill(options: argparse.Namespace) -> None:
    """Fit with SIDMill, in NumPy or torch as its size asks, or as the side does."""
    from sidmill.quantize import rqkmeans, training_devices

    if options.yardstick == "torch":
        is_numpy = options.side == "sidmill"
        training_devices.suits_numpy = lambda *_: is_numpy
    if options.limit_mb:
        resource.setrlimit(resource.RLIMIT_DATA, (options.limit_mb * 2**20,) * 2)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    fitted = rqkmeans.fit(
        np.load(Path(options.folder, "vectors.npy"), mmap_mode="r"),
        _settings(options),
        seed=options.seed,
    )
    np.save(Path(options.folder, f"{options.side}.npy"), np.stack(fitted.codebooks))


def run_processes(options: argparse.Namespace) -> None:
    """Fit as rule train_rqkmeans does, in one process or in several."""
    from sidmill.quantize import resume, rqkmeans_processes

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    files = (str(Path(options.folder, name)) for name in ("vectors.npy", "ids.parquet"))
    state_path = str(Path(options.folder, "quantizer.state"))
    fitted = rqkmeans_processes.fit(
        rqkmeans_processes.Files(*files),
        _settings(options),
        rqkmeans_processes.Run(options.seed, state_path, code=""),
        n_processes=options.processes if options.side == "several" else 1,
    )
    resume.discard(state_path)
    np.save(Path(options.folder, f"{options.side}.npy"), np.stack(fitted.codebooks))


def _settings(options: argparse.Namespace) -> "Rqkmeans":
    """The settings of residual k-means that the options name."""
    from sidmill.settings.quantize import Rqkmeans

    return Rqkmeans(
        n_levels=options.levels,
        codebook_size=options.codes,
        n_iter=options.iterations,
        tolerance=options.tolerance,
        device="cpu",
        memory_mb=options.memory_mb,
    )


def run_faiss(options: argparse.Namespace) -> None:
    """Fit with faiss.Kmeans, level after level."""
    import faiss

    vectors = np.load(Path(options.folder, "vectors.npy"), mmap_mode="r")
    left = np.array(vectors)
    codebooks = []
    for level in range(options.levels):
        kmeans = faiss.Kmeans(
            options.dim,
            options.codes,
            niter=options.iterations,
            seed=options.seed + level,
            max_points_per_centroid=options.rows,
        )
        kmeans.train(left)
        codebooks.append(kmeans.centroids)
        if level + 1 < options.levels:
            _, codes = kmeans.index.search(left, 1)
            left -= kmeans.centroids[codes[:, 0]]
    np.save(Path(options.folder, "faiss.npy"), np.stack(codebooks))


def run_semantic_id(options: argparse.Namespace) -> None:
    """Fit with semantic_id.RQKMeans."""
    from semantic_id import RQKMeans

    model = RQKMeans(
        n_levels=options.levels,
        n_clusters=options.codes,
        max_iter=options.iterations,
        n_init=1,
        random_state=options.seed,
    )
    model.fit(np.load(Path(options.folder, "vectors.npy"), mmap_mode="r"))
    np.save(Path(options.folder, "semantic_id.npy"), np.stack(model.codebooks_))


def measure_error(options: argparse.Namespace) -> None:
    """Write the mean squared error after each level, found by plain nearest codeword."""
    vectors = np.load(Path(options.folder, "vectors.npy"), mmap_mode="r")
    codebooks = np.load(Path(options.folder, f"{options.codebooks}.npy"))
    totals = np.zeros(len(codebooks))
    for start in range(0, options.rows, BLOCK_ROWS):
        left = np.array(vectors[start : start + BLOCK_ROWS])
        for level, words in enumerate(codebooks):
            left -= words[(left @ words.T - np.square(words).sum(axis=1) / 2).argmax(axis=1)]
            totals[level] += np.square(left).sum(dtype=np.float64)
    errors = (totals / options.rows / options.dim).tolist()
    Path(options.folder, f"{options.codebooks}.json").write_text(json.dumps(errors))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


SIDES = {
    "vectors": make_vectors,
    "sidmill": run_sidmill,
    "one": run_processes,
    "several": run_processes,
    "faiss": run_faiss,
    "semantic_id": run_semantic_id,
    "torch": run_sidmill,
    "error": measure_error,
}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--codes", type=int, default=1024)
    parser.add_argument("--levels", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--tolerance", type=float, default=4e-4)
    parser.add_argument("--memory-mb", type=int, default=256, help="memory_mb of SIDMill")
    parser.add_argument("--noise", type=float, default=0.6, help="norm of the noise")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--limit-mb", type=int, help="RLIMIT_DATA of SIDMill's process")
    parser.add_argument("--alone", action="store_true", help="run SIDMill alone")
    parser.add_argument("--crowded", action="store_true", help="compare with a busy machine")
    parser.add_argument("--processes", type=int, help="compare one process with so many")
    parser.add_argument("--folder", help="where the temporary folder goes")
    parser.add_argument("--yardstick", choices=["faiss", "semantic_id", "torch"], default="faiss")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--codebooks", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
