"""Settings of imported data sets."""

from typing import Literal

from sidmill.settings.base import machine, science, section


@section(
    "imported",
    "for results/imported/{source}/overlay.yaml, and the options of sidmill import",
)
class Imported:
    """Published files -> catalogue, interaction log and overlay."""

    path: str | None = science(
        None, "folder or archive with the files of a published data set; null: none"
    )
    min_user: int = science(
        0, "k-core: interactions that each user has at least; 0 or 1: no limit", minimum=0
    )
    min_item: int = science(
        0, "k-core: interactions that each item has at least; 0 or 1: no limit", minimum=0
    )
    min_value: float | None = science(
        None, "smallest rating (KuaiRec: watch_ratio) that counts as an interaction; null: all"
    )
    repeats: Literal["keep", "first"] = science(
        "keep",
        "an item that a user has several times. keep: all interactions | first: the earliest",
    )
    catalogue: Literal["all", "interacted"] = science(
        "all", "items to write. all: those with metadata | interacted: those in the log"
    )
    split: Literal["auto", "given", "leave_last_out", "leave_two_out", "time"] = science(
        "auto",
        (
            "interactions.split of the overlay. auto: given if the data set has splits, else "
            "leave_two_out"
        ),
    )
    max_reject_share: float = science(
        0.25,
        "stop if more than this share of the rows has the same fault; items without metadata "
        "do not count",
        minimum=0,
        maximum=1,
    )
    memory_mb: int = machine(1024, "MiB for sorting the log, which is sorted on disk", minimum=64)
