"""``sidmill encode``: the codes of some embeddings, by a saved quantizer."""

import logging

import click

from sidmill.commands.setting_options import setting_options
from sidmill.settings.quantize import Encoding


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
@click.option(
    "--column", default="embedding", show_default=True, help="column of vectors in a parquet"
)
@click.option("--id-column", default="pid", show_default=True, help="column of ids in a parquet")
@click.option(
    "--categories",
    help="parquet of pid and category, such as results/items/categories.parquet: for a quantizer "
    "with a category level",
)
@click.option("--ids", help="ids of a .npy, in the same order: .parquet, .npy or .txt")
@setting_options(Encoding, "device", "memory_mb")
def encode(
    quantizer: str,
    vectors: str,
    out: str,
    column: str,
    id_column: str,
    categories: str | None,
    ids: str | None,
    settings: Encoding,
) -> None:
    """Encode any number of embeddings in constant memory; ids are kept, or rows numbered."""
    from sidmill import api
    from sidmill.core.paths import refuse_overwrite

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    refuse_overwrite(out, [vectors, ids, quantizer, categories])
    fitted = api.load(quantizer)
    n_items = api.encode_file(
        fitted,
        vectors,
        out,
        column=column,
        id_column=id_column,
        ids_path=ids,
        categories_path=categories,
        device=settings.device,
        memory_mb=settings.memory_mb,
    )
    click.echo(f"wrote {out}, {n_items:,} items")
