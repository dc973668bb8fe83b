"""The settings of a training, as one value that its parts share."""

from typing import NamedTuple

from sidmill.core.errors import SidmillError


class Settings(NamedTuple):
    """Section ``rqvae`` of the config without what belongs to the machine; see config.yaml."""

    seed: int
    codebook_sizes: list[int]
    e_dim: int
    layers: list[int]
    dropout: float
    batch_norm: bool
    skip: str
    loss: str
    quant_loss_weight: float
    beta: float
    codebook_update: str
    ema_decay: float
    estimator: str
    sk_epsilons: list[float]
    sk_iters: int
    restart: bool
    diversity_weight: float
    repulsion_weight: float
    contrastive_weight: float
    contrastive_temperature: float
    autoencoder_epochs: int
    kmeans_init: str
    kmeans_iters: int
    optimizer: str
    lr: float
    weight_decay: float
    schedule: str
    warmup_epochs: int
    epochs: int
    batch_size: int
    eval_step: int
    clip: float
    precision: str
    test_ratio: float


def checked(settings: Settings) -> Settings:
    """Return the settings, if they fit each other.

    Raises:
        SidmillError: naming the setting.
    """
    n_levels = len(settings.codebook_sizes)
    if len(settings.sk_epsilons) not in (0, n_levels):
        raise SidmillError(
            f"rqvae.sk_epsilons lists {len(settings.sk_epsilons)} numbers for {n_levels} levels: "
            "give one per level (0 for the nearest codeword), or [] for none"
        )
    if settings.warmup_epochs >= settings.epochs:
        raise SidmillError(
            f"rqvae.warmup_epochs is {settings.warmup_epochs} of {settings.epochs} epochs: the "
            "learning rate would never be reached; lower it"
        )
    if settings.autoencoder_epochs >= settings.epochs:
        raise SidmillError(
            f"rqvae.autoencoder_epochs is {settings.autoencoder_epochs} of {settings.epochs} "
            "epochs: nothing would be quantized; lower it"
        )
    return settings
