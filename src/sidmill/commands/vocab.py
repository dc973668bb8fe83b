"""``sidmill vocab``: SID tokens for a language model, outside the pipeline."""

from pathlib import Path

import click


@click.command()
@click.argument("model")
@click.argument("folder", type=click.Path())
@click.option("--revision", help="commit or tag of a hub model")
@click.option("--pid2sid", default="results/pid2sid.parquet", show_default=True)
@click.option("--quantizer", help="quantizer.safetensors; needed with --init codebook")
@click.option("--init", type=click.Choice(["codebook", "mean", "random"]), default="codebook")
@click.option("--pad-to", type=int, default=256, show_default=True)
@click.option("--dtype", type=click.Choice(["auto", "float32", "bfloat16"]), default="auto")
@click.option("--seed", type=int, default=42, show_default=True)
def vocab(
    model: str,
    folder: str,
    revision: str | None,
    pid2sid: str,
    quantizer: str | None,
    init: str,
    pad_to: int,
    dtype: str,
    seed: int,
) -> None:
    """Add SID tokens to MODEL and its tokenizer; write both and the tree of SIDs to FOLDER."""
    from sidmill.core.errors import SidmillError
    from sidmill.core.paths import refuse_overwrite
    from sidmill.datasets import trie, vocabulary
    from sidmill.formats import code_files, quantizer_file

    if init == "codebook" and not quantizer:
        raise SidmillError("--init codebook wants --quantizer; else take --init mean")
    refuse_overwrite(folder, [model, pid2sid, quantizer], "FOLDER")
    items = code_files.read(pid2sid, "sid")
    books = quantizer_file.read(quantizer).codebooks if quantizer else []
    settings = {"model": model, "revision": revision, "init": init, "pad_to": pad_to}
    settings |= {"dtype": dtype, "seed": seed}
    ids = vocabulary.expand(folder, items.codes, items.sizes, books, **settings)
    tree = trie.build(items.codes, ids)
    trie.write(Path(folder) / "trie.safetensors", tree)
    trie.write_json(Path(folder) / "trie.json", tree)
    trie.write_regex(Path(folder) / "sids.regex", items.codes)
    trie.write_lark(Path(folder) / "sids.lark", items.codes)
    click.echo(f"{len(ids)} tokens, {len(tree.nodes)} edges: {folder}")
    click.echo("With LoRA the embeddings of the SID tokens must train too:")
    click.echo(vocabulary.lora_text(folder, ids))
