"""Which codeword a row trains: the nearest, or a balanced share of all (Sinkhorn-Knopp).

Shapes: b rows, d latent dimensions, K codewords.

Source: balanced assignment by optimal transport, https://arxiv.org/abs/1306.0895, as LC-Rec uses
it on codebooks, https://arxiv.org/abs/2311.09049.
"""

import math

import torch

LINEAR_RANGE = 680.0  # exp(-680) is 5e-296; below exp(-708) float64 loses digits


def distances(left: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
    """Squared distances float32 (b, K), less the rows' own squared norms: enough to compare."""
    return torch.addmm(words.square().sum(dim=1), left, words.T, alpha=-2)


def nearest(left: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
    """Codes int64 (b,) of the nearest codewords."""
    apart = distances(left, words)
    if apart.device.type == "cpu":
        return torch.from_numpy(apart.numpy().argmin(axis=1))
    return apart.argmin(dim=1)


def balanced(left: torch.Tensor, words: torch.Tensor, epsilon: float, n_iter: int) -> torch.Tensor:
    """Codes int64 (b,) of largest share in a transport plan that uses every codeword alike.

    Args:
        left: float32 (b, d).
        words: float32 (K, d).
        epsilon: entropy of the plan, in units of half the range of distances: the smaller, the
            nearer to the nearest codeword.
        n_iter: rounds of scaling.
    """
    squares = distances(left, words).double() + left.double().square().sum(dim=1)[:, None]
    return log_plan(squares, epsilon, n_iter).argmax(dim=1)


def log_plan(costs: torch.Tensor, epsilon: float, n_iter: int) -> torch.Tensor:
    """Logarithm of the transport plan, float64 (b, K).

    Rows of the plan sum to 1, columns, after the last round, nearly to b / K. It begins with every
    row scaled so that its nearest codeword has weight 1.

    Weights of the first plan reach down to exp(-2 / epsilon). Where float64 holds that, products of
    matrices scale the plan itself; where it would vanish, the same rounds go by logarithms, about
    ten times slower.

    Args:
        costs: float64 (b, K).
        epsilon: entropy of the plan, in units of half the range of the costs.
        n_iter: rounds of scaling, columns first.
    """
    low, high = costs.min(), costs.max()
    scaled = (costs - low) / ((high - low) / 2).clamp(min=1e-12) / epsilon
    kernel = scaled.amin(dim=1, keepdim=True) - scaled  # (b, K), logarithms; each row reaches 0
    if 2 / epsilon > LINEAR_RANGE:
        return _scale_logarithms(kernel, n_iter)
    return _scale(kernel.exp(), n_iter).log()


def _scale(kernel: torch.Tensor, n_iter: int) -> torch.Tensor:
    share = len(kernel) / kernel.shape[1]
    rows = torch.ones(len(kernel), dtype=kernel.dtype, device=kernel.device)
    for _ in range(n_iter):
        columns = share / (kernel.T @ rows)
        rows = 1 / (kernel @ columns)
    return kernel * rows[:, None] * columns


def _scale_logarithms(kernel: torch.Tensor, n_iter: int) -> torch.Tensor:
    share = math.log(len(kernel) / kernel.shape[1])
    rows = torch.zeros(len(kernel), dtype=kernel.dtype, device=kernel.device)
    for _ in range(n_iter):
        columns = share - torch.logsumexp(kernel + rows[:, None], dim=0)
        rows = -torch.logsumexp(kernel + columns, dim=1)
    return kernel + rows[:, None] + columns
