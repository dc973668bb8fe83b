"""``sidmill publish``: a version of the SIDs that later versions continue, here and on the hub."""

from pathlib import Path
from typing import NamedTuple

import click


class Options(NamedTuple):
    """The options of the command, by their names below."""

    folder: str
    run: str
    title: str
    license_id: str | None
    hub: str | None
    private: bool
    upload: bool


@click.command()
@click.argument("folder", type=click.Path())
@click.option(
    "--run",
    default="results/version.json",
    show_default=True,
    help="manifest of the current run; snakemake makes it",
)
@click.option(
    "--title", default="Semantic IDs", show_default=True, help="heading of the dataset card"
)
@click.option(
    "--license", "license_id", help="of the dataset card: an identifier such as cc-by-4.0"
)
@click.option("--hub", help="also a dataset OWNER/NAME of the Hugging Face hub: show what would go")
@click.option("--private", is_flag=True, help="if --upload makes the dataset: a private one")
@click.option("--upload", is_flag=True, help="upload to --hub what was shown")
def publish(**given: str | bool | None) -> None:
    """Make FOLDER, a version of the SIDs and of all that later versions need to keep them.

    First: snakemake --cores 8 results/version.json. Then name FOLDER as published.path in the
    configuration: its items keep their SIDs in every later run. README.md of FOLDER is a dataset
    card, so that datasets.load_dataset(FOLDER, "sids") opens it.

    With --hub and an existing FOLDER, nothing is made: the version is checked, and shown or
    uploaded as it is.
    """
    from sidmill.commands import publishing
    from sidmill.core.errors import SidmillError

    # A version that is there may go to the hub; without --hub it is refused.
    options = Options(**given)  # type: ignore[arg-type]
    if options.upload and not options.hub:
        raise SidmillError("--upload without --hub: name the dataset, as --hub OWNER/NAME")
    if not (options.hub and Path(options.folder).is_dir()):
        manifest = publishing.publish(
            options.run, options.folder, title=options.title, license_id=options.license_id
        )
        before = f"continues version {manifest['version'] - 1}"
        click.echo(
            f"{options.folder}: version {manifest['version']}, "
            f"{before if manifest['parent'] else 'the first of its line'}; {manifest['items']} "
            f"items, {manifest['reserved']} SIDs reserved"
        )
    if options.hub:
        _to_hub(options, options.hub)


def _to_hub(options: Options, repository: str) -> None:
    from sidmill.commands.inspect import size
    from sidmill.formats import version_folder
    from sidmill.io import hf_hub

    # All files are those of the manifest, and nothing else lies in the folder.
    paths = version_folder.find(options.folder, "FOLDER")["all"]
    manifest = version_folder.verify(paths)
    files = {str(Path(path).relative_to(options.folder)): Path(path) for path in paths}
    if not options.upload:
        for name, path in files.items():
            click.echo(f"  {name}  {size(path.stat().st_size)}")
        click.echo(
            f"{len(files)} files would go to the dataset {repository} of {hf_hub.address()}, tag "
            f"v{manifest['version']}; nothing was sent: --upload sends them"
        )
        return
    address = hf_hub.upload(files, repository, version=manifest["version"], private=options.private)
    click.echo(f"{address}: {len(files)} files, tag v{manifest['version']}")
