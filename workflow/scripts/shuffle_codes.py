"""Rule shuffle_codes: codes.parquet of a tokenizer -> the same codes, dealt at random."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import code_files
from sidmill.settings.job import of_job
from sidmill.settings.run import Run
from sidmill.sids.shuffle import shuffle

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    coded = code_files.read(snakemake.input.codes, "codes")
    dealt = shuffle(coded, of_job(snakemake, Run).seed)
    code_files.write(snakemake.output.codes, "codes", dealt.ids, [dealt.codes], dealt.sizes)
    log.info("wrote %s, %d rows", snakemake.output.codes, len(dealt.codes))
