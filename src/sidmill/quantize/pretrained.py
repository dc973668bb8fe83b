"""A quantizer trained elsewhere, or in another run, taken as it is.

Shapes: L levels, K_l codewords at level l, D dimensions.
"""

from typing import Any

from sidmill.core.errors import SidmillError
from sidmill.formats import foreign_tokenizers, quantizer_file
from sidmill.io import tensors
from sidmill.settings.quantize import Pretrained


def load(
    settings: Pretrained, *, dim: int, fingerprint: dict[str, Any]
) -> quantizer_file.Quantizer:
    """Load a quantizer of SIDMill, OneRec, LC-Rec or MiniOneRec, for embeddings at hand.

    Args:
        settings: ``path`` names a quantizer.safetensors, or a checkpoint that
            ``formats.foreign_tokenizers`` reads.
        dim: D of the embeddings.
        fingerprint: of the embeddings. A file of SIDMill must have the same; a checkpoint has
            none and is trusted to belong to them, unless they are of LSA.

    Raises:
        SidmillError: if the file is none of them, has fewer levels, another D, another
            fingerprint, or none while the embeddings are of LSA.
    """
    path, n_levels = settings.path, settings.n_levels
    if path is None:
        raise SidmillError("pretrained.path is null: name the quantizer to load")

    # A file of SIDMill says which embeddings it belongs to; a checkpoint does not.
    if tensors.has_facts(path):
        loaded = quantizer_file.read(path)
        quantizer_file.check_fingerprint(loaded, fingerprint, path)
    elif fingerprint.get("backend") == "lsa":
        raise SidmillError(
            f"{path} does not say which embeddings it belongs to, and these are of LSA, which is "
            f"fitted again to each catalogue: take the quantizer.safetensors of a run with the "
            f"same LSA, or embed with the model that the checkpoint was trained on"
        )
    else:
        loaded = foreign_tokenizers.read(path, fingerprint)

    # Take the levels asked for.
    if n_levels is not None and n_levels > len(loaded.codebooks):
        raise SidmillError(
            f"{path} has {len(loaded.codebooks)} levels, pretrained.n_levels is {n_levels}: lower "
            f"it, or set null for all"
        )
    if loaded.dim != dim:
        raise SidmillError(
            f"{path} was trained on {loaded.dim} dimensions, the embeddings have "
            f"{dim}: embed the items with its model, or set embedding.dim"
        )
    return loaded._replace(
        codebooks=loaded.codebooks[:n_levels],
        prices=loaded.prices[:n_levels],
        balance=loaded.balance[:n_levels],
    )
