"""Settings of report."""

from sidmill.settings.base import science, section


@section("explorer")
class Explorer:
    """The page that shows the SIDs."""

    title: str = science("Semantic IDs", "heading of results/explorer.html")
    max_items: int = science(
        20000, "largest number of items; a larger catalogue is sampled", minimum=1
    )
