"""
Text vectors and training interactions -> the vectors that quantizers are given, with fuse.method other than none.

READS    results/items/vectors.npy, ids.parquet        float (N, D)
         results/interactions/sequences.parquet        user_id, item_ids, splits: those of the split train alone
LEAVES   results/items/fused.npy                       float32 or float16 (N, D), with svd (N, D + fuse.dim)
         results/items/fused_ids.parquet               pid, in row order of both; fingerprint of the fusion

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
        fuse=settings("fuse"),
        run=pick("run", "seed"),
        code=code_of("fuse_vectors.py"),
    message:
        "Fusing {input.vectors} with {input.sequences}"
    script:
        "../scripts/fuse_vectors.py"
