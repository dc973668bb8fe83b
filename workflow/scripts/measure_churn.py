"""Rule measure_churn: two ledgers -> churn.json and churn.parquet."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import ledger_file, quantizer_file, vector_store
from sidmill.io import json_report
from sidmill.settings.job import of_job
from sidmill.settings.run import Run
from sidmill.settings.sids import Churn, Published
from sidmill.sids import churn, refresh

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    items = vector_store.open_if_any(snakemake.input.vectors, snakemake.input.ids)
    figures = churn.measure(
        ledger_file.read(snakemake.input.before),
        ledger_file.read(snakemake.input.now),
        items and items.vectors,
        quantizer_file.read(snakemake.input.quantizer, without_codebooks=True),
        snakemake.output.listing,
        of_job(snakemake, Churn),
        of_job(snakemake, Run).seed,
        refresh.load(
            of_job(snakemake, Published).refresh,
            snakemake.input.scratch,
            snakemake.input.scratch_codes,
        ),
    )
    json_report.write(snakemake.output.churn, figures)
    log.info("wrote %s: retraining is %s", snakemake.output.churn, figures["retrain"])
