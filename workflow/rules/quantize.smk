"""
Vectors -> a quantizer -> one tuple of codes per item.

READS    results/items/vectors.npy, ids.parquet       float (N, D); fused.npy, fused_ids.parquet with fuse.use: sids
         results/items/residuals.npy, categories.parquet  with category_level.field: what is left of the vectors for training
         pretrained.path                              with quantizer: pretrained
         given.path                                   with quantizer: given: SIDs that exist
         rqvae.data_paths, rqvae.pairs_path           with rqvae, where they are set
         results/published/ledger.parquet, match.parquet  with published.refresh: warm_start
LEAVES   results/{quantizer}/quantizer.safetensors    codebook.{l} float32 (K_l, d), of an RQ-VAE also
                                                      encoder.*, decoder.*; settings and fingerprint
         results/{rqvae,rqkmeans_plus,fsq}/metrics.csv  one row per epoch; checkpoints/ beside it stay
         results/rqkmeans{balanced}/model.pt          the same codebooks as a OneRec checkpoint: centroids.{l}
         results/{quantizer}_warm_start/              the same, trained from published codes
         results/{quantizer}/codes.parquet            pid, codes list<int32> (L), values in [0, K_l)
         results/given/rejects.parquet                pid, sid of given SIDs whose items the catalogue lacks
         results/codes.parquet                        the same, of the quantizer that config.yaml names

Every quantizer leaves the same two files, so nothing downstream asks which one ran.
"""


rule train_rqkmeans:
    input:
        unpack(known_codes),
        vectors=training_vectors(),
        ids=training_vector_ids(),
        level=where_categories("results/items/category_level.safetensors"),
    output:
        quantizer="results/rqkmeans{balanced}{start}/quantizer.safetensors",
        checkpoint="results/rqkmeans{balanced}{start}/model.pt",
    log:
        "results/logs/train_rqkmeans{balanced}{start}.log",
    benchmark:
        "results/benchmarks/train_rqkmeans{balanced}{start}.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 8
    resources:
        tasks=tasks_with_work(rqkmeans_settings),
    params:
        rqkmeans=rqkmeans_settings,
        sizes={"is_capped": False},
        run=pick("run", "seed"),
        code=code_of("train_rqkmeans.py", balance_in_use),
    message:
        "Fitting rqkmeans{wildcards.balanced}{wildcards.start} to {input.vectors}"
    script:
        "../scripts/train_rqkmeans.py"


rule train_rqvae:
    input:
        unpack(known_codes),
        vectors=training_vectors(),
        ids=training_vector_ids(),
        level=where_categories("results/items/category_level.safetensors"),
        warm_start=warm_start,
        data=LEARNED_FROM["data"],
        pairs=LEARNED_FROM["pairs"],
    output:
        quantizer="results/{learned}{start}/quantizer.safetensors",
        metrics="results/{learned}{start}/metrics.csv",
    log:
        "results/logs/train_rqvae.{learned}{start}.log",
    benchmark:
        "results/benchmarks/train_rqvae.{learned}{start}.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 8
    params:
        rqvae=settings("rqvae"),
        fsq=fsq_settings,
        run=pick("run", "seed"),
        code=code_of("train_rqvae.py", learned_in_use),
    message:
        "Training {wildcards.learned}{wildcards.start} on {input.vectors}"
    script:
        "../scripts/train_rqvae.py"


rule train_opq:
    input:
        vectors=training_vectors(),
        ids=training_vector_ids(),
        level=where_categories("results/items/category_level.safetensors"),
    output:
        quantizer="results/opq/quantizer.safetensors",
    log:
        "results/logs/train_opq.log",
    benchmark:
        "results/benchmarks/train_opq.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        opq=settings("opq"),
        budget=token_budget(),
        run=pick("run", "seed"),
        code=code_of("train_opq.py"),
    message:
        "Fitting optimized product quantization to {input.vectors}"
    script:
        "../scripts/train_opq.py"


rule train_pca_grid:
    input:
        vectors=training_vectors(),
        ids=training_vector_ids(),
        level=where_categories("results/items/category_level.safetensors"),
    output:
        quantizer="results/pca_grid/quantizer.safetensors",
    log:
        "results/logs/train_pca_grid.log",
    benchmark:
        "results/benchmarks/train_pca_grid.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 2
    params:
        pca_grid=settings("pca_grid"),
        budget=token_budget(),
        run=pick("run", "seed"),
        code=code_of("train_pca_grid.py"),
    message:
        "Laying a grid on the principal axes of {input.vectors}"
    script:
        "../scripts/train_pca_grid.py"


rule import_pretrained:
    input:
        checkpoint=pretrained_files,
        vectors=item_vectors(),
        ids=item_vector_ids(),
    output:
        quantizer="results/pretrained/quantizer.safetensors",
    log:
        "results/logs/import_pretrained.log",
    benchmark:
        "results/benchmarks/import_pretrained.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        pretrained=settings("pretrained"),
        code=code_of("import_pretrained.py"),
    message:
        "Taking the codebooks of {input.checkpoint}"
    script:
        "../scripts/import_pretrained.py"


rule import_given:
    input:
        given=given_files,
        text=item_text(),
        ledger=where_published("results/published/ledger.parquet"),
    output:
        quantizer="results/given/quantizer.safetensors",
        codes="results/given/codes.parquet",
        rejects="results/given/rejects.parquet",
    log:
        "results/logs/import_given.log",
    benchmark:
        "results/benchmarks/import_given.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        given=settings("given", "measure_neighbours"),
        catalogue=pick("items", "id_type"),
        code=code_of("import_given.py"),
    message:
        "Taking the SIDs of {input.given}"
    script:
        "../scripts/import_given.py"


rule encode_items:
    input:
        vectors=item_vectors(),
        ids=item_vector_ids(),
        quantizer="results/{encoded}/quantizer.safetensors",
        categories=where_categories("results/items/categories.parquet"),
    output:
        codes="results/{encoded}/codes.parquet",
    log:
        "results/logs/encode_items.{encoded}.log",
    benchmark:
        "results/benchmarks/encode_items.{encoded}.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 8
    resources:
        tasks=config["encoding"]["processes"],
    params:
        encoding=settings("encoding"),
        category_level=pick("category_level", "field", "path_separator", "depth"),
        code=code_of("encode_items.py"),
    message:
        "Encoding the items with {input.quantizer}"
    script:
        "../scripts/encode_items.py"


rule choose_codes:
    input:
        codes=chosen("codes.parquet"),
    output:
        codes="results/codes.parquet",
    log:
        "results/logs/choose_codes.log",
    benchmark:
        "results/benchmarks/choose_codes.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        code=code_of("choose_codes.py"),
    message:
        "Taking the codes of {input.codes}"
    script:
        "../scripts/choose_codes.py"
