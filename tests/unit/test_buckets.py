"""Rows through buckets on disk: gathered to a budget, all of them back, no table above it."""

from itertools import pairwise

import numpy as np
import pyarrow as pa

from sidmill.io import buckets


def test_tables_are_gathered_to_the_budget(monkeypatch):
    monkeypatch.setattr(buckets, "BYTES_PER_MB", 1000)
    tables = [pa.table({"a": np.arange(n, n + 10)}) for n in range(0, 500, 10)]  # 80 bytes each
    found = list(buckets.gathered(iter(tables), 1))
    assert [table.num_rows for table in found] == [130, 130, 130, 110]
    assert pa.concat_tables(found)["a"].to_pylist() == list(range(500))


def test_batches_are_those_of_the_buckets(tmp_path, rng):
    numbers = np.sort(rng.integers(0, 40, 1000)).astype(np.uint16)
    table = pa.table({"a": np.arange(1000)})
    with (
        pa.OSFile(str(tmp_path / "rows"), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as out,
    ):
        written = buckets.append(out, table, numbers)
        assert buckets.append(out, table.slice(0, 0), numbers[:0]) == []
    assert [batch.bucket for batch in written] == np.unique(numbers).tolist()
    with pa.ipc.open_file(str(tmp_path / "rows")) as file:
        for place, batch in enumerate(written):
            rows = file.get_batch(place)
            assert rows["a"].to_pylist() == np.flatnonzero(numbers == batch.bucket).tolist()
            assert (batch.rows, batch.size) == (rows.num_rows, rows.nbytes)


def test_groups_hold_every_bucket_once_within_the_budget(monkeypatch, rng):
    monkeypatch.setattr(buckets, "BYTES_PER_MB", 100)
    sizes = rng.integers(0, 60, 200)
    sizes[[3, 50]] = 0, 900
    found = list(buckets.groups(sizes, 1))
    held = [sizes[low:high].sum() for low, high in found]
    assert sum(held) == sizes.sum()
    assert all(low == high for (_, low), (high, _) in pairwise(found))
    assert sum(total > 100 for total in held) == 1  # the bucket that is larger
