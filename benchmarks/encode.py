"""Encoding: SIDMill against pandas and torch, used in the ordinary way.

The yardstick reads a parquet of ``pid``, ``embedding`` whole with pandas, stacks it, and takes the
nearest codeword by addmm and argmin in batches of 10,000. SIDMill encodes from the vector store's
memory map and writes as it goes. Both write parquet with ``pid``, ``codes``. ``quality_ratio`` is
the ratio of the squared errors of the codes.

    python benchmarks/encode.py                       200,000 x 1024, K 1024, L 3
"""

import argparse
import sys
import tempfile
from pathlib import Path

import _paired
import numpy as np
import rqkmeans as vectors_of

BATCH_ROWS = 10_000


def main() -> None:
    """Make vectors and codebooks, run both sides in turn, compare."""
    options = _options()
    if options.side:
        SIDES[options.side](options)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        shared = [__file__, *_paired.flags(options, folder)]
        _paired.run([*shared, "--side=make"])
        sides = {name: [*shared, f"--side={name}"] for name in ("sidmill", "pandas_torch")}
        medians = _paired.alternate(sides, options.repeats)
        figures = {"rows": options.rows, "dim": options.dim, "codes": options.codes}
        _paired.report(medians, figures | compare(Path(folder)), _error_ratio(Path(folder)))


def make(options: argparse.Namespace) -> None:
    """Write the vectors in both forms, and codebooks fitted to a sample of them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from sidmill.quantize import rqkmeans
    from sidmill.settings.quantize import Rqkmeans

    vectors_of.make_vectors(options)
    vectors = np.load(Path(options.folder, "vectors.npy"), mmap_mode="r")
    schema = pa.schema([("pid", pa.int64()), ("embedding", pa.list_(pa.float32()))])
    with pq.ParquetWriter(Path(options.folder, "embeddings.parquet"), schema) as parquet:
        for start in range(0, options.rows, BATCH_ROWS):
            block = np.array(vectors[start : start + BATCH_ROWS])
            lists = pa.FixedSizeListArray.from_arrays(block.ravel(), options.dim)
            pids = pa.array(np.arange(start, start + len(block)))
            parquet.write_table(pa.table([pids, lists.cast(schema.types[1])], schema=schema))
    fitted = rqkmeans.fit(
        vectors,
        Rqkmeans(
            n_levels=options.levels,
            codebook_size=options.codes,
            n_iter=1,
            tolerance=0,
            max_points_per_centroid=32,
            device="cpu",
            memory_mb=4096,
        ),
        seed=options.seed,
    )
    np.save(Path(options.folder, "codebooks.npy"), np.stack(fitted.codebooks))


def run_sidmill(options: argparse.Namespace) -> None:
    """Encode with SIDMill."""
    import pyarrow as pa

    from sidmill.formats import code_files
    from sidmill.numeric import residual_codec

    vectors = np.load(Path(options.folder, "vectors.npy"), mmap_mode="r")
    codebooks = list(np.load(Path(options.folder, "codebooks.npy")))
    code_files.write(
        Path(options.folder, "sidmill.parquet"),
        "codes",
        pa.chunked_array([pa.array(np.arange(len(vectors)))]),
        residual_codec.encode(vectors, codebooks, device="cpu", memory_mb=options.memory_mb),
        [len(words) for words in codebooks],
    )


def run_pandas_torch(options: argparse.Namespace) -> None:
    """Encode with pandas and torch."""
    import pandas as pd
    import torch

    frame = pd.read_parquet(Path(options.folder, "embeddings.parquet"))
    vectors = torch.from_numpy(np.stack(frame["embedding"].to_numpy()))
    codebooks = torch.from_numpy(np.load(Path(options.folder, "codebooks.npy")))
    halves = codebooks.square().sum(dim=2) / 2
    found = []
    for left in vectors.split(BATCH_ROWS):
        columns = []
        for words, half in zip(codebooks, halves, strict=True):
            columns.append(torch.addmm(half, left, words.T, alpha=-1).argmin(dim=1))
            left = left - words[columns[-1]]
        found.append(torch.stack(columns, dim=1).to(torch.int32))
    frame = pd.DataFrame({"pid": frame["pid"], "codes": list(torch.cat(found).numpy())})
    frame.to_parquet(Path(options.folder, "pandas_torch.parquet"))


def compare(folder: Path) -> dict[str, int]:
    """Count the rows whose codes differ between the sides."""
    return {
        "rows_that_differ": int(
            (_codes(folder, "sidmill") != _codes(folder, "pandas_torch")).any(axis=1).sum()
        )
    }


def _error_ratio(folder: Path) -> float:
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    codebooks = np.load(folder / "codebooks.npy")
    errors = []
    for name in ("sidmill", "pandas_torch"):
        codes, error = _codes(folder, name), 0.0
        for start in range(0, len(vectors), BATCH_ROWS):
            left = np.array(vectors[start : start + BATCH_ROWS])
            for level, words in enumerate(codebooks):
                left -= words[codes[start : start + BATCH_ROWS, level]]
            error += float(np.square(left).sum(dtype=np.float64))
        errors.append(error)
    return errors[0] / errors[1]


def _codes(folder: Path, name: str) -> np.ndarray:
    import pyarrow.parquet as pq

    lists = pq.read_table(folder / f"{name}.parquet", columns=["codes"])["codes"]
    flat = lists.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(lists), -1)


SIDES = {"make": make, "sidmill": run_sidmill, "pandas_torch": run_pandas_torch}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--codes", type=int, default=1024)
    parser.add_argument("--levels", type=int, default=3)
    parser.add_argument("--memory-mb", type=int, default=128, help="memory_mb of SIDMill")
    parser.add_argument("--noise", type=float, default=0.6, help="norm of the noise")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--folder", help="where the temporary folder goes")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
