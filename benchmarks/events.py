"""A log of events, one row each, through read_interactions, in each kind of file.

Each run is a fresh process, imports included. There is no yardstick: compare two commits.

    python benchmarks/events.py                        a million events of 100,000 users
    python benchmarks/events.py --kinds dates.csv      one kind
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import _paired
import numpy as np

KINDS = ("log.parquet", "log.csv", "log.inter", "log.jsonl", "dates.csv")
FIRST, LAST = 1_300_000_000, 1_700_000_000  # seconds since 1970


def main() -> None:
    """Make a log of each kind, read it, print the figures."""
    options = _options()
    if options.stage:
        STAGES[options.stage](options)
        return
    with tempfile.TemporaryDirectory() as folder:
        shared = [f"--{name}={getattr(options, name)}" for name in ("events", "users", "items")]
        shared += [f"--memory-mb={options.memory_mb}", f"--folder={folder}"]
        print(f"{'kind':<14}{'CPU s':>10}{'peak MiB':>10}")
        for kind in options.kinds:
            arguments = [__file__, *shared, f"--kinds={kind}"]
            _paired.run([*arguments, "--stage=make"])
            run = _paired.run([*arguments, "--stage=read"])
            print(f"{kind:<14}{run.cpu_seconds:>10.2f}{run.peak_mb:>10.0f}", flush=True)


def make(options: argparse.Namespace) -> None:
    """Write the catalogue and the log: integer ids and times, or in dates.csv text and dates."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    from sidmill.formats import item_text

    # The same events in all kinds.
    rng = np.random.default_rng(42)
    users = rng.integers(1, options.users + 1, options.events)
    items = rng.integers(1, options.items + 1, options.events)
    times = rng.integers(FIRST, LAST, options.events)
    ratings = rng.integers(1, 6, options.events)
    table = pa.table({"user_id": users, "item_id": items, "rating": ratings, "timestamp": times})
    folder, kind = Path(options.folder), options.kinds[0]
    ids = np.arange(1, options.items + 1)
    words = [f"item {number}" for number in ids]
    item_text.write(folder / "text.parquet", pa.int64(), [pa.table({"pid": ids, "text": words})])

    # As the kind has them.
    if kind == "dates.csv":
        dates = np.datetime_as_string(times.astype("datetime64[s]"), timezone="UTC")
        names = np.char.add("U", users.astype(str))
        table = pa.table({"user_id": names, "item_id": items, "timestamp": dates})
    if kind == "log.inter":
        typed = ["user_id:token", "item_id:token", "rating:float", "timestamp:float"]
        table = table.rename_columns(typed)
    if kind == "log.parquet":
        pq.write_table(table, folder / kind)
    elif kind == "log.jsonl":
        with (folder / kind).open("w") as out:
            out.writelines(json.dumps(row) + "\n" for row in table.to_pylist())
    else:
        style = "needed" if kind == "log.csv" else "none"
        separator = "\t" if kind == "log.inter" else ","
        writing = pa.csv.WriteOptions(quoting_style=style, delimiter=separator)
        pa.csv.write_csv(table, folder / kind, writing)
    if kind == "log.inter":  # pyarrow puts names into quotes
        content = (folder / kind).read_text().replace('"', "")
        (folder / kind).write_text(content)


def read(options: argparse.Namespace) -> None:
    """Stage read_interactions."""
    from sidmill.interactions.read import read
    from sidmill.settings.interactions import Interactions

    folder = Path(options.folder)
    settings = Interactions(path=str(folder / options.kinds[0]), memory_mb=options.memory_mb)
    outputs = folder / "sequences.parquet", folder / "rejects.parquet"
    report = read(folder / "text.parquet", *outputs, settings)
    if report["interactions"] != options.events:
        raise SystemExit(f"{report['interactions']} of {options.events} events were read")


STAGES = {"make": make, "read": read}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--memory-mb", type=int, default=1024, help="memory_mb of interactions")
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
