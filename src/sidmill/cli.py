"""``sidmill``: commands for files and runs, without running the pipeline."""

import sys

import click

from sidmill.commands.advise import advise
from sidmill.commands.check import check
from sidmill.commands.diff import diff
from sidmill.commands.encode import encode
from sidmill.commands.evaluate import evaluate
from sidmill.commands.import_data import import_data
from sidmill.commands.inspect import inspect
from sidmill.commands.lint import lint
from sidmill.commands.publish import publish
from sidmill.commands.runs import runs
from sidmill.commands.status import status
from sidmill.commands.vocab import vocab
from sidmill.core.errors import SidmillError


@click.group()
def commands() -> None:
    """Look into what SIDMill made, and use it outside the pipeline."""


for command in (advise, check, diff, encode, evaluate, import_data):
    commands.add_command(command)
for command in (inspect, lint, publish, runs, status, vocab):
    commands.add_command(command)


def main() -> None:
    """Run a command; end a user's mistake with one line and exit code 2."""
    try:
        commands()
    except SidmillError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
