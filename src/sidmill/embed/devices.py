"""The device of an encoder: which one, in which precision, how fast; what a token costs there."""

import logging
import time
from typing import Any

import numpy as np
import torch

from sidmill.core import cpu_facts
from sidmill.core.errors import SidmillError
from sidmill.embed.throughput import Model

logger = logging.getLogger(__name__)

# float16 is not among them: Qwen3 overflows it and gives NaN.
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CPU_UNITS = {"avx512_bf16", "amx_bf16"}
LEAST_COSINE = 0.9995
RATE_SECONDS = 0.3  # for which the rate of a device is measured
RATE_ROWS = 2048
# Keys of a model's configuration that its cost follows from.
SIZES = ("num_hidden_layers", "num_attention_heads", "hidden_size", "intermediate_size")


def choose_device(device: str, process: int) -> torch.device:
    """Return the CPU, or the GPU whose number is that of the process.

    Args:
        device: auto, cpu, or cuda with or without a number.
        process: number of the process on the node, from 0.

    Raises:
        SidmillError: if a GPU is asked for and there is none, or none for this process.
    """
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise SidmillError(
            "embedding.device is cuda, but torch sees no CUDA device here: set auto or cpu, or run "
            "on a machine with a GPU and a CUDA build of torch"
        )
    if process >= torch.cuda.device_count():
        raise SidmillError(
            f"torch sees {torch.cuda.device_count()} GPUs here, process {process + 1} has none: "
            f"lower embedding.processes to that"
        )
    return torch.device("cuda", process)


def choose_dtype(dtype: str, device: torch.device) -> str:
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
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(CPU_UNITS & _cpu_flags())


def _cpu_flags() -> set[str]:
    return cpu_facts.flags(cpu_facts.first_core())


def check_precision(rounded: np.ndarray, exact: np.ndarray, *, chosen: bool) -> float:
    """Compare vectors in bfloat16 with those in float32, and log the least cosine.

    Args:
        rounded: float32 (n, D), computed in bfloat16.
        exact: float32 (n, D).
        chosen: whether the user named bfloat16, and is only warned.

    Returns:
        The least cosine.

    Raises:
        SidmillError: if it is below 0.9995, and ``auto`` chose bfloat16.
    """
    lengths = np.linalg.norm(rounded, axis=1) * np.linalg.norm(exact, axis=1)
    least = float(((rounded * exact).sum(axis=1) / np.maximum(lengths, 1e-12)).min())
    logger.info("bfloat16 against float32: least cosine %.6f of %d texts", least, len(rounded))
    if not least >= LEAST_COSINE:
        problem = (
            f"bfloat16 moves vectors of this model: least cosine to float32 {least:.6f} of "
            f"{len(rounded)} texts, wanted {LEAST_COSINE}: set embedding.dtype: float32"
        )
        if not chosen:
            raise SidmillError(f"{problem}, or name bfloat16 to take them so")
        logger.warning("%s", problem)
    return least


def cost_per_token(model: torch.nn.Module, config: Any, device: str, rate: float | None) -> Model:
    """Count the work of one token.

    Args:
        model: a transformer of the transformers library. Its pooler, which one token of a text
            passes, does not count.
        config: its configuration.
        device: where it runs.
        rate: see :class:`Model`.
    """
    heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    weights = sum(
        layer.weight.numel()
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear) and "pooler" not in name
    )
    return Model(
        linear_weights=weights,
        attention_width=config.num_hidden_layers * heads * head_dim,
        causal=any(getattr(layer, "is_causal", False) for layer in model.modules()),
        matmul_rate=rate,
        device=device,
    )


def matmul_rate(width: int, inner: int, dtype: torch.dtype, device: torch.device) -> float:
    """Measure a product of (2048, width) and (width, inner); return operations per second."""
    left = torch.randn(RATE_ROWS, width, device=device).to(dtype)
    right = torch.randn(width, inner, device=device).to(dtype)
    best = float("inf")
    end = time.monotonic() + RATE_SECONDS
    while best == float("inf") or time.monotonic() < end:
        _synchronize(device)
        began = time.perf_counter()
        for _ in range(8):
            left @ right
        _synchronize(device)
        best = min(best, (time.perf_counter() - began) / 8)
    return 2 * RATE_ROWS * width * inner / best


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
