"""
Fused vectors -> codes by which the generative recommender compares items, with fuse.use: similarity.

READS    results/items/fused.npy, fused_ids.parquet        float (N, D)
         results/items/fused_folds.npy, fused_folds_ids.parquet  (F N, D), with fuse.folds above 1
LEAVES   results/similarity/quantizer.safetensors          residual k-means, of the shape of rqkmeans, with no more codewords than items
         results/similarity/codes.parquet                  pid, codes list<int32> (L), collisions are not resolved
         results/similarity/fold_codes.parquet             the same without the users of each fold, for training
         results/similarity/model.pt                       the codebooks as a OneRec checkpoint

SIDs are of the text vectors then, and the rules are those of SIDs with other paths. compares_fused() of common_fuse.smk
says where these codes are read; nothing else asks for a fusion.
"""


use rule train_rqkmeans as train_similarity with:
    input:
        vectors="results/items/fused.npy",
        ids="results/items/fused_ids.parquet",
        level=[],
    output:
        quantizer="results/similarity/quantizer.safetensors",
        checkpoint="results/similarity/model.pt",
    log:
        "results/logs/train_similarity.log",
    benchmark:
        "results/benchmarks/train_similarity.tsv"
    resources:
        tasks=tasks_with_work(compared_settings),
    params:
        rqkmeans=compared_settings,
        sizes=compared_sizes(),
    message:
        "Fitting residual k-means to {input.vectors}"


use rule encode_folds as encode_similarity with:
    input:
        vectors="results/items/fused.npy",
        ids="results/items/fused_ids.parquet",
        quantizer="results/similarity/quantizer.safetensors",
    output:
        codes="results/similarity/codes.parquet",
    log:
        "results/logs/encode_similarity.log",
    benchmark:
        "results/benchmarks/encode_similarity.tsv"
    message:
        "Encoding the fused vectors"


use rule encode_folds as encode_similarity_folds with:
    input:
        vectors="results/items/fused_folds.npy",
        ids="results/items/fused_folds_ids.parquet",
        quantizer="results/similarity/quantizer.safetensors",
    output:
        codes="results/similarity/fold_codes.parquet",
    log:
        "results/logs/encode_similarity_folds.log",
    benchmark:
        "results/benchmarks/encode_similarity_folds.tsv"
