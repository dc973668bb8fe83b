"""Which codeword a row trains: the nearest, or a balanced share of all (Sinkhorn-Knopp).

Shapes: b rows, d latent dimensions, K codewords.

Source: balanced assignment by optimal transport, https://arxiv.org/abs/1306.0895, as LC-Rec uses
it on codebooks, https://arxiv.org/abs/2311.09049.
"""

import torch


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
    return plan(squares, epsilon, n_iter).argmax(dim=1)


def plan(costs: torch.Tensor, epsilon: float, n_iter: int) -> torch.Tensor:
    """Transport plan float64 (b, K): rows sum to 1, columns, after the last round, nearly to b / K.

    It begins with every row scaled so that its nearest codeword has weight 1.

    Args:
        costs: float64 (b, K), at least 0.
        epsilon: entropy of the plan, in units of half the range of the costs.
        n_iter: rounds of scaling, columns first.
    """
    low, high = costs.min(), costs.max()
    scaled = costs / ((high - low) / 2).clamp(min=1e-12) / epsilon
    kernel = torch.exp(scaled.amin(dim=1, keepdim=True) - scaled)  # (b, K), each row reaches 1
    n_rows, n_codes = costs.shape
    rows = torch.ones(n_rows, dtype=costs.dtype, device=costs.device)
    smallest = torch.finfo(costs.dtype).tiny
    for _ in range(n_iter):
        columns = (n_rows / n_codes) / (kernel.T @ rows).clamp_(min=smallest)
        rows = 1 / (kernel @ columns).clamp_(min=smallest)
    return kernel * rows[:, None] * columns
