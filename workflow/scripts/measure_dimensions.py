"""Rule measure_dimensions: text.parquet -> matryoshka.json, neighbours kept by fewer dimensions."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.embed import dimensions
from sidmill.embed.backend import Run
from sidmill.io import json_report
from sidmill.settings.embedding import Embedding, Matryoshka, Openai
from sidmill.settings.job import of_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    run = Run(of_job(snakemake, Openai), model_path=snakemake.input.get("model"))
    settings, matryoshka = of_job(snakemake, Embedding), of_job(snakemake, Matryoshka)
    figures = dimensions.measure(snakemake.input.text, settings, matryoshka, run)
    json_report.write(snakemake.output.report, figures)
    log.info("%s", figures)
