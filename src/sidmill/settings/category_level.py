"""Settings of the category level: a first level of codes from a field of the catalogue."""

from sidmill.settings.base import machine, science, section


@section("category_level", "a first level of SIDs from the catalogue (docs/category-level.md)")
class CategoryLevel:
    """Categories of items -> the first level of their codes."""

    field: str | None = science(
        None,
        (
            "field of the catalogue with the category of an item: a text, or a list that is a path "
            "in a tree; null: no such level"
        ),
    )
    path_separator: str | None = science(
        None, 'what stands between the names of a path in a text, such as " > "; null: no path'
    )
    depth: int = science(
        1, "names from the top of a path that make the category: 1, the top alone", minimum=1
    )
    size: int = science(256, "codes of the level, at most", minimum=2, maximum=1048576)
    min_load: float = science(
        0.25,
        (
            "a category with fewer items than this share of the mean (items / size) is merged into "
            "the nearest one"
        ),
        minimum=0,
    )
    max_load: float = science(
        2.0,
        (
            "a category with more items than this multiple of the mean is split by vectors, as "
            "long as there are codes"
        ),
        minimum=1,
    )
    memory_mb: int = machine(1024, "MiB for means of categories and a block of vectors", minimum=16)
