"""
Passages, queries and judgements of the user -> the best passages of each query, and their metrics.

READS    retrieval.corpus, .queries, .qrels        files of BEIR, RocketQA or TREC; corpus may be items
LEAVES   results/corpus/text.parquet               pid, text (title and text, a line each)
         results/queries/text.parquet              pid (of the query), text
         results/retrieval/qrels.parquet           qid, pid (strings), label
         results/retrieval/dual/res.topk           qid, pid, rank, score; exactly top_k per query
         results/retrieval/dual/run.trec           the same for trec_eval
         results/retrieval/dual_res.json           {qid: [pid, ...]}
         results/retrieval/{run}/res.topk, ...     the same of the runs bm25, fused and cross
         results/retrieval/res.topk, run.trec      the run that retrieval.answer chooses, named by retrieval.topk_names
         results/retrieval/answers.parquet         qid, pid, rank, score, sid: with corpus: items
         results/retrieval/corpus.faiss            unless retrieval.index is flat
         results/retrieval/index.json              recall of the index against exact search, and its time
         results/retrieval/metrics.json            per run, and differences with their intervals
         results/retrieval/per_query.parquet       run, qid, one column per metric
         results/retrieval/metrics.tsv             the table of the report
         results/plots/retrieval.svg               the plot of the report

The rules of embed.smk embed passages and queries. None of these files is made unless a target needs it.
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
        retrieval=pick(
            "retrieval",
            "corpus",
            "corpus_ids",
            "form",
            "on_bad_rows",
            "max_reject_share",
        ),
        code=code_of("read_corpus.py"),
    message:
        "Reading the passages"
    script:
        "../scripts/read_corpus.py"


rule read_queries:
    input:
        files=query_files,
    output:
        text="results/{asked}/text.parquet",
        rejects="results/{asked}/rejects.parquet",
    log:
        "results/logs/read_queries.{asked}.log",
    benchmark:
        "results/benchmarks/read_queries.{asked}.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        retrieval=query_settings,
        code=code_of("read_queries.py"),
    message:
        "Reading {wildcards.asked}"
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
        retrieval=pick("retrieval", "qrels", "on_bad_rows", "max_reject_share"),
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
        retrieval=pick("retrieval", "top_k", "exclude_own"),
        faiss=index_search_settings,
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
        retrieval=pick("retrieval", "exclude_own"),
        code=code_of("merge_shards.py"),
    message:
        "Merging the shards of the search"
    script:
        "../scripts/merge_shards.py"


rule measure_retrieval:
    input:
        runs=measured_runs,
        qrels="results/retrieval/qrels.parquet",
        corpus=of_corpus("text.parquet"),
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
        retrieval_metrics=settings("retrieval_metrics"),
        run=pick("run", "seed"),
        code=code_of("measure_retrieval.py"),
    message:
        "Measuring the runs"
    script:
        "../scripts/measure_retrieval.py"


rule build_index:
    input:
        vectors=of_corpus("vectors.npy"),
        ids=of_corpus("ids.parquet"),
    output:
        index="results/retrieval/corpus.faiss",
    log:
        "results/logs/build_index.log",
    benchmark:
        "results/benchmarks/build_index.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 2
    params:
        retrieval=pick("retrieval", "index"),
        faiss=pick(
            "faiss",
            "lists",
            "code_bytes",
            "links",
            "ef_construction",
            "train_sample",
            "repeatable",
        ),
        run=pick("run", "seed"),
        code=code_of("build_index.py"),
    message:
        "Building the index of the passages"
    script:
        "../scripts/build_index.py"


rule measure_index:
    input:
        vectors=of_corpus("vectors.npy"),
        ids=of_corpus("ids.parquet"),
        queries="results/queries/vectors.npy",
        index="results/retrieval/corpus.faiss",
    output:
        figures="results/retrieval/index.json",
    log:
        "results/logs/measure_index.log",
    benchmark:
        "results/benchmarks/measure_index.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 2
    params:
        retrieval=pick("retrieval", "index", "top_k"),
        faiss=pick("faiss", "nprobe", "ef_search", "candidates", "measured_queries"),
        run=pick("run", "seed"),
        code=code_of("measure_index.py"),
    message:
        "Comparing the index with exact search"
    script:
        "../scripts/measure_index.py"


rule search_bm25:
    input:
        corpus=of_corpus("text.parquet"),
        queries="results/queries/text.parquet",
    output:
        topk="results/retrieval/bm25/res.topk",
        trec="results/retrieval/bm25/run.trec",
        json="results/retrieval/bm25_res.json",
    log:
        "results/logs/search_bm25.log",
    benchmark:
        "results/benchmarks/search_bm25.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        retrieval=pick("retrieval", "top_k", "exclude_own"),
        bm25=settings("bm25"),
        code=code_of("search_bm25.py"),
    message:
        "Searching the passages by BM25"
    script:
        "../scripts/search_bm25.py"


rule fuse_runs:
    input:
        runs=fused_runs,
    output:
        topk="results/retrieval/fused/res.topk",
        trec="results/retrieval/fused/run.trec",
        json="results/retrieval/fused_res.json",
    log:
        "results/logs/fuse_runs.log",
    benchmark:
        "results/benchmarks/fuse_runs.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        fusion=settings("fusion"),
        code=code_of("fuse_runs.py"),
    message:
        "Fusing the runs {input.runs}"
    script:
        "../scripts/fuse_runs.py"


rule rerank_shard:
    input:
        unpack(cross_encoder_files),
        topk=f"results/retrieval/{config['rerank']['run']}/res.topk",
        corpus=of_corpus("text.parquet"),
        queries="results/queries/text.parquet",
    output:
        found="results/retrieval/cross/shards/part-{shard}-of-{shards}.safetensors",
    log:
        "results/logs/rerank_shard.{shard}-of-{shards}.log",
    benchmark:
        "results/benchmarks/rerank_shard.{shard}-of-{shards}.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 2
    params:
        rerank=settings("rerank", "run", "shards"),
        code=code_of("rerank_shard.py"),
    message:
        "Reranking {input.topk}, shard {wildcards.shard} of {wildcards.shards}"
    script:
        "../scripts/rerank_shard.py"


rule merge_reranks:
    input:
        topk=f"results/retrieval/{config['rerank']['run']}/res.topk",
        shards=reranked_shards,
    output:
        topk="results/retrieval/cross/res.topk",
        trec="results/retrieval/cross/run.trec",
        json="results/retrieval/cross_res.json",
    log:
        "results/logs/merge_reranks.log",
    benchmark:
        "results/benchmarks/merge_reranks.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        code=code_of("merge_reranks.py"),
    message:
        "Merging the shards of the reranking"
    script:
        "../scripts/merge_reranks.py"


rule choose_run:
    input:
        chosen=f"results/retrieval/{config['retrieval']['answer']}/res.topk",
        trec=f"results/retrieval/{config['retrieval']['answer']}/run.trec",
        queries="results/queries/text.parquet",
        maps=name_maps,
    output:
        topk="results/retrieval/res.topk",
        trec="results/retrieval/run.trec",
    log:
        "results/logs/choose_run.log",
    benchmark:
        "results/benchmarks/choose_run.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        retrieval=pick("retrieval", "topk_names", "query_ids", "corpus_ids"),
        code=code_of("choose_run.py"),
    message:
        "Taking {input.chosen}"
    script:
        "../scripts/choose_run.py"


rule attach_sids:
    input:
        topk=f"results/retrieval/{config['retrieval']['answer']}/res.topk",
        pid2sid="results/pid2sid.parquet",
    output:
        answers="results/retrieval/answers.parquet",
    log:
        "results/logs/attach_sids.log",
    benchmark:
        "results/benchmarks/attach_sids.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        code=code_of("attach_sids.py"),
    message:
        "Giving the answers their SIDs"
    script:
        "../scripts/attach_sids.py"


rule plot_retrieval:
    input:
        metrics="results/retrieval/metrics.json",
    output:
        plot=report(
            "results/plots/retrieval.svg",
            caption="../report/retrieval.rst",
            category="Retrieval",
            labels={"what": "runs", "form": "plot"},
        ),
        table=report(
            "results/retrieval/metrics.tsv",
            caption="../report/retrieval.rst",
            category="Retrieval",
            labels={"what": "runs", "form": "table"},
        ),
    log:
        "results/logs/plot_retrieval.log",
    benchmark:
        "results/benchmarks/plot_retrieval.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        code=code_of("plot_retrieval.py"),
    message:
        "Plotting {input.metrics}"
    script:
        "../scripts/plot_retrieval.py"
