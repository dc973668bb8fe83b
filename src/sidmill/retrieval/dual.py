"""The dual encoder: one model for queries and passages, trained so that answers lie close.

Each query is told apart from the passages of all other queries in its batch and from its own hard
negative. Batches larger than the device come through gradient caching, with the same result.

Source: DPR, https://arxiv.org/abs/2004.04906; GradCache, https://arxiv.org/abs/2101.06983; run by
https://sbert.net
"""

from itertools import chain
from pathlib import Path

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
from sidmill.retrieval import training

METRIC = "dev_cosine_mrr@10"


def train(
    triples_path: str | Path,
    model_dir: str | Path,
    state_dir: str | Path,
    *,
    model: str,
    revision: str | None,
    pooling: str | None,
    max_rows: int | None,
    dev_share: float,
    dev_pool: int,
    epochs: float,
    batch_size: int,
    mini_batch: int | None,
    learning_rate: float,
    warmup: float,
    temperature: float,
    max_length: int,
    dtype: str,
    evaluations: int,
    device: str,
    query_prompt: str,
    prompt: str,
    seed: int,
    code: str,
) -> dict:
    """Train a dual encoder and keep the checkpoint with the best MRR@10 on queries set aside.

    These are searched among their own passages and ``dev_pool`` others. Same data, settings, seed
    and machine: same weights, cut short or not.

    Args:
        triples_path: triples.parquet; where all negatives are null, those of the batch have to do,
            where some are, as :func:`fill_negatives` says.
        model_dir: folder to write, in the form of sentence-transformers.
        state_dir: folder of the checkpoints, gone when the model is written.
        model: folder or hub id to start from.
        revision: of a hub model.
        pooling: cls, mean or lasttoken, for a model that does not say; null takes its own.
        max_rows: train on the first so many rows; null on all.
        dev_share: share of the queries that are set aside; 0 keeps the last checkpoint.
        dev_pool: passages of other queries that they are searched among.
        epochs: passes over the rows.
        batch_size: rows per step: the number of passages that each query is told apart from.
        mini_batch: rows on the device at a time, for gradient caching; null: the whole batch.
        learning_rate: its peak.
        warmup: share of the steps until then.
        temperature: similarities are divided by it.
        max_length: tokens per text.
        dtype: float32 or bfloat16.
        evaluations: how often the model is evaluated and saved.
        device: auto, cpu or cuda.
        query_prompt: put before every query.
        prompt: put before every passage.
        seed: of the split, of the order and of new weights.
        code: names the code; checkpoints that other code left are not gone on from.

    Returns:
        Rows, steps, and MRR@10 on the queries set aside, before and after.

    Raises:
        SidmillError: if a setting does not fit, or the model cannot be loaded.
    """
    given = {
        name: value for name, value in locals().items() if not name.endswith(("_path", "_dir"))
    }
    kept, dev, settings = training.prepare(triples_path, triples.TRIPLES, state_dir, given, METRIC)
    encoder = load(model, revision, pooling, max_length, device)
    evaluator = dev_evaluator(dev, kept, dev_pool, query_prompt, prompt) if dev_share else None
    before = evaluator(encoder)[METRIC] if evaluator else None
    data = training.dataset(fill_negatives(kept))
    trainer = SentenceTransformerTrainer(
        model=encoder,
        args=SentenceTransformerTrainingArguments(
            **settings,
            batch_sampler=BatchSamplers.NO_DUPLICATES,  # a repeated text is no negative
            prompts={"query": query_prompt, "positive": prompt, "negative": prompt},
        ),
        train_dataset=data,
        loss=_loss(encoder, 1 / temperature, mini_batch),
        evaluator=evaluator,
    )
    training.run(trainer, state_dir)
    figures = {
        "rows": kept.num_rows,
        "steps": trainer.state.global_step,
        "dev_queries": len(evaluator.queries) if evaluator else 0,
        "dev_mrr_10_before": before,
        "dev_mrr_10_after": evaluator(encoder)[METRIC] if evaluator else None,
    }
    training.finish(encoder, model_dir, state_dir, figures)
    return figures


def load(
    model: str, revision: str | None, pooling: str | None, max_length: int, device: str
) -> SentenceTransformer:
    """Load a model to train, in float32; one without a pooling of its own takes ``pooling``.

    Raises:
        SidmillError: if it cannot be loaded, or nothing says how to pool its tokens.
    """
    if pooling is None and hf_hub.find_modules(model, revision, "dual") is None:
        raise SidmillError(
            f"{model} does not say how to pool its tokens: set dual.pooling (BERT and ERNIE: cls, "
            f"Qwen3: lasttoken)"
        )
    safe = {"revision": revision, "trust_remote_code": False}
    place = None if device == "auto" else device
    try:
        if pooling is None:
            encoder = SentenceTransformer(
                model, device=place, model_kwargs={"use_safetensors": True}, **safe
            )
        else:
            body = Transformer(
                model,
                max_seq_length=max_length,
                model_kwargs={"use_safetensors": True, **safe},
                processor_kwargs=safe,
                config_kwargs=safe,
            )
            head = Pooling(body.get_embedding_dimension(), pooling_mode=pooling)
            encoder = SentenceTransformer(modules=[body, head, Normalize()], device=place)
    except (OSError, ValueError, ImportError) as error:
        raise SidmillError(
            f"dual.model {model!r} cannot be loaded ({hf_hub.first_line(error)}): name a hub id "
            f"or a folder with model.safetensors"
        ) from None
    own = min(max_length, encoder.max_seq_length or max_length)
    body = getattr(encoder[0], "model", None)  # static embeddings have none, and no positions
    encoder.max_seq_length = training.fit_length(body, own, "dual.model") if body else own
    return encoder.float()


def fill_negatives(rows: pa.Table) -> pa.Table:
    """Give a row without a negative the answer of the next row that answers another query.

    The trainer takes a column whole or not at all.

    Raises:
        SidmillError: if a row has no negative, and every answer is one of its query too.
    """
    negatives = rows["negative"].to_pylist()
    if rows["negative"].null_count in (0, len(negatives)):
        return rows
    queries, positives = rows["query"].to_pylist(), rows["positive"].to_pylist()
    answers: dict[str, set[str]] = {}
    for query, positive in zip(queries, positives, strict=True):
        answers.setdefault(query, set()).add(positive)
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
    dev: pa.Table, others: pa.Table, pool: int, query_prompt: str, prompt: str
) -> InformationRetrievalEvaluator:
    """Search the queries of ``dev`` among its passages and the first ``pool`` other ones."""
    passages: dict[str, str] = {}  # text to id
    for name in ("positive", "negative"):
        for text in dev[name].to_pylist():
            passages.setdefault(text, f"p{len(passages)}")
    full = len(passages) + pool
    for text in others["positive"].to_pylist():
        if len(passages) >= full:
            break
        passages.setdefault(text, f"p{len(passages)}")
    passages.pop(None, None)
    queries: dict[str, str] = {}  # text to id
    wanted: dict[str, set[str]] = {}
    for query, positive in zip(dev["query"].to_pylist(), dev["positive"].to_pylist(), strict=True):
        qid = queries.setdefault(query, f"q{len(queries)}")
        wanted.setdefault(qid, set()).add(passages[positive])
    return InformationRetrievalEvaluator(
        queries={qid: query for query, qid in queries.items()},
        corpus={pid: text for text, pid in passages.items()},
        relevant_docs=wanted,
        mrr_at_k=[10],
        name="dev",
        query_prompt=query_prompt,
        corpus_prompt=prompt,
        main_score_function="cosine",
        write_csv=False,
    )


def _loss(
    encoder: SentenceTransformer, scale: float, mini_batch: int | None
) -> MultipleNegativesRankingLoss | CachedMultipleNegativesRankingLoss:
    if mini_batch is None:
        return MultipleNegativesRankingLoss(encoder, scale=scale)
    return CachedMultipleNegativesRankingLoss(encoder, scale=scale, mini_batch_size=mini_batch)
