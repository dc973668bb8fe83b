"""
Histories and item vectors -> a sequence recommender, its vectors, its lists, and their metrics.

READS    results/interactions/sequences.parquet         user_id, item_ids, splits
         results/items/vectors.npy, ids.parquet         with recommender.train_from: text
         results/mmap/mmap.json, or your own            with recommender.train_from: mmap
         results/codes.parquet, results/pid2sid.parquet
LEAVES   results/recommender/model.safetensors          weights, settings, identity of its items
         results/recommender/training.json              loss and valid NDCG@10 of every epoch
         results/recommender/all_item_embedding.npy     float32 (N, 1 + H), the id in the first column
         results/recommender/all_user_embedding_{k}.npy float32 (n, 1 + H), 100,000 users a file, k from 0
         results/recommender/item_ids.parquet           pid, in the order of the rows; user_ids.parquet likewise
         results/recommender/embeddings.json            the files, and the meaning of their first column
         results/recommender/topk.parquet               user_id, item_ids, scores, sids
         results/recommender/metrics.json, metrics.csv  full-sort metrics with intervals, baselines, by SID
         results/plots/recommender.svg                  the same as a plot
"""


rule train_recommender:
    input:
        unpack(recommender_items),
        sequences="results/interactions/sequences.parquet",
        start=OWN_RECOMMENDER,
    output:
        model="results/recommender/model.safetensors",
        training="results/recommender/training.json",
    log:
        "results/logs/train_recommender.log",
    benchmark:
        "results/benchmarks/train_recommender.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 2
    params:
        recommender=settings("recommender", "train_from", "mmap_path", "load"),
        run=pick("run", "seed"),
        code=code_of("train_recommender.py"),
    message:
        "Training the recommender"
    script:
        "../scripts/train_recommender.py"


rule infer_recommender:
    input:
        unpack(recommender_items),
        sequences="results/interactions/sequences.parquet",
        model="results/recommender/model.safetensors",
    output:
        item_vectors="results/recommender/all_item_embedding.npy",
        user_vectors="results/recommender/all_user_embedding_0.npy",
        item_ids="results/recommender/item_ids.parquet",
        user_ids="results/recommender/user_ids.parquet",
        listing="results/recommender/embeddings.json",
    log:
        "results/logs/infer_recommender.log",
    benchmark:
        "results/benchmarks/infer_recommender.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 2
    params:
        recommender=pick("recommender"),
        code=code_of("infer_recommender.py"),
    message:
        "Making vectors of all items and users"
    script:
        "../scripts/infer_recommender.py"


rule recommend_topk:
    input:
        listing="results/recommender/embeddings.json",
        item_vectors="results/recommender/all_item_embedding.npy",
        user_vectors="results/recommender/all_user_embedding_0.npy",
        item_ids="results/recommender/item_ids.parquet",
        sequences="results/interactions/sequences.parquet",
        pid2sid="results/pid2sid.parquet",
    output:
        topk="results/recommender/topk.parquet",
    log:
        "results/logs/recommend_topk.log",
    benchmark:
        "results/benchmarks/recommend_topk.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 2
    params:
        recommender_topk=settings("recommender_topk"),
        code=code_of("recommend_topk.py"),
    message:
        "Finding the best items of every user"
    script:
        "../scripts/recommend_topk.py"


rule evaluate_recommender:
    input:
        unpack(recommender_items),
        sequences="results/interactions/sequences.parquet",
        model="results/recommender/model.safetensors",
        codes="results/codes.parquet",
        pid2sid="results/pid2sid.parquet",
    output:
        metrics="results/recommender/metrics.json",
        table=report(
            "results/recommender/metrics.csv",
            caption="../report/recommender.rst",
            category="Recommender",
            labels={"what": "metrics", "form": "table"},
        ),
    log:
        "results/logs/evaluate_recommender.log",
    benchmark:
        "results/benchmarks/evaluate_recommender.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 2
    params:
        recommender_evaluation=settings("recommender_evaluation"),
        run=pick("run", "seed"),
        code=code_of("evaluate_recommender.py"),
    message:
        "Measuring the recommender and its baselines"
    script:
        "../scripts/evaluate_recommender.py"


rule plot_recommender:
    input:
        metrics="results/recommender/metrics.json",
    output:
        plot=report(
            "results/plots/recommender.svg",
            caption="../report/recommender.rst",
            category="Recommender",
            labels={"what": "metrics", "form": "plot"},
        ),
    log:
        "results/logs/plot_recommender.log",
    benchmark:
        "results/benchmarks/plot_recommender.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        code=code_of("plot_recommender.py"),
    message:
        "Plotting {input.metrics}"
    script:
        "../scripts/plot_recommender.py"
