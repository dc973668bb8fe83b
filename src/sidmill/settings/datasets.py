"""Settings of datasets."""

from typing import Literal

from sidmill.settings.base import science, section


@section("datasets")
class Datasets:
    """SID-token datasets for language models."""

    tasks: list[str] = science(
        [
            "pretrain_video_rec",
            "pretrain_item_understand",
            "sft_video_rec",
            "sft_sid_to_title",
            "sft_title_to_sid",
        ],
        "files of workflow/resources/tasks",
        pattern="^(pretrain|sft)_[A-Za-z0-9_-]+([.](valid|test))?$",
        unique=True,
    )
    form: Literal["onerec", "chat"] = science(
        "onerec",
        "onerec: JSON text of typed parts | chat: lists of role and content (datasets, TRL)",
    )
    language: str = science("en", "language of the prompts: en | zh")
    users: str | None = science(
        None,
        (
            "OneRec metadata parquet (file, folder, glob); null: "
            "results/interactions/sequences.parquet"
        ),
    )
    captions: str | None = science(
        None, "parquet of pid, dense_caption; null: the catalogue's own text"
    )
    product_pid2sid: str | None = science(None, "SIDs of a second domain, for sft_product_rec")
    windows: Literal["user", "item"] = science(
        "user", "rows of tasks on sequences. user: one row per user | item: one row per position"
    )
    history_max: int | None = science(
        None, "items of a history, at most; null: the number in each task file", minimum=1
    )
    target_max: int | None = science(
        None, "items of a target, at most; null: the number in each task file", minimum=1
    )
    rows_per_file: int = science(1000, "rows of a parquet file", minimum=1)
    shards: int = science(
        1,
        "jobs per dataset and pass; the number does not change the bytes",
        minimum=1,
        maximum=99999,
    )
    max_unknown_share: float = science(
        0.01, "stop if a larger share of the item ids has no SID", minimum=0, maximum=1
    )
    max_left_out_share: float = science(
        0.5,
        "stop if a larger share of the input rows of the split produces no row",
        minimum=0,
        maximum=1,
    )


@section("lint")
class Lint:
    """Checks of the datasets."""

    token_budget: int = science(32768, "rows with more tokens are listed", minimum=1)
    tokenizer: str | None = science(
        None,
        (
            "folder or hub id of the tokenizer that counts tokens; null: an estimate, SID "
            "tokens plus a quarter of the other bytes"
        ),
    )


@section("mixture", "results/datasets/mixture/{train,test}: datasets shuffled into one")
class Mixture:
    """Datasets shuffled into one."""

    weights: dict[str, float] = science(
        {"sft_video_rec": 1.0, "sft_sid_to_title": 1.0, "sft_title_to_sid": 1.0},
        "weight per dataset; 0.5: half of its rows; 2: each row twice",
        above=0,
        key_pattern="^(pretrain|sft)_[A-Za-z0-9_-]+$",
    )
    test_size: dict[str, int] = science(
        {},
        "held-out test rows per dataset, whole users only; rl/train leaves them out too",
        minimum=0,
        may_be_empty=True,
    )
    rows_per_file: int = science(1000, "rows of a file", minimum=1)


@section("rl", "results/datasets/rl/{train,test}: as mixture, for reinforcement learning")
class Rl(Mixture):
    """Datasets for reinforcement learning."""

    weights: dict[str, float] = science(
        {"sft_video_rec": 1.0},
        "a weight per dataset",
        above=0,
        key_pattern="^(pretrain|sft)_[A-Za-z0-9_-]+$",
    )
    test_size: dict[str, int] = science(
        {"sft_video_rec": 1000},
        "mixture/train leaves these users out too",
        minimum=0,
        may_be_empty=True,
    )


@section("vocabulary")
class Vocabulary:
    """SID tokens in a language model and its tokenizer."""

    model: str | None = science(
        None, "folder or hub id of the model and tokenizer that get the SID tokens"
    )
    revision: str | None = science(None, "commit or tag of the hub model")
    init: Literal["codebook", "mean", "random"] = science(
        "codebook", "new embeddings: codebook (from the codebook vectors) | mean | random"
    )
    pad_to: int = science(256, "rows of the embedding matrix are a multiple of this", minimum=1)
    dtype: Literal["auto", "float32", "bfloat16"] = science(
        "auto", "auto: as the model is stored | float32 | bfloat16"
    )
