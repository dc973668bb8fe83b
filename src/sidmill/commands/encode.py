"""``sidmill encode``: the codes of some embeddings, by a saved quantizer."""

import logging

import click


@click.command()
@click.option(
    "--quantizer",
    required=True,
    help="quantizer.safetensors, or a checkpoint of OneRec, LC-Rec or MiniOneRec",
)
@click.option(
    "--vectors", required=True, help=".npy, item_data.h5, or parquet: a file, a folder or a glob"
)
@click.option("--out", required=True, help="parquet to write: pid, codes")
@click.option("--column", default="embedding", show_default=True, help="of lists, in parquet")
@click.option("--id-column", default="pid", show_default=True, help="of ids, in parquet")
@click.option("--ids", help="of a .npy: its ids in the same order, .parquet, .npy or .txt")
@click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda:0, or cuda:0,cuda:1"
)
@click.option("--memory-mb", default=1024, show_default=True, help="MiB for blocks of vectors")
def encode(
    quantizer: str,
    vectors: str,
    out: str,
    column: str,
    id_column: str,
    ids: str | None,
    device: str,
    memory_mb: int,
) -> None:
    """Encode embeddings of any number in constant memory; ids are kept, or rows numbered."""
    from sidmill import api
    from sidmill.core.paths import refuse_overwrite

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    refuse_overwrite(out, [vectors, ids, quantizer])
    fitted = api.load(quantizer)
    n_items = api.encode_file(
        fitted,
        vectors,
        out,
        column=column,
        id_column=id_column,
        ids_path=ids,
        device=device,
        memory_mb=memory_mb,
    )
    click.echo(f"wrote {out}, {n_items:,} items")
