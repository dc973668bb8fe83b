"""Rule compare_quantizers: evaluations and benchmarks -> comparison.json, comparison.md, a plot."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.io import json_report
from sidmill.report import comparison, comparison_plot
from sidmill.settings.job import of_job
from sidmill.settings.sids import Comparison

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    compared = comparison.compare(
        snakemake.input.evaluations,
        snakemake.input.benchmarks,
        of_job(snakemake, Comparison),
        snakemake.params.budget["codebook_sizes"],
    )
    json_report.write(snakemake.output.comparison, compared)
    comparison.write_table(snakemake.output.table, compared)
    comparison_plot.plot(snakemake.output.plot, compared)
    log.info("wrote %s, %d quantizers", snakemake.output.comparison, len(compared["members"]))
