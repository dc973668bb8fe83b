"""
Codes -> semantic IDs, and what they are worth.

READS    results/codes.parquet                  pid, codes list<int32> (L)
         results/{quantizer}/quantizer.safetensors
         results/items/vectors.npy or fused.npy, their ids, text.parquet   given SIDs need none of them
         results/published/ledger.parquet, match.parquet   with published.path: the SIDs that stay
LEAVES   results/pid2sid.parquet                pid, sid list<int32> (L, or L + 1 with a suffix), tokens
         index.path (results/index.json)        {"pid": ["<a_0>", "<b_12>", "<c_7>"]}
         results/resolution.json                what the resolution of collisions cost
         results/quality.json                   every figure, per level and whole, before and after resolution
"""


rule resolve_collisions:
    input:
        codes="results/codes.parquet",
        quantizer=chosen("quantizer.safetensors"),
        vectors=where_codebooks(item_vectors()),
        ids=where_codebooks(item_vector_ids()),
        text=item_text(),
        ledger=where_published("results/published/ledger.parquet"),
        match=where_published("results/published/match.parquet"),
    output:
        pid2sid="results/pid2sid.parquet",
        index=config["index"]["path"],
        resolution="results/resolution.json",
    log:
        "results/logs/resolve_collisions.log",
    benchmark:
        "results/benchmarks/resolve_collisions.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 2
    params:
        collisions=settings("collisions"),
        encoding=settings("encoding"),
        published=pick("published", "changed", "removed", "refresh"),
        code=code_of("resolve_collisions.py", strategy_in_use),
    message:
        "Resolving collisions"
    script:
        "../scripts/resolve_collisions.py"


rule measure_quality:
    input:
        pid2sid="results/pid2sid.parquet",
        resolution="results/resolution.json",
        codes="results/codes.parquet",
        quantizer=chosen("quantizer.safetensors"),
        vectors=where_embedded(item_vectors()),
        ids=where_embedded(item_vector_ids()),
        text=item_text(),
    output:
        quality=report(
            "results/quality.json",
            caption="../report/quality.rst",
            category="Quality",
            labels={"what": "all figures", "form": "JSON"},
        ),
    log:
        "results/logs/measure_quality.log",
    benchmark:
        "results/benchmarks/measure_quality.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 8
    params:
        quality=settings("quality"),
        run=pick("run", "seed"),
        code=code_of("measure_quality.py"),
    message:
        "Measuring the quality of the SIDs"
    script:
        "../scripts/measure_quality.py"
