"""Settings of quantize."""

from typing import Literal

from sidmill.settings.base import machine, science, section


@section("rqkmeans", "rqkmeans_balanced takes it too, with balance capacity where it says none")
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
        "a level ends when a pass lowers its error by less than this share",
        minimum=0,
        below=1,
    )
    max_points_per_centroid: int | None = science(
        None, "train on a sample of this many vectors per code; null: on all", minimum=1
    )
    balance: Literal["none", "sinkhorn", "capacity"] = science(
        "none",
        (
            "none | sinkhorn: even loads out | capacity: no code above max_load; costs "
            "error, see quality.json"
        ),
    )
    max_load: float = science(
        1.5, "capacity: most items of a code on a level, over the mean", above=1
    )
    device: str = machine(
        "auto",
        (
            "auto: every GPU, else the CPU | cpu | cuda:0 | several: cuda:0,cuda:1; they "
            "share the vectors, the result is the same"
        ),
        pattern="^(auto|cpu(,cpu)*|cuda(:[0-9]+)?(,cuda:[0-9]+)*)$",
    )
    memory_mb: int = machine(
        1024, "MiB for the sample and the blocks; refused where too small", minimum=16
    )


@section(
    "rqvae", "docs/rqvae.md; rqkmeans_plus (codebooks from rqkmeans) and fsq (a grid) take it too"
)
class Rqvae:
    """RQ-VAE, as in TIGER and LC-Rec."""

    data_paths: list[str] = science(
        [],
        (
            "train on these (.npy, .h5, .parquet or a folder of it) in place of "
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
        "widths of the encoder; the decoder has them in reverse",
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
            "past the layers: pca (start from the main directions) | none (a plain MLP, as "
            "in the papers)"
        ),
    )
    loss: Literal["mse", "l1", "cosine"] = science("mse", "reconstruction: mse | l1 | cosine")
    quant_loss_weight: float = science(
        1.0, "of the quantizer's losses against the reconstruction", minimum=0
    )
    beta: float = science(0.25, "of the commitment of latents to their codewords", minimum=0)
    codebook_update: Literal["ema", "gradient"] = science(
        "ema", "ema (moving averages, calmer) | gradient (as in LC-Rec)"
    )
    ema_decay: float = science(
        0.995, "share of the past that a moving average keeps per step", above=0, below=1
    )
    estimator: Literal["straight_through", "rotation"] = science(
        "straight_through", "gradient past the quantizer: straight_through | rotation"
    )
    sk_epsilons: list[float] = science(
        [],
        (
            "per level: balanced (Sinkhorn) assignment in training, 0 for the nearest; "
            "LC-Rec: [0, 0, 0.003]"
        ),
        minimum=0,
        may_be_empty=True,
    )
    sk_iters: int = science(50, "rounds of it", minimum=1)
    restart: bool = science(
        True, "codewords that an epoch did not use start again on badly explained items"
    )
    diversity_weight: float = science(0.1, "spreads latents apart; 0 for none", minimum=0)
    repulsion_weight: float = science(
        3.0,
        "parts items that share all codes; more: fewer collisions, larger error; 0 for none",
        minimum=0,
    )
    contrastive_weight: float = science(
        0.0,
        "draws items together that users consumed together; try 0.1; 0 needs no interactions",
        minimum=0,
    )
    contrastive_temperature: float = science(0.1, "of that loss", above=0)
    pairs_path: str | None = science(
        None,
        "parquet with pid_a, pid_b for it; null: neighbours in the histories of interactions",
    )
    autoencoder_epochs: int = science(12, "epochs before anything is quantized", minimum=0)
    kmeans_init: Literal["full", "first_batch", "none"] = science(
        "full",
        (
            "codebooks begin at residual k-means over: full (all latents) | first_batch | "
            "none (random)"
        ),
    )
    kmeans_iters: int = science(100, "its passes per level, at most", minimum=1)
    optimizer: Literal["adamw", "adam", "nadam", "radam", "adagrad", "rmsprop", "sgd"] = science(
        "adamw", "adamw | adam | nadam | radam | adagrad | rmsprop | sgd"
    )
    lr: float = science(0.002, "highest learning rate", above=0)
    weight_decay: float = science(
        0.1, "of the optimizer; more where held-out error rises", minimum=0
    )
    schedule: Literal["constant", "linear", "cosine"] = science(
        "cosine", "learning rate after the warm-up: constant | linear | cosine (both fall to 0)"
    )
    warmup_epochs: int = science(2, "epochs over which the learning rate rises", minimum=0)
    epochs: int = science(40, "passes over the vectors", minimum=1)
    batch_size: int = science(128, "vectors per step; 1024 and more for a million items", minimum=2)
    eval_step: int = science(2, "epochs from one measurement and checkpoint to the next", minimum=1)
    clip: float = science(1.0, "largest norm of a gradient; 0 for no limit", minimum=0)
    precision: Literal["auto", "bfloat16", "float32"] = science(
        "auto", "auto (bfloat16 on GPUs) | bfloat16 | float32"
    )
    test_ratio: float = science(
        0.05, "share of the items that only measure the reconstruction", minimum=0, maximum=0.5
    )
    choose: Literal["best_collision", "best_loss", "best_utilisation", "last"] = science(
        "best_collision",
        (
            "the checkpoint to take: best_collision (within 2 % of the least error) | "
            "best_loss | best_utilisation | last"
        ),
    )
    save_limit: int = science(5, "recent checkpoints that stay", minimum=0)
    tracking: Literal["none", "tensorboard", "wandb"] = science(
        "none",
        "besides metrics.csv: none | tensorboard | wandb (WANDB_PROJECT, WANDB_MODE=offline)",
    )
    device: str = machine("auto", "auto | cpu | cuda", pattern="^(auto|cpu|cuda(:[0-9]+)?)$")
    memory_mb: int = machine(1024, "MiB: vectors that fit are held in memory", minimum=16)
    processes: int = science(
        1,
        (
            "processes that train together, one GPU each; each compares the rows of its own "
            "share of a batch, so the number changes the result"
        ),
        minimum=1,
    )


@section(
    "fsq", "finite scalar quantization: as many levels as rqvae.codebook_sizes, all else of rqvae"
)
class Fsq:
    """Finite scalar quantization of the latents of an RQ-VAE."""

    steps: list[int] = science(
        [8, 8, 4],
        "even steps of each latent dimension of a token; their product is the codes of a level",
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
    n_levels: int | None = science(None, "take the first so many levels; null: all", minimum=1)


@section("opq", "optimized product quantization, with the levels and codes of rqkmeans")
class Opq:
    """Optimized product quantization."""

    n_iter: int = science(20, "rounds of the rotation, and of k-means", minimum=1)
    max_points_per_centroid: int = science(256, "vectors per code to train on, at most", minimum=1)
    memory_mb: int = machine(1024, "MiB for those vectors; refused where too small", minimum=16)


@section("pca_grid", "even steps on the principal axes, with the levels and codes of rqkmeans")
class PcaGrid:
    """A grid of even steps on the principal axes."""

    sample: int = science(
        65536, "vectors that the widths of the steps are fitted to, at most", minimum=1
    )
    memory_mb: int = machine(1024, "MiB for those vectors; refused where too small", minimum=16)


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
    memory_mb: int = machine(1024, "MiB for the blocks that stream through", minimum=16)
