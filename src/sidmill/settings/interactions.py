"""Settings of interactions."""

from dataclasses import dataclass
from typing import Literal

from sidmill.settings.base import machine, nested, science, section


@dataclass(frozen=True, kw_only=True)
class InteractionsFields:
    """Names of the fields of a log; null stands for the usual name."""

    user: str | None = science(None, "name of a field, or null for the usual one")
    item: str | None = science(None, "name of a field, or null for the usual one")
    time: str | None = science(None, "name of a field, or null for the usual one")
    split: str | None = science(None, "name of a field, or null for the usual one")
    history: str | None = science(None, "name of a field, or null for the usual one")
    target: str | None = science(None, "name of a field, or null for the usual one")


@section(
    "interactions", "for results/interactions/sequences.parquet and everything that is made from it"
)
class Interactions:
    """Log of behaviour -> histories with splits."""

    path: str | None = science(
        "results/demo/interactions.jsonl",
        (
            ".jsonl .json .csv .tsv (.gz .zst) .parquet; a file, a folder or a glob; null: "
            "no interactions"
        ),
    )
    format: Literal["auto", "missrec", "sequences", "events", "onerec", "inter"] = science(
        "auto",
        (
            "auto: detected by the field names | sequences | events | missrec | onerec | "
            "inter (docs/interactions.md)"
        ),
    )
    fields: InteractionsFields = nested(
        InteractionsFields, "names of the fields in your file; null: the usual name in that format"
    )
    columns: list[str] | None = science(
        None,
        (
            "delimited text without a header line: its column names, such as [user_id, "
            "item_id, rating, timestamp]"
        ),
    )
    delimiter: str | None = science(
        None,
        (
            'delimited text: column separator, such as "::"; " ": any white space; null: by '
            "the file ending (.csv comma, .tsv and .inter tab)"
        ),
    )
    encoding: str = science("utf-8", "delimited text: utf-8 | latin-1 | cp1252 | ...")
    list_separator: str | None = science(
        None,
        (
            'delimited text: separator of the entries of a list, such as "|"; null: detected '
            "for each list"
        ),
    )
    time_format: str | None = science(
        None,
        'format of dates that are not ISO 8601, for Python\'s strptime: "%m/%d/%Y %I:%M:%S %p"',
    )
    time_unit: Literal["s", "ms", "us", "ns"] = science(
        "us",
        (
            "unit that dates are converted to: s | ms | us | ns since 1970; numbers are not "
            "converted"
        ),
    )
    time_fractions: Literal["error", "floor", "millionths"] = science(
        "error",
        (
            "times such as 1593878903.438. error: a bad row | floor: drop the fraction | "
            "millionths: multiply all times by 1,000,000"
        ),
    )
    split: Literal["given", "leave_last_out", "leave_two_out", "time"] = science(
        "leave_two_out",
        (
            "how interactions are split: given (by the log) | leave_last_out | leave_two_out "
            "| time (the latest interactions of all users are held out)"
        ),
    )
    history_only: Literal["hold_out", "train"] = science(
        "hold_out",
        (
            "split given: interactions that appear only in histories of valid and test rows "
            "(missrec, onerec, inter), never as a target. hold_out: split of the first such "
            "row | train: split of the interaction before"
        ),
    )
    valid_share: float = science(
        0.1, "split time: share of all interactions for validation", minimum=0, below=0.5
    )
    test_share: float = science(
        0.1, "split time: share of all interactions, the latest, for test", above=0, below=0.5
    )
    max_history: int = science(
        10000,
        ("largest number of interactions of a user; a user with more is a bad row, mostly a robot"),
        minimum=2,
        maximum=10000000,
    )
    on_unknown_items: Literal["error", "reject"] = science(
        "error",
        (
            "items that are not in the catalogue. error: stop | reject: list them in "
            "results/interactions/rejects.parquet"
        ),
    )
    on_bad_rows: Literal["error", "reject"] = science(
        "error",
        (
            "rows with any other fault. error: stop at the first | reject: list them in "
            "results/interactions/rejects.parquet"
        ),
    )
    memory_mb: int = machine(
        1024, "MiB for sorting the log, which is sorted on disk whatever its size", minimum=16
    )


@section("h5", "results/h5/item_data.h5 and sequence.h5")
class H5:
    """Histories and vectors -> HDF5 files for data loaders."""

    features: Literal["auto", "words", "model"] = science(
        "auto",
        (
            "how item texts become tokens. model: the tokenizer of embedding.model | words: "
            "hashed words | auto: model if there is one"
        ),
    )
    feature_buckets: int = science(
        262144,
        "words: words are hashed to numbers from 1 to this; two words can get the same number",
        minimum=1,
        maximum=2147483647,
    )
    max_feature_len: int = science(
        128, "tokens after which a text is cut", minimum=1, maximum=1048576
    )
    splits: list[Literal["train", "valid", "test"]] = science(
        ["train", "valid", "test"],
        "interactions that sequence.h5 contains; its loader can also hold out users",
        unique=True,
    )
