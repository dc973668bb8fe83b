"""
Passages, queries and judgements of the user -> the best passages of each query, and how good they are.

READS    retrieval.corpus, .queries, .qrels        files of BEIR, RocketQA or TREC; corpus may be items
LEAVES   results/corpus/text.parquet               pid, text (title and text, a line each)
         results/queries/text.parquet              pid (of the query), text
         results/retrieval/qrels.parquet           qid, pid (strings), label
         results/retrieval/dual/res.topk           qid, pid, rank, score; exactly top_k per query
         results/retrieval/dual/run.trec           the same for trec_eval
         results/retrieval/dual_res.json           {qid: [pid, ...]}
         results/retrieval/metrics.json            per run, and differences with their intervals
         results/retrieval/per_query.parquet       run, qid, one column per metric

Embedding lies between the two, in embed.smk. None of this is made unless it is asked for.
"""


rule read_corpus:
    input:
        files=corpus_files,
    output:
        text="results/corpus/text.parquet",
        rejects="results/corpus/rejects.parquet",
    log:
        "results/logs/read_corpus.log",
    benchmark:
        "results/benchmarks/read_corpus.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        retrieval=pick("retrieval", "corpus", "corpus_ids", "on_bad_rows"),
        code=code_of("read_corpus.py"),
    message:
        "Reading the passages"
    script:
        "../scripts/read_corpus.py"


rule read_queries:
    input:
        files=query_files,
    output:
        text="results/queries/text.parquet",
        rejects="results/queries/rejects.parquet",
    log:
        "results/logs/read_queries.log",
    benchmark:
        "results/benchmarks/read_queries.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        retrieval=pick("retrieval", "queries", "query_ids", "on_bad_rows"),
        code=code_of("read_queries.py"),
    message:
        "Reading the queries"
    script:
        "../scripts/read_queries.py"


rule read_qrels:
    input:
        files=qrels_files,
    output:
        qrels="results/retrieval/qrels.parquet",
        rejects="results/retrieval/qrels_rejects.parquet",
    log:
        "results/logs/read_qrels.log",
    benchmark:
        "results/benchmarks/read_qrels.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        retrieval=pick("retrieval", "qrels", "on_bad_rows"),
        code=code_of("read_qrels.py"),
    message:
        "Reading the judgements"
    script:
        "../scripts/read_qrels.py"


rule search_shard:
    input:
        vectors=of_corpus("vectors.npy"),
        ids=of_corpus("ids.parquet"),
        queries="results/queries/vectors.npy",
        query_ids="results/queries/ids.parquet",
        index=index_file,
    output:
        found="results/retrieval/shards/part-{shard}-of-{shards}.safetensors",
    log:
        "results/logs/search_shard.{shard}-of-{shards}.log",
    benchmark:
        "results/benchmarks/search_shard.{shard}-of-{shards}.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 2
    params:
        top_k=config["retrieval"]["top_k"],
        faiss=pick("faiss", "nprobe", "ef_search", "candidates"),
        code=code_of("search_shard.py"),
    message:
        "Searching the passages, shard {wildcards.shard} of {wildcards.shards}"
    script:
        "../scripts/search_shard.py"


rule merge_shards:
    input:
        shards=found_shards,
        ids=of_corpus("ids.parquet"),
        query_ids="results/queries/ids.parquet",
    output:
        topk="results/retrieval/dual/res.topk",
        trec="results/retrieval/dual/run.trec",
        json="results/retrieval/dual_res.json",
    log:
        "results/logs/merge_shards.log",
    benchmark:
        "results/benchmarks/merge_shards.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        code=code_of("merge_shards.py"),
    message:
        "Merging the shards of the search"
    script:
        "../scripts/merge_shards.py"


rule measure_retrieval:
    input:
        runs=measured_runs,
        qrels="results/retrieval/qrels.parquet",
    output:
        metrics="results/retrieval/metrics.json",
        per_query="results/retrieval/per_query.parquet",
    log:
        "results/logs/measure_retrieval.log",
    benchmark:
        "results/benchmarks/measure_retrieval.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        evaluation=settings("evaluation"),
        seed=config["run"]["seed"],
        code=code_of("measure_retrieval.py"),
    message:
        "Measuring the runs"
    script:
        "../scripts/measure_retrieval.py"
