"""Pretraining rows from histories: SIDMill against a plain pandas row loop.

Both read the same two parquet files, look the items up, write SIDs as text, and leave parquet files
of 1,000 rows; each runs on one core. The loop is what scripts of this kind do: ``iterrows``, a
dictionary, ``format``, ``json.dumps``. ``quality_ratio`` is the share of rows whose text is equal.

    python benchmarks/datasets.py                     20,000 users x 200 items, target 10
    python benchmarks/datasets.py --rows 2000
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

import _paired

ROOT = Path(__file__).parents[1]
HISTORY_MAX, TARGET_MAX, ROWS_PER_FILE = 512, 10, 1000
SID = "<|sid_begin|><s_a_{}><s_b_{}><s_c_{}><|sid_end|>"


def main() -> None:
    """Make the input, run both sides in turn, compare."""
    options = _options()
    os.environ["OMP_NUM_THREADS"] = "1"
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if options.side:
        SIDES[options.side](options)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        shared = [__file__, *_paired.flags(options, folder)]
        _paired.run([*shared, "--side=input"])
        medians = _paired.alternate(
            {name: [*shared, f"--side={name}"] for name in ("sidmill", "loop")}, options.repeats
        )
        _paired.run([*shared, "--side=compare"])
        equal = json.loads(Path(folder, "equal.json").read_text())
    figures = {"rows": options.rows, "history": options.history, **equal}
    _paired.report(medians, figures, equal["equal_texts"])


def make_input(options: argparse.Namespace) -> None:
    """Write pid2sid.parquet and metadata.parquet."""
    import numpy as np
    import pandas as pd

    random = np.random.default_rng(options.seed)
    pids = np.sort(random.choice(4 * options.items, options.items, replace=False))
    sids = random.integers(0, options.codes, (options.items, 3)).astype(np.int32)
    table = pd.DataFrame({"pid": pids, "sid": list(sids)})
    table.to_parquet(Path(options.folder, "pid2sid.parquet"))
    users = {
        "uid": np.arange(options.rows),
        "split": np.zeros(options.rows, np.int64),
        "hist_video_pid": list(
            pids[random.integers(0, len(pids), (options.rows, options.history))]
        ),
        "target_video_pid": list(pids[random.integers(0, len(pids), (options.rows, TARGET_MAX))]),
    }
    pd.DataFrame(users).to_parquet(Path(options.folder, "metadata.parquet"))


def run_sidmill(options: argparse.Namespace) -> None:
    """Both passes, as the rules make them."""
    from sidmill.core.no_pandas import without_pandas

    without_pandas()
    from sidmill.datasets import inputs, item_lookup, resolve, tasks, write
    from sidmill.settings.datasets import Datasets

    folder, shard = Path(options.folder), inputs.Shard(0, 1)
    dataset = tasks.Dataset("pretrain_video_rec", "train", ROOT / "workflow/resources")
    items = item_lookup.ItemFiles(folder / "pid2sid.parquet")
    settings = Datasets(history_max=HISTORY_MAX, target_max=TARGET_MAX, rows_per_file=ROWS_PER_FILE)

    # Item ids to numbers, then numbers to text.
    rows, counts = folder / "rows.arrow", folder / "rows.json"
    users = [str(folder / "metadata.parquet")]
    resolve.resolve(rows, counts, dataset, users, items, settings, shard, options.seed)
    resolved = write.Resolved([rows], [counts])
    target = folder / "sidmill"
    write.write_parts(target, resolved, dataset, items, settings, shard, options.seed)


def run_loop(options: argparse.Namespace) -> None:
    """One row after another."""
    import uuid

    import pandas as pd

    folder = Path(options.folder)
    items = pd.read_parquet(folder / "pid2sid.parquet")
    sids = dict(zip(items["pid"], items["sid"], strict=True))
    users = pd.read_parquet(folder / "metadata.parquet")

    # A row of JSON per training user.
    rows = []
    for _, user in users.iterrows():
        if user["split"] != 0:
            continue
        seen = user["hist_video_pid"][-HISTORY_MAX:]
        following = user["target_video_pid"][:TARGET_MAX]
        history = "".join(SID.format(*sids[pid]) for pid in seen if pid in sids)
        target = "".join(SID.format(*sids[pid]) for pid in following if pid in sids)
        if history and target:
            text = json.dumps([{"type": "text", "text": history + target}], ensure_ascii=False)
            rows.append(
                {
                    "source": "RecIF_VideoRec_Pretrain",
                    "uuid": str(uuid.uuid5(uuid.NAMESPACE_URL, text)),
                    "segments": text,
                    "metadata": json.dumps({"uid": int(user["uid"])}),
                }
            )

    # Files of as many rows as the other side writes.
    written = folder / "loop"
    written.mkdir(exist_ok=True)
    for start in range(0, len(rows), ROWS_PER_FILE):
        table = pd.DataFrame(rows[start : start + ROWS_PER_FILE])
        table.to_parquet(written / f"part-{start:09d}.parquet", index=False)


def compare(options: argparse.Namespace) -> None:
    """Share of users whose text is the same on both sides."""
    import pyarrow.parquet as pq

    texts = {}
    for side in ("sidmill", "loop"):
        table = pq.read_table(Path(options.folder, side), columns=["segments", "metadata"])
        owners = [json.loads(owner)["uid"] for owner in table["metadata"].to_pylist()]
        texts[side] = dict(zip(owners, table["segments"].to_pylist(), strict=True))
    equal = sum(texts["sidmill"].get(uid) == text for uid, text in texts["loop"].items())
    found = {
        "equal_texts": equal / max(len(texts["loop"]), len(texts["sidmill"])),
        "sidmill_mb": _megabytes(Path(options.folder, "sidmill")),
        "loop_mb": _megabytes(Path(options.folder, "loop")),
    }
    Path(options.folder, "equal.json").write_text(json.dumps(found))


def _megabytes(folder: Path) -> float:
    return round(sum(path.stat().st_size for path in folder.iterdir()) / 2**20, 1)


SIDES = {"input": make_input, "sidmill": run_sidmill, "loop": run_loop, "compare": compare}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000, help="users")
    parser.add_argument("--history", type=int, default=200, help="items of a history")
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--codes", type=int, default=8192)
    parser.add_argument("--dim", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--folder", help="where the temporary folder goes")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
