"""Rule evaluate_quantizer: a quantizer and its codes -> evaluation.json."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import code_files, quantizer_file, vector_store
from sidmill.io import json_report
from sidmill.settings.job import of_job
from sidmill.settings.run import Run
from sidmill.settings.sids import Evaluation
from sidmill.sids.evaluate import evaluate

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    items = vector_store.open_if_any(snakemake.input.vectors, snakemake.input.ids)
    coded = code_files.read(snakemake.input.codes, "codes")
    fitted = quantizer_file.read(snakemake.input.quantizer, without_codebooks=True)
    figures = evaluate(
        fitted,
        items and items.vectors,
        coded.codes,
        coded.ids,
        of_job(snakemake, Evaluation),
        of_job(snakemake, Run).seed,
    )
    json_report.write(snakemake.output.evaluation, figures)
    log.info(
        "wrote %s: %d items, %d codes",
        snakemake.output.evaluation,
        figures["items"],
        figures["distinct"],
    )
