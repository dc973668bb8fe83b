"""Products of float32 matrices on a CPU, at the width of its vector instructions.

torch multiplies float32 by MKL, which gives processors of other makers than Intel kernels of 8
floats. Where such a CPU has instructions for 16, oneDNN, which torch also contains, takes less than
half of the time; torch uses it for other types alone. Elsewhere these are torch's own products.

oneDNN compiles a kernel for each combination of sizes, which takes half a millisecond and half a
MiB: callers whose sizes change from step to step fill them up (:func:`fill_up`).

A sum is rounded in another order than in torch's products. The same shapes, on the same machine
with the same number of threads, give the same bytes.

Shapes: m rows, n columns, k terms of a sum.
"""

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from sidmill.numeric import cpu_instructions

WIDE = ("avx512_f", "avx512_bw", "avx512_dq", "avx512_vl")  # what oneDNN's wide kernels need


def multiply(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply ``left`` by the transpose of ``right``, and add a bias; without gradients.

    Both may be views of any strides: none is copied.

    Args:
        left: float (m, k).
        right: float (n, k).
        bias: float (n,), contiguous; None: nothing is added.

    Returns:
        float (m, n), of the same dtype.
    """
    if not is_faster(left) or not left.numel() * len(right):
        return functional.linear(left, right, bias)
    product: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, bias, "none", [], "")
    return product


def is_faster(matrix: Tensor) -> bool:
    """Whether :func:`multiply` takes less time than torch for this dtype on this machine."""
    return matrix.is_cpu and matrix.dtype == torch.float32 and _has_wide_kernels()


def fill_up(matrix: Tensor, multiple: int) -> Tensor:
    """Append rows of zeros to a multiple of so many: (m, k) to (m', k)."""
    missing = -len(matrix) % multiple
    return functional.pad(matrix, (0, 0, 0, missing)) if missing else matrix


@cache
def _has_wide_kernels() -> bool:
    """Whether oneDNN has faster products of float32 for this CPU than torch's own."""
    has_operation = torch.backends.mkldnn.is_available() and hasattr(  # type: ignore[no-untyped-call]
        torch.ops.mkldnn, "_linear_pointwise"
    )
    known = cpu_instructions.known()
    is_intel = str(known.get("cpu_name", "")).startswith("Intel")
    return has_operation and not is_intel and all(known.get(name) for name in WIDE)
