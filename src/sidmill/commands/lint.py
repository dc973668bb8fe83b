"""``sidmill lint``: what is wrong with datasets, of this or another program."""

import json

import click


@click.command()
@click.argument("datasets", nargs=-1, required=True, type=click.Path())
@click.option("--pid2sid", default="results/pid2sid.parquet", show_default=True)
@click.option("--product-pid2sid", help="SIDs of a second domain")
@click.option("--prompts", help="folder of the wordings of captions; else those of this project")
@click.option("--token-budget", type=int, default=32768, show_default=True)
@click.option("--tokenizer", help="folder or hub id; else tokens are estimated")
def lint(
    datasets: tuple[str, ...],
    pid2sid: str,
    product_pid2sid: str | None,
    prompts: str | None,
    token_budget: int,
    tokenizer: str | None,
) -> None:
    """Check DATASETS, folders or parquet files with messages or segments; print JSON."""
    from sidmill.datasets import lint as stage

    settings = {"token_budget": token_budget, "tokenizer": tokenizer}
    found = stage.lint(list(datasets), pid2sid, product_pid2sid, prompts, **settings)
    click.echo(json.dumps(found, indent=2))
