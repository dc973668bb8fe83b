"""
Pairs of queries and passages -> a dual encoder, hard negatives for its second round, and a cross encoder.

READS    training.dual, training.cross             files of RocketQA; or judgements, which need
         results/corpus/text.parquet               pid, text: the passages that they name
         training.queries                          the queries that they name, if not retrieval.queries
LEAVES   results/training/dual.parquet             query, positive, negative
         results/training/cross.parquet            query, passage, label
         results/dual/{round}/model/               a folder of sentence-transformers: first, and second on mined negatives
         results/mining_corpus/text.parquet        pid (row number), text: the pool that negatives are mined from
         results/mining_queries/text.parquet       pid (row number), text: the training queries
         results/mining/triples.parquet            query, positive, negative
         results/mining/pairs.parquet              query, passage, label
         results/cross/model/                      a folder of sentence-transformers

A setting selects the encoder: embedding.model: results/dual/second/model.
"""


rule read_training:
    input:
        unpack(training_files),
    output:
        rows="results/training/{kind}.parquet",
        rejects="results/training/{kind}_rejects.parquet",
    log:
        "results/logs/read_training.{kind}.log",
    benchmark:
        "results/benchmarks/read_training.{kind}.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        training=training_settings,
        code=code_of("read_training.py"),
    message:
        "Reading training.{wildcards.kind}"
    script:
        "../scripts/read_training.py"


rule train_dual:
    input:
        unpack(dual_inputs),
    output:
        model=directory("results/dual/{round}/model"),
    log:
        "results/logs/train_dual.{round}.log",
    benchmark:
        "results/benchmarks/train_dual.{round}.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 2
    params:
        dual=dual_settings,
        retrieval=pick("retrieval", "query_prompt"),
        embedding=pick("embedding", "prompt"),
        run=pick("run", "seed"),
        code=code_of("train_dual.py"),
    message:
        "Training the dual encoder, {wildcards.round} round"
    script:
        "../scripts/train_dual.py"


rule write_pool:
    input:
        triples="results/training/dual.parquet",
        corpus=mined_corpus,
    output:
        pool="results/mining_corpus/text.parquet",
        queries="results/mining_queries/text.parquet",
    log:
        "results/logs/write_pool.log",
    benchmark:
        "results/benchmarks/write_pool.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        code=code_of("write_pool.py"),
    message:
        "Writing the pool that negatives are mined from"
    script:
        "../scripts/write_pool.py"


rule mine_negatives:
    input:
        triples="results/training/dual.parquet",
        pool="results/mining_corpus/text.parquet",
        pool_vectors="results/mining_corpus/vectors.npy",
        pool_ids="results/mining_corpus/ids.parquet",
        queries="results/mining_queries/text.parquet",
        query_vectors="results/mining_queries/vectors.npy",
        query_ids="results/mining_queries/ids.parquet",
    output:
        triples="results/mining/triples.parquet",
        pairs="results/mining/pairs.parquet",
    log:
        "results/logs/mine_negatives.log",
    benchmark:
        "results/benchmarks/mine_negatives.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 2
    params:
        mining=settings("mining", "pool"),
        retrieval={},  # machine settings alone
        code=code_of("mine_negatives.py"),
    message:
        "Mining hard negatives"
    script:
        "../scripts/mine_negatives.py"


rule train_cross:
    input:
        unpack(cross_inputs),
    output:
        model=directory("results/cross/model"),
    log:
        "results/logs/train_cross.log",
    benchmark:
        "results/benchmarks/train_cross.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 2
    params:
        cross=settings("cross", "source"),
        run=pick("run", "seed"),
        code=code_of("train_cross.py"),
    message:
        "Training the cross encoder"
    script:
        "../scripts/train_cross.py"
