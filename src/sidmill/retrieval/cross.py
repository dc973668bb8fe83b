"""The cross encoder: reads a query and a passage together and scores whether the passage answers.

Either a classifier with one output (BERT, ERNIE), or a language model whose score is the log odds
of ``yes`` against ``no`` as its next token (Qwen3-Reranker). Both train on the same loss.

Source: https://sbert.net, https://huggingface.co/Qwen/Qwen3-Reranker-0.6B
"""

import json
from pathlib import Path
from typing import Any

import torch
from sentence_transformers.cross_encoder import (
    CrossEncoder,
    CrossEncoderTrainer,
    CrossEncoderTrainingArguments,
)
from sentence_transformers.cross_encoder.evaluation import CrossEncoderClassificationEvaluator
from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss
from sentence_transformers.cross_encoder.modules import LogitScore
from transformers import AutoConfig, AutoModelForSequenceClassification, PretrainedConfig

from sidmill.core.errors import SidmillError
from sidmill.core.terminal import names
from sidmill.formats import triples
from sidmill.io import hf_hub
from sidmill.numeric import wide_linear
from sidmill.retrieval import training
from sidmill.retrieval.training import Folders
from sidmill.settings.retrieval import Cross, Rerank

METRIC = "dev_average_precision"
HEADED = "ForSequenceClassification"
INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
# The prompt of Qwen3-Reranker, for language models whose own template has no query and document.
ROLE = '{{ messages | selectattr("role", "eq", "%s") | map(attribute="content") | first }}'
TEMPLATE = (
    "<|im_start|>system\n"
    "Judge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n"
    '{% set said = messages | selectattr("role", "eq", "system") | list %}'
    f"<Instruct>: {{{{ said[0].content if said else {INSTRUCTION!r} }}}}\n"
    f"<Query>: {ROLE % 'query'}\n"
    f"<Document>: {ROLE % 'document'}<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>{{ '\\n\\n' }}"  # Jinja drops a bare last line feed
)


def train(
    pairs_path: str | Path, folders: Folders, settings: Cross, seed: int, code: str
) -> dict[str, Any]:
    """Train a cross encoder and keep the checkpoint that separates held-out pairs best.

    The same data, settings, seed and machine give the same weights; another device or number of
    threads may change the last bits of the weights.

    Args:
        pairs_path: pairs.parquet.
        folders: of the model, in the form of sentence-transformers, and of its checkpoints.
        settings: section ``cross``; a classifier without a head of one output gets a new head.
        seed: of the split, of the order and of a new head.
        code: names the code; checkpoints of other code are not resumed.

    Returns:
        Rows, steps, and average precision on the held-out pairs, before and after.

    Raises:
        SidmillError: if a setting does not fit, or the model cannot be loaded.
    """
    data = training.prepare(
        pairs_path, triples.PAIRS, folders.state, settings, seed, METRIC, {"code": code}
    )
    reader = load(settings)

    # Average precision on the held-out pairs, before training.
    evaluator = None
    if settings.dev_share:
        pairs = zip(data.dev["query"].to_pylist(), data.dev["passage"].to_pylist(), strict=True)
        evaluator = CrossEncoderClassificationEvaluator(
            [list(pair) for pair in pairs],
            data.dev["label"].to_pylist(),
            name="dev",
            write_csv=False,
        )
    before = evaluator(reader)[METRIC] if evaluator else None

    trainer = CrossEncoderTrainer(
        model=reader,
        args=training.on_one_gpu(CrossEncoderTrainingArguments, settings.device, data.arguments),
        train_dataset=training.dataset(data.rows),
        loss=BinaryCrossEntropyLoss(reader),
        evaluator=evaluator,
    )
    training.run(trainer, folders.state)

    # The model appears with its figures, then the checkpoints go.
    figures = {
        "rows": data.rows.num_rows,
        "steps": trainer.state.global_step,
        "dev_pairs": data.dev.num_rows,
        "dev_average_precision_before": before,
        "dev_average_precision_after": evaluator(reader)[METRIC] if evaluator else None,
    }
    training.finish(reader, folders, figures)
    return figures


def load(settings: Cross | Rerank) -> CrossEncoder:
    """Load a cross encoder: one with one output, or a language model scored by yes and no.

    A ``max_length`` above the positions of the model is lowered to them, with a warning.

    Args:
        settings: section ``cross``, to train: the weights are float32, and a model without a head
            of one output gets a new one, by the seed of torch. Section ``rerank``, to score: the
            weights are of ``dtype``, and such a model is refused, since its scores would be random.

    Raises:
        SidmillError: if it cannot be loaded, or has no head of one output and may get none.
    """
    is_training = isinstance(settings, Cross)
    setting = "cross.model" if is_training else "rerank.model"
    model = training.require_model(settings.model, setting)
    dtype = torch.float32 if is_training else getattr(torch, settings.dtype)
    options: dict[str, Any] = {"use_safetensors": True, "dtype": dtype}

    # No code of the model's authors is run, and no pickle is read.
    try:
        config = AutoConfig.from_pretrained(
            model, revision=settings.revision, trust_remote_code=False
        )
        is_language_model = _is_language_model(config)
        if not is_training:
            _check_head(model, settings.revision, config, options)
        elif not is_language_model:
            options["ignore_mismatched_sizes"] = True  # replaces a head of several outputs
        reader: CrossEncoder = CrossEncoder(
            model,
            revision=settings.revision,
            device=None if settings.device == "auto" else settings.device,
            trust_remote_code=False,
            max_length=settings.max_length,
            model_kwargs=options,
            num_labels=None if is_language_model else 1,
        )
    except (OSError, ValueError, ImportError) as error:
        raise SidmillError(
            f"{setting} {model!r} cannot be loaded ({hf_hub.first_line(error)}): name a hub id "
            f"or a folder with model.safetensors"
        ) from None

    _complete_tokenizer(reader)
    reader.max_seq_length = training.fit_length(reader.model, settings.max_length, setting)
    wide_linear.widen(reader)
    return reader


def _complete_tokenizer(reader: Any) -> None:
    """Set what the tokenizer leaves open: a prompt of query and document, or the padding token."""
    if any(isinstance(module, LogitScore) for module in reader):
        template = reader.tokenizer.chat_template
        if template is None or "document" not in template:
            reader.tokenizer.chat_template = TEMPLATE
    elif reader.tokenizer.pad_token_id is not None:
        reader.model.config.pad_token_id = reader.tokenizer.pad_token_id


def _check_head(
    model: str, revision: str | None, config: PretrainedConfig, options: dict[str, Any]
) -> None:
    """Refuse a model that has no weights of its own for the score.

    Raises:
        SidmillError: naming what the model is, and which models rerank.
    """
    setting = "rerank.model"
    remedy = (
        "a reranker has one output with weights of its own, or is a language model that answers "
        "yes or no: name one, or train one (cross.model) and set rerank.model: results/cross/model"
    )

    # A model of sentence-transformers lists its modules: pooling makes vectors, other heads score.
    modules = hf_hub.find_modules(model, revision, "rerank")
    kinds = [] if modules is None else [
        each["type"].rpartition(".")[2] for each in json.loads(Path(modules).read_text("utf-8"))
    ]  # fmt: skip
    if "Pooling" in kinds:
        raise SidmillError(f"{setting} {model!r} embeds texts and scores no pairs: {remedy}")
    if _is_language_model(config) or len(kinds) > 1:
        return
    if any(name.endswith(HEADED) for name in config.architectures or ()) and config.num_labels != 1:
        raise SidmillError(f"{setting} {model!r} has {config.num_labels} outputs: {remedy}")

    # Weights that the files lack would be drawn at random.
    _, report = AutoModelForSequenceClassification.from_pretrained(
        model,
        revision=revision,
        trust_remote_code=False,
        num_labels=1,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        **options,
    )
    mismatched = (key for key, *_ in report["mismatched_keys"])
    missing = sorted({*report["missing_keys"], *mismatched})
    if missing:
        raise SidmillError(
            f"{setting} {model!r} has no weights for {names(missing)}, so its scores would be "
            f"random: {remedy}"
        )


def _is_language_model(config: PretrainedConfig) -> bool:
    return any(name.endswith("ForCausalLM") for name in config.architectures or ())
