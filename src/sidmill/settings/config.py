"""All sections of config.yaml, in its order."""

from dataclasses import dataclass, field, is_dataclass
from typing import Any, get_type_hints

from sidmill.settings.base import science
from sidmill.settings.category_level import CategoryLevel
from sidmill.settings.datasets import (
    Datasets,
    Lint,
    Mixture,
    Rl,
    Vocabulary,
)
from sidmill.settings.embedding import (
    Embedding,
    EmbeddingCost,
    Matryoshka,
    Openai,
    Store,
)
from sidmill.settings.fuse import Fuse
from sidmill.settings.generative import Generative, GenerativeEvaluation, GenerativeTopk
from sidmill.settings.imported import Imported
from sidmill.settings.interactions import H5, Interactions
from sidmill.settings.items import Demo, Items
from sidmill.settings.quantize import (
    Encoding,
    Fsq,
    Opq,
    PcaGrid,
    Pretrained,
    Rqkmeans,
    Rqvae,
)
from sidmill.settings.recommend import Recommender, RecommenderEvaluation, RecommenderTopk
from sidmill.settings.registry import QUANTIZERS, TRAINED
from sidmill.settings.report import Explorer
from sidmill.settings.retrieval import (
    Bm25,
    Cross,
    Dual,
    Faiss,
    Fusion,
    Mining,
    Rerank,
    Retrieval,
    RetrievalMetrics,
    Training,
)
from sidmill.settings.run import Run
from sidmill.settings.sids import (
    Churn,
    Collisions,
    Comparison,
    Evaluation,
    Given,
    Index,
    Published,
    Quality,
)
from sidmill.settings.sweep import Sweep


@dataclass(frozen=True, kw_only=True)
class Config:
    """The whole configuration."""

    run: Run = field(default_factory=Run)
    demo: Demo = field(default_factory=Demo)
    imported: Imported = field(default_factory=Imported)
    items: Items = field(default_factory=Items)
    interactions: Interactions = field(default_factory=Interactions)
    embedding: Embedding = field(default_factory=Embedding)
    openai: Openai = field(default_factory=Openai)
    embedding_cost: EmbeddingCost = field(default_factory=EmbeddingCost)
    matryoshka: Matryoshka = field(default_factory=Matryoshka)
    store: Store = field(default_factory=Store)
    h5: H5 = field(default_factory=H5)
    fuse: Fuse = field(default_factory=Fuse)
    category_level: CategoryLevel = field(default_factory=CategoryLevel)
    quantizer: str = science(
        "rqkmeans",
        f"source of the SIDs: {' | '.join(TRAINED)} (trained here) | pretrained | given "
        f"(existing SIDs)",
        choices=tuple(QUANTIZERS),
    )
    rqkmeans: Rqkmeans = field(default_factory=Rqkmeans)
    rqvae: Rqvae = field(default_factory=Rqvae)
    fsq: Fsq = field(default_factory=Fsq)
    pretrained: Pretrained = field(default_factory=Pretrained)
    given: Given = field(default_factory=Given)
    opq: Opq = field(default_factory=Opq)
    pca_grid: PcaGrid = field(default_factory=PcaGrid)
    encoding: Encoding = field(default_factory=Encoding)
    collisions: Collisions = field(default_factory=Collisions)
    published: Published = field(default_factory=Published)
    churn: Churn = field(default_factory=Churn)
    index: Index = field(default_factory=Index)
    quality: Quality = field(default_factory=Quality)
    evaluation: Evaluation = field(default_factory=Evaluation)
    comparison: Comparison = field(default_factory=Comparison)
    sweep: Sweep = field(default_factory=Sweep)
    retrieval: Retrieval = field(default_factory=Retrieval)
    faiss: Faiss = field(default_factory=Faiss)
    bm25: Bm25 = field(default_factory=Bm25)
    fusion: Fusion = field(default_factory=Fusion)
    training: Training = field(default_factory=Training)
    dual: Dual = field(default_factory=Dual)
    mining: Mining = field(default_factory=Mining)
    cross: Cross = field(default_factory=Cross)
    rerank: Rerank = field(default_factory=Rerank)
    retrieval_metrics: RetrievalMetrics = field(default_factory=RetrievalMetrics)
    explorer: Explorer = field(default_factory=Explorer)
    recommender: Recommender = field(default_factory=Recommender)
    recommender_evaluation: RecommenderEvaluation = field(default_factory=RecommenderEvaluation)
    recommender_topk: RecommenderTopk = field(default_factory=RecommenderTopk)
    generative: Generative = field(default_factory=Generative)
    generative_evaluation: GenerativeEvaluation = field(default_factory=GenerativeEvaluation)
    generative_topk: GenerativeTopk = field(default_factory=GenerativeTopk)
    datasets: Datasets = field(default_factory=Datasets)
    lint: Lint = field(default_factory=Lint)
    mixture: Mixture = field(default_factory=Mixture)
    rl: Rl = field(default_factory=Rl)
    vocabulary: Vocabulary = field(default_factory=Vocabulary)


# The class of each section, by its key in config.yaml.
SECTIONS: dict[str, type[Any]] = {
    name: hint
    for name, hint in get_type_hints(Config).items()
    if isinstance(hint, type) and is_dataclass(hint)
}
