"""Rule evaluate_quantizer: a quantizer and its codes -> evaluation.json."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import codes, quantizer, report, vectors
from sidmill.sids.evaluate import evaluate

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    items = vectors.open_store(snakemake.input.vectors, snakemake.input.ids)
    fitted = quantizer.read(snakemake.input.quantizer, without_codebooks=True)
    figures = evaluate(
        fitted,
        items.vectors,
        codes.read(snakemake.input.codes, "codes").codes,
        items.ids,
        **snakemake.params.run,
        **snakemake.params.evaluation,
    )
    report.write(snakemake.output.evaluation, figures)
    log.info(
        "wrote %s: %d items, %d codes",
        snakemake.output.evaluation,
        figures["items"],
        figures["distinct"],
    )
