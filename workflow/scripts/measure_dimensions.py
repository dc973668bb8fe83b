"""Rule measure_dimensions: text.parquet -> matryoshka.json, neighbours kept by fewer dimensions."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.embed import dimensions
from sidmill.io import json_report

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    machine = snakemake.config["embedding"]
    backend = snakemake.params.embedding | {
        "model_path": snakemake.input.get("model"),
        "batch_tokens": machine["batch_tokens"],
        "device": machine["device"],
        "http": snakemake.config["openai"],
    }
    figures = dimensions.measure(snakemake.input.text, backend, **snakemake.params.matryoshka)
    json_report.write(snakemake.output.report, figures)
    log.info("%s", figures)
