"""Options of commands that are settings: their names, defaults and limits are those of the type."""

import dataclasses

import click
import pytest
from click.testing import CliRunner

from sidmill.commands.setting_options import setting_options
from sidmill.settings.datasets import Lint, Vocabulary
from sidmill.settings.quantize import Encoding
from sidmill.settings.sids import Evaluation

CASES = [
    (Vocabulary, ("revision", "init", "pad_to", "dtype")),
    (Lint, ("token_budget", "tokenizer")),
    (Encoding, ("device", "memory_mb")),
    (Evaluation, ("sequences", "neighbour_queries", "n_neighbours", "rbo_persistence")),
]


def asked(cls, names, *arguments):
    """The settings that a command gets, or what it prints where it refuses them."""
    found = []

    @click.command()
    @click.argument("first")
    @setting_options(cls, *names)
    def command(first, settings):
        found.append((first, settings))

    done = CliRunner().invoke(command, ["one", *arguments])
    return found[0][1] if found else done.output


@pytest.mark.parametrize(("cls", "names"), CASES)
def test_without_options_a_command_has_the_defaults_of_the_configuration(cls, names):
    assert asked(cls, names) == cls()


@pytest.mark.parametrize(("cls", "names"), CASES)
def test_each_option_changes_its_setting_alone(cls, names):
    for name in names:
        value = {"init": "mean", "dtype": "bfloat16", "pad_to": 64, "token_budget": 100,
                 "memory_mb": 64, "neighbour_queries": 20, "n_neighbours": 5,
                 "rbo_persistence": 0.5}  # fmt: skip
        value = value.get(name, "text")
        settings = asked(cls, names, f"--{name.replace('_', '-')}", str(value))
        assert settings == dataclasses.replace(cls(), **{name: value})


def test_a_choice_and_a_number_are_refused_where_the_type_refuses_them():
    names = CASES[0][1]
    assert "'codebook', 'mean', 'random'" in asked(Vocabulary, names, "--init", "other")
    assert "not a valid integer" in asked(Vocabulary, names, "--pad-to", "many")


def test_help_says_what_the_configuration_says():
    printed = asked(Vocabulary, CASES[0][1], "--help")
    assert "rows of the embedding matrix" in printed
    assert "[default: 256]" in printed


def test_a_command_takes_settings_of_several_sections():
    found = []

    @click.command()
    @setting_options(Encoding, "memory_mb", argument="encoding")
    @setting_options(Evaluation, "rbo_persistence", argument="evaluation")
    def command(encoding, evaluation):
        found.append((encoding, evaluation))

    done = CliRunner().invoke(command, ["--memory-mb", "64", "--rbo-persistence", "0.5"])
    assert done.exit_code == 0, done.output
    assert found == [(Encoding(memory_mb=64), Evaluation(rbo_persistence=0.5))]
