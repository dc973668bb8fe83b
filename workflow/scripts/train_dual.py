"""Rule train_dual: triples -> a dual encoder."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.retrieval import dual
from sidmill.retrieval.training import Folders
from sidmill.settings.embedding import Embedding
from sidmill.settings.job import of_job
from sidmill.settings.retrieval import Dual, Retrieval
from sidmill.settings.run import Run

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    query_prompt = of_job(snakemake, Retrieval).query_prompt
    figures = dual.train(
        snakemake.input.triples,
        Folders(snakemake.output.model, f"{snakemake.output.model}.state"),
        of_job(snakemake, Dual),
        dual.Prompts(query_prompt, of_job(snakemake, Embedding).prompt),
        of_job(snakemake, Run).seed,
        snakemake.params.code["code"],
    )
    log.info("wrote %s: %s", snakemake.output.model, figures)
