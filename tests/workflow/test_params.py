"""Every setting that counts is told by the parameters of its rule, as Snakemake compares them.

Snakemake 9 keeps the ``repr`` of each value of ``params`` and compares them as a set: neither their
names nor their order count, nor does the order of input files.
"""

import ast
import json
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from conftest import ROOT
from rules_program import BEGINNING
from snakemake.persistence import PersistenceBase

pytestmark = pytest.mark.workflow

# Prints the parameters of every rule, as its jobs would have them.
PROGRAM = (
    BEGINNING
    + """
root, folder, *overlays = map(Path, sys.argv[1:])
with SnakemakeApi(QUIET) as api:
    workflow = load(api, root, folder, configfiles=overlays)
    trained = ("train_rqkmeans", "train_similarity", "sweep_train_rqkmeans", "encode_items")
    print({
        name: workflow.get_rule(name).expand_resources(wildcards, [], 1)["tasks"]
        for name in trained
    })
    print({
        rule.name: {
            name: value(wildcards) if callable(value) else value
            for name, value in rule.params.items()
        }
        for rule in workflow.rules
        if rule.name != "all"
    })
"""
)


@pytest.fixture(scope="module")
def params_with(tmp_path_factory):
    """Parameters of every rule, by name, with an overlay."""
    folder = tmp_path_factory.mktemp("params")
    return lambda overlay: printed_with(overlay, folder)[-1]


def printed_with(overlay: dict, folder: Path) -> list[dict]:
    """What the program prints with an overlay."""
    path = folder / "overlay.json"
    path.write_text(json.dumps(overlay))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(ROOT), str(folder), str(path)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [ast.literal_eval(line) for line in done.stdout.strip().splitlines()[-2:]]


@pytest.fixture(scope="module")
def params(params_with):
    return params_with({})


def slots(values: dict) -> dict[tuple, object]:
    """Every single setting of a rule: of a section, or a value of its own."""
    found = {}
    for name, value in values.items():
        inner = value.items() if isinstance(value, dict) else [(None, value)]
        found |= {(name, key): entry for key, entry in inner}
    return found


def stored(found: dict[tuple, object]) -> set[str]:
    """What Snakemake compares of these settings."""
    values: dict[str, object] = {}
    for (name, key), entry in found.items():
        if key is None:
            values[name] = entry
        else:
            values.setdefault(name, {})[key] = entry
    return {repr(value) for value in values.values()}


def test_two_settings_that_change_places_and_one_that_becomes_another_are_seen(params):
    assert len(params) > 60
    pairs = 0
    for rule, values in params.items():
        found = slots(values)
        before = stored(found)
        for one, other in combinations(found, 2):
            if type(found[one]) is not type(found[other]) or found[one] == found[other]:
                continue
            pairs += 1
            swapped = found | {one: found[other], other: found[one]}
            assert stored(swapped) != before, (rule, one, other)
            for equal in ({one: found[other]}, {other: found[one]}):
                assert stored(found | equal) != before, (rule, one, other)
    assert pairs > 1000


def test_every_value_is_a_dictionary_of_names_that_no_other_value_of_the_rule_has(params):
    for rule, values in params.items():
        names = [key for value in values.values() for key in value]
        assert len(names) == len(set(names)), rule
        assert "code" in names, rule


def backwards(value):
    if isinstance(value, dict):
        return {key: backwards(value[key]) for key in reversed(value)}
    return value


def test_the_order_of_keys_is_no_change_and_the_order_of_files_is_one(params_with, params):
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    again = params_with(backwards(config))
    assert {rule: stored(slots(values)) for rule, values in again.items()} == {
        rule: stored(slots(values)) for rule, values in params.items()
    }

    lists = {
        "fusion": {"runs": ["bm25", "dual"]},
        "retrieval_metrics": {"runs": ["bm25", "dual"]},
        "comparison": {"members": config["comparison"]["members"][::-1]},
        "datasets": {"tasks": config["datasets"]["tasks"][::-1]},
        "sweep": {"shapes": config["sweep"]["shapes"][::-1]},
    }
    before = params_with(lists | {"retrieval_metrics": {"runs": ["dual", "bm25"]}})
    after = params_with(lists)
    changed = {rule for rule in after if after[rule] != before[rule]}
    assert changed == {"measure_retrieval", "describe_run"}
    changed = {rule for rule in after if after[rule] != params[rule]}
    assert changed == {
        "fuse_runs", "measure_retrieval", "compare_quantizers", "lint_datasets", "report_datasets",
        "describe_run", "sweep_codebooks",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("codebook_size", "compared", "trained", "similarity"),
    [(256, None, 1, 1), ([300, 1024, 20], [512, 8], 4, 2), (5000, None, 6, 6)],
)
def test_a_training_asks_for_as_many_tasks_as_have_work(
    tmp_path, codebook_size, compared, trained, similarity
):
    """One per 256 codes; the tokenizer of the sweep has 16 and 8."""
    overlay = {
        "rqkmeans": {"processes": 6, "codebook_size": codebook_size},
        "fuse": {"method": "svd", "use": "similarity", "codebook_sizes": compared},
        "encoding": {"processes": 5},
    }
    tasks, _ = printed_with(overlay, tmp_path)
    assert tasks == {
        "train_rqkmeans": trained,
        "train_similarity": similarity,
        "sweep_train_rqkmeans": 1,
        "encode_items": 5,
    }


@pytest.mark.parametrize(
    ("before", "now", "seen"),
    [
        ([1, 2], [2, 1], False),
        ([1, 2], [1, 2, 2], False),
        ([{"a": 1}, {"b": 2}], [{"a": 2}, {"b": 1}], True),
        ([{"a": 1}, {"b": 1}], [{"a": 1}, {"b": 1}, {"c": 1}], True),
    ],
)
def test_snakemake_compares_values_as_a_set(before, now, seen):
    """By its own function: what a bare value would miss, and a dictionary does not."""
    kept = SimpleNamespace(
        _params=lambda job: [repr(value) for value in now],
        params=lambda file: [repr(value) for value in before],
        record_format_version=lambda file: 6,
    )
    job = SimpleNamespace(output=["results/some.file"])
    assert bool(PersistenceBase.params_changed(kept, job)) == seen
