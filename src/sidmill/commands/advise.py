"""``sidmill advise``: how many levels and codes a catalogue needs; what a sweep says of figures."""

import json
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import click

if TYPE_CHECKING:
    import numpy as np


# Measured: docs/measurements.md, "Sweep of tokenizers".
NO_PREDICTOR = (
    "a collision rate says nothing of recommendation: of 20 tokenizers of one catalogue it did not "
    "predict HR@10 (rank correlation -0.13); neighbours kept did (RBO +0.77), but not among the "
    "best ten; results/sweep/sweep.json compares tokenizers of yours"
)


class Options(NamedTuple):
    """The options of the command, by their names below."""

    vectors: str | None
    sweep: str | None
    metric: str | None
    column: str
    id_column: str
    target: float
    levels: str
    codes: str
    sample: int
    seed: int
    device: str
    memory_mb: int
    scratch: str | None
    as_json: bool


@click.command()
@click.option("--vectors", help=".npy, item_data.h5, or parquet: a file, a folder or a glob")
@click.option(
    "--sweep", help="sweep.json: which figures of its tokenizers predict their recommenders"
)
@click.option(
    "--metric",
    type=click.Choice(["HR@10", "NDCG@10"]),
    help="with --sweep: metric of the recommenders; that of the sweep by default",
)
@click.option(
    "--column", default="embedding", show_default=True, help="column of vectors in a parquet"
)
@click.option("--id-column", default="pid", show_default=True, help="column of ids in a parquet")
@click.option("--target", default=0.01, show_default=True, help="largest collision rate")
@click.option("--levels", default="2,3,4", show_default=True, help="tokens per SID to consider")
@click.option("--codes", default="64,128,256,512,1024,2048,4096,8192", show_default=True)
@click.option("--sample", default=20000, show_default=True, help="vectors to fit on, at most")
@click.option("--seed", default=42, show_default=True)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda")
@click.option("--memory-mb", default=1024, show_default=True, help="MiB for sample and fits")
@click.option(
    "--scratch",
    type=click.Path(exists=True, file_okay=False, writable=True),
    help="folder for a copy of the shards while this runs, 4 bytes x items x dimensions; "
    "the system's temporary folder by default, which may lie in memory",
)
@click.option("--json", "as_json", is_flag=True, help="print JSON instead of a table")
def advise(**given: Any) -> None:
    """Estimate collisions for codebooks of several sizes, and the smallest size below a target.

    Rates are (N - distinct) / N as quantized by residual k-means, before they are resolved.
    With --sweep: rank correlations of the figures of a sweep with the metric of its recommenders.
    """
    options = Options(**given)
    if (options.vectors is None) == (options.sweep is None):
        raise click.UsageError("give --vectors or --sweep, one of them")
    if options.sweep is not None:
        from sidmill.commands import advise_sweep

        click.echo(advise_sweep.advise(options.sweep, options.metric, as_json=options.as_json))
        return
    from sidmill.commands.source import open_vectors
    from sidmill.quantize import advise as stage

    # A stream of parquet is copied to a map first: the fits read the vectors several times.
    with open_vectors(
        cast("str", options.vectors),
        None,
        options.scratch,
        column=options.column,
        id_column=options.id_column,
    ) as items:
        advice = stage.advise(
            cast("np.ndarray", items.vectors),
            target=options.target,
            codebook_sizes=_numbers(options.codes, "--codes"),
            n_levels=_numbers(options.levels, "--levels"),
            sample=options.sample,
            seed=options.seed,
            device=options.device,
            memory_mb=options.memory_mb,
        )
    click.echo(json.dumps(advice, indent=2) if options.as_json else table(advice))


def table(advice: dict[str, Any]) -> str:
    """Format the advice on levels and codes as lines for a terminal."""
    lines = [
        f"{advice['items']:,} items, {advice['sampled']:,} fitted; "
        f"{advice['identical_vectors']:.2%} repeat the vector of another item",
        "",
        f"{'levels':>6} {'codes':>6} {'bits':>6} {'even use':>9} {'expected':>9}  how",
    ]
    for one in advice["candidates"]:
        lines.append(
            f"{one['n_levels']:>6} {one['codebook_size']:>6} {one['bits']:>6.1f} "
            f"{one['even']:>9.2%} {one['expected']:>9.2%}  {one['how']}"
        )
    return "\n".join([*lines, "", NO_PREDICTOR, _verdict(advice)])


def _verdict(advice: dict[str, Any]) -> str:
    smallest, even = advice["smallest"], advice["smallest_if_even"]
    bound = f"were codes used evenly: {_size(even)}" if even else "not even with even use"
    if smallest:
        return f"smallest under {advice['target']:.2%}: {_size(smallest)}; {bound}"
    return (
        f"none of these comes under {advice['target']:.2%} ({bound}): raise --levels or --codes, "
        f"give items more text to tell them apart, or let collisions be resolved"
    )


def _size(candidate: dict[str, Any]) -> str:
    return f"{candidate['n_levels']} levels of {candidate['codebook_size']:,} codes"


def _numbers(text: str, option: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise click.BadParameter(
            f"{text!r}: give whole numbers with commas, as 2,3", param_hint=option
        )
    return numbers
