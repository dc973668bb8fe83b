"""``sidmill publish``: a version of the SIDs that later versions continue."""

import click


@click.command()
@click.argument("folder", type=click.Path())
@click.option(
    "--run",
    default="results/version.json",
    show_default=True,
    help="manifest of the current run; snakemake makes it",
)
def publish(folder: str, run: str) -> None:
    """Make FOLDER, a version of the SIDs and of all that later versions need to keep them.

    First: snakemake --cores 8 results/version.json. Then name FOLDER as published.path in the
    configuration: its items keep their SIDs in every later run.
    """
    from sidmill.commands import publishing

    manifest = publishing.publish(run, folder)
    before = f"continues version {manifest['version'] - 1}"
    click.echo(
        f"{folder}: version {manifest['version']}, "
        f"{before if manifest['parent'] else 'the first of its line'}; {manifest['items']} items, "
        f"{manifest['reserved']} SIDs reserved"
    )
