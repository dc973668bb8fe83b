"""Rule train_rqkmeans: vectors.npy -> quantizer.safetensors."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import onerec_checkpoint, quantizer_file, vector_store
from sidmill.quantize import resume, rqkmeans

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    items = vector_store.open_store(snakemake.input.vectors, snakemake.input.ids)
    settings = {**snakemake.params.run, **snakemake.params.rqkmeans}
    machine = snakemake.config["rqkmeans"]
    state_path = f"{snakemake.output.quantizer}.state"
    levels = rqkmeans.fit(
        items.vectors,
        device=machine["device"],
        memory_mb=machine["memory_mb"],
        state_path=state_path,
        **snakemake.params.code,
        **settings,
    )
    fitted = quantizer_file.Quantizer(
        f"rqkmeans{snakemake.wildcards.balanced}",
        levels.codebooks,
        settings,
        items.fingerprint,
        prices=levels.prices,
        balance=levels.balance,
    )
    quantizer_file.write(snakemake.output.quantizer, fitted)
    onerec_checkpoint.write(snakemake.output.checkpoint, levels.codebooks)
    resume.discard(state_path)
    log.info("wrote %s, codebooks %s", snakemake.output.quantizer, fitted.codebook_sizes)
