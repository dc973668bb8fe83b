"""``sidmill vocab``: SID tokens for a language model, outside the pipeline."""

from dataclasses import replace
from pathlib import Path

import click

from sidmill.commands.setting_options import setting_options
from sidmill.settings.datasets import Vocabulary


@click.command()
@click.argument("model")
@click.argument("folder", type=click.Path())
@click.option("--pid2sid", default="results/pid2sid.parquet", show_default=True)
@click.option("--quantizer", help="quantizer.safetensors; needed with --init codebook")
@click.option("--seed", type=int, default=42, show_default=True)
@setting_options(Vocabulary, "revision", "init", "pad_to", "dtype")
def vocab(
    model: str,
    folder: str,
    pid2sid: str,
    quantizer: str | None,
    seed: int,
    settings: Vocabulary,
) -> None:
    """Add SID tokens to MODEL and its tokenizer; write both and the tree of SIDs to FOLDER."""
    from sidmill.core.errors import SidmillError
    from sidmill.core.paths import refuse_overwrite
    from sidmill.datasets import lora_settings, trie, vocabulary
    from sidmill.formats import code_files, quantizer_file

    if settings.init == "codebook" and not quantizer:
        raise SidmillError("--init codebook needs --quantizer; else take --init mean")
    refuse_overwrite(folder, [model, pid2sid, quantizer], "FOLDER")

    # The model.
    items = code_files.read(pid2sid, "sid")
    codebooks = quantizer_file.read(quantizer).codebooks if quantizer else []
    settings = replace(settings, model=model)
    ids = vocabulary.expand(folder, items.codes, items.sizes, codebooks, settings, seed)

    # The tree of SIDs, in each form.
    tree = trie.build(items.codes, ids)
    trie.write(Path(folder) / "trie.safetensors", tree)
    trie.write_json(Path(folder) / "trie.json", tree)
    trie.write_regex(Path(folder) / "sids.regex", items.codes)
    trie.write_lark(Path(folder) / "sids.lark", items.codes)
    trie.write_ebnf(Path(folder) / "sids.ebnf", tree)
    trie.write_levels_ebnf(Path(folder) / "levels.ebnf", tree)
    trie.write_levels_lark(Path(folder) / "levels.lark", tree)
    click.echo(f"{len(ids)} tokens, {len(tree.nodes)} edges: {folder}")
    click.echo(f"What was checked: {Path(folder) / vocabulary.RECORD}")
    click.echo("With LoRA the embeddings of the SID tokens must train too:")
    click.echo(lora_settings.text(folder, ids))
