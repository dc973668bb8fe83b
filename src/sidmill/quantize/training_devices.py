"""The devices that residual k-means runs on, and whether NumPy or torch computes on a CPU.

The algorithm is the same text for both. NumPy starts at once; the import of torch takes a second of
CPU and 190 MiB. With large codebooks torch is the faster one on a CPU with instructions for
bfloat16 (:mod:`sidmill.numeric.relative_scores`), once there are rows enough to make up for that.

Shapes: n training rows, D dimensions, K_l codewords at level l.
"""

import logging

from sidmill.numeric import gpu_driver
from sidmill.numeric.arrays import HOST, Device
from sidmill.numeric.process_group import Group
from sidmill.settings.quantize import Rqkmeans

logger = logging.getLogger(__name__)

# NumPy computes codebooks up to the first two, and larger ones up to the third: docs/log.md.
NUMPY_SIZE = 1024  # K
NUMPY_CODEBOOK = 2**19  # D K
NUMPY_PRODUCTS = 70_000_000_000  # n D K


def pick(
    settings: Rqkmeans, shape: tuple[int, int], sizes: list[int], group: Group
) -> list[Device]:
    """Return the devices of a training; ``HOST`` stands for the CPU where NumPy computes.

    The choice depends on the size of the training, the balance and the device: not on threads,
    processes or memory. NumPy and torch give codebooks of like errors, with other bytes.

    Args:
        settings: ``device`` and ``balance``; prices are found with torch.
        shape: n and D.
        sizes: K per level.
        group: the processes that train together.

    Raises:
        SidmillError: if torch does not know or reach a device.
    """
    n_rows, dim = shape
    is_small = suits_numpy(n_rows, dim, max(sizes)) and settings.balance == "none"
    devices: list[Device] = [HOST]
    if not is_small or not _is_plain_cpu(settings.device, group):
        from sidmill.numeric import nearest_torch

        own = [group.device] if group.size > 1 and group.device else None
        devices = list(own or nearest_torch.pick_devices(settings.device))
        if is_small and settings.device == "auto" and devices[0].type == "cpu":
            devices = [HOST]  # a driver without a GPU
    logger.info(
        "%s computes on %s: %d x %d vectors, up to %d codewords",
        *("NumPy" if devices == [HOST] else "torch", devices[0].type, n_rows, dim, max(sizes)),
    )
    return devices


def suits_numpy(n_rows: int, dim: int, size: int) -> bool:
    """Whether NumPy is the better one on a CPU, for n, D and the largest K."""
    is_small = size <= NUMPY_SIZE and dim * size <= NUMPY_CODEBOOK
    return is_small or n_rows * dim * size <= NUMPY_PRODUCTS


def _is_plain_cpu(name: str, group: Group) -> bool:
    """Whether a device's name stands for one CPU, without asking torch for a GPU."""
    if group.device is not None and group.device.type != "cpu":
        return False
    return name == "cpu" or (name == "auto" and not gpu_driver.is_there())
