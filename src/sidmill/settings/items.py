"""Settings of items."""

from typing import Literal

from sidmill.settings.base import science, section


@section("demo", "the catalogue that a first run is made of")
class Demo:
    """The synthetic catalogue of a first run."""

    n_items: int = science(2000, "items, at least 50", minimum=50)
    n_users: int = science(1500, "users with a history of 5 to 60 items", minimum=1)


@section("items")
class Items:
    """Catalogue -> item text."""

    path: str | None = science(
        "results/demo/items.jsonl",
        (
            ".jsonl .json .csv .tsv (.gz .zst) .parquet; a file, a folder or a glob; null: "
            "given SIDs alone, without text"
        ),
    )
    encoding: str = science(
        "auto",
        (
            "of text files. auto: UTF-8, or UTF-16 by its first bytes | latin-1 (MovieLens), "
            "cp1252, gb18030, ..."
        ),
    )
    separator: str | None = science(
        None,
        (
            'of the columns of a table. null: "," in .csv, tab in .tsv | "::" (MovieLens) | '
            '"|" | ";"'
        ),
    )
    quoted: bool = science(
        True,
        (
            "fields of a table may stand in double quotes; false: quotes are text (MIND); "
            'never with "::"'
        ),
    )
    columns: list[str] | None = science(
        None,
        "names of the columns of a table without a header, a list; null: the first line has them",
        unique=True,
    )
    id_field: str = science("item_id", "the field that holds the item id")
    id_type: Literal["auto", "int", "string"] = science(
        "auto", 'auto: as the catalogue has it | int | string (keeps "007")'
    )
    fields: list[str] = science(
        ["title", "brand", "categories", "description"],
        "joined in this order, one line each",
        unique=True,
    )
    template: str | None = science(None, 'in place of fields: "{title} by {brand}. {description}"')
    on_bad_rows: Literal["error", "reject"] = science(
        "error", "error: stop at the first | reject: list them in results/items/rejects.parquet"
    )
    max_reject_share: float = science(
        0.25, "reject: stop when one cause takes more of the rows", minimum=0, maximum=1
    )
