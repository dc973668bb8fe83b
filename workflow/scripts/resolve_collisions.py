"""Rule resolve_collisions: codes.parquet -> pid2sid.parquet and index.json."""

from pathlib import Path
from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import code_files, item_text, quantizer_file, vector_store
from sidmill.io import json_report
from sidmill.numeric import latents
from sidmill.settings.job import of_job
from sidmill.settings.quantize import Encoding
from sidmill.settings.sids import Collisions, Published
from sidmill.sids import published_sids
from sidmill.sids.resolve import resolve

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    published, encoding = of_job(snakemake, Published), of_job(snakemake, Encoding)
    collisions = of_job(snakemake, Collisions)
    vectors = vector_store.vectors_if_any(snakemake.input.vectors, snakemake.input.ids)
    coded = code_files.read(snakemake.input.codes, "codes")
    fitted = quantizer_file.read(snakemake.input.quantizer, without_codebooks=True)
    stay = published_sids.load(
        snakemake.input.ledger,
        snakemake.input.match,
        coded.codes,
        published,
    )
    with latents.projected(
        vectors,
        fitted,
        coded.codes,
        Path(snakemake.output.pid2sid).parent,
        device=encoding.device,
        memory_mb=encoding.memory_mb,
    ) as projected:
        resolution = resolve(
            coded.codes,
            coded.sizes,
            projected,
            fitted.codebooks,
            item_text.text_classes(
                snakemake.input.text, wanted=collisions.identical_text == "share"
            ),
            collisions,
            stay,
            coded.ids,
        )
    published_sids.guard(
        snakemake.input.ledger,
        stay,
        coded.ids,
        resolution.sids,
        published,
    )
    code_files.write(
        snakemake.output.pid2sid, "sid", coded.ids, [resolution.sids], resolution.sizes
    )
    code_files.write_index(coded.ids, resolution.sids, path=snakemake.output.index)
    json_report.write(snakemake.output.resolution, resolution.cost)
    log.info("wrote %s", snakemake.output.pid2sid)
