"""A whole run: SIDMill's workflow against the script that one writes with pandas, faiss and torch.

Both begin with a catalogue and with embeddings, each a parquet file, and end with SIDs in a parquet
file and with figures. SIDMill runs as its users run it, by ``snakemake``. The script reads all with
pandas, fits residual k-means with faiss, encodes with torch, numbers the items of a code with
groupby, and writes with pandas. K, L and iterations are the same.

    python benchmarks/pipeline.py                               500,000 x 128, K 1024, L 3
    python benchmarks/pipeline.py --rows 10000 --codes 256
    python benchmarks/pipeline.py --rows 100000 1000000 10000000 --dim 64 --codes 4096 --alone
    python benchmarks/pipeline.py --targets all                 also index.json, plots, explorer

Wall time, CPU time, memory and bytes written are of the whole tree of processes. Memory is the
largest that they take together at any moment, looked at ten times a second; a page that several
share counts once. Bytes are what the tree gave to the disk; in a folder in memory that is nothing.
``quality_ratio`` is SIDMill's squared error over that of the script, each with the codebooks it
trained, measured by a third program. With --alone only SIDMill runs; with several sizes, ``slope``
is that of log CPU time over log rows.

The vectors are tight groups of 25 items in random directions, so that many items share their codes.
"""

import argparse
import json
import math
import os
import sys
import tempfile
from pathlib import Path

import _paired

ROOT = Path(__file__).resolve().parent.parent
GROUP_ITEMS = 25
BLOCK_ROWS = 10_000
TARGETS = ["results/pid2sid.parquet", "results/quality.json"]


def main() -> None:
    """Make the data, run both sides in turn, compare; for each size."""
    options = _options()
    if options.side:
        SIDES[options.side](options)
        return
    sizes, seconds = options.rows, []
    for rows in sizes:
        options.rows = [rows]
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            shared = [__file__, *_paired.flags(options, folder)]
            _paired.run([*shared, "--side=data"])
            names = ["sidmill"] if options.alone else ["sidmill", "script"]
            sides = {name: [*shared, f"--side={name}"] for name in names}
            medians = _paired.alternate(sides, options.repeats, _paired.run_tree)
            _paired.run([*shared, "--side=error"])
            figures = json.loads(Path(folder, "figures.json").read_text())
        seconds.append(medians["sidmill"].cpu_seconds)
        shown = {"rows": rows, "dim": options.dim, "codes": options.codes, **figures}
        if options.alone:
            print(json.dumps(medians["sidmill"]._asdict() | shown), flush=True)
        else:
            _paired.report(medians, shown, figures["sidmill_mse"] / figures["script_mse"])
    if len(sizes) > 1:
        steps = math.log(seconds[-1] / seconds[0]) / math.log(sizes[-1] / sizes[0])
        print(json.dumps({"rows": sizes, "slope": round(steps, 3)}))


def make_data(options: argparse.Namespace) -> None:
    """Write items.parquet and embeddings.parquet, block by block."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows, dim = options.rows[0], options.dim
    random = np.random.default_rng(options.seed)
    centres = random.standard_normal((max(rows // GROUP_ITEMS, 1), dim), dtype=np.float32)
    titles = pa.schema([("item_id", pa.int64()), ("title", pa.string())])
    vectors = pa.schema([("pid", pa.int64()), ("embedding", pa.list_(pa.float32()))])
    folder = Path(options.folder)
    with (
        pq.ParquetWriter(folder / "items.parquet", titles) as items,
        pq.ParquetWriter(folder / "embeddings.parquet", vectors) as embeddings,
    ):
        for start in range(0, rows, BLOCK_ROWS):
            ids = np.arange(start, min(start + BLOCK_ROWS, rows))
            group = random.integers(len(centres), size=len(ids))
            block = centres[group]
            block += options.noise * random.standard_normal(block.shape, dtype=np.float32)
            block /= np.linalg.norm(block, axis=1, keepdims=True)
            names = [f"group {one} item {row}" for one, row in zip(group, ids, strict=True)]
            items.write_table(pa.table([ids, names], schema=titles))
            offsets = np.arange(len(ids) + 1, dtype=np.int32) * dim
            lists = pa.ListArray.from_arrays(offsets, block.reshape(-1))
            embeddings.write_table(pa.table([pa.array(ids), lists], schema=vectors))


def run_sidmill(options: argparse.Namespace) -> None:
    """Become Snakemake, which runs the workflow in a folder of its own."""
    folder = Path(options.folder)
    settings = {
        "items": {"path": str(folder / "items.parquet"), "fields": ["title"]},
        "interactions": {"path": None},
        "embedding": {
            "backend": "precomputed",
            "model": "mixture",
            "path": str(folder / "embeddings.parquet"),
            "dim": None,
            "shards": options.shards,
        },
        "rqkmeans": {
            "n_levels": options.levels,
            "codebook_size": options.codes,
            "n_iter": options.iterations,
            "device": "cpu",
            "memory_mb": options.memory_mb,
        },
        "encoding": {"device": "cpu", "memory_mb": options.memory_mb},
        "run": {"seed": options.seed},
    }
    overlay = folder / "overlay.json"
    overlay.write_text(json.dumps(settings))
    words = ["--cores", str(options.cores), "--directory", str(folder / "run"), "--forceall"]
    words += ["--snakefile", str(ROOT / "Snakefile"), "--configfile", str(overlay), "--quiet"]
    words += ["all", "--", *options.targets]
    os.execv(sys.executable, [sys.executable, "-m", "snakemake", *words])


def run_script(options: argparse.Namespace) -> None:
    """The ordinary way."""
    import faiss
    import numpy as np
    import pandas as pd
    import torch

    # Read all, and put the embeddings in the order of the items.
    folder = Path(options.folder)
    items = pd.read_parquet(folder / "items.parquet")
    embeddings = pd.read_parquet(folder / "embeddings.parquet")
    merged = items.merge(embeddings, left_on="item_id", right_on="pid", how="left")
    vectors = np.stack(merged["embedding"].to_numpy()).astype(np.float32)

    # Residual k-means with faiss, level after level.
    residuals = vectors.copy()
    codebooks = []
    for level in range(options.levels):
        kmeans = faiss.Kmeans(
            options.dim,
            options.codes,
            niter=options.iterations,
            seed=options.seed + level,
            max_points_per_centroid=len(vectors),
        )
        kmeans.train(residuals)
        codebooks.append(kmeans.centroids)
        _, nearest = kmeans.index.search(residuals, 1)
        residuals -= kmeans.centroids[nearest[:, 0]]
    np.save(folder / "script.npy", np.stack(codebooks))

    # Encode with torch, by batches.
    words = [torch.from_numpy(codebook) for codebook in codebooks]
    codes = np.empty((len(vectors), options.levels), dtype=np.int64)
    for start in range(0, len(vectors), BLOCK_ROWS):
        left = torch.from_numpy(vectors[start : start + BLOCK_ROWS].copy())
        for level, codebook in enumerate(words):
            nearest_codes = torch.cdist(left, codebook).argmin(dim=1)
            codes[start : start + len(left), level] = nearest_codes.numpy()
            left -= codebook[nearest_codes]

    # Number the items of a code, write, and measure.
    names = [f"c{level}" for level in range(options.levels)]
    frame = pd.DataFrame(codes, columns=names)
    frame["suffix"] = frame.groupby(names).cumcount()
    sids = pd.DataFrame({"pid": merged["item_id"], "sid": frame.to_numpy().tolist()})
    sids.to_parquet(folder / "script.parquet")
    decoded = np.zeros_like(vectors)
    for level, codebook in enumerate(codebooks):
        decoded += codebook[codes[:, level]]
    figures = {
        "mse": float(np.square(vectors - decoded).mean()),
        "collision_rate": 1 - len(frame[names].drop_duplicates()) / len(frame),
    }
    (folder / "script.json").write_text(json.dumps(figures))


def measure_error(options: argparse.Namespace) -> None:
    """Write figures.json: errors of both sides' codebooks, collisions, what the jobs took."""
    import numpy as np
    import pyarrow.parquet as pq

    from sidmill.formats import quantizer_file

    # Mean squared error of plain nearest codewords.
    folder = Path(options.folder)
    results = folder / "run/results"
    codebooks = {
        "sidmill": quantizer_file.read(results / "rqkmeans/quantizer.safetensors").codebooks
    }
    if (folder / "script.npy").exists():
        codebooks["script"] = np.load(folder / "script.npy")
    totals = dict.fromkeys(codebooks, 0.0)
    for batch in pq.ParquetFile(folder / "embeddings.parquet").iter_batches(
        batch_size=BLOCK_ROWS, columns=["embedding"]
    ):
        block = batch.column(0).flatten().to_numpy().reshape(-1, options.dim)
        for name, levels in codebooks.items():
            left = block.copy()
            for words in levels:
                left -= words[(left @ words.T - np.square(words).sum(axis=1) / 2).argmax(axis=1)]
            totals[name] += float(np.square(left, dtype=np.float64).sum())
    n_values = options.rows[0] * options.dim
    figures = {f"{name}_mse": total / n_values for name, total in totals.items()}

    # Items that have another item's SID, and SIDs that need a token more.
    for name, path in (
        ("sidmill", results / "pid2sid.parquet"),
        ("script", folder / "script.parquet"),
    ):
        if path.exists():
            sids = pq.read_table(path)["sid"].combine_chunks().flatten().to_numpy()
            sids = sids.reshape(options.rows[0], -1)
            figures[f"{name}_tokens"] = sids.shape[1]
            shared = options.rows[0] - len(np.unique(sids[:, : options.levels], axis=0))
            figures[f"{name}_collisions_in_{options.levels}_tokens"] = shared

    # The longest and the largest job, by Snakemake's benchmark files.
    jobs = {}
    for path in sorted((results / "benchmarks").glob("*.tsv")):
        header, values = (line.split("\t") for line in path.read_text().splitlines()[:2])
        jobs[path.stem] = dict(zip(header, values, strict=True))
    sizes = {name: float(job["max_rss"]) for name, job in jobs.items() if job["max_rss"] != "NA"}
    figures["job_seconds"] = {name: round(float(job["s"]), 1) for name, job in jobs.items()}
    figures["job_mb"] = {name: round(size) for name, size in sizes.items()}
    (folder / "figures.json").write_text(json.dumps(figures))


SIDES = {
    "data": make_data,
    "sidmill": run_sidmill,
    "script": run_script,
    "error": measure_error,
}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[500_000])
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--codes", type=int, default=1024)
    parser.add_argument("--levels", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--noise", type=float, default=0.54, help="per coordinate of a centre's 1")
    parser.add_argument("--shards", type=int, default=2, help="embedding.shards of SIDMill")
    parser.add_argument("--memory-mb", type=int, default=256, help="memory_mb of SIDMill")
    parser.add_argument("--cores", type=int, default=os.cpu_count(), help="--cores of Snakemake")
    parser.add_argument("--targets", nargs="+", default=TARGETS, help="what Snakemake makes")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--alone", action="store_true", help="run SIDMill alone")
    parser.add_argument("--folder", help="where the temporary folder goes: on a disk")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
