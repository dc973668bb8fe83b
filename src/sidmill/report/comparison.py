"""Quantizers side by side: the figures of each evaluation.json, with what the training took."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from sidmill.core.atomic import write_text
from sidmill.core.errors import SidmillError
from sidmill.formats import benchmark_table
from sidmill.formats.quantizer_file import GIVEN
from sidmill.io import json_report
from sidmill.report import comparison_downstream
from sidmill.settings.sids import Comparison


class Figure(NamedTuple):
    """One figure of the comparison.

    Attributes:
        key: its name in a member of comparison.json.
        title: in words.
        better: ``lower`` or ``higher``.
        words: from a value to text.
        chance: key of what chance would give, or None.
    """

    key: str
    title: str
    better: str
    words: Callable[[float], str]
    chance: str | None = None


def share(value: float) -> str:
    """A share in per cent, three digits."""
    return f"{100 * value:.3g}%" if value < 0.9995 else f"{100 * value:.4g}%"


def _ratio(value: float) -> str:
    return f"{value:.3f}"


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value < 100 else f"{value:,.0f} s"


def _mib(value: float) -> str:
    return f"{value:,.0f} MiB"


Table = dict[str, Any]  # comparison.json, or the figures of one of its members
FIGURES = (
    Figure("relative_loss", "squared error left", "lower", share),
    Figure("collision_rate", "collisions, (N−distinct)/N", "lower", share),
    Figure("colliding_items_rate", "items in a shared code", "lower", share),
    Figure("least_utilisation", "codes used, least level", "higher", share),
    Figure("entropy_ratio", "entropy / its bound", "higher", _ratio),
    Figure("jaccard", "neighbours: Jaccard", "higher", _ratio),
    Figure("rbo", "neighbours: RBO", "higher", _ratio),
    Figure("neighbours_1", "neighbours: 1st token", "higher", share, "neighbours_1_chance"),
    Figure("consecutive_1", "consumed next: 1st token", "higher", share, "consecutive_1_chance"),
    Figure("consecutive_2", "consumed next: 2 tokens", "higher", share, "consecutive_2_chance"),
    Figure("seconds", "time to train", "lower", _seconds),
    Figure("peak_mib", "memory to train", "lower", _mib),
)


def compare(
    evaluations: list[str],
    benchmarks: list[str],
    settings: Comparison,
    codebook_sizes: list[int],
    downstream: list[Table | None],
) -> Table:
    """Gather the figures of all quantizers of the comparison.

    Seconds and memory are of the machine and the moment; all else is the same in every run.

    Args:
        evaluations: evaluation.json of each member.
        benchmarks: Snakemake's benchmark file of the training of each member but ``given``, whose
            SIDs were not trained here.
        settings: the members.
        codebook_sizes: the token budget: codes per level that each may use.
        downstream: of each member what :func:`comparison_downstream.gather` found.

    Raises:
        SidmillError: if a member has another number of levels, or more codes than the budget.
    """
    members = []
    trainings = iter(benchmarks)
    for name, evaluation, recommended in zip(
        settings.members, evaluations, downstream, strict=True
    ):
        figures = json_report.read(evaluation)
        _check_budget(name, figures["codebook_sizes"], codebook_sizes)
        trained = (
            benchmark_table.Benchmark(None, None)
            if name == GIVEN
            else benchmark_table.read(next(trainings))
        )
        members.append({**_member(name, figures, trained), "downstream": recommended})
        common = {key: figures[key] for key in ("items", "dim", "neighbour_preservation")}
    preservation = common.pop("neighbour_preservation")
    queries = {key: preservation[key] for key in ("queries", "neighbours", "rbo_persistence")}
    return {"codebook_sizes": codebook_sizes, **common, **queries, "members": members}


def write_table(path: str | Path, compared: Table) -> None:
    """Write the comparison as a table in Markdown; the best of each row is bold."""
    # What was compared, and how it was measured.
    members = compared["members"]
    sizes = " x ".join(map(str, compared["codebook_sizes"]))
    dimensions, neighbours = "without vectors", ""
    if compared["dim"] is not None:
        dimensions = f"{compared['dim']} dimensions"
        nearest = f"the {compared['neighbours']} nearest of {compared['queries']:,} items"
        neighbours = f" Neighbours: {nearest}."
    lines = [
        f"{compared['items']:,} items, {dimensions}, {sizes} codes; before collisions are "
        f"resolved.{neighbours} In brackets: by chance."
        f"{comparison_downstream.describe(members)}",
        "",
        f"| | {' | '.join(member['name'] for member in members)} |",
        f"|---|{'---|' * len(members)}",
    ]

    # A row per figure that a member has, those of the recommender, and what each level uses.
    for figure in FIGURES:
        if any(member[figure.key] is not None for member in members):
            cells = " | ".join(_cell(member, figure, best(members, figure)) for member in members)
            lines.append(f"| {figure.title} ({figure.better} is better) | {cells} |")
    for title, words in comparison_downstream.table_rows(members):
        lines.append(f"| {title} | {' | '.join(words)} |")
    used = " | ".join(" ".join(share(level) for level in m["utilisation"]) for m in members)
    lines.append(f"| codes used, level by level | {used} |")
    counts = " | ".join(" ".join(map(str, member["codebook_sizes"])) for member in members)
    lines.append(f"| codes | {counts} |")
    write_text(path, "\n".join(lines) + "\n")


def best(members: list[Table], figure: Figure) -> float | None:
    """The best value of a figure among members, or None where none has it."""
    values = [member[figure.key] for member in members if member[figure.key] is not None]
    return (min if figure.better == "lower" else max)(values, default=None)


def _check_budget(name: str, sizes: list[int], budget: list[int]) -> None:
    if len(sizes) != len(budget) or any(
        size > most for size, most in zip(sizes, budget, strict=True)
    ):
        remedy = "give it as many levels, and no more codes"
        if name == GIVEN:
            remedy = (
                f"set rqkmeans.n_levels: {len(sizes)} and rqkmeans.codebook_size: {sizes}, as the "
                f"given SIDs are, or take given out of comparison.members"
            )
        raise SidmillError(
            f"{name} has codebooks of {sizes}, the others may use {budget} (rqkmeans.n_levels and "
            f"codebook_size): {remedy}"
        )


def _member(name: str, figures: Table, trained: benchmark_table.Benchmark) -> Table:
    # Figures under names of their own; what was not measured is None.
    preserved, consumed = figures["neighbour_preservation"], figures["co_consumption"] or {}
    utilisation = [level["utilisation"] for level in figures["levels"]]
    member = {
        "name": name,
        "codebook_sizes": figures["codebook_sizes"],
        "relative_loss_by_level": [level["relative_loss"] for level in figures["levels"]],
        "utilisation": utilisation,
        "least_utilisation": min(utilisation),
        "jaccard": preserved["jaccard"],
        "rbo": preserved["rbo"],
        "neighbours_1": figures["neighbours"]["1"],
        "neighbours_1_chance": figures["neighbours_chance"]["1"],
        "seconds": trained.seconds,
        "peak_mib": trained.peak_mib,
    }

    # Figures under the names that they have in evaluation.json.
    for key in ("relative_loss", "collision_rate", "colliding_items_rate", "largest_collision"):
        member[key] = figures[key]
    for key in ("entropy_bits", "entropy_bound_bits", "entropy_ratio"):
        member[key] = figures[key]
    for length in ("1", "2"):
        pairs = consumed.get(length, {"share": None, "chance": None})
        member[f"consecutive_{length}"] = pairs["share"]
        member[f"consecutive_{length}_chance"] = pairs["chance"]
    return member


def _cell(member: Table, figure: Figure, best_value: float | None) -> str:
    value = member[figure.key]
    if value is None:
        return "–"
    words = figure.words(value)
    words = f"**{words}**" if value == best_value else words
    by_chance = member[figure.chance] if figure.chance else None
    return words if by_chance is None else f"{words} ({figure.words(by_chance)})"
