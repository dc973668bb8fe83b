"""Rule resolve_collisions: codes.parquet -> pid2sid.parquet and index.json."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import codes, quantizer, report, text, vectors
from sidmill.sids.resolve import resolve

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    items = vectors.open_store(snakemake.input.vectors, snakemake.input.ids)
    coded = codes.read(snakemake.input.codes, "codes")
    resolution = resolve(
        coded.codes,
        coded.sizes,
        items.vectors,
        quantizer.read(snakemake.input.quantizer).codebooks,
        text.text_classes(snakemake.input.text),
        **snakemake.params.collisions,
    )
    codes.write(snakemake.output.pid2sid, "sid", coded.ids, [resolution.sids], resolution.sizes)
    codes.write_index(coded.ids, resolution.sids, path=snakemake.output.index)
    report.write(snakemake.output.resolution, resolution.cost)
    log.info("wrote %s", snakemake.output.pid2sid)
