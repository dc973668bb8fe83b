"""The sizes of the codebooks of residual k-means, level by level."""

import dataclasses
import logging

from sidmill.core import listing
from sidmill.core.errors import SidmillError
from sidmill.settings.quantize import Rqkmeans

logger = logging.getLogger(__name__)


def per_level(settings: Rqkmeans) -> list[int]:
    """Return K per level.

    Raises:
        SidmillError: if the list of sizes is not L long, or a size is below 1.
    """
    size, n_levels = settings.codebook_size, settings.n_levels
    sizes = [size] * n_levels if isinstance(size, int) else list(size)
    if len(sizes) != n_levels:
        raise SidmillError(
            f"rqkmeans.codebook_size lists {len(sizes)} sizes for {n_levels} levels: "
            "give one size per level, or one number for all"
        )
    if min(sizes, default=0) < 1:
        raise SidmillError(
            f"rqkmeans.codebook_size {size} for {n_levels} levels: "
            "give at least one level, and sizes of at least 1"
        )
    return sizes


def capped(settings: Rqkmeans, n_items: int, *, is_capped: bool) -> Rqkmeans:
    """Lower the sizes of codebooks to the number of items, where codes need not tell items apart.

    Args:
        settings: sizes as configured.
        n_items: N.
        is_capped: whether they are lowered; if not, :func:`sidmill.quantize.rqkmeans.fit` refuses
            too few items.

    Raises:
        SidmillError: as :func:`per_level`.
    """
    sizes = [min(size, n_items) for size in per_level(settings)]
    if not is_capped or sizes == per_level(settings):
        return settings
    logger.info("%d items: codebooks of %s codewords", n_items, listing.some(sizes))
    return dataclasses.replace(settings, codebook_size=sizes)
