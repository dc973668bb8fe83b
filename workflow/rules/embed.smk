"""
Text -> embeddings, in shards -> one memory map. Written once for every collection (items, corpus, queries).

READS    results/{collection}/text.parquet         pid, text
         published.path: match and vectors         with items, for those that are there with the same text
LEAVES   results/{collection}/embeddings.parquet/  pid, embedding list<float32> (D); one file per shard
         results/{collection}/vectors.npy          float32 or float16 (N, D), in row order of text.parquet
         results/{collection}/ids.parquet          pid, in row order of vectors.npy
         results/{collection}/speed/               JSON per shard: texts, tokens and operations per second

Shards and ids.parquet carry the embedding fingerprint. Queries have a prompt of their own, and the LSA of the passages.
With the backend lsa also:
         results/{collection}/lsa.safetensors      vocabulary, idf float32 (V), components float32 (D, V)
If asked for:
         results/{collection}/embedding.json       speed of all shards, hours and price for more items
         results/{collection}/matryoshka.json      neighbours that smaller dimensions keep, on a sample
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
        embedding=pick("embedding", "dim", "lsa_sample", "lsa_features"),
        run=pick("run", "seed"),
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
        speed="results/{collection}/speed/part-{shard}-of-{shards}.json",
    log:
        "results/logs/embed_shard.{collection}.{shard}-of-{shards}.log",
    benchmark:
        "results/benchmarks/embed_shard.{collection}.{shard}-of-{shards}.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: embedding_threads
    params:
        embedding=embedding_of,
        openai=settings("openai"),
        code=code_of("embed_shard.py", backend_in_use),
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


rule report_embedding:
    input:
        speeds=speed_files,
    output:
        report="results/{collection}/embedding.json",
    log:
        "results/logs/report_embedding.{collection}.log",
    benchmark:
        "results/benchmarks/report_embedding.{collection}.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        embedding_cost=settings("embedding_cost"),
        code=code_of("report_embedding.py"),
    message:
        "Adding up what the shards of {wildcards.collection} took"
    script:
        "../scripts/report_embedding.py"


rule measure_dimensions:
    input:
        unpack(embedder_files),
        text="results/{collection}/text.parquet",
    output:
        report="results/{collection}/matryoshka.json",
    log:
        "results/logs/measure_dimensions.{collection}.log",
    benchmark:
        "results/benchmarks/measure_dimensions.{collection}.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 2
    params:
        embedding=embedding_of,
        openai=settings("openai"),
        matryoshka=settings("matryoshka"),
        code=code_of("measure_dimensions.py", backend_in_use),
    message:
        "Measuring what fewer dimensions lose of {wildcards.collection}"
    script:
        "../scripts/measure_dimensions.py"
