"""``sidmill evaluate``: how well a saved quantizer does on some embeddings."""

import json
from typing import TYPE_CHECKING, Any, cast

import click

from sidmill.commands.setting_options import setting_options
from sidmill.settings.quantize import Encoding
from sidmill.settings.run import Run
from sidmill.settings.sids import Evaluation

if TYPE_CHECKING:
    import numpy as np


@click.command()
@click.option(
    "--quantizer",
    required=True,
    help="quantizer.safetensors, or a checkpoint of OneRec, LC-Rec or MiniOneRec",
)
@click.option(
    "--vectors", required=True, help=".npy, item_data.h5, or parquet: a file, a folder or a glob"
)
@click.option(
    "--ids", help="ids of a .npy: .parquet, .npy or .txt; default: ids.parquet beside vectors.npy"
)
@click.option(
    "--column", default="embedding", show_default=True, help="column of vectors in a parquet"
)
@click.option("--id-column", default="pid", show_default=True, help="column of ids in a parquet")
@click.option(
    "--categories",
    help="parquet of pid and category, such as results/items/categories.parquet: for a quantizer "
    "with a category level",
)
@setting_options(
    Evaluation,
    *("sequences", "neighbour_queries", "n_neighbours", "rbo_persistence"),
    argument="evaluation",
)
@setting_options(Run, "seed", argument="run")
@setting_options(Encoding, "device", "memory_mb", argument="encoding")
@click.option(
    "--scratch",
    type=click.Path(exists=True, file_okay=False, writable=True),
    help="folder for a copy of the shards while this runs, 4 bytes x items x dimensions; "
    "the system's temporary folder by default, which may lie in memory",
)
@click.option(
    "--json", "as_json", is_flag=True, help="print all figures as JSON instead of a table"
)
def evaluate(
    quantizer: str,
    vectors: str,
    ids: str | None,
    column: str,
    id_column: str,
    categories: str | None,
    evaluation: Evaluation,
    run: Run,
    encoding: Encoding,
    scratch: str | None,
    as_json: bool,
) -> None:
    """Measure a quantizer on embeddings: error, collisions, use of codes, neighbours kept."""
    from sidmill import api
    from sidmill.commands.source import open_vectors
    from sidmill.core.errors import SidmillError
    from sidmill.formats import category_file
    from sidmill.formats.quantizer_file import check_fingerprint
    from sidmill.sids import evaluate as stage

    # Vectors of the space that the quantizer was trained on.
    fitted = api.load(quantizer)
    with open_vectors(vectors, ids, scratch, column=column, id_column=id_column) as items:
        if evaluation.sequences and not items.has_ids:
            raise SidmillError(
                "--sequences needs the ids of the vectors: add --ids with their file"
            )
        if items.fingerprint and fitted.fingerprint:
            check_fingerprint(fitted, items.fingerprint, quantizer)

        # Encode them and measure the codes. All of them are a map here.
        mapped = cast("np.ndarray", items.vectors)
        names = category_file.of_ids(categories or "", items.ids)
        codes = api.encode(
            fitted,
            mapped,
            categories=names,
            device=encoding.device,
            memory_mb=encoding.memory_mb,
        )
        figures = stage.evaluate(fitted, mapped, codes, items.ids, evaluation, run.seed)
    click.echo(json.dumps(figures, indent=2) if as_json else table(figures))


def table(figures: dict[str, Any]) -> str:
    """Format the figures of a quantizer as lines for a terminal."""
    # All levels together.
    sizes = " x ".join(map(str, figures["codebook_sizes"]))
    preserved = figures["neighbour_preservation"]
    neighbours = preserved["neighbours"]
    shape = f"{figures['items']:,} x {figures['dim']}"
    lines = [
        f"{figures['quantizer']}, {sizes} codes, on {shape} vectors",
        "",
        _line("squared error / squared length", figures["relative_loss"]),
        _line("collision rate, (N - distinct) / N", figures["collision_rate"]),
        _line("share of items in a shared code", figures["colliding_items_rate"]),
        _line("largest collision", figures["largest_collision"], "items"),
        _line("entropy", figures["entropy_bits"], f"of {figures['entropy_bound_bits']:.2f} bits"),
        _line(f"neighbours kept, Jaccard@{neighbours}", preserved["jaccard"]),
        _line(f"neighbours kept, RBO@{neighbours}", preserved["rbo"]),
    ]

    # Items that were consumed one after the other, where sequences are given.
    pairs = figures["co_consumption"] or {}
    for length in ("1", "2"):
        if length in pairs and pairs[length]["share"] is not None:
            by_chance = f"({pairs[length]['chance']:.4f} by chance)"
            share = pairs[length]["share"]
            lines.append(_line(f"consumed next, {length} token(s) shared", share, by_chance))

    # One line for each level.
    lines += ["", f"{'level':>5} {'codes':>7} {'used':>7} {'share':>7} {'entropy':>8} {'error':>7}"]
    for level in figures["levels"]:
        lines.append(
            f"{level['level']:>5} {level['codebook_size']:>7} {level['used']:>7} "
            f"{level['utilisation']:>7.1%} {level['entropy_bits']:>8.2f} "
            f"{'-' if level['relative_loss'] is None else format(level['relative_loss'], '.4f'):>7}"
        )
    return "\n".join(lines)


def _line(name: str, value: float | None, after: str = "") -> str:
    words = "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
    return f"{name:<38} {words:>8} {after}".rstrip()
