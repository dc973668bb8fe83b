"""Rule measure_quality: codes and SIDs -> quality.json."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import code_files, item_text, quantizer_file, vector_store
from sidmill.io import json_report
from sidmill.settings.job import of_job
from sidmill.settings.run import Run
from sidmill.settings.sids import Quality
from sidmill.sids.quality import measure

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    vectors = vector_store.vectors_if_any(snakemake.input.vectors, snakemake.input.ids)
    fitted = quantizer_file.read(snakemake.input.quantizer, without_codebooks=True)
    figures = measure(
        code_files.read(snakemake.input.codes, "codes"),
        code_files.read(snakemake.input.pid2sid, "sid"),
        vectors,
        fitted,
        item_text.text_classes(snakemake.input.text),
        of_job(snakemake, Quality),
        of_job(snakemake, Run).seed,
    )
    resolution = json_report.read(snakemake.input.resolution)
    json_report.write(
        snakemake.output.quality,
        {
            "quantizer": fitted.kind,
            **figures,
            "balance": list(fitted.balance),
            "resolution": resolution,
        },
    )
    log.info(
        "wrote %s: %d items, %d SIDs",
        snakemake.output.quality,
        figures["items"],
        figures["after"]["distinct"],
    )
