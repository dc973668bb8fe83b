"""Settings of items."""

from typing import Literal

from sidmill.settings.base import science, section


@section("demo", "size of the demo catalogue")
class Demo:
    """The synthetic catalogue of a first run."""

    n_items: int = science(2000, "items, at least 50", minimum=50)
    n_users: int = science(1500, "users, each with a history of 5 to 60 items", minimum=1)


@section("items")
class Items:
    """Catalogue -> item text."""

    path: str | None = science(
        "results/demo/items.jsonl",
        (
            ".jsonl .json .csv .tsv (.gz .zst) .parquet; a file, a folder or a glob; null: "
            "no texts, only given SIDs"
        ),
    )
    encoding: str = science(
        "auto",
        (
            "encoding of text files. auto: UTF-8, or UTF-16 if the first bytes show it | "
            "latin-1 (MovieLens), cp1252, gb18030, ..."
        ),
    )
    separator: str | None = science(
        None,
        (
            'column separator of a table. null: "," in .csv, tab in .tsv | "::" (MovieLens) '
            '| "|" | ";"'
        ),
    )
    quoted: bool = science(
        True,
        (
            "true: a field of a table may be enclosed in double quotes, if the separator is "
            "one character | false: quotes are text (MIND)"
        ),
    )
    columns: list[str] | None = science(
        None,
        "list of the column names, for a table without a header; null: the first line has them",
        unique=True,
    )
    id_field: str = science("item_id", "the field that holds the item id")
    id_type: Literal["auto", "int", "string"] = science(
        "auto", 'auto: integers or strings, as in the catalogue | int | string (keeps "007")'
    )
    fields: list[str] = science(
        ["title", "brand", "categories", "description"],
        "text fields, joined in this order, one line each",
        unique=True,
    )
    template: str | None = science(
        None, 'text of an item, instead of fields: "{title} by {brand}. {description}"'
    )
    on_bad_rows: Literal["error", "reject"] = science(
        "error",
        (
            "error: stop at the first bad row | reject: list bad rows in "
            "results/items/rejects.parquet"
        ),
    )
    max_reject_share: float = science(
        0.25,
        "with reject: stop if more than this share of the rows has the same fault",
        minimum=0,
        maximum=1,
    )
