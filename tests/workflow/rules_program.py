"""The beginning of programs that load the workflow to ask for its rules, in a process of their own.

``wildcards`` has a value for each of them, and ``load(api, root, folder, **config)`` returns
Snakemake's workflow.
"""

BEGINNING = """
import json, sys
from pathlib import Path
from snakemake.api import SnakemakeApi
from snakemake.exceptions import WorkflowError
from snakemake.iocontainers import Wildcards
from snakemake.settings.types import ConfigSettings, OutputSettings, Quietness, ResourceSettings

QUIET = OutputSettings(quiet={Quietness.ALL})
wildcards = Wildcards(fromdict=dict(
    asked="queries", balanced="", collection="items", learned="rqvae", quantizer="rqkmeans",
    round="first", run="dual", kind="dual", dataset="sft_video_rec", mixture="mixture",
    shard="00000", shards="00001", source="movielens", searched="beir",
    shape="16x8", fusion="graph0.5", seed="42", split="valid",
    tokenizer="rqkmeans.16x8.graph0.5", encoded="rqkmeans",
))


def load(api, root, folder, **config):
    return api.workflow(
        resource_settings=ResourceSettings(cores=1),
        config_settings=ConfigSettings(**config),
        snakefile=root / "Snakefile",
        workdir=folder,
    )._workflow
"""
