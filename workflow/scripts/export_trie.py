"""Rule export_trie: pid2sid.parquet -> trie.safetensors."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import code_files, trie_file
from sidmill.numeric import sid_trie

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    items = code_files.read(snakemake.input.pid2sid, "sid")
    trie = sid_trie.build(items.codes, items.sizes)
    trie_file.write(snakemake.output.trie, trie, snakemake.input.pid2sid)
    log.info("wrote %s: %d SIDs of %d items", snakemake.output.trie, trie.n_sids, trie.n_items)
