"""Inputs and params of the rules that embed texts. No rule is defined here."""

from sidmill.settings.registry import settings_read

SHORT_COLLECTIONS = ("queries", "mining_queries")


def own_vectors():
    """The files of the user's own vectors, where the backend is precomputed."""
    embedding = config["embedding"]
    if embedding["backend"] != "precomputed":
        return {}
    ids = embedding["ids_path"]
    for key in ("path", "ids_path"):
        own = Path(embedding[key] or ".").resolve()
        if own.is_relative_to(Path("results").resolve()):
            raise SidmillError(
                f"embedding.{key}: {embedding[key]} lies in results/, which this run writes: move "
                f"your embeddings elsewhere"
            )
    return {
        "vectors": vector_files(embedding["path"]),
        "ids": expand_path(ids, (), "embedding.ids_path") if ids else [],
    }


def vector_files(path):
    """Files of vectors; a Lance table is a folder."""
    from sidmill.io.vector_containers.opened import is_container

    if is_container(path) and Path(path).is_dir():
        return files_of(path)
    return expand_path(path, (".parquet", ".npy"), "embedding.path")


def embedding_of(wildcards):
    """Settings that a collection is embedded with: those that its backend reads."""
    embedding = settings("embedding", "shards", "lsa_sample", "lsa_features")
    if wildcards.collection.startswith("mining_"):
        embedding |= {"backend": "sentence_transformers", "model": FIRST_ROUND}
        embedding |= {"revision": None, "dim": None, "normalize": True}
    if wildcards.collection in SHORT_COLLECTIONS:
        embedding["prompt"] = config["retrieval"]["query_prompt"]
    return settings_read(embedding)


def backend_in_use(wildcards):
    """The backend that embeds a collection."""
    return {"backend": embedding_of(wildcards)["backend"]}


def embedding_threads(wildcards):
    """Cores that a shard keeps busy: a network two, everything else one, so that shards run side by side."""
    runs_network = backend_in_use(wildcards)["backend"] == "sentence_transformers"
    return 2 if runs_network else 1


def embedder_files(wildcards):
    """What a shard needs besides its text: the fitted LSA, the folder of a model, or the user's vectors."""
    embedding = embedding_of(wildcards)
    if embedding["backend"] == "lsa":
        if wildcards.collection == "queries":
            return {"model": fitted_lsa(corpus_collection())}
        return {"model": fitted_lsa(wildcards.collection)}
    if embedding["backend"] == "sentence_transformers":
        return model_files(embedding["model"])
    return OWN_VECTORS


def shard_files(wildcards):
    """All shards of a collection, in order; queries are short and make one."""
    shards = (
        1
        if wildcards.collection in SHORT_COLLECTIONS
        else config["embedding"]["shards"]
    )
    folder = f"results/{wildcards.collection}/embeddings.parquet"
    return [
        f"{folder}/part-{shard:05d}-of-{shards:05d}.parquet" for shard in range(shards)
    ]


def speed_files(wildcards):
    """What each shard took, in order."""
    return [
        file.replace("embeddings.parquet", "speed").replace(".parquet", ".json")
        for file in shard_files(wildcards)
    ]


OWN_VECTORS = or_note(own_vectors)
