"""The sizes of the codebooks of residual k-means, level by level."""

import dataclasses
import logging

from sidmill.core import listing
from sidmill.core.errors import SidmillError
from sidmill.settings.quantize import Rqkmeans

# A process of several has work for a piece of 1,024 rows, and blocks have 4 rows per codeword.
CODES_PER_PROCESS = 256

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


def processes_at_work(n_processes: int, codebook_size: int | list[int]) -> int:
    """Lower a number of processes of residual k-means to those that have work.

    Args:
        n_processes: as configured.
        codebook_size: K, or K per level.
    """
    largest = codebook_size if isinstance(codebook_size, int) else max(codebook_size)
    return min(n_processes, max(1, largest // CODES_PER_PROCESS))
