"""Which settings of ``embedding`` change the vectors of which backend."""

READ = {
    "lsa": ("dim", "normalize"),
    "sentence_transformers": (
        *("model", "revision", "dim", "max_length", "dtype", "attention", "compiled"),
        *("prompt", "normalize"),
    ),
    "openai": ("model", "revision", "dim", "prompt", "normalize"),
    "precomputed": ("model", "revision", "path", "ids_path", "fields", "rows", "dim", "normalize"),
}


def read_by(backend: str, settings: dict) -> dict:
    """Keep what a backend reads and make the others null: a change of those changes no vector.

    Args:
        backend: a key of ``READ``.
        settings: of the section ``embedding``, ``backend`` among them or not.
    """
    kept = {
        key: value if key == "backend" or key in READ[backend] else None
        for key, value in settings.items()
    }
    if kept.get("fields"):
        kept["fields"] = dict(sorted(kept["fields"].items()))  # the order of keys is no change
    return kept


def tokenizer_of(embedding: dict, features: str) -> dict:
    """What decides about the tokens of ``item_data.h5``; null where words of the text are taken.

    Args:
        embedding: the section.
        features: ``h5.features``.
    """
    uses_model = features == "model" or (
        features == "auto" and embedding["backend"] == "sentence_transformers"
    )
    return {
        "backend": embedding["backend"] if uses_model else None,
        "model": embedding["model"] if uses_model else None,
        "revision": embedding["revision"] if uses_model else None,
    }
