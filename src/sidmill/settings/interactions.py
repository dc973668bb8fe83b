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
    "interactions", "asked for by results/interactions/sequences.parquet and what is made of it"
)
class Interactions:
    """Log of behaviour -> histories with splits."""

    path: str | None = science(
        "results/demo/interactions.jsonl",
        ".jsonl .json .csv .tsv (.gz .zst) .parquet; a file, a folder or a glob; null: none",
    )
    format: Literal["auto", "missrec", "sequences", "events", "onerec", "inter"] = science(
        "auto",
        (
            "auto: by the names of the fields | sequences | events | missrec | onerec | inter "
            "(docs/interactions.md)"
        ),
    )
    fields: InteractionsFields = nested(InteractionsFields, "null: the form's usual name")
    columns: list[str] | None = science(
        None,
        (
            "delimited text without a header line: the names of its columns, such as "
            "[user_id, item_id, rating, timestamp]"
        ),
    )
    delimiter: str | None = science(
        None,
        (
            'delimited text: what separates its columns, such as "::"; " " for any blanks; null: '
            "by the ending (.csv , .tsv and .inter tab)"
        ),
    )
    encoding: str = science("utf-8", "delimited text: utf-8 | latin-1 | cp1252 | ...")
    list_separator: str | None = science(
        None,
        'delimited text: what separates the entries of a list, such as "|"; null: list by list',
    )
    time_format: str | None = science(
        None,
        ('how dates other than ISO 8601 are written (Python\'s strptime): "%m/%d/%Y %I:%M:%S %p"'),
    )
    time_unit: Literal["s", "ms", "us", "ns"] = science(
        "us",
        "unit that dates become: s | ms | us | ns since 1970; numbers stay as they are",
    )
    time_fractions: Literal["error", "floor", "millionths"] = science(
        "error",
        (
            "times such as 1593878903.438. error: a bad row | floor: cut off | millionths: "
            "all times * 1,000,000"
        ),
    )
    split: Literal["given", "leave_last_out", "leave_two_out", "time"] = science(
        "leave_two_out",
        "given | leave_last_out | leave_two_out | time (latest interactions of all users)",
    )
    history_only: Literal["hold_out", "train"] = science(
        "hold_out",
        (
            "given: interactions that valid and test rows of missrec, onerec and inter show before "
            "their targets, and no row has as a target. hold_out: that row's split | train"
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
        "interactions of one user; more is a bad row, mostly a robot",
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
        "rows with any other fault. error: stop at the first | reject: list them there",
    )
    memory_mb: int = machine(
        1024, "MiB for sorting; the log is sorted on disk, whatever its size", minimum=16
    )


@section("h5", "results/h5/item_data.h5 and sequence.h5")
class H5:
    """Histories and vectors -> HDF5 files for data loaders."""

    features: Literal["auto", "words", "model"] = science(
        "auto",
        (
            "tokens of the item text. model: the tokenizer of embedding.model | words: "
            "hashed words | auto: model if there is one"
        ),
    )
    feature_buckets: int = science(
        262144,
        "words: numbers from 1 to this; two words share one by chance",
        minimum=1,
        maximum=2147483647,
    )
    max_feature_len: int = science(
        128, "tokens after which a text is cut", minimum=1, maximum=1048576
    )
    splits: list[Literal["train", "valid", "test"]] = science(
        ["train", "valid", "test"],
        "which interactions sequence.h5 holds; its loader can hold users out itself",
        unique=True,
    )
