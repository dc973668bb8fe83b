"""Helpers shared by all rule files; those of one rule file stand in common_<its name>.smk. No rule is defined here."""

import gc
import os
import sys
from pathlib import Path

# Every job reads this file first, on a cluster node too: it finds the library without an installation.
# As a module of another workflow, workflow.basedir is the folder of that one.
ROOT = Path(workflow.current_basedir).parents[1]
LIBRARY = str(ROOT / "src")
sys.path.insert(0, LIBRARY)
os.environ.update(
    PYTHONPATH=os.pathsep.join(filter(None, [LIBRARY, os.getenv("PYTHONPATH")]))
)

# Snakemake's modules are no garbage: the collector need not visit them while rules are read, nor
# take them apart at the end.
gc.freeze()

from snakemake.exceptions import WorkflowError

from sidmill.core import demo_guard, digest_cache, locks
from sidmill.core.errors import SidmillError
from sidmill.core.paths import expand as expand_path
from sidmill.core.paths import expand_one, files_of
from sidmill.core.provenance import source_digest
from sidmill.core.secrets import in_order, shown_settings
from sidmill.settings.base import science_keys
from sidmill.settings.check import check, read_command_line, refuse_repeats
from sidmill.settings.config import SECTIONS
from sidmill.settings.registry import (
    NETWORKS,
    QUANTIZERS,
    SOURCES,
    STARTED,
    STRATEGIES,
    tokenizer_settings,
)
from sidmill.settings.sweep import FUSION_PATTERN, SHAPE_PATTERN

STATE = Path(".snakemake")
FIRST_ROUND = "results/dual/first/model"
PROBLEMS = []
ENCODED = [
    *(name for name in QUANTIZERS if name != "given"),
    *(f"{name}_warm_start" for name in STARTED),
]


wildcard_constraints:
    asked="queries|training_queries",
    balanced="|_balanced",  # rqkmeans{balanced}
    collection="items|corpus|queries|mining_corpus|mining_queries",
    learned="|".join(NETWORKS),
    encoded="|".join([*ENCODED, "published", "refreshed"]),
    quantizer="|".join([*QUANTIZERS, "published", "refreshed"]),
    round="first|second",
    run="dual|bm25|fused|cross",
    kind="dual|cross",
    dataset=r"(pretrain|sft)_[A-Za-z0-9_-]+(\.(valid|test))?",
    mixture="mixture|rl",
    name=r"[\w-]+",
    seed=r"\d+",
    shape=SHAPE_PATTERN,
    fusion=FUSION_PATTERN,
    source="|".join(name for name, entry in SOURCES.items() if not entry.is_collection),
    searched="|".join(name for name, entry in SOURCES.items() if entry.is_collection),
    split="valid|test",
    tokenizer=rf"[a-z_]+\.{SHAPE_PATTERN}\.({FUSION_PATTERN})|given|shuffled",
    shard=r"\d{5}",
    shards=r"\d{5}",
    start="|_warm_start",  # rqkmeans{balanced}{start}


def or_stop(function, *arguments):
    """Call a library function; show a user's mistake as Snakemake shows its own."""
    try:
        return function(*arguments)
    except SidmillError as error:
        raise WorkflowError(str(error)) from None


def or_note(function, *arguments):
    """Call a library function; keep a user's mistake for the end of common.smk, which names all."""
    try:
        return function(*arguments)
    except SidmillError as error:
        return PROBLEMS.append(str(error))


def named(setting, wanted):
    """The value of a setting such as retrieval.corpus; an error where it is null and a rule needs it.

    Called by functions of the wildcards, so that only a run that asks for what the rule makes is refused.
    """
    section, _, key = setting.partition(".")
    if config[section][key] is None:
        raise WorkflowError(f"{setting} is null: name {wanted}")
    return config[section][key]


def code_of(script, chosen=None):
    """Name the code behind a rule, for ``params``: a change of it is a reason to rerun.

    Where a setting decides which modules run, ``chosen`` is a function of the wildcards that gives
    it: see ``CHOICES`` of ``sidmill.core.provenance``.
    """
    path = ROOT / "workflow/scripts" / script

    # A function, so that only the rules of the DAG at hand are read: in a job, its own alone.
    def code(wildcards):
        choice = chosen(wildcards) if chosen else None
        return {"code": source_digest(path, choice)}

    return code


def settings(section, *others):
    """What a section says about the result, as sorted keyword arguments: key order is no change.

    Every value of ``params`` is such a dictionary, of the names that the function knows. Snakemake
    compares values as a set, without the names that ``params`` gives them: two bare numbers that
    change places would be no change. Files in an order that matters are named here too, since it
    compares the inputs as a set.

    Left out are ``others``, which the rule does not use, and settings of the machine, which
    scripts read from ``snakemake.config``: a change of those reruns nothing.
    """
    science = [key for key in science_keys(SECTIONS[section]) if key not in others]
    return pick(section, *sorted(science))


def pick(section, *keys):
    """Some keys of a section, for a rule that a change of the others must not rerun."""
    return {key: in_order(config[section][key]) for key in keys}


def model_files(model):
    """The files of a model: of a folder of the user, or of one that this workflow trains; none of the hub's."""
    if Path(model).parts[:1] == ("results",):
        return {"weights": model}
    if Path(model).is_dir():
        return {"weights": files_of(model)}
    return {}


def chosen(name):
    """A file of the quantizer that the config chose, the published or refreshed one; given SIDs come first."""
    quantizer = config["quantizer"]
    if config["published"]["path"] and quantizer != "given":
        is_refreshed = config["published"]["refresh"] != "none"
        quantizer = "refreshed" if is_refreshed else "published"
    return f"results/{quantizer}/{name}"


if workflow.is_main_process:
    or_stop(refuse_repeats, workflow.configfiles)
read_command_line(config, dict(workflow.config_settings.config or {}))
or_stop(check, config)
digest_cache.begin(STATE, save=workflow.is_main_process)
if workflow.is_main_process:
    locks.enter(STATE)
    or_stop(
        demo_guard.refuse_demo,
        STATE,
        config["items"]["path"] or config["given"]["path"],
    )


# Helpers of one rule file each. They look up the user's files while the workflow is parsed, not in the rules.
# Snakemake lets a rule with a missing input pass in silence while its output exists.
include: "common_internals.smk"
include: "common_imports.smk"
include: "common_items.smk"
include: "common_embed.smk"
include: "common_fuse.smk"
include: "common_categories.smk"
include: "common_quantize.smk"
include: "common_sids.smk"
include: "common_versions.smk"
include: "common_compare.smk"
include: "common_training.smk"
include: "common_retrieval.smk"
include: "common_recommend.smk"
include: "common_generative.smk"
include: "common_sweep.smk"
include: "common_report.smk"
include: "common_datasets.smk"


if PROBLEMS:
    raise WorkflowError("\n".join(PROBLEMS))
