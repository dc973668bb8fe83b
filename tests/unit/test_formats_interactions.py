"""sequences.parquet: what is written is read back; lists that do not fit are refused."""

import pyarrow as pa
import pytest

from sidmill.core.errors import SidmillError
from sidmill.formats import sequence_table


def table(**columns):
    whole = {
        "user_id": ["u", "v"],
        "item_ids": [[3, 1], [2]],
        "splits": [[0, 2], [1]],
        "timestamps": [[5, 6], None],
    }
    return pa.table({**whole, **columns}, schema=sequence_table.schema(pa.int64()))


def test_what_is_written_is_read_back(tmp_path):
    path = tmp_path / "sequences.parquet"
    assert sequence_table.write(path, pa.int64(), [table(), table(user_id=["w", "x"])]) == 4
    assert sequence_table.count(path) == 4
    assert sequence_table.pid_type(path) == pa.int64()
    back = pa.concat_tables(sequence_table.read(path, 1, 3))
    assert back.to_pylist() == [
        *table().to_pylist()[1:],
        {**table().to_pylist()[0], "user_id": "w"},
    ]


@pytest.mark.parametrize(
    "columns",
    [
        {"item_ids": [[3, 1], []], "splits": [[0, 2], []]},
        {"splits": [[0], [1]]},
        {"timestamps": [[5, 6], [7, 8]]},
        {"item_ids": [[3, 1], None]},
    ],
)
def test_lists_that_do_not_fit_are_refused(tmp_path, columns):
    with pytest.raises(SidmillError, match=r"user '[uv]' has"):
        sequence_table.write(tmp_path / "s.parquet", pa.int64(), [table(**columns)])
    assert not list(tmp_path.iterdir())
