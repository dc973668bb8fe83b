"""
Text -> embeddings, in shards -> one memory map. Written once for every collection (items, corpus, queries).

READS    results/{collection}/text.parquet         pid, text
         published.path: match and vectors         with items, for those that are there with the same text
LEAVES   results/{collection}/embeddings.parquet/  pid, embedding list<float32> (D); one file per shard
         results/{collection}/vectors.npy          float32 or float16 (N, D), in row order of text.parquet
         results/{collection}/ids.parquet          pid, in row order of vectors.npy

Shards and ids.parquet carry the embedding fingerprint. Queries have a prompt of their own, and the LSA of the passages.
With the backend lsa also:
         results/{collection}/lsa.safetensors      vocabulary, idf float32 (V), components float32 (D, V)
"""


rule fit_lsa:
    input:
        text="results/{collection}/text.parquet",
    output:
        model="results/{collection}/lsa.safetensors",
    log:
        "results/logs/fit_lsa.{collection}.log",
    benchmark:
        "results/benchmarks/fit_lsa.{collection}.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        lsa=pick("embedding", "dim", "lsa_sample", "lsa_features"),
        seed=config["run"]["seed"],
        code=code_of("fit_lsa.py"),
    message:
        "Fitting LSA to {input.text}"
    script:
        "../scripts/fit_lsa.py"


rule embed_shard:
    input:
        unpack(embedder_files),
        unpack(reused_vectors),
        text="results/{collection}/text.parquet",
    output:
        shard="results/{collection}/embeddings.parquet/part-{shard}-of-{shards}.parquet",
    log:
        "results/logs/embed_shard.{collection}.{shard}-of-{shards}.log",
    benchmark:
        "results/benchmarks/embed_shard.{collection}.{shard}-of-{shards}.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 2
    params:
        embedding=embedding_of,
        code=code_of("embed_shard.py"),
    message:
        "Embedding {wildcards.collection}, shard {wildcards.shard} of {wildcards.shards}"
    script:
        "../scripts/embed_shard.py"


rule store_vectors:
    input:
        shards=shard_files,
        text="results/{collection}/text.parquet",
    output:
        vectors="results/{collection}/vectors.npy",
        ids="results/{collection}/ids.parquet",
    log:
        "results/logs/store_vectors.{collection}.log",
    benchmark:
        "results/benchmarks/store_vectors.{collection}.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        store=settings("store"),
        code=code_of("store_vectors.py"),
    message:
        "Checking and storing the vectors of {wildcards.collection}"
    script:
        "../scripts/store_vectors.py"
