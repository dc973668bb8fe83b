"""What a transformer costs per token, from its configuration, and the rate of a device."""

import time

import torch

from sidmill.embed.throughput import Model

PRODUCT_SECONDS = 0.3  # the rate is measured for about so long
ROWS = 2048
WANTED = ("num_hidden_layers", "num_attention_heads", "hidden_size", "intermediate_size")


def cost_of(model: torch.nn.Module, config: object, device: str, rate: float | None) -> Model:
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
    left = torch.randn(ROWS, width, device=device).to(dtype)
    right = torch.randn(width, inner, device=device).to(dtype)
    best = float("inf")
    end = time.monotonic() + PRODUCT_SECONDS
    while best == float("inf") or time.monotonic() < end:
        _wait(device)
        began = time.perf_counter()
        for _ in range(8):
            left @ right
        _wait(device)
        best = min(best, (time.perf_counter() - began) / 8)
    return 2 * ROWS * width * inner / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
