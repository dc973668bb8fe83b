"""``sidmill import``: a published data set as a catalogue, an interaction log and an overlay."""

import logging

import click

from sidmill.commands.setting_options import setting_options
from sidmill.settings.imported import Imported

OPTIONS = (
    *("min_user", "min_item", "min_value", "repeats", "catalogue", "split"),
    *("max_reject_share", "memory_mb"),
)


def _print_sources(context: click.Context, _: click.Parameter, is_asked: bool) -> None:
    """Print what each source reads, and end."""
    from sidmill.settings.registry import SOURCES

    if not is_asked or context.resilient_parsing:
        return
    for name, source in SOURCES.items():
        click.echo(f"{name}\n  reads    {source.reads}\n  from     {source.published}")
        click.echo(f"  licence  {source.licence}")
    context.exit()


@click.command("import")
@click.argument("name")
@click.argument("source")
@click.argument("out")
@click.option(
    "--list",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_sources,
    help="print what each source reads, where it is published, and its licence",
)
@setting_options(Imported, *OPTIONS)
def import_data(name: str, source: str, out: str, settings: Imported) -> None:
    """Import a published data set from the files that you downloaded.

    NAME is one of --list, SOURCE the folder or archive of the files, OUT a folder for
    items.parquet, interactions.parquet, rejects.parquet, import.json and overlay.yaml.
    """
    from sidmill.imports import collection, dataset
    from sidmill.settings.registry import SOURCES

    # Passages and queries, or items and interactions.
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if name in SOURCES and SOURCES[name].is_collection:
        report = collection.run(name, source, out, settings)
        found = ", ".join(
            f"{report[kind]['written']:,} {kind}" for kind in ("passages", "queries", "judgements")
        )
        click.echo(f"wrote {out}: {found}")
        click.echo(
            f"next: snakemake --cores 8 --configfile {out}/overlay.yaml -- {collection.TARGET}"
        )
        return
    report = dataset.run(name, source, out, settings)
    counts = report["log"]
    click.echo(
        f"wrote {out}: {report['items']['written']:,} items in the catalogue; log: "
        f"{counts['users']:,} users, {counts['items']:,} items, {counts['interactions']:,} "
        f"interactions, density {counts['density']:.4%}"
    )
    click.echo(f"next: snakemake --cores 8 --configfile {out}/overlay.yaml")
