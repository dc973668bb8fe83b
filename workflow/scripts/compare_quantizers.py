"""Rule compare_quantizers: evaluations and benchmarks -> comparison.json, comparison.md, a plot."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.io import json_report
from sidmill.report import comparison, comparison_downstream, comparison_plot
from sidmill.settings.generative import GenerativeEvaluation
from sidmill.settings.job import of_job
from sidmill.settings.run import Run
from sidmill.settings.sids import Comparison

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    settings = of_job(snakemake, Comparison)
    downstream = comparison_downstream.gather(
        settings.members,
        snakemake.input.metrics,
        snakemake.input.users,
        n_resamples=of_job(snakemake, GenerativeEvaluation).n_resamples,
        seed=of_job(snakemake, Run).seed,
    )
    compared = comparison.compare(
        snakemake.input.evaluations,
        snakemake.input.benchmarks,
        settings,
        snakemake.params.budget["codebook_sizes"],
        downstream,
    )
    json_report.write(snakemake.output.comparison, compared)
    comparison.write_table(snakemake.output.table, compared)
    comparison_plot.plot(snakemake.output.plot, compared)
    log.info("wrote %s, %d quantizers", snakemake.output.comparison, len(compared["members"]))
