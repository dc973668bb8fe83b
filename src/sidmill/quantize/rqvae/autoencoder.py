"""The network of an RQ-VAE, and its form without the parts that only training needs.

Shapes: b rows, D dimensions, d latent dimensions, K_l codewords at level l.

Inputs are centred and brought to unit scale before the first layer and back after the last. The
exported network is plain: linear layers with ReLU between them; scale and batch norm are folded in.
"""

from itertools import pairwise
from typing import Literal, cast

import numpy as np
import torch
from torch import nn

from sidmill.formats.quantizer_file import Network
from sidmill.settings.quantize import Rqvae

# learned: codebooks and encoder from scratch | warm: the codebooks of another quantizer, with an
# encoder that begins as the identity | grid: a fixed grid, to which latents are clamped
Kind = Literal["learned", "warm", "grid"]


class Layers(nn.Module):
    """Linear layers; between them batch norm (optional) and ReLU, before each of them dropout."""

    def __init__(self, widths: list[int], dropout: float, batch_norm: bool) -> None:
        """Make layers of ``widths``: input, hidden, output."""
        super().__init__()
        self.linear = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        hidden = widths[1:-1] if batch_norm else []
        self.norm = nn.ModuleList(nn.BatchNorm1d(width) for width in hidden)
        self.dropout = nn.Dropout(dropout)
        for layer in self.layers():
            nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)

    def layers(self) -> list[nn.Linear]:
        """The linear layers."""
        return cast("list[nn.Linear]", list(self.linear))

    def norms(self) -> list[nn.BatchNorm1d]:
        """The batch norms between them; empty without."""
        return cast("list[nn.BatchNorm1d]", list(self.norm))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Float (b, in) to (b, out)."""
        for number, layer in enumerate(self.linear):
            values = layer(self.dropout(values))
            if number + 1 < len(self.linear):
                values = self.norm[number](values) if len(self.norm) else values
                values = torch.relu(values)
        return values

    def folded(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Weights and biases, float64, of the same layers in eval mode without batch norm."""
        weights = [layer.weight.detach().double() for layer in self.layers()]
        biases = [layer.bias.detach().double() for layer in self.layers()]
        for number, norm in enumerate(self.norms()):
            mean, variance = _statistics(norm)
            gain = norm.weight.detach().double() / (variance.double() + norm.eps).sqrt()
            weights[number] = weights[number] * gain[:, None]
            centred = biases[number] - mean.double()
            biases[number] = centred * gain + norm.bias.detach()
        return weights, biases


class Autoencoder(nn.Module):
    """Encoder, decoder and codebooks; :meth:`encode` and :meth:`decode` work on scaled vectors."""

    mean: torch.Tensor  # float32 (D,)
    scale: torch.Tensor  # float32 ()

    def __init__(self, dim: int, settings: Rqvae, kind: Kind = "learned") -> None:
        """Make a network; weights come from torch's generator.

        Args:
            dim: D.
            settings: of the training; sizes of codebooks and latents fit ``kind``.
            kind: how codebooks and encoder begin.
        """
        super().__init__()
        widths = [dim, *settings.layers, settings.e_dim]
        self.encoder = Layers(widths, settings.dropout, settings.batch_norm)
        self.decoder = Layers(widths[::-1], settings.dropout, settings.batch_norm)

        # the path past the layers: what the layers add starts at zero
        self.skip = "identity" if kind == "warm" else settings.skip
        if self.skip == "pca":
            self.shortcut = nn.Linear(dim, settings.e_dim, bias=False)
            self.way_back = nn.Linear(settings.e_dim, dim, bias=False)
        if self.skip != "none":
            for layers in (self.encoder, self.decoder):
                nn.init.zeros_(layers.layers()[-1].weight)

        # scale of the vectors, set before training, and one codebook (K_l, d) per level
        self.is_grid = kind == "grid"
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
        latents: torch.Tensor = self.encoder(scaled)
        if self.skip != "none":
            latents = latents + (self.shortcut(scaled) if self.skip == "pca" else scaled)
        return latents.clamp(-1, 1) if self.is_grid else latents

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Float latents (b, d) to (b, D)."""
        output: torch.Tensor = self.decoder(latents)
        if self.skip == "none":
            return output
        return output + (self.way_back(latents) if self.skip == "pca" else latents)

    def running_statistics(self) -> list[torch.Tensor]:
        """Means and variances that batch norm counts; empty without it."""
        norms = [*self.encoder.norms(), *self.decoder.norms()]
        return [part for norm in norms for part in _statistics(norm)]

    def exported(self) -> tuple[list[np.ndarray], Network, Network]:
        """Codebooks, encoder and decoder as a quantizer file holds them, scale folded in."""
        # the encoder takes vectors as they are: centring and scaling go into its first layer
        mean, scale = self.mean.double(), self.scale.double()
        weights, biases = self.encoder.folded()
        biases[0] = biases[0] - weights[0] @ (mean / scale)
        weights[0] = weights[0] / scale

        # the decoder gives vectors as they are: the same, backwards, in its last layer
        back_weights, back_biases = self.decoder.folded()
        back_weights[-1] = back_weights[-1] * scale
        back_biases[-1] = back_biases[-1] * scale + mean

        # the paths past the layers
        skip = back_skip = None
        if self.skip == "pca":
            skip = self.shortcut.weight.detach().double() / scale
            back_skip = self.way_back.weight.detach().double() * scale
            biases[-1] = biases[-1] - skip @ mean
        elif self.skip == "identity":
            skip, back_skip = 1 / scale, scale
            biases[-1] = biases[-1] - mean / scale

        codebooks = [_array(codebook.detach()) for codebook in self.codebooks]
        encoder = _network(weights, biases, skip)
        if self.is_grid:
            encoder = encoder._replace(bound=np.array(1, dtype=np.float32))
        return codebooks, encoder, _network(back_weights, back_biases, back_skip)


def _statistics(norm: nn.BatchNorm1d) -> tuple[torch.Tensor, torch.Tensor]:
    """Running mean and variance, which torch leaves None only where nothing is counted."""
    return cast("torch.Tensor", norm.running_mean), cast("torch.Tensor", norm.running_var)


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
