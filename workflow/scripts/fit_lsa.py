"""Rule fit_lsa: text.parquet -> lsa.safetensors."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.embed.backends import lsa
from sidmill.settings.embedding import Embedding
from sidmill.settings.job import of_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    settings = of_job(snakemake, Embedding)
    model = lsa.fit(snakemake.input.text, settings, snakemake.params.run["seed"])
    lsa.write(snakemake.output.model, model)
    log.info("wrote %s, components %s", snakemake.output.model, model.components.shape)
