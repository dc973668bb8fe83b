"""
Quantizers side by side: each is trained by its own rule, measured by one rule, and gathered.

READS    results/{quantizer}/quantizer.safetensors, codes.parquet
         results/items/vectors.npy or fused.npy      float (N, D); none without a catalogue
         evaluation.sequences                        user_id, item_ids, splits, timestamps; where the config names it
         results/benchmarks/train_*.tsv              seconds and memory of the training
         results/generative/{quantizer}/metrics.json, users.parquet  with comparison.downstream; of by_sids/{quantizer}/
                                                     where those of {quantizer}/ compare items by further codes
LEAVES   results/{quantizer}/evaluation.json         every figure of one quantizer
         results/comparison.json, comparison.md      the figures of all members that are compared
         results/plots/comparison.svg                the same for the eye
"""


rule evaluate_quantizer:
    input:
        vectors=where_text(item_vectors()),
        ids=where_text(item_vector_ids()),
        quantizer="results/{quantizer}/quantizer.safetensors",
        codes="results/{quantizer}/codes.parquet",
        sequences=HISTORIES,
    output:
        evaluation="results/{quantizer}/evaluation.json",
    log:
        "results/logs/evaluate_quantizer.{quantizer}.log",
    benchmark:
        "results/benchmarks/evaluate_quantizer.{quantizer}.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 8
    params:
        evaluation=settings("evaluation"),
        run=pick("run", "seed"),
        code=code_of("evaluate_quantizer.py"),
    message:
        "Measuring {input.quantizer}"
    script:
        "../scripts/evaluate_quantizer.py"


rule compare_quantizers:
    input:
        evaluations=expand(
            "results/{quantizer}/evaluation.json",
            quantizer=config["comparison"]["members"],
        ),
        benchmarks=training_costs(),
        metrics=downstream_files("metrics.json"),
        users=downstream_files("users.parquet"),
    output:
        comparison="results/comparison.json",
        table="results/comparison.md",
        plot=report(
            "results/plots/comparison.svg",
            caption="../report/comparison.rst",
            category="Comparison",
            labels={"what": "quantizers side by side", "form": "plot"},
        ),
    log:
        "results/logs/compare_quantizers.log",
    benchmark:
        "results/benchmarks/compare_quantizers.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        comparison=settings("comparison"),
        generative_evaluation=pick("generative_evaluation", "n_resamples"),
        run=pick("run", "seed"),
        budget=compared_budget(),
        code=code_of("compare_quantizers.py"),
    message:
        "Comparing {params.comparison[members]}"
    script:
        "../scripts/compare_quantizers.py"
