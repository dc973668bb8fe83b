"""Options of a command that are settings: name, default and meaning are those of config.yaml."""

import dataclasses
from collections.abc import Callable
from functools import wraps
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import click

from sidmill.settings.base import setting_of

Command = Callable[..., None]


def setting_options(
    cls: type, *names: str, argument: str = "settings"
) -> Callable[[Command], Command]:
    """Give a command the options of some settings; it gets them as one argument, a ``cls``.

    Args:
        cls: class of a section; the settings that are not named keep their defaults.
        names: fields of text, a number or a choice. ``pad_to`` becomes ``--pad-to``.
        argument: name of the argument, for a command with settings of several sections.
    """

    def decorate(command: Command) -> Command:
        @wraps(command)
        def with_settings(**arguments: Any) -> None:
            values = {name: arguments.pop(name) for name in names}
            command(**{argument: cls(**values)}, **arguments)

        decorated: Command = with_settings
        for name in reversed(names):
            decorated = _option(cls, name)(decorated)
        return decorated

    return decorate


def _option(cls: type, name: str) -> Callable[[Command], Command]:
    """The option of one setting."""
    field = next(field for field in dataclasses.fields(cls) if field.name == name)
    hint = get_type_hints(cls)[name]
    if isinstance(hint, UnionType):  # with None, which no option says
        hint = next(kind for kind in get_args(hint) if kind is not NoneType)
    if get_origin(hint) is Literal:
        kind: Any = click.Choice(get_args(hint))
    else:
        kind = hint if hint in (int, float) else str
    meaning = setting_of(field).meaning
    flag = f"--{name.replace('_', '-')}"
    return click.option(flag, type=kind, default=field.default, show_default=True, help=meaning)
