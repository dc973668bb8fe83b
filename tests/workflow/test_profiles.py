"""Profiles name only what exists: Snakemake passes over an unknown rule in silence."""

import re
import subprocess

import pytest
import yaml
from conftest import ROOT
from snakemake.cli import get_argument_parser

pytestmark = pytest.mark.workflow

PROFILES = sorted(path.parent.name for path in ROOT.glob("profiles/*/config.yaml"))
RULE = r"^(?:rule|use rule \w+ as) (\w+)"
BY_RULE = ("set-resources", "set-threads", "groups")
# A module that Python imports at its start: with it, Snakemake finds no plugin for Slurm.
WITHOUT_PLUGIN = """
import pkgutil

found = pkgutil.iter_modules
pkgutil.iter_modules = lambda *args: (entry for entry in found(*args) if "_slurm" not in entry.name)
"""
# Options of plugins that are not installed here, as their sources name them (0.5.1 and 0.3.6).
FOREIGN = {
    "kubernetes": {
        "cpu-scalar", "namespace", "persistent-volumes", "privileged", "service-account-name",
    },
    "storage-s3": {
        "access-key", "endpoint-url", "region", "retries", "secret-key", "signature-version",
        "token",
    },
}  # fmt: skip


def profile(name: str) -> dict:
    return yaml.safe_load((ROOT / f"profiles/{name}/config.yaml").read_text(encoding="utf-8"))


def known_options() -> set[str]:
    options = {
        option for action in get_argument_parser()._actions for option in action.option_strings
    }
    own = {option.removeprefix("--") for option in options}
    return own | {f"{plugin}-{key}" for plugin, keys in FOREIGN.items() for key in keys}


def rules_of_the_workflow() -> set[str]:
    files = (ROOT / "workflow/rules").glob("*.smk")
    return {name for file in files for name in re.findall(RULE, file.read_text(), re.M)}


def test_there_is_a_profile_for_each_place():
    assert {"kubernetes", "s3", "slurm"} <= set(PROFILES)


@pytest.mark.parametrize("name", PROFILES)
def test_every_key_is_an_option(name):
    assert set(profile(name)) - known_options() == set()


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("section", BY_RULE)
def test_every_rule_that_is_named_exists(name, section):
    assert set(profile(name).get(section, {})) - rules_of_the_workflow() == set()


@pytest.mark.parametrize("name", ["slurm", "kubernetes"])
def test_requests_are_expressions_that_grow_with_the_attempt(name):
    """Each is computed as Snakemake does it, for a small and for a large input."""
    given = {"int": int, "min": min}

    class Input:
        size_mb = 0.5

    class Wildcards:
        shards = "00008"

    for rule, resources in profile(name)["set-resources"].items():
        for key in {"mem_mb", "runtime"} & set(resources):
            figures = []
            for Input.size_mb, attempt in ((0.5, 1), (0.5, 2), (70_000, 1), (70_000, 2)):
                names = {**given, "input": Input, "wildcards": Wildcards, "attempt": attempt}
                figures.append(eval(resources[key], {"__builtins__": {}}, names))
            assert all(isinstance(figure, int) for figure in figures), (rule, key)
            assert figures[1] >= 2 * figures[0], (rule, key)
            assert figures[2] >= figures[0], (rule, key)
            assert figures[2] < 1_000_000, (rule, key)


@pytest.mark.parametrize("name", ["slurm", "kubernetes"])
def test_rules_of_versions_ask_for_more_for_larger_ones(name):
    wanted = {
        "import_published", "match_published", "align_quantizer", "write_ledger", "measure_churn",
        "describe_version",
    }  # fmt: skip
    sized = profile(name)["set-resources"]
    assert {rule for rule in wanted & set(sized) if "size_mb" in sized[rule]["mem_mb"]} == wanted


@pytest.mark.parametrize("name", ["slurm", "kubernetes"])
def test_a_rule_asks_for_resources_if_one_that_runs_the_same_script_does(name):
    """Such as the rules of a sweep; without an entry a job gets the least memory."""
    sized, by_script = set(profile(name)["set-resources"]), {}
    for path in (ROOT / "workflow/rules").glob("*.smk"):
        text = path.read_text(encoding="utf-8")
        for rule, script in re.findall(r'(?ms)^rule (\w+):.*?"\.\./scripts/(\w+)\.py"', text):
            by_script.setdefault(script, set()).add(rule)
        for rule, other in re.findall(r"(?m)^use rule (\w+) as (\w+) with", text):
            by_script.setdefault(rule, {rule}).add(other)
    shared = [rules for rules in by_script.values() if len(rules) > 1]
    assert len(shared) > 8
    lacking = {rule for rules in shared if rules & sized for rule in rules - sized}
    assert not lacking


def test_rules_that_run_a_network_ask_for_a_gpu():
    wanted = {
        "embed_shard", "train_rqvae", "train_dual", "train_cross",
        "rerank_shard", "train_recommender", "measure_dimensions", "sweep_train_rqvae",
        "train_generative", "train_generative_by_sids", "sweep_train_generative",
    }  # fmt: skip
    for name in ("slurm", "kubernetes"):
        asked = {rule for rule, value in profile(name)["set-resources"].items() if "gpu" in value}
        assert asked == wanted, name


def test_a_dry_run_with_the_slurm_profile_plans_the_demo(workflow):
    printed = workflow.run(
        "--dry-run", "--profile", "profiles/slurm", "--workflow-profile", "none",
        "--configfile", "tests/configs/tiny.yaml",
    )  # fmt: skip
    for group in ("demo", "codes", "quality"):
        assert f"Group job {group} " in printed
    assert re.search(r"^embed_shard +2$", printed, re.M)


def test_without_the_plugin_the_slurm_profile_ends_with_what_the_docs_explain(workflow, tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(WITHOUT_PLUGIN)
    command = workflow.command("--profile", "profiles/slurm", "--workflow-profile", "none")
    command["env"] |= {"PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(**command, capture_output=True, timeout=60)
    assert done.returncode == 2
    assert not (workflow.folder / "results").exists()

    # The row of the page has the message and the remedy; so has the head of the profile.
    row = next(
        line
        for line in (ROOT / "docs/cluster.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| the plugin is not installed |")
    )
    message, remedy = re.findall("`(.+?)`", row)
    assert message in done.stderr
    assert f"\n{remedy.removeprefix('make ')}: " in (ROOT / "Makefile").read_text()
    assert remedy in (ROOT / "profiles/slurm/config.yaml").read_text(encoding="utf-8")
