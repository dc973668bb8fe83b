"""The settings of a training, as one value that its parts share."""

from typing import NamedTuple

from sidmill.core.errors import SidmillError

LEAST_ROWS = 2  # of a batch, in each process


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


def check_rows(
    settings: Settings, n_training: int, n_rows: int, processes: int, needs_kmeans: bool
) -> None:
    """Refuse a training that would run out of rows, before anything is trained.

    Args:
        settings: of the training.
        n_training: rows to train on.
        n_rows: rows in all.
        processes: processes that share each batch; each takes ``LEAST_ROWS`` of it or more.
        needs_kmeans: whether the codebooks begin at k-means, which needs a row per codeword.

    Raises:
        SidmillError: naming the setting to change, and to what.
    """
    # rows: losses compare those of a batch with each other, in each process
    if n_training < LEAST_ROWS:
        held = "" if n_rows < LEAST_ROWS else ", or set rqvae.test_ratio to 0"
        raise SidmillError(
            f"{n_training} of {n_rows} vectors to train on, and a training needs {LEAST_ROWS}: "
            f"embed more items{held}"
        )
    least = LEAST_ROWS * processes
    if n_training < least:
        raise SidmillError(
            f"{n_training} of {n_rows} vectors to train on for {processes} processes, each of "
            f"which needs {LEAST_ROWS} of a batch: lower rqvae.processes to at most "
            f"{n_training // LEAST_ROWS}"
        )
    if settings.batch_size < least:
        raise SidmillError(
            f"rqvae.batch_size is {settings.batch_size} for {processes} processes, each of which "
            f"needs {LEAST_ROWS} rows of a batch: raise it to at least {least}"
        )

    # codewords: k-means begins with a row for each
    largest = max(settings.codebook_sizes)
    if not needs_kmeans or settings.kmeans_init == "none":
        return
    if n_training < largest:
        raise SidmillError(
            f"{n_training} of {n_rows} vectors to train on cannot fill {largest} codewords: lower "
            f"rqvae.codebook_sizes to at most {n_training}, or set rqvae.kmeans_init to none"
        )
    if settings.kmeans_init == "first_batch" and settings.batch_size < largest:
        raise SidmillError(
            f"a first batch of {settings.batch_size} vectors cannot start {largest} codewords: "
            f"lower rqvae.codebook_sizes to at most {settings.batch_size}, or set "
            f"rqvae.kmeans_init to full"
        )


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
