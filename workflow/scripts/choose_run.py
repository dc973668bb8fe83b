"""Rule choose_run: the chosen run -> res.topk and run.trec."""

import shutil
from typing import TYPE_CHECKING

from sidmill.core.atomic import replacing
from sidmill.core.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    with replacing(snakemake.output.topk) as topk, replacing(snakemake.output.trec) as trec:
        shutil.copyfile(snakemake.input.chosen, topk)
        shutil.copyfile(snakemake.input.trec, trec)
    log.info("wrote %s", snakemake.output.topk)
