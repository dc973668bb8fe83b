"""``sidmill lint``: errors in datasets of this or another program."""

import json

import click

from sidmill.commands.setting_options import setting_options
from sidmill.settings.datasets import Lint


@click.command()
@click.argument("datasets", nargs=-1, required=True, type=click.Path())
@click.option("--pid2sid", default="results/pid2sid.parquet", show_default=True)
@click.option("--product-pid2sid", help="SIDs of a second domain")
@click.option(
    "--prompts", help="folder of the prompts that captions are in; default: that of SIDMill"
)
@setting_options(Lint, "token_budget", "tokenizer")
def lint(
    datasets: tuple[str, ...],
    pid2sid: str,
    product_pid2sid: str | None,
    prompts: str | None,
    settings: Lint,
) -> None:
    """Check DATASETS, folders or parquet files with messages or segments; print JSON."""
    from sidmill.datasets import lint as stage

    findings = stage.lint(list(datasets), pid2sid, settings, product_pid2sid, prompts)
    click.echo(json.dumps(findings, indent=2))
