"""Settings are types: what follows from them, and what they refuse."""

import dataclasses
from typing import get_args, get_type_hints

import pytest
import yaml
from conftest import ROOT
from jsonschema import Draft202012Validator

from sidmill.settings import base, generate
from sidmill.settings.base import (
    machine,
    nested,
    science,
    section,
    setting_of,
)
from sidmill.settings.config import SECTIONS, Config

FIELDS = [
    (cls, field)
    for cls in SECTIONS.values()
    for field in dataclasses.fields(cls)
    if not dataclasses.is_dataclass(get_type_hints(cls)[field.name])
]
BEYOND = {
    "minimum": lambda limit: limit - 1,
    "above": lambda limit: limit,
    "maximum": lambda limit: limit + 1,
    "below": lambda limit: limit,
}


def named(cls_and_field):
    cls, field = cls_and_field
    return f"{cls.SECTION}.{field.name}"


@section("example", "a page to read")
class Example:
    """An example."""

    size: int = science(3, "items", minimum=1, maximum=9)
    sizes: int | list[int] = science([1, 2], "items per level", minimum=1, most=3)
    name: str | None = science(None, "a name")
    weights: dict[str, float] = science({"a": 1.0}, "weights", above=0, key_pattern="^[a-z]$")
    device: str = machine("auto", "where", pattern="^(auto|cpu)$")


@pytest.mark.parametrize("name", generate.texts())
def test_generated_files_are_what_the_settings_say(name):
    written = (ROOT / name).read_text(encoding="utf-8")
    assert written == generate.texts()[name], "run `make settings`"


def test_config_yaml_reads_back_as_the_defaults():
    config = yaml.safe_load(generate.texts()["config.yaml"])
    expected = {name: base.defaults(cls) for name, cls in SECTIONS.items()}
    assert config == expected | {"quantizer": Config().quantizer}
    for name, cls in SECTIONS.items():
        assert base.read(cls, config[name]) == cls()


def test_the_defaults_fit_their_own_schema():
    config = yaml.safe_load(generate.texts()["config.yaml"])
    assert not list(Draft202012Validator(base.schema(Config)).iter_errors(config))


@pytest.mark.parametrize("case", FIELDS, ids=named)
def test_each_setting_says_what_it_means_and_refuses_what_lies_beyond_its_limits(case):
    cls, field = case
    setting, known = setting_of(field), base.schema(cls)["properties"][field.name]
    assert setting.meaning, "a setting without a meaning"
    validator = Draft202012Validator(known)

    # A value of another kind is refused everywhere, and null where the type does not say so.
    assert not validator.is_valid(object())
    assert validator.is_valid(None) == (type(None) in get_args(get_type_hints(cls)[field.name]))

    # A number just beyond a limit is refused, alone or as an entry of a list or mapping.
    for limit, beyond in BEYOND.items():
        if limit in setting.limits:
            value = beyond(setting.limits[limit])
            for wrong in (value, [value], {"sft_a": value}):
                assert not validator.is_valid(wrong), (limit, wrong)


@pytest.mark.parametrize(
    ("changes", "is_valid"),
    [
        ({}, True),
        ({"size": 0}, False),
        ({"size": 10}, False),
        ({"size": True}, False),
        ({"sizes": 4}, True),
        ({"sizes": [4, 0]}, False),
        ({"sizes": []}, False),
        ({"sizes": [1, 1, 1, 1]}, False),
        ({"name": ""}, False),
        ({"name": "x"}, True),
        ({"weights": {}}, False),
        ({"weights": {"B": 1.0}}, False),
        ({"weights": {"b": 0.0}}, False),
        ({"device": "tpu"}, False),
        ({"colour": "red"}, False),
    ],
)
def test_the_schema_of_a_section_holds_types_ranges_and_keys(changes, is_valid):
    values = base.defaults(Example) | changes
    assert Draft202012Validator(base.schema(Example)).is_valid(values) is is_valid


def test_every_key_is_required():
    for field in dataclasses.fields(Example):
        values = base.defaults(Example)
        del values[field.name]
        assert not Draft202012Validator(base.schema(Example)).is_valid(values)


def test_identity_holds_the_science_alone_in_one_order():
    settings = Example(device="cpu")
    assert list(base.identity(settings)) == ["name", "size", "sizes", "weights"]
    assert base.identity(settings) == base.identity(Example())
    assert base.identity(Example(size=4)) != base.identity(Example())
    assert set(base.science_keys(Example)) | set(base.machine_keys(Example)) == {
        field.name for field in dataclasses.fields(Example)
    }


def test_sections_are_frozen_and_do_not_share_their_lists():
    one, other = Example(), Example()
    assert one.sizes is not other.sizes
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.size = 4


def test_a_nested_section_is_read_as_its_own_type():
    @section("outer")
    class Outer:
        inner: Example = nested(Example, "a section")

    made = base.read(Outer, {"inner": base.defaults(Example) | {"size": 5}})
    assert made.inner == Example(size=5)
    with pytest.raises(TypeError, match="colour"):
        base.read(Outer, {"inner": base.defaults(Example), "colour": "red"})


def test_an_option_that_settings_do_not_have_is_refused():
    with pytest.raises(TypeError, match="least"):
        science(1, "a number", least=3)


# Settings of one name whose values differ, because the models differ.
OWN = {
    "default": {"features", "dropout"},
    "meaning": {"features", "hidden_dim", "n_layers", "loss", "temperature", "label_smoothing"},
    "type": {"features"},
}


def test_settings_that_both_recommenders_have_are_alike():
    """They are written twice, since a shared base class would move them in config.yaml."""
    sections = [SECTIONS["recommender"], SECTIONS["generative"]]
    fields = [{one.name: one for one in dataclasses.fields(cls)} for cls in sections]
    hints = [get_type_hints(cls) for cls in sections]
    shared = [name for name in fields[0] if name in fields[1]]
    assert len(shared) > 16
    for name in shared:
        ours, theirs = (one[name] for one in fields)
        first, second = setting_of(ours), setting_of(theirs)
        assert (first.is_science, first.limits) == (second.is_science, second.limits)
        assert (ours.default == theirs.default) or name in OWN["default"], name
        assert (first.meaning == second.meaning) or name in OWN["meaning"], name
        assert (hints[0][name] == hints[1][name]) or name in OWN["type"], name
