"""Rule sweep_codebooks: figures of all tokenizers -> sweep.json, sweep.csv, winner.yaml, a plot."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.io import json_report
from sidmill.report import sweep, sweep_plot
from sidmill.settings.generative import GenerativeEvaluation
from sidmill.settings.job import of_job
from sidmill.settings.run import Run
from sidmill.settings.sweep import Sweep

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    files = sweep.Files(
        evaluations=snakemake.input.evaluation,
        resolutions=snakemake.input.resolution,
        valid=snakemake.input.valid,
        users=snakemake.input.users,
        test=snakemake.input.get("test"),
        trainings=snakemake.input.trainings,
        recommenders=snakemake.input.recommenders,
    )
    found = sweep.gather(
        files,
        of_job(snakemake, Sweep),
        seeds=snakemake.params.seeds["seeds"],
        n_resamples=of_job(snakemake, GenerativeEvaluation).n_resamples,
        seed=of_job(snakemake, Run).seed,
    )
    json_report.write(snakemake.output.sweep, found)
    sweep.write_table(snakemake.output.table, found)
    sweep.write_winner(snakemake.output.winner, found)
    sweep_plot.plot(snakemake.output.plot, found)
    log.info("wrote %s, %d tokenizers", snakemake.output.sweep, len(found["tokenizers"]))
