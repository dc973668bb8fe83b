"""The network of an RQ-VAE, and its form without the parts that only training needs.

Shapes: b rows, D dimensions, d latent dimensions, K_l codewords at level l.

Inputs are centred and brought to unit scale before the first layer and back after the last. What
leaves training is plain: linear layers with ReLU between them, with scale and batch norm folded in.
"""

from itertools import pairwise

import numpy as np
import torch
from torch import nn

from sidmill.formats.quantizer_file import Network
from sidmill.quantize.rqvae.trials import Settings


class Layers(nn.Module):
    """Linear layers; between them batch norm (optional) and ReLU, before each of them dropout."""

    def __init__(self, widths: list[int], dropout: float, batch_norm: bool) -> None:
        """Make layers of ``widths``: input, hidden, output."""
        super().__init__()
        self.linear = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        hidden = widths[1:-1] if batch_norm else []
        self.norm = nn.ModuleList(nn.BatchNorm1d(width) for width in hidden)
        self.dropout = nn.Dropout(dropout)
        for layer in self.linear:
            nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Float (b, in) to (b, out)."""
        for number, layer in enumerate(self.linear):
            values = layer(self.dropout(values))
            if number + 1 < len(self.linear):
                if len(self.norm):
                    values = self.norm[number](values)
                values = torch.relu(values)
        return values

    def folded(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Weights and biases, float64, of the same layers in eval mode without batch norm."""
        weights = [layer.weight.detach().double() for layer in self.linear]
        biases = [layer.bias.detach().double() for layer in self.linear]
        for number, norm in enumerate(self.norm):
            gain = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
            weights[number] = weights[number] * gain[:, None]
            biases[number] = (
                biases[number] - norm.running_mean.double()
            ) * gain + norm.bias.detach()
        return weights, biases


class Autoencoder(nn.Module):
    """Encoder, decoder and codebooks; :meth:`encode` and :meth:`decode` work on scaled vectors."""

    def __init__(self, dim: int, settings: Settings) -> None:
        """Make a network for vectors of ``dim`` dimensions; weights come from torch's generator."""
        super().__init__()
        widths = [dim, *settings.layers, settings.e_dim]
        self.encoder = Layers(widths, settings.dropout, settings.batch_norm)
        self.decoder = Layers(widths[::-1], settings.dropout, settings.batch_norm)
        self.skip = settings.skip
        if self.skip == "pca":
            self.shortcut = nn.Linear(dim, settings.e_dim, bias=False)
            self.way_back = nn.Linear(settings.e_dim, dim, bias=False)
        if self.skip != "none":  # what the layers add starts at nothing
            for layers in (self.encoder, self.decoder):
                nn.init.zeros_(layers.linear[-1].weight)
        self.bounded = settings.codebook_update == "none"  # by a grid from -1 to 1
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(()))
        self.codebooks = nn.ParameterList(
            nn.Parameter(torch.randn(size, settings.e_dim) / settings.e_dim**0.5)
            for size in settings.codebook_sizes
        )

    def scaled(self, vectors: torch.Tensor) -> torch.Tensor:
        """Float (b, D): centred, and of mean square 1."""
        return (vectors - self.mean) / self.scale

    def encode(self, scaled: torch.Tensor) -> torch.Tensor:
        """Float (b, D) to latents (b, d)."""
        latents = self.encoder(scaled)
        if self.skip != "none":
            latents = latents + (self.shortcut(scaled) if self.skip == "pca" else scaled)
        return latents.clamp(-1, 1) if self.bounded else latents

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Float latents (b, d) to (b, D)."""
        if self.skip == "none":
            return self.decoder(latents)
        return self.decoder(latents) + (self.way_back(latents) if self.skip == "pca" else latents)

    def running_statistics(self) -> list[torch.Tensor]:
        """Means and variances that batch norm counts; empty without it."""
        norms = [*self.encoder.norm, *self.decoder.norm]
        return [part for norm in norms for part in (norm.running_mean, norm.running_var)]

    def exported(self) -> tuple[list[np.ndarray], Network, Network]:
        """Codebooks, encoder and decoder as a quantizer file holds them, scale folded in."""
        mean, scale = self.mean.double(), self.scale.double()
        weights, biases = self.encoder.folded()
        biases[0] = biases[0] - weights[0] @ (mean / scale)
        weights[0] = weights[0] / scale
        back_weights, back_biases = self.decoder.folded()
        back_weights[-1] = back_weights[-1] * scale
        back_biases[-1] = back_biases[-1] * scale + mean
        skip = back_skip = None
        if self.skip == "pca":
            skip = self.shortcut.weight.detach().double() / scale
            back_skip = self.way_back.weight.detach().double() * scale
            biases[-1] = biases[-1] - skip @ mean
        elif self.skip == "identity":
            skip, back_skip = 1 / scale, scale
            biases[-1] = biases[-1] - mean / scale
        codebooks = [_array(words.detach()) for words in self.codebooks]
        encoder = _network(weights, biases, skip)
        if self.bounded:
            encoder = encoder._replace(bound=np.array(1, dtype=np.float32))
        return (
            codebooks,
            encoder,
            _network(back_weights, back_biases, back_skip),
        )


def _network(
    weights: list[torch.Tensor], biases: list[torch.Tensor], skip: torch.Tensor | None
) -> Network:
    return Network(
        [_array(weight) for weight in weights],
        [_array(bias) for bias in biases],
        None if skip is None else _array(skip),
    )


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.float().cpu().contiguous().numpy()
