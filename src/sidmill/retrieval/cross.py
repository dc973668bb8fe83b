"""The cross encoder: reads a query and a passage together and says whether this answers that.

Either a classifier with one output (BERT, ERNIE), or a language model whose score is the log odds
of ``yes`` against ``no`` as its next word (Qwen3-Reranker). Both train on the same loss.

Source: https://sbert.net, https://huggingface.co/Qwen/Qwen3-Reranker-0.6B
"""

import json
from pathlib import Path

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
from sidmill.retrieval import training

METRIC = "dev_average_precision"
HEADED = "ForSequenceClassification"
INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
# The form of Qwen3-Reranker, for language models whose own template knows no query and document.
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
    pairs_path: str | Path,
    model_dir: str | Path,
    state_dir: str | Path,
    *,
    model: str,
    revision: str | None,
    max_rows: int | None,
    dev_share: float,
    epochs: float,
    batch_size: int,
    learning_rate: float,
    warmup: float,
    max_length: int,
    dtype: str,
    evaluations: int,
    device: str,
    seed: int,
    code: str,
) -> dict:
    """Train a cross encoder and keep the checkpoint that tells pairs set aside apart best.

    Args:
        pairs_path: pairs.parquet.
        model_dir: folder to write, in the form of sentence-transformers.
        state_dir: folder of the checkpoints, gone when the model is written.
        model: folder or hub id to start from; a classifier gets a new head where it has none.
        revision: of a hub model.
        max_rows: train on the first so many rows; null on all.
        dev_share: share of the queries that are set aside; 0 keeps the last checkpoint.
        epochs: passes over the rows.
        batch_size: pairs per step.
        learning_rate: its peak.
        warmup: share of the steps until then.
        max_length: tokens per pair; the passage is cut.
        dtype: float32 or bfloat16.
        evaluations: how often the model is evaluated and saved.
        device: auto, cpu or cuda.
        seed: of the split, of the order and of a new head.
        code: names the code; checkpoints that other code left are not gone on from.

    Returns:
        Rows, steps, and average precision on the pairs set aside, before and after.

    Raises:
        SidmillError: if a setting does not fit, or the model cannot be loaded.
    """
    given = {
        name: value for name, value in locals().items() if not name.endswith(("_path", "_dir"))
    }
    kept, dev, settings = training.prepare(pairs_path, triples.PAIRS, state_dir, given, METRIC)
    reader = load(model, revision, max_length, "float32", device, "cross.model", new_head=True)
    evaluator = None
    if dev_share:
        pairs = list(zip(dev["query"].to_pylist(), dev["passage"].to_pylist(), strict=True))
        evaluator = CrossEncoderClassificationEvaluator(
            pairs, dev["label"].to_pylist(), name="dev", write_csv=False
        )
    before = evaluator(reader)[METRIC] if evaluator else None
    trainer = CrossEncoderTrainer(
        model=reader,
        args=CrossEncoderTrainingArguments(**settings),
        train_dataset=training.dataset(kept),
        loss=BinaryCrossEntropyLoss(reader),
        evaluator=evaluator,
    )
    training.run(trainer, state_dir)
    figures = {
        "rows": kept.num_rows,
        "steps": trainer.state.global_step,
        "dev_pairs": dev.num_rows,
        "dev_average_precision_before": before,
        "dev_average_precision_after": evaluator(reader)[METRIC] if evaluator else None,
    }
    training.finish(reader, model_dir, state_dir, figures)
    return figures


def load(
    model: str,
    revision: str | None,
    max_length: int,
    dtype: str,
    device: str,
    setting: str,
    *,
    new_head: bool = False,
) -> CrossEncoder:
    """Load a cross encoder: of one output, or a language model scored by yes and no.

    A ``max_length`` above the positions of the model is lowered to them, with a warning.

    Args:
        model: folder or hub id.
        revision: of a hub model.
        max_length: tokens per pair.
        dtype: float32 or bfloat16, of the weights.
        device: auto, cpu or cuda.
        setting: config key that holds ``model``, for the message.
        new_head: for training: a model without a head of one output gets a new one, by the seed of
            torch. Otherwise its scores would be random, and it is refused.

    Raises:
        SidmillError: if it cannot be loaded, or has no head of one output and may get none.
    """
    given = {"use_safetensors": True, "dtype": getattr(torch, dtype)}
    try:
        config = AutoConfig.from_pretrained(model, revision=revision, trust_remote_code=False)
        is_language_model = _is_language_model(config)
        if not new_head:
            _check_head(model, revision, config, given, setting)
        elif not is_language_model:
            given["ignore_mismatched_sizes"] = True  # a head of several outputs makes way
        reader = CrossEncoder(
            model,
            revision=revision,
            device=None if device == "auto" else device,
            trust_remote_code=False,
            max_length=max_length,
            model_kwargs=given,
            **({} if is_language_model else {"num_labels": 1}),
        )
    except (OSError, ValueError, ImportError) as error:
        raise SidmillError(
            f"{setting} {model!r} cannot be loaded ({hf_hub.first_line(error)}): name a hub id "
            f"or a folder with model.safetensors"
        ) from None

    # What its tokenizer leaves open.
    if any(isinstance(module, LogitScore) for module in reader):
        own = reader.tokenizer.chat_template
        if own is None or "document" not in own:
            reader.tokenizer.chat_template = TEMPLATE
    elif reader.tokenizer.pad_token_id is not None:
        reader.model.config.pad_token_id = reader.tokenizer.pad_token_id
    reader.max_seq_length = training.fit_length(reader.model, max_length, setting)
    return reader


def _check_head(
    model: str, revision: str | None, config: PretrainedConfig, given: dict, setting: str
) -> None:
    """Stop at a model whose scores would come from weights that it does not have.

    Raises:
        SidmillError: saying what it is, and what reranks.
    """
    wanted = (
        "a reranker has one output with weights of its own, or is a language model that answers "
        "yes or no: name one, or train one (cross.model) and set rerank.model: results/cross/model"
    )
    modules = hf_hub.find_modules(model, revision, setting.partition(".")[0])
    kinds = [] if modules is None else [
        each["type"].rpartition(".")[2] for each in json.loads(Path(modules).read_text("utf-8"))
    ]  # fmt: skip
    if "Pooling" in kinds:
        raise SidmillError(f"{setting} {model!r} embeds texts and scores no pairs: {wanted}")
    if _is_language_model(config) or len(kinds) > 1:  # a head of sentence-transformers follows
        return
    if any(name.endswith(HEADED) for name in config.architectures or ()) and config.num_labels != 1:
        raise SidmillError(f"{setting} {model!r} has {config.num_labels} outputs: {wanted}")
    _, found = AutoModelForSequenceClassification.from_pretrained(
        model,
        revision=revision,
        trust_remote_code=False,
        num_labels=1,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        **given,
    )
    lost = sorted({*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])})
    if lost:
        raise SidmillError(
            f"{setting} {model!r} has no weights for {names(lost)}, so its scores would be random: "
            f"{wanted}"
        )


def _is_language_model(config: PretrainedConfig) -> bool:
    return any(name.endswith("ForCausalLM") for name in config.architectures or ())
