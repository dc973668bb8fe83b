"""
Versions of a catalogue: what a published one gives to this run, and what this run gives to the next.

READS    published.path                     the folder of a version, where the config names one (docs/formats.md)
         results/items/text.parquet, vectors.npy or fused.npy, their ids, embeddings.parquet/
         results/pid2sid.parquet, results/codes.parquet
         results/{quantizer}{start}/quantizer.safetensors, codes.parquet   with published.refresh: trained again
LEAVES   results/published/quantizer.safetensors, ledger.parquet  of the version, every file of which was checked
         results/published/match.parquet    pid, row, changed: the items of the catalogue in that version
         results/refreshed/quantizer.safetensors  with published.refresh: its codewords renamed by published codes
         results/ledger.parquet             every SID that was ever given, and to whom
         results/churn.json, churn.parquet  what changed, how far items drift, whether to train again
         results/plots/churn.svg            the same for the eye
         results/version.json               what `sidmill publish` makes a version of

Without published.path only ledger.parquet and version.json are made, when they are asked for.
"""


rule import_published:
    input:
        version=version_files,
    output:
        quantizer="results/published/quantizer.safetensors",
        ledger="results/published/ledger.parquet",
    log:
        "results/logs/import_published.log",
    benchmark:
        "results/benchmarks/import_published.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        code=code_of("import_published.py"),
    message:
        "Checking the published version"
    script:
        "../scripts/import_published.py"


rule match_published:
    input:
        text="results/items/text.parquet",
        ledger="results/published/ledger.parquet",
    output:
        match="results/published/match.parquet",
    log:
        "results/logs/match_published.log",
    benchmark:
        "results/benchmarks/match_published.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        code=code_of("match_published.py"),
    message:
        "Looking the items up in the published version"
    script:
        "../scripts/match_published.py"


rule align_quantizer:
    input:
        quantizer=trained_again("quantizer.safetensors"),
        codes=trained_again("codes.parquet"),
        ledger="results/published/ledger.parquet",
        match="results/published/match.parquet",
    output:
        quantizer="results/refreshed/quantizer.safetensors",
    log:
        "results/logs/align_quantizer.log",
    benchmark:
        "results/benchmarks/align_quantizer.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        code=code_of("align_quantizer.py"),
    message:
        "Renaming the codewords of {input.quantizer} by published codes"
    script:
        "../scripts/align_quantizer.py"


rule write_ledger:
    input:
        pid2sid="results/pid2sid.parquet",
        codes="results/codes.parquet",
        text="results/items/text.parquet",
        ledger=where_published("results/published/ledger.parquet"),
    output:
        ledger="results/ledger.parquet",
    log:
        "results/logs/write_ledger.log",
    benchmark:
        "results/benchmarks/write_ledger.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        published=pick("published", "changed", "removed", "refresh"),
        code=code_of("write_ledger.py"),
    message:
        "Writing down who has which SID"
    script:
        "../scripts/write_ledger.py"


rule measure_churn:
    input:
        before="results/published/ledger.parquet",
        now="results/ledger.parquet",
        quantizer=chosen("quantizer.safetensors"),
        vectors=where_embedded(item_vectors()),
        ids=where_embedded(item_vector_ids()),
        scratch=from_scratch("quantizer.safetensors"),
        scratch_codes=from_scratch("codes.parquet"),
    output:
        churn=report(
            "results/churn.json",
            caption="../report/churn.rst",
            category="Versions",
            labels={"what": "churn and drift", "form": "JSON"},
        ),
        listing="results/churn.parquet",
    log:
        "results/logs/measure_churn.log",
    benchmark:
        "results/benchmarks/measure_churn.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 8
    params:
        churn=settings("churn", "compare_retraining"),
        published=pick("published", "refresh"),
        run=pick("run", "seed"),
        code=code_of("measure_churn.py"),
    message:
        "Measuring churn and drift"
    script:
        "../scripts/measure_churn.py"


rule plot_churn:
    input:
        churn="results/churn.json",
    output:
        plot=report(
            "results/plots/churn.svg",
            caption="../report/churn.rst",
            category="Versions",
            labels={"what": "churn and drift", "form": "plot"},
        ),
    log:
        "results/logs/plot_churn.log",
    benchmark:
        "results/benchmarks/plot_churn.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        code=code_of("plot_churn.py"),
    message:
        "Plotting {input.churn}"
    script:
        "../scripts/plot_churn.py"


rule describe_version:
    input:
        pid2sid="results/pid2sid.parquet",
        ledger="results/ledger.parquet",
        quantizer=chosen("quantizer.safetensors"),
        codes="results/codes.parquet",
        text="results/items/text.parquet",
        quality="results/quality.json",
        resolution="results/resolution.json",
        shards=all_embeddings(),
        lsa=own_lsa(),
        churn=where_published("results/churn.json"),
        churn_items=where_published("results/churn.parquet"),
        parent=PARENT,
    output:
        version="results/version.json",
    log:
        "results/logs/describe_version.log",
    benchmark:
        "results/benchmarks/describe_version.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        collisions=settings("collisions"),
        published=pick("published", "changed", "removed", "refresh"),
        code=code_of("describe_version.py"),
    message:
        "Describing this version"
    script:
        "../scripts/describe_version.py"
