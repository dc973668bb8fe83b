"""SIDMill: item text -> embeddings -> codes -> semantic IDs. Each file below is one part of the DAG."""

from os.path import join, relpath

from snakemake.utils import min_version

min_version("9.27.1")


# Found beside this file, wherever Snakemake works (--directory, --snakefile), and whoever uses it as a module.
configfile: relpath(join(workflow.current_basedir, "config.yaml"))


include: "workflow/rules/common.smk"
include: "workflow/rules/imports.smk"
include: "workflow/rules/items.smk"
include: "workflow/rules/interactions.smk"
include: "workflow/rules/embed.smk"
include: "workflow/rules/exports.smk"
include: "workflow/rules/fuse.smk"
include: "workflow/rules/categories.smk"
include: "workflow/rules/quantize.smk"
include: "workflow/rules/similarity.smk"
include: "workflow/rules/sids.smk"
include: "workflow/rules/versions.smk"
include: "workflow/rules/compare.smk"
include: "workflow/rules/training.smk"
include: "workflow/rules/retrieval.smk"
include: "workflow/rules/recommend.smk"
include: "workflow/rules/generative.smk"
include: "workflow/rules/sweep.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/datasets.smk"


report: "workflow/report/workflow.rst"


rule all:
    default_target: True
    input:
        "results/pid2sid.parquet",
        config["index"]["path"],
        "results/quality.json",
        "results/plots/code_usage.svg",
        "results/plots/prefix_sizes.svg",
        "results/plots/reconstruction.svg",
        "results/explorer.html",
        where_published("results/churn.json"),
        where_published("results/plots/churn.svg"),
