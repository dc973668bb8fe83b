"""Rule expand_vocabulary: a model -> the same with SID tokens, and the trie of SIDs."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.datasets import lora_settings, trie
from sidmill.datasets.vocabulary import expand
from sidmill.formats import code_files, quantizer_file
from sidmill.settings.datasets import Vocabulary
from sidmill.settings.job import of_job
from sidmill.settings.run import Run

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    items = code_files.read(snakemake.input.pid2sid, "sid")
    ids = expand(
        snakemake.output.model,
        items.codes,
        items.sizes,
        quantizer_file.read(snakemake.input.quantizer, without_codebooks=True).codebooks,
        of_job(snakemake, Vocabulary),
        of_job(snakemake, Run).seed,
    )
    tree = trie.build(items.codes, ids)
    trie.write(snakemake.output.trie, tree)
    trie.write_json(snakemake.output.tree, tree)
    trie.write_regex(snakemake.output.regex, items.codes)
    trie.write_lark(snakemake.output.lark, items.codes)
    trie.write_ebnf(snakemake.output.ebnf, tree)
    trie.write_levels_ebnf(snakemake.output.levels, tree)
    trie.write_levels_lark(snakemake.output.levels_lark, tree)
    log.info("with LoRA: %s", lora_settings.text(snakemake.output.model, ids))
    log.info("wrote %s", snakemake.output.model)
