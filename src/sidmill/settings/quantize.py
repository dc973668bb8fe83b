"""Settings of quantize."""

from typing import Literal

from sidmill.settings.base import machine, science, section


@section(
    "rqkmeans",
    ("also the settings of rqkmeans_balanced, which uses balance: capacity if balance is none"),
)
class Rqkmeans:
    """Residual k-means, as in OneRec."""

    n_levels: int = science(3, "tokens per SID", minimum=1, maximum=26)
    codebook_size: int | list[int] = science(
        256,
        "codes per level, or a list such as [1024, 512, 256]; OneRec: 8192",
        minimum=1,
        maximum=1048576,
    )
    n_iter: int = science(20, "passes over the vectors per level, at most", minimum=1)
    tolerance: float = science(
        0.0004,
        "training of a level ends when a pass lowers its error by less than this share",
        minimum=0,
        below=1,
    )
    max_points_per_centroid: int | None = science(
        None, "train on a sample of this many vectors per code; null: on all", minimum=1
    )
    balance: Literal["none", "sinkhorn", "capacity"] = science(
        "none",
        (
            "none | sinkhorn: even out the items per code | capacity: no code above "
            "max_load; both raise the error, see quality.json"
        ),
    )
    max_load: float = science(
        1.5,
        (
            "capacity: largest number of items of a code, divided by the mean over the codes "
            "of its level"
        ),
        above=1,
    )
    device: str = machine(
        "auto",
        (
            "auto: every GPU, else the CPU | cpu | cuda:0 | several: cuda:0,cuda:1, which "
            "share the vectors; the result is the same"
        ),
        pattern="^(auto|cpu(,cpu)*|cuda(:[0-9]+)?(,cuda:[0-9]+)*)$",
    )
    memory_mb: int = machine(
        1024, "MiB for the sample and the blocks; too small a value is refused", minimum=16
    )
    processes: int = machine(
        1,
        (
            "processes that share the vectors, on one machine or on the nodes of a Slurm job, at "
            "most one per 256 codes; the result is the same"
        ),
        minimum=1,
        maximum=64,
    )


@section(
    "rqvae",
    (
        "docs/rqvae.md; also the settings of rqkmeans_plus (codebooks from rqkmeans) and "
        "fsq (a fixed grid)"
    ),
)
class Rqvae:
    """RQ-VAE, as in TIGER and LC-Rec."""

    data_paths: list[str] = science(
        [],
        (
            "train on these files (.npy, .h5, .parquet, or a folder of them) instead of "
            "results/items/vectors.npy"
        ),
        may_be_empty=True,
    )
    codebook_sizes: list[int] = science(
        [256, 256, 256], "codes per level", minimum=1, maximum=1048576, most=26
    )
    e_dim: int = science(32, "dimensions of the latents that are quantized", minimum=1)
    layers: list[int] = science(
        [2048, 1024, 512, 256, 128, 64],
        "widths of the encoder's layers; the decoder has them in reverse order",
        minimum=1,
        may_be_empty=True,
    )
    dropout: float = science(
        0.0, "share of values dropped before each layer in training", minimum=0, below=1
    )
    batch_norm: bool = science(False, "batch norm between the layers")
    skip: Literal["pca", "none"] = science(
        "pca",
        (
            "linear path added to the output of the layers: pca (starts as the principal "
            "axes) | none (a plain MLP, as in the papers)"
        ),
    )
    loss: Literal["mse", "l1", "cosine"] = science("mse", "reconstruction loss: mse | l1 | cosine")
    quant_loss_weight: float = science(
        1.0, "weight of the quantizer's losses; the reconstruction loss has weight 1", minimum=0
    )
    beta: float = science(
        0.25,
        "weight of the commitment loss, which moves latents towards their codewords",
        minimum=0,
    )
    codebook_update: Literal["ema", "gradient"] = science(
        "ema",
        ("how codewords are updated: ema (moving averages, more stable) | gradient (as in LC-Rec)"),
    )
    ema_decay: float = science(
        0.995, "share of its old value that a moving average keeps per step", above=0, below=1
    )
    estimator: Literal["straight_through", "rotation"] = science(
        "straight_through", "gradient estimator of the quantizer: straight_through | rotation"
    )
    sk_epsilons: list[float] = science(
        [],
        (
            "one number per level: above 0, balanced (Sinkhorn) assignment in training; 0, "
            "nearest codeword; []: 0 on every level; LC-Rec: [0, 0, 0.003]"
        ),
        minimum=0,
        may_be_empty=True,
    )
    sk_iters: int = science(50, "iterations of the Sinkhorn assignment", minimum=1)
    restart: bool = science(
        True, "true: codewords that no item used in an epoch are moved to items with a large error"
    )
    diversity_weight: float = science(
        0.1, "weight of the loss that spreads latents apart; 0: none", minimum=0
    )
    repulsion_weight: float = science(
        3.0,
        (
            "weight of the loss that separates items with the same codes; larger: fewer "
            "collisions, larger error; 0: none"
        ),
        minimum=0,
    )
    contrastive_weight: float = science(
        0.0,
        (
            "weight of the contrastive loss, which moves items closer that users consumed "
            "together; try 0.1; 0: none, and no interactions needed"
        ),
        minimum=0,
    )
    contrastive_temperature: float = science(0.1, "temperature of the contrastive loss", above=0)
    pairs_path: str | None = science(
        None,
        (
            "pairs for the contrastive loss, a parquet with pid_a, pid_b; null: neighbours "
            "in the histories of interactions"
        ),
    )
    autoencoder_epochs: int = science(
        12, "epochs that train the autoencoder alone, before latents are quantized", minimum=0
    )
    kmeans_init: Literal["full", "first_batch", "none"] = science(
        "full",
        (
            "first codebooks: residual k-means over all latents (full) or the first batch "
            "(first_batch) | none: random"
        ),
    )
    kmeans_iters: int = science(
        100, "passes of the k-means for the first codebooks, per level, at most", minimum=1
    )
    optimizer: Literal["adamw", "adam", "nadam", "radam", "adagrad", "rmsprop", "sgd"] = science(
        "adamw", "adamw | adam | nadam | radam | adagrad | rmsprop | sgd"
    )
    lr: float = science(0.002, "peak of the learning rate", above=0)
    weight_decay: float = science(
        0.1, "of the optimizer; raise it if the held-out error rises", minimum=0
    )
    schedule: Literal["constant", "linear", "cosine"] = science(
        "cosine", "learning rate after the warm-up: constant | linear | cosine (both fall to 0)"
    )
    warmup_epochs: int = science(2, "epochs over which the learning rate rises", minimum=0)
    epochs: int = science(40, "passes over the vectors", minimum=1)
    batch_size: int = science(128, "vectors per step; 1024 and more for a million items", minimum=2)
    eval_step: int = science(
        2,
        "number of epochs between measurements; each measurement also writes a checkpoint",
        minimum=1,
    )
    clip: float = science(1.0, "largest norm of the gradient; 0: no limit", minimum=0)
    precision: Literal["auto", "bfloat16", "float32"] = science(
        "auto", "auto (bfloat16 on GPUs) | bfloat16 | float32"
    )
    test_ratio: float = science(
        0.05,
        "share of the items that are held out to measure the reconstruction",
        minimum=0,
        maximum=0.5,
    )
    choose: Literal["best_collision", "best_loss", "best_utilisation", "last"] = science(
        "best_collision",
        (
            "checkpoint that becomes the quantizer: best_collision (fewest collisions, "
            "within 2 % of the least error) | best_loss | best_utilisation | last"
        ),
    )
    save_limit: int = science(5, "number of recent checkpoints that are kept", minimum=0)
    tracking: Literal["none", "tensorboard", "wandb"] = science(
        "none",
        (
            "tracker besides metrics.csv: none | tensorboard | wandb (WANDB_PROJECT, "
            "WANDB_MODE=offline)"
        ),
    )
    device: str = machine("auto", "auto | cpu | cuda", pattern="^(auto|cpu|cuda(:[0-9]+)?)$")
    memory_mb: int = machine(1024, "MiB; vectors that fit into it are held in memory", minimum=16)
    processes: int = science(
        1,
        (
            "processes that train together, one GPU each; each compares only the rows of its "
            "own share of a batch, so the number changes the result"
        ),
        minimum=1,
    )


@section(
    "fsq",
    (
        "finite scalar quantization: one level per entry of rqvae.codebook_sizes; all "
        "other settings are those of rqvae"
    ),
)
class Fsq:
    """Finite scalar quantization of the latents of an RQ-VAE."""

    steps: list[int] = science(
        [8, 8, 4],
        (
            "number of even steps of each latent dimension of a token; their product is the "
            "number of codes per level"
        ),
        minimum=2,
        maximum=65536,
    )


@section("pretrained")
class Pretrained:
    """A quantizer that exists."""

    path: str | None = science(
        None,
        (
            "a quantizer.safetensors of another run, or a checkpoint of OneRec, LC-Rec or "
            "MiniOneRec (.pt, .pth, .safetensors)"
        ),
    )
    n_levels: int | None = science(
        None, "use only this number of first levels; null: all", minimum=1
    )


@section("opq", "optimized product quantization, with n_levels and codebook_size of rqkmeans")
class Opq:
    """Optimized product quantization."""

    n_iter: int = science(20, "iterations of the rotation, and of k-means", minimum=1)
    max_points_per_centroid: int = science(256, "vectors per code to train on, at most", minimum=1)
    memory_mb: int = machine(
        1024, "MiB for the training vectors; too small a value is refused", minimum=16
    )


@section(
    "pca_grid", "even steps on the principal axes, with n_levels and codebook_size of rqkmeans"
)
class PcaGrid:
    """A grid of even steps on the principal axes."""

    sample: int = science(65536, "vectors that the step widths are fitted to, at most", minimum=1)
    memory_mb: int = machine(1024, "MiB for the sample; too small a value is refused", minimum=16)


@section("encoding")
class Encoding:
    """Vectors -> codes."""

    device: str = machine(
        "auto",
        (
            "auto: every GPU, else the CPU | cpu | cuda:0 | several: cuda:0,cuda:1; the "
            "codes are the same"
        ),
        pattern="^(auto|cpu(,cpu)*|cuda(:[0-9]+)?(,cuda:[0-9]+)*)$",
    )
    memory_mb: int = machine(1024, "MiB for the blocks of vectors", minimum=16)
    processes: int = machine(
        1, "processes that share the items, as rqkmeans.processes", minimum=1, maximum=64
    )
