"""The dual encoder: one model for queries and passages, trained so that a query is near its answer.

The loss separates each query from the passages of all other queries of its batch and from its own
hard negative. Gradient caching trains on batches larger than the device with the same result.

Source: DPR, https://arxiv.org/abs/2004.04906; GradCache, https://arxiv.org/abs/2101.06983; run by
https://sbert.net
"""

from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from sentence_transformers.sentence_transformer.training_args import BatchSamplers

from sidmill.core.errors import SidmillError
from sidmill.formats import triples
from sidmill.io import hf_hub
from sidmill.numeric import wide_linear
from sidmill.retrieval import training
from sidmill.retrieval.training import Folders
from sidmill.settings.retrieval import Dual

METRIC = "dev_cosine_mrr@10"


class Prompts(NamedTuple):
    """Text before every query, and before every passage."""

    query: str = ""
    passage: str = ""


def train(
    triples_path: str | Path,
    folders: Folders,
    settings: Dual,
    prompts: Prompts,
    seed: int,
    code: str,
) -> dict[str, Any]:
    """Train a dual encoder and keep the checkpoint with the best MRR@10 on held-out queries.

    Held-out queries are searched among their own passages and ``dev_pool`` others. The same data,
    settings, seed and machine give the same weights, also after an interruption; another device or
    number of threads may change the last bits of the weights.

    Args:
        triples_path: triples.parquet. Where all negatives are null, the loss uses those of the
            batch; where some are null, :func:`fill_negatives` fills them.
        folders: of the model, in the form of sentence-transformers, and of its checkpoints.
        settings: section ``dual``.
        prompts: of queries and passages.
        seed: of the split, of the order and of new weights.
        code: names the code; checkpoints of other code are not resumed.

    Returns:
        Rows, steps, and MRR@10 on the held-out queries, before and after.

    Raises:
        SidmillError: if a setting does not fit, or the model cannot be loaded.
    """
    # The checkpoints of a training with another identity are removed here.
    others = {"query_prompt": prompts.query, "prompt": prompts.passage, "code": code}
    data = training.prepare(
        triples_path, triples.TRIPLES, folders.state, settings, seed, METRIC, others
    )
    encoder = load(settings)

    # MRR@10 on the held-out queries, before training.
    evaluator = dev_evaluator(data, settings.dev_pool, prompts) if settings.dev_share else None
    before = evaluator(encoder)[METRIC] if evaluator else None

    own = {
        "batch_sampler": BatchSamplers.NO_DUPLICATES,  # a repeated text is no negative
        "prompts": {
            "query": prompts.query,
            "positive": prompts.passage,
            "negative": prompts.passage,
        },
    }
    trainer = SentenceTransformerTrainer(
        model=encoder,
        args=training.on_one_gpu(
            SentenceTransformerTrainingArguments, settings.device, data.arguments | own
        ),
        train_dataset=training.dataset(fill_negatives(data.rows)),
        loss=_loss(encoder, settings),
        evaluator=evaluator,
    )
    training.run(trainer, folders.state)

    # The model appears with its figures, then the checkpoints go.
    figures = {
        "rows": data.rows.num_rows,
        "steps": trainer.state.global_step,
        "dev_queries": len(evaluator.queries) if evaluator else 0,
        "dev_mrr_10_before": before,
        "dev_mrr_10_after": evaluator(encoder)[METRIC] if evaluator else None,
    }
    training.finish(encoder, folders, figures)
    return figures


def load(settings: Dual) -> SentenceTransformer:
    """Load a model to train, in float32; one without its own pooling takes ``settings.pooling``.

    Raises:
        SidmillError: if it cannot be loaded, or nothing says how to pool its tokens.
    """
    model, revision = training.require_model(settings.model, "dual.model"), settings.revision
    if settings.pooling is None and hf_hub.find_modules(model, revision, "dual") is None:
        raise SidmillError(
            f"{model} does not say how to pool its tokens: set dual.pooling (BERT and ERNIE: cls, "
            f"Qwen3: lasttoken)"
        )

    # Weights in safetensors alone, and no code of the model's authors.
    device = None if settings.device == "auto" else settings.device
    try:
        encoder = (
            SentenceTransformer(
                model,
                device=device,
                revision=revision,
                trust_remote_code=False,
                model_kwargs={"use_safetensors": True},
            )
            if settings.pooling is None
            else SentenceTransformer(modules=_modules(model, settings), device=device)
        )
    except (OSError, ValueError, ImportError) as error:
        raise SidmillError(
            f"dual.model {model!r} cannot be loaded ({hf_hub.first_line(error)}): name a hub id "
            f"or a folder with model.safetensors"
        ) from None

    # Static embeddings have no transformer, and so no positions.
    length = min(settings.max_length, encoder.max_seq_length or settings.max_length)
    body = getattr(encoder[0], "model", None)
    encoder.max_seq_length = training.fit_length(body, length, "dual.model") if body else length
    encoder = encoder.float()
    wide_linear.widen(encoder)
    return encoder


def _modules(model: str, settings: Dual) -> list[Any]:
    """A transformer, with the pooling of ``settings`` and vectors of length 1."""
    safe = {"revision": settings.revision, "trust_remote_code": False}
    body = Transformer(
        model,
        max_seq_length=settings.max_length,
        model_kwargs={"use_safetensors": True, **safe},
        processor_kwargs=safe,
        config_kwargs=safe,
    )
    head = Pooling(body.get_embedding_dimension(), pooling_mode=settings.pooling)
    return [body, head, Normalize()]


def fill_negatives(rows: pa.Table) -> pa.Table:
    """Give each training row of the dual encoder that lacks a negative the answer of another query.

    The trainer takes a column whole or not at all.

    Raises:
        SidmillError: if a row has no negative, and every passage answers its query.
    """
    negatives = rows["negative"].to_pylist()
    if rows["negative"].null_count in (0, len(negatives)):
        return rows

    queries, positives = rows["query"].to_pylist(), rows["positive"].to_pylist()
    answers: dict[str, set[str]] = {}
    for query, positive in zip(queries, positives, strict=True):
        answers.setdefault(query, set()).add(positive)

    # The search for the next row wraps around at the end.
    for row, query in enumerate(queries):
        if negatives[row] is None:
            following = chain(range(row + 1, len(queries)), range(row))
            other = next((at for at in following if positives[at] not in answers[query]), None)
            if other is None:
                raise SidmillError(
                    f"query {query!r} has no negative, and every passage answers it: train on more "
                    f"queries"
                )
            negatives[row] = positives[other]
    return rows.set_column(2, "negative", pa.array(negatives, pa.string()))


def dev_evaluator(
    data: training.Prepared, pool: int, prompts: Prompts
) -> InformationRetrievalEvaluator:
    """Search the held-out queries among their own passages and the first ``pool`` other ones."""
    # Ids of the passages by text: first those of the held-out rows, then of the training rows.
    passages: dict[str, str] = {}
    for name in ("positive", "negative"):
        for text in data.dev[name].to_pylist():
            if text is not None:
                passages.setdefault(text, f"p{len(passages)}")
    full = len(passages) + pool
    for text in data.rows["positive"].to_pylist():
        if len(passages) >= full:
            break
        passages.setdefault(text, f"p{len(passages)}")

    # Ids of the queries by text, and the passages that answer each.
    queries: dict[str, str] = {}
    answers: dict[str, set[str]] = {}
    rows = zip(data.dev["query"].to_pylist(), data.dev["positive"].to_pylist(), strict=True)
    for query, positive in rows:
        qid = queries.setdefault(query, f"q{len(queries)}")
        answers.setdefault(qid, set()).add(passages[positive])

    return InformationRetrievalEvaluator(
        queries={qid: query for query, qid in queries.items()},
        corpus={pid: text for text, pid in passages.items()},
        relevant_docs=answers,
        mrr_at_k=[10],
        name="dev",
        query_prompt=prompts.query,
        corpus_prompt=prompts.passage,
        main_score_function="cosine",
        write_csv=False,
    )


def _loss(
    encoder: SentenceTransformer, settings: Dual
) -> MultipleNegativesRankingLoss | CachedMultipleNegativesRankingLoss:
    scale = 1 / settings.temperature
    if settings.mini_batch is None:
        return MultipleNegativesRankingLoss(encoder, scale=scale)
    return CachedMultipleNegativesRankingLoss(
        encoder, scale=scale, mini_batch_size=settings.mini_batch
    )
