"""Inputs of the category level, and what quantizers are trained on. No rule is defined here."""

from sidmill.settings import base


def where_categories(path):
    """A file that there is only with a category level."""
    return path if config["category_level"]["field"] else []


def training_vectors():
    """The vectors that quantizers are trained on: those of the items, less the category level."""
    return where_categories("results/items/residuals.npy") or item_vectors()


def training_vector_ids():
    """The ids of these vectors."""
    return where_categories("results/items/residual_ids.parquet") or item_vector_ids()


def check_category_field():
    """Refuse a field that the header of the catalogue does not have."""
    if config["category_level"]["field"] and CATALOGUE:
        from sidmill.items.categories import check_field

        items, level = (
            base.read(SECTIONS[name], config[name])
            for name in ("items", "category_level")
        )
        check_field(CATALOGUE, items, level)


or_note(check_category_field)
