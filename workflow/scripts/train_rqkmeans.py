"""Rule train_rqkmeans: vectors.npy -> quantizer.safetensors."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import onerec_checkpoint, quantizer_file, vector_store
from sidmill.quantize import category_level, codebook_sizes, resume, rqkmeans_processes
from sidmill.quantize.rqkmeans_processes import Files
from sidmill.settings import base
from sidmill.settings.job import of_job
from sidmill.settings.quantize import Rqkmeans
from sidmill.settings.run import Run

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    items = vector_store.open_vectors(snakemake.input.vectors, snakemake.input.ids)
    run = of_job(snakemake, Run)
    settings = codebook_sizes.capped(
        of_job(snakemake, Rqkmeans), len(items.vectors), **snakemake.params.sizes
    )
    state_path = f"{snakemake.output.quantizer}.state"
    levels = rqkmeans_processes.fit(
        Files(
            snakemake.input.vectors,
            snakemake.input.ids,
            snakemake.input.get("match"),
            snakemake.input.get("ledger"),
        ),
        settings,
        rqkmeans_processes.Run(run.seed, state_path, snakemake.params.code["code"]),
        n_processes=snakemake.resources.tasks,
    )
    fitted = quantizer_file.Quantizer(
        f"rqkmeans{snakemake.wildcards.get('balanced', '')}",
        levels.codebooks,
        base.identity(run) | base.identity(settings),
        items.fingerprint,
        prices=levels.prices,
        balance=levels.balance,
    )
    fitted = category_level.join_file(snakemake.input.level, fitted)
    quantizer_file.write(snakemake.output.quantizer, fitted)
    onerec_checkpoint.write(snakemake.output.checkpoint, fitted.codebooks)
    resume.discard(state_path)
    log.info("wrote %s, codebooks %s", snakemake.output.quantizer, fitted.codebook_sizes)
