"""Whether to compute in bfloat16, and whether that leaves the vectors what they are."""

import logging
from pathlib import Path

import numpy as np
import torch

from sidmill.core.errors import SidmillError

logger = logging.getLogger(__name__)

# float16 is not among them: Qwen3 overflows it and gives NaN.
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CPU_UNITS = {"avx512_bf16", "amx_bf16"}
LEAST_COSINE = 0.9995


def choose(dtype: str, device: torch.device) -> str:
    """Return float32 or bfloat16: what ``auto`` means on this device, else what was named.

    Raises:
        SidmillError: if it is another name.
    """
    if dtype == "auto":
        return "bfloat16" if has_units(device) else "float32"
    if dtype not in DTYPES:
        raise SidmillError(
            f"embedding.dtype is {dtype!r}: choose auto, float32, or bfloat16 on a GPU (float16 "
            f"overflows to NaN in Qwen3)"
        )
    if dtype == "bfloat16" and not has_units(device):
        logger.warning("bfloat16 is slow on %s, which has no unit for it", device)
    return dtype


def has_units(device: torch.device) -> bool:
    """Whether a device computes in bfloat16 itself: AVX512-BF16, AMX, or a GPU since Ampere."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(CPU_UNITS & _cpu_flags())


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    return {flag for line in lines if line.startswith("flags") for flag in line.split()}


def check(found: np.ndarray, exact: np.ndarray, *, chosen: bool) -> float:
    """Compare vectors in bfloat16 with those in float32, and log the least cosine.

    Args:
        found: float32 (n, D), computed in bfloat16.
        exact: float32 (n, D).
        chosen: whether the user named bfloat16, and is only warned.

    Returns:
        The least cosine.

    Raises:
        SidmillError: if it is below 0.9995, and ``auto`` chose bfloat16.
    """
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(exact, axis=1)
    least = float(((found * exact).sum(axis=1) / np.maximum(lengths, 1e-12)).min())
    logger.info("bfloat16 against float32: least cosine %.6f of %d texts", least, len(found))
    if not least >= LEAST_COSINE:
        told = (
            f"bfloat16 moves vectors of this model: least cosine to float32 {least:.6f} of "
            f"{len(found)} texts, wanted {LEAST_COSINE}: set embedding.dtype: float32"
        )
        if not chosen:
            raise SidmillError(f"{told}, or name bfloat16 to take them so")
        logger.warning("%s", told)
    return least
