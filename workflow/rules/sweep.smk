"""
A list of tokenizers -> SIDs of each, a recommender on each, one table, and the winner as an overlay.

READS    results/items/vectors.npy, ids.parquet                float (N, D)
         results/interactions/sequences.parquet                user_id, item_ids, splits
         results/given/codes.parquet, quantizer.safetensors    with the anchor given
LEAVES   results/sweep/{fusion}/fused.npy, fused_ids.parquet   vectors of a fusion, for all tokenizers that are trained on them
         results/sweep/{tokenizer}/quantizer.safetensors, codes.parquet, pid2sid.parquet
         results/sweep/{tokenizer}/evaluation.json, resolution.json
         results/sweep/{tokenizer}/generative/{seed}/model.safetensors  a recommender
         results/sweep/{tokenizer}/valid.json, valid.parquet   its metrics, and their sums by user; test.* on request
         results/sweep/sweep.json, sweep.csv                   every figure of all tokenizers
         results/sweep/winner.yaml                             settings of the best one, to copy
         results/plots/sweep.svg                               metrics and cost

A tokenizer is named quantizer.shape.fusion, such as rqkmeans.64x128x256.graph0.3. Its rules are those of a run
(sweep_X is X with other paths), so a run with winner.yaml makes the same SIDs.
"""


rule sweep_codebooks:
    input:
        unpack(swept_figures),
    output:
        sweep="results/sweep/sweep.json",
        table=report(
            "results/sweep/sweep.csv",
            caption="../report/sweep.rst",
            category="Sweep",
            labels={"what": "all tokenizers", "form": "table"},
        ),
        winner="results/sweep/winner.yaml",
        plot=report(
            "results/plots/sweep.svg",
            caption="../report/sweep.rst",
            category="Sweep",
            labels={"what": "metrics and cost", "form": "plot"},
        ),
    log:
        "results/logs/sweep_codebooks.log",
    benchmark:
        "results/benchmarks/sweep_codebooks.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        sweep=settings("sweep"),
        generative_evaluation=pick("generative_evaluation", "n_resamples"),
        run=pick("run", "seed"),
        seeds=swept_seeds(),
        code=code_of("sweep_codebooks.py"),
    message:
        "Comparing the tokenizers of the sweep"
    script:
        "../scripts/sweep_codebooks.py"


rule shuffle_codes:
    input:
        codes=f"results/sweep/{swept_source(SHUFFLED)}/codes.parquet",
    output:
        codes="results/sweep/shuffled/codes.parquet",
    log:
        "results/logs/shuffle_codes.log",
    benchmark:
        "results/benchmarks/shuffle_codes.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        run=pick("run", "seed"),
        code=code_of("shuffle_codes.py"),
    message:
        "Dealing the codes of {input.codes} to the items at random"
    script:
        "../scripts/shuffle_codes.py"


rule measure_recommender:
    input:
        unpack(swept_items),
        sequences="results/interactions/sequences.parquet",
        models=swept_models,
    output:
        metrics="results/sweep/{tokenizer}/{split}.json",
        users="results/sweep/{tokenizer}/{split}.parquet",
    log:
        "results/logs/measure_recommender.{tokenizer}.{split}.log",
    benchmark:
        "results/benchmarks/measure_recommender.{tokenizer}.{split}.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 2
    params:
        generative_evaluation=pick("generative_evaluation", "mask_seen", "n_resamples"),
        run=pick("run", "seed"),
        code=code_of("measure_recommender.py", generator_in_use),
    message:
        "Measuring the recommenders on SIDs of {wildcards.tokenizer}, split {wildcards.split}"
    script:
        "../scripts/measure_recommender.py"


use rule fuse_vectors as sweep_fuse_vectors with:
    output:
        vectors="results/sweep/{fusion}/fused.npy",
        ids="results/sweep/{fusion}/fused_ids.parquet",
    log:
        "results/logs/sweep_fuse_vectors.{fusion}.log",
    benchmark:
        "results/benchmarks/sweep_fuse_vectors.{fusion}.tsv"
    params:
        fuse=swept_fuse,


use rule train_rqkmeans as sweep_train_rqkmeans with:
    input:
        unpack(swept_vectors),
        level=[],
    output:
        quantizer="results/sweep/rqkmeans{balanced}.{shape}.{fusion}/quantizer.safetensors",
        checkpoint="results/sweep/rqkmeans{balanced}.{shape}.{fusion}/model.pt",
    log:
        "results/logs/sweep_train_rqkmeans{balanced}.{shape}.{fusion}.log",
    benchmark:
        "results/benchmarks/sweep_train_rqkmeans{balanced}.{shape}.{fusion}.tsv"
    resources:
        tasks=tasks_with_work(swept_balance),
    params:
        rqkmeans=swept_balance,
    message:
        "Fitting rqkmeans{wildcards.balanced} with {wildcards.shape} codes to {input.vectors}"


use rule train_rqvae as sweep_train_rqvae with:
    input:
        unpack(swept_vectors),
        level=[],
        warm_start=swept_warm_start,
        data=LEARNED_FROM["data"],
        pairs=LEARNED_FROM["pairs"],
    output:
        quantizer="results/sweep/{learned}.{shape}.{fusion}/quantizer.safetensors",
        metrics="results/sweep/{learned}.{shape}.{fusion}/metrics.csv",
    log:
        "results/logs/sweep_train_rqvae.{learned}.{shape}.{fusion}.log",
    benchmark:
        "results/benchmarks/sweep_train_rqvae.{learned}.{shape}.{fusion}.tsv"
    params:
        rqvae=swept_network,
    message:
        "Training {wildcards.learned} with {wildcards.shape} codes on {input.vectors}"


use rule train_opq as sweep_train_opq with:
    input:
        unpack(swept_vectors),
        level=[],
    output:
        quantizer="results/sweep/opq.{shape}.{fusion}/quantizer.safetensors",
    log:
        "results/logs/sweep_train_opq.{shape}.{fusion}.log",
    benchmark:
        "results/benchmarks/sweep_train_opq.{shape}.{fusion}.tsv"
    params:
        budget=swept_budget,


use rule train_pca_grid as sweep_train_pca_grid with:
    input:
        unpack(swept_vectors),
        level=[],
    output:
        quantizer="results/sweep/pca_grid.{shape}.{fusion}/quantizer.safetensors",
    log:
        "results/logs/sweep_train_pca_grid.{shape}.{fusion}.log",
    benchmark:
        "results/benchmarks/sweep_train_pca_grid.{shape}.{fusion}.tsv"
    params:
        budget=swept_budget,


use rule encode_items as sweep_encode_items with:
    input:
        unpack(swept_vectors),
        categories=[],
        quantizer="results/sweep/{encoded}.{shape}.{fusion}/quantizer.safetensors",
    output:
        codes="results/sweep/{encoded}.{shape}.{fusion}/codes.parquet",
    log:
        "results/logs/sweep_encode_items.{encoded}.{shape}.{fusion}.log",
    benchmark:
        "results/benchmarks/sweep_encode_items.{encoded}.{shape}.{fusion}.tsv"


use rule evaluate_quantizer as sweep_evaluate_quantizer with:
    input:
        unpack(swept_vectors),
        quantizer=swept_quantizer,
        codes=swept_codes,
        sequences="results/interactions/sequences.parquet",
    output:
        evaluation="results/sweep/{tokenizer}/evaluation.json",
    log:
        "results/logs/sweep_evaluate_quantizer.{tokenizer}.log",
    benchmark:
        "results/benchmarks/sweep_evaluate_quantizer.{tokenizer}.tsv"
    params:
        evaluation=settings("evaluation")
        | {"sequences": "results/interactions/sequences.parquet"},


use rule resolve_quantizer as sweep_resolve_quantizer with:
    input:
        unpack(swept_latents),
        codes=swept_codes,
        quantizer=swept_quantizer,
        text=item_text(),
    output:
        pid2sid="results/sweep/{tokenizer}/pid2sid.parquet",
        resolution="results/sweep/{tokenizer}/resolution.json",
    log:
        "results/logs/sweep_resolve_quantizer.{tokenizer}.log",
    benchmark:
        "results/benchmarks/sweep_resolve_quantizer.{tokenizer}.tsv"
    message:
        "Resolving collisions of {wildcards.tokenizer}"


use rule train_generative as sweep_train_generative with:
    input:
        unpack(swept_items),
        sequences="results/interactions/sequences.parquet",
    output:
        model="results/sweep/{tokenizer}/generative/{seed}/model.safetensors",
        training="results/sweep/{tokenizer}/generative/{seed}/training.json",
    log:
        "results/logs/sweep_train_generative.{tokenizer}.{seed}.log",
    benchmark:
        "results/benchmarks/sweep_train_generative.{tokenizer}.{seed}.tsv"
    params:
        generative=swept_recommender,
        run=seed_in_use,
    message:
        "Training a recommender on SIDs of {wildcards.tokenizer}, seed {wildcards.seed}"
