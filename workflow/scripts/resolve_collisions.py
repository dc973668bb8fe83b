"""Rule resolve_collisions: codes.parquet -> pid2sid.parquet and index.json."""

from pathlib import Path
from typing import TYPE_CHECKING

from sidmill import latents
from sidmill.core.job import job
from sidmill.formats import codes, quantizer, report, text, vectors
from sidmill.sids import kept
from sidmill.sids.resolve import resolve

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    items = vectors.open_if_any(snakemake.input.vectors, snakemake.input.ids)
    coded = codes.read(snakemake.input.codes, "codes")
    fitted = quantizer.read(snakemake.input.quantizer, without_codebooks=True)
    stay = kept.load(
        snakemake.input.ledger,
        snakemake.input.match,
        coded.codes,
        **snakemake.params.published,
    )
    with latents.projected(
        items and items.vectors,
        fitted.encoder,
        Path(snakemake.output.pid2sid).parent,
        **snakemake.config["encoding"],
    ) as projected:
        resolution = resolve(
            coded.codes,
            coded.sizes,
            projected,
            fitted.codebooks,
            text.text_classes(snakemake.input.text),
            stay,
            **snakemake.params.collisions,
        )
    kept.guard(
        snakemake.input.ledger,
        stay,
        coded.ids,
        resolution.sids,
        **snakemake.params.published,
    )
    codes.write(snakemake.output.pid2sid, "sid", coded.ids, [resolution.sids], resolution.sizes)
    codes.write_index(coded.ids, resolution.sids, path=snakemake.output.index)
    report.write(snakemake.output.resolution, resolution.cost)
    log.info("wrote %s", snakemake.output.pid2sid)
