"""Rule resolve_quantizer: codes.parquet of a quantizer -> its pid2sid.parquet."""

from pathlib import Path
from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import code_files, item_text, quantizer_file, vector_store
from sidmill.io import json_report
from sidmill.numeric import latents
from sidmill.settings.job import of_job
from sidmill.settings.quantize import Encoding
from sidmill.settings.sids import Collisions
from sidmill.sids.resolve import resolve

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    encoding, collisions = of_job(snakemake, Encoding), of_job(snakemake, Collisions)
    items = vector_store.open_if_any(snakemake.input.vectors, snakemake.input.ids)
    coded = code_files.read(snakemake.input.codes, "codes")
    fitted = quantizer_file.read(snakemake.input.quantizer, without_codebooks=True)
    with latents.projected(
        items and items.vectors,
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
            ids=coded.ids,
        )
    code_files.write(
        snakemake.output.pid2sid, "sid", coded.ids, [resolution.sids], resolution.sizes
    )
    json_report.write(snakemake.output.resolution, resolution.cost)
    log.info("wrote %s", snakemake.output.pid2sid)
