"""A setting that is changed alone changes what its own rules do, and what no other rule reads.

Snakemake reruns a job if its params or its input files are others. Params name their settings; an
input that depends on a setting is written down here, so that no setting reruns a rule by accident.
"""

import dataclasses
import json
import subprocess
import sys
import typing

import pytest
from conftest import ROOT
from rules_program import BEGINNING

from sidmill.settings.config import SECTIONS

pytestmark = pytest.mark.workflow

# Prints params and inputs of every rule for one overlay after another; null where it is refused.
PROGRAM = (
    BEGINNING
    + """
root, folder, overlays = Path(sys.argv[1]), Path(sys.argv[2]), json.load(sys.stdin)


def inputs(rule):
    try:
        return sorted(map(str, rule.expand_input(wildcards)[0]))
    except Exception as error:  # an input that these wildcards, or this configuration, lack
        return type(error).__name__


for overlay in overlays:
    with SnakemakeApi(QUIET) as api:
        try:
            workflow = load(api, root, folder, config=overlay)
        except WorkflowError:
            print("null")
            continue
        print(json.dumps({
            rule.name: [
                {
                    name: repr(value(wildcards) if callable(value) else value)
                    for name, value in rule.params.items()
                },
                inputs(rule),
            ]
            for rule in workflow.rules
        }))
"""
)
OWN = {"items": {"path": "items.jsonl"}, "interactions": {"path": "log.jsonl"}}
RECOMMENDERS = {"train_generative", "recommend_generative", "evaluate_generative"}
BY_SIDS = {"train_generative_by_sids", "evaluate_generative_by_sids"}
# Settings that decide which files rules read, and those rules.
READS = {
    ("embedding", "shards"): {"store_vectors", "report_embedding", "describe_version"},
    ("fuse", "method"): RECOMMENDERS,
    ("fuse", "use"): {
        "fit_categories", "train_opq", "train_pca_grid", "encode_items",
        "resolve_collisions", "measure_quality", "measure_churn", "evaluate_quantizer",
        "resolve_quantizer", "train_generative_by_sids", *RECOMMENDERS,
    },
    ("run", "seed"): {"sweep_codebooks", "measure_recommender"},
    ("rqvae", "contrastive_weight"): {"sweep_train_rqvae"},
    ("comparison", "downstream"): {"compare_quantizers"},
    ("sweep", "test"): {"sweep_codebooks"},
    ("retrieval", "shards"): {"merge_shards"},
    ("retrieval", "answer"): {"choose_run", "attach_sids"},
    ("mining", "pool"): {"write_pool"},
    ("rerank", "run"): {"rerank_shard", "merge_reranks"},
    ("rerank", "shards"): {"merge_reranks"},
    ("recommender", "train_from"): {
        "train_recommender", "infer_recommender", "evaluate_recommender", "evaluate_generative",
        "evaluate_generative_by_sids",
    },
    ("generative", "model"): RECOMMENDERS,
    ("generative", "similarity"): RECOMMENDERS,
    ("generative", "features"): {
        "measure_recommender", "sweep_train_generative", *RECOMMENDERS, *BY_SIDS,
    },
    ("generative", "seeds"): {"sweep_codebooks", "measure_recommender"},
    ("generative_evaluation", "with_recommender"): {
        "evaluate_generative", "evaluate_generative_by_sids",
    },
    ("datasets", "shards"): {"write_parts", "make_dataset"},
}  # fmt: skip


def others(section: type, field: dataclasses.Field) -> list[object]:
    """Other values of a setting: of a choice all, of a flag or number one; none of text."""
    value = field.default
    kind = typing.get_type_hints(section)[field.name]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1]
    if isinstance(value, float):
        return [value / 2 + 0.01]
    if typing.get_origin(kind) is typing.Literal:
        return [one for one in typing.get_args(kind) if one != value]
    return []


CHANGES = [
    (section, field.name, value, field.metadata["setting"].is_science)
    for section, settings in SECTIONS.items()
    for field in dataclasses.fields(settings)
    for value in others(settings, field)
]


@pytest.fixture
def rules_with(tmp_path):
    """Params and inputs of every rule, for each change of a setting."""
    for name in ("items.jsonl", "log.jsonl"):
        (tmp_path / name).write_text("{}\n")

    def ask(changes):
        overlays = [OWN | {section: OWN.get(section, {}) | {name: value}}
                    for section, name, value, _ in changes]  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(ROOT), str(tmp_path)],
            input=json.dumps([OWN, *overlays]), capture_output=True, text=True, timeout=1200,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        before, *found = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(found) == len(changes)
        return before, found

    return ask


def assert_only_what_is_written_down_changes(rules_with, changes):
    before, found = rules_with(changes)
    n_read, seen = 0, {}
    for (section, name, value, is_science), rules in zip(changes, found, strict=True):
        if rules is None:
            continue  # refused beside the other settings
        n_read += 1
        read = {rule for rule, (_, inputs) in rules.items() if inputs != before[rule][1]}
        assert read <= READS.get((section, name), set()), (section, name, value)
        seen.setdefault((section, name), set()).update(read)
        if not is_science:
            params = {rule for rule, (params, _) in rules.items() if params != before[rule][0]}
            assert params <= {"describe_run"}, (section, name, value)  # lists all settings
    assert n_read > 0.9 * len(changes)
    for setting, rules in seen.items():
        assert rules == READS.get(setting, set()), setting


def test_what_is_compared_and_measured_reruns_no_other_rule(rules_with):
    sections = ("comparison", "evaluation", "quality", "generative_evaluation", "fuse")
    changes = [change for change in CHANGES if change[0] in sections]
    assert ("comparison", "downstream", True, True) in changes
    assert_only_what_is_written_down_changes(rules_with, changes)


@pytest.mark.long
def test_every_setting_reruns_only_rules_that_depend_on_it(rules_with):
    assert len(CHANGES) > 300
    assert_only_what_is_written_down_changes(rules_with, CHANGES)
    assert set(READS) <= {change[:2] for change in CHANGES}
