"""
Text vectors and training interactions -> fused vectors, with fuse.method other than none.

READS    results/items/vectors.npy, ids.parquet        float (N, D)
         results/interactions/sequences.parquet        user_id, item_ids, splits: those of the split train alone
         results/{quantizer}/quantizer.safetensors     for fold_codes.parquet
LEAVES   results/items/fused.npy                       float32 or float16 (N, D), with svd (N, D + fuse.dim)
         results/items/fused_ids.parquet               pid, in row order of both; fingerprint of the fusion
         results/items/fused_folds.npy, fused_folds_ids.parquet  (F N, D), the same without the users of each fold, where the
                                                       generative recommender is trained with fuse.folds
         results/{quantizer}/fold_codes.parquet        pid, codes list<int32> (L), their codes, one fold after another

With fuse.use: sids, quantizers of SIDs are given the fused vectors; with similarity, similarity.smk quantizes them.
Rules that read texts as vectors (retrieval, recommenders, exports) keep vectors.npy.
"""


rule fuse_vectors:
    input:
        vectors="results/items/vectors.npy",
        ids="results/items/ids.parquet",
        sequences="results/interactions/sequences.parquet",
    output:
        vectors="results/items/fused.npy",
        ids="results/items/fused_ids.parquet",
    log:
        "results/logs/fuse_vectors.log",
    benchmark:
        "results/benchmarks/fuse_vectors.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 2
    params:
        fuse=settings("fuse", "folds", "use", "codebook_sizes"),
        run=pick("run", "seed"),
        code=code_of("fuse_vectors.py"),
    message:
        "Fusing {input.vectors} with {input.sequences}"
    script:
        "../scripts/fuse_vectors.py"


rule fuse_folds:
    input:
        vectors="results/items/vectors.npy",
        ids="results/items/ids.parquet",
        sequences="results/interactions/sequences.parquet",
        fused_ids="results/items/fused_ids.parquet",
    output:
        vectors="results/items/fused_folds.npy",
        ids="results/items/fused_folds_ids.parquet",
    log:
        "results/logs/fuse_folds.log",
    benchmark:
        "results/benchmarks/fuse_folds.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 2
    params:
        fuse=settings("fuse", "use", "codebook_sizes"),
        run=pick("run", "seed"),
        code=code_of("fuse_folds.py"),
    message:
        "Fusing {input.vectors} without the users of each fold"
    script:
        "../scripts/fuse_folds.py"


rule encode_folds:
    input:
        vectors="results/items/fused_folds.npy",
        ids="results/items/fused_folds_ids.parquet",
        quantizer="results/{encoded}/quantizer.safetensors",
    output:
        codes="results/{encoded}/fold_codes.parquet",
    log:
        "results/logs/encode_folds.{encoded}.log",
    benchmark:
        "results/benchmarks/encode_folds.{encoded}.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 8
    params:
        encoding=settings("encoding"),
        code=code_of("encode_folds.py"),
    message:
        "Encoding the items as they are without the users of each fold"
    script:
        "../scripts/encode_folds.py"
