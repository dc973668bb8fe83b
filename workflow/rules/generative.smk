"""
Histories and SIDs -> a recommender that generates SIDs, its lists, and its metrics beside baselines.

READS    results/interactions/sequences.parquet        user_id, item_ids, splits
         results/pid2sid.parquet                       of the quantizer that config.yaml names
         results/{quantizer}/codes.parquet             of the others: pid, codes list<int32> (L)
         results/{quantizer}/quantizer.safetensors     codebook.{l} float32 (K_l, d); given SIDs have none
         results/{quantizer}/fold_codes.parquet        with fuse.folds above 1, in training alone
         results/similarity/                           with fuse.use: similarity, the codes that are compared
         results/items/vectors.npy, ids.parquet        with generative.features: sid+text
         results/recommender/model.safetensors         with generative_evaluation.with_recommender
LEAVES   results/{quantizer}/pid2sid.parquet           pid, sid list<int32>, tokens: collisions of the others resolved
         results/{quantizer}/resolution.json           what that cost
         results/generative/{quantizer}/model.safetensors  weights of all seeds, settings, identity of the SIDs
         results/generative/{quantizer}/training.json  loss and valid NDCG@10 of every epoch, by seed
         results/generative/{quantizer}/topk.parquet   user_id, item_ids, scores, sids
         results/generative/{quantizer}/metrics.json, metrics.csv  metrics with intervals, baselines, by target
         results/generative/{quantizer}/users.parquet  sums of metrics of each user, for paired comparisons
         results/generative/by_sids/{quantizer}/       the same files but the lists: items are compared by SIDs alone
         results/plots/generative.{quantizer}.svg      the same as a plot
"""


rule resolve_quantizer:
    input:
        codes="results/{quantizer}/codes.parquet",
        quantizer="results/{quantizer}/quantizer.safetensors",
        vectors=vectors_behind_codes,
        ids=ids_behind_codes,
        text=item_text(),
    output:
        pid2sid="results/{quantizer}/pid2sid.parquet",
        resolution="results/{quantizer}/resolution.json",
    log:
        "results/logs/resolve_quantizer.{quantizer}.log",
    benchmark:
        "results/benchmarks/resolve_quantizer.{quantizer}.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 2
    params:
        collisions=settings("collisions"),
        encoding=settings("encoding"),
        code=code_of("resolve_quantizer.py", strategy_in_use),
    message:
        "Resolving collisions of {wildcards.quantizer}"
    script:
        "../scripts/resolve_quantizer.py"


rule train_generative:
    input:
        unpack(generative_training),
        sequences="results/interactions/sequences.parquet",
    output:
        model="results/generative/{quantizer}/model.safetensors",
        training="results/generative/{quantizer}/training.json",
    log:
        "results/logs/train_generative.{quantizer}.log",
    benchmark:
        "results/benchmarks/train_generative.{quantizer}.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 2
    params:
        generative=settings("generative"),
        run=pick("run", "seed"),
        code=code_of("train_generative.py", generator_in_use),
    message:
        "Training the generative recommender on SIDs of {wildcards.quantizer}"
    script:
        "../scripts/train_generative.py"


rule recommend_generative:
    input:
        unpack(generative_items),
        sequences="results/interactions/sequences.parquet",
        model="results/generative/{quantizer}/model.safetensors",
    output:
        topk="results/generative/{quantizer}/topk.parquet",
    log:
        "results/logs/recommend_generative.{quantizer}.log",
    benchmark:
        "results/benchmarks/recommend_generative.{quantizer}.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 2
    params:
        generative_topk=settings("generative_topk"),
        code=code_of("recommend_generative.py", generator_in_use),
    message:
        "Generating the best items of every user"
    script:
        "../scripts/recommend_generative.py"


rule evaluate_generative:
    input:
        unpack(generative_items),
        unpack(generative_rivals),
        sequences="results/interactions/sequences.parquet",
        model="results/generative/{quantizer}/model.safetensors",
    output:
        metrics="results/generative/{quantizer}/metrics.json",
        users="results/generative/{quantizer}/users.parquet",
        table=report(
            "results/generative/{quantizer}/metrics.csv",
            caption="../report/generative.rst",
            category="Generative recommender",
            labels={"what": "{quantizer}: metrics", "form": "table"},
        ),
    log:
        "results/logs/evaluate_generative.{quantizer}.log",
    benchmark:
        "results/benchmarks/evaluate_generative.{quantizer}.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 2
    params:
        generative_evaluation=settings("generative_evaluation"),
        run=pick("run", "seed"),
        code=code_of("evaluate_generative.py", generator_in_use),
    message:
        "Measuring the generative recommender and its baselines"
    script:
        "../scripts/evaluate_generative.py"


use rule train_generative as train_generative_by_sids with:
    input:
        unpack(generative_training_by_sids),
        sequences="results/interactions/sequences.parquet",
    output:
        model="results/generative/by_sids/{quantizer}/model.safetensors",
        training="results/generative/by_sids/{quantizer}/training.json",
    log:
        "results/logs/train_generative_by_sids.{quantizer}.log",
    benchmark:
        "results/benchmarks/train_generative_by_sids.{quantizer}.tsv"
    message:
        "Training the recommender that is compared on SIDs of {wildcards.quantizer}"


use rule evaluate_generative as evaluate_generative_by_sids with:
    input:
        unpack(generative_items_by_sids),
        unpack(generative_rivals),
        sequences="results/interactions/sequences.parquet",
        model="results/generative/by_sids/{quantizer}/model.safetensors",
    output:
        metrics="results/generative/by_sids/{quantizer}/metrics.json",
        users="results/generative/by_sids/{quantizer}/users.parquet",
        table=report(
            "results/generative/by_sids/{quantizer}/metrics.csv",
            caption="../report/generative.rst",
            category="Generative recommender",
            labels={"what": "{quantizer}, by SIDs alone: metrics", "form": "table"},
        ),
    log:
        "results/logs/evaluate_generative_by_sids.{quantizer}.log",
    benchmark:
        "results/benchmarks/evaluate_generative_by_sids.{quantizer}.tsv"
    message:
        "Measuring the recommender that is compared on SIDs of {wildcards.quantizer}"


rule plot_generative:
    input:
        metrics="results/generative/{quantizer}/metrics.json",
    output:
        plot=report(
            "results/plots/generative.{quantizer}.svg",
            caption="../report/generative.rst",
            category="Generative recommender",
            labels={"what": "{quantizer}: metrics", "form": "plot"},
        ),
    log:
        "results/logs/plot_generative.{quantizer}.log",
    benchmark:
        "results/benchmarks/plot_generative.{quantizer}.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        code=code_of("plot_generative.py"),
    message:
        "Plotting {input.metrics}"
    script:
        "../scripts/plot_generative.py"
