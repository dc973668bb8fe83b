"""Rule fit_lsa: text.parquet -> lsa.safetensors."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.embed.backends import lsa

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    model = lsa.fit(snakemake.input.text, **snakemake.params.run, **snakemake.params.lsa)
    lsa.save(snakemake.output.model, model)
    log.info("wrote %s, components %s", snakemake.output.model, model.components.shape)
