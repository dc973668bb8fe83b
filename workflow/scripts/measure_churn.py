"""Rule measure_churn: two ledgers -> churn.json and churn.parquet."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import ledger, quantizer, report, vectors
from sidmill.sids import churn

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    items = vectors.open_if_any(snakemake.input.vectors, snakemake.input.ids)
    figures = churn.measure(
        ledger.read(snakemake.input.before),
        ledger.read(snakemake.input.now),
        items and items.vectors,
        quantizer.read(snakemake.input.quantizer, without_codebooks=True),
        snakemake.output.listing,
        **snakemake.params.run,
        **snakemake.params.churn,
    )
    report.write(snakemake.output.churn, figures)
    log.info("wrote %s: retraining is %s", snakemake.output.churn, figures["retrain"])
