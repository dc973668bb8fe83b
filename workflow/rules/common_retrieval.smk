"""Inputs and params of the retrieval rules that depend on the config. No rule is defined here."""


def of_corpus(*names):
    """A file of the passages that are searched: the catalogue's, or those of retrieval.corpus."""
    return f"results/{corpus_collection()}/{names[0]}"


def corpus_collection():
    """The collection that is searched."""
    return "items" if config["retrieval"]["corpus"] == "items" else "corpus"


def user_files(setting):
    """The files behind a setting such as retrieval.corpus, or an error that asks for it."""
    return or_stop(
        expand_path, named(setting, "a file (docs/retrieval.md)"), ("",), setting
    )


def corpus_files(wildcards):
    """Passages, and the map of their ids."""
    return user_files("retrieval.corpus") + optional("retrieval", "corpus_ids")


def query_files(wildcards):
    """Queries, and the map of their ids; or those of training.queries."""
    if wildcards.asked == "training_queries":
        return user_files("training.queries")
    return user_files("retrieval.queries") + optional("retrieval", "query_ids")


def query_settings(wildcards):
    """Files of the queries, their form, and the treatment of bad lines, as section retrieval."""
    if wildcards.asked == "training_queries":
        own = pick("training", "queries", "on_bad_rows", "max_reject_share")
        return {"query_ids": None} | pick("retrieval", "form") | own
    return pick(
        "retrieval", "queries", "query_ids", "form", "on_bad_rows", "max_reject_share"
    )


def qrels_files(wildcards):
    """Judgements."""
    return user_files("retrieval.qrels")


def optional(section, key):
    """The file of a setting, or none where it is null."""
    path = config[section][key]
    return or_stop(expand_path, path, ("",), f"{section}.{key}") if path else []


def name_maps(wildcards):
    """The maps that give the names of DuReader-retrieval for queries and passages."""
    if config["retrieval"]["topk_names"] == "ids":
        return []
    return optional("retrieval", "query_ids") + optional("retrieval", "corpus_ids")


def index_file(wildcards):
    """The faiss index, unless the search is exact."""
    return (
        []
        if config["retrieval"]["index"] == "flat"
        else "results/retrieval/corpus.faiss"
    )


def index_search_settings(wildcards):
    """Search settings of an index; zeros for exact search, so that a change of them reruns nothing."""
    names = ("nprobe", "ef_search", "candidates")
    if config["retrieval"]["index"] == "flat":
        return dict.fromkeys(names, 0)
    return pick("faiss", *names)


def found_shards(wildcards):
    """All shards of the search: one if an index is searched."""
    exact = config["retrieval"]["index"] == "flat"
    shards = config["retrieval"]["shards"] if exact else 1
    return [
        f"results/retrieval/shards/part-{shard:05d}-of-{shards:05d}.safetensors"
        for shard in range(shards)
    ]


def fused_runs(wildcards):
    """The runs that are fused."""
    return [f"results/retrieval/{run}/res.topk" for run in config["fusion"]["runs"]]


def cross_encoder_files(wildcards):
    """The files of the cross encoder that reranks."""
    return model_files(config["rerank"]["model"])


def reranked_shards(wildcards):
    """All shards of the reranking, in order."""
    shards = config["rerank"]["shards"]
    return [
        f"results/retrieval/cross/shards/part-{shard:05d}-of-{shards:05d}.safetensors"
        for shard in range(shards)
    ]


def measured_runs(wildcards):
    """The runs that are compared, the baseline first."""
    return [
        f"results/retrieval/{run}/res.topk"
        for run in config["retrieval_metrics"]["runs"]
    ]
