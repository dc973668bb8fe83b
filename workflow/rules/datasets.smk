"""
SIDs, interactions and texts -> datasets for language models, and the vocabulary to train on them.

READS    results/pid2sid.parquet, results/{quantizer}/quantizer.safetensors
         results/interactions/sequences.parquet   or datasets.users: user_id, item_ids, splits; or OneRec's columns
         results/items/text.parquet               or datasets.captions: pid, text or dense_caption
LEAVES   results/datasets/{dataset}/              part-00000-of-00010.parquet: source, uuid, segments or messages, metadata
         results/datasets/mixture/, rl/           train/ and test/: datasets in one, by weights; neither train/ has a user of either test/
         results/datasets/lint.json, report.json  what the linter found; what was read, left out and written
         results/vocabulary/model/                tokenizer and model with SID tokens, sid_vocabulary.json
         results/vocabulary/trie.json, trie.safetensors, sids.regex, sids.lark, sids.ebnf   the SIDs that exist
         results/vocabulary/levels.ebnf, levels.lark     all combinations of the tokens in use

{dataset} is a task, as in sft_video_rec, of the training split; sft_video_rec.valid and sft_video_rec.test are of the
others. Each takes two passes, both in shards: item ids to numbers in a random order, then numbers to text.
"""


rule resolve_rows:
    input:
        rows=task_inputs,
        pid2sid="results/pid2sid.parquet",
        product=PRODUCTS,
        texts=task_texts,
    output:
        rows=temp("results/datasets/work/{dataset}/rows-{shard}-of-{shards}.arrow"),
        counts="results/datasets/work/{dataset}/rows-{shard}-of-{shards}.json",
    log:
        "results/logs/resolve_rows.{dataset}.{shard}-of-{shards}.log",
    benchmark:
        "results/benchmarks/resolve_rows.{dataset}.{shard}-of-{shards}.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        datasets=pick(
            "datasets",
            *("windows", "history_max", "target_max"),
            *("users", "captions", "product_pid2sid"),
        ),
        task=task_digest,
        run=pick("run", "seed"),
        code=code_of("resolve_rows.py"),
    message:
        "Looking up the items of {wildcards.dataset}, shard {wildcards.shard} of {wildcards.shards}"
    script:
        "../scripts/resolve_rows.py"


rule write_parts:
    input:
        rows=all_shards(
            "results/datasets/work/{dataset}/rows-{shard}-of-{shards}.arrow"
        ),
        counts=all_shards(
            "results/datasets/work/{dataset}/rows-{shard}-of-{shards}.json"
        ),
        pid2sid="results/pid2sid.parquet",
        product=PRODUCTS,
        texts=task_texts,
    output:
        parts=temp(
            directory("results/datasets/work/{dataset}/parts-{shard}-of-{shards}")
        ),
    log:
        "results/logs/write_parts.{dataset}.{shard}-of-{shards}.log",
    benchmark:
        "results/benchmarks/write_parts.{dataset}.{shard}-of-{shards}.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        datasets=pick(
            "datasets",
            *("form", "language", "rows_per_file"),
            *("users", "captions", "product_pid2sid"),
        ),
        task=task_digest,
        run=pick("run", "seed"),
        code=code_of("write_parts.py"),
    message:
        "Writing {wildcards.dataset}, shard {wildcards.shard} of {wildcards.shards}"
    script:
        "../scripts/write_parts.py"


rule make_dataset:
    input:
        parts=all_shards("results/datasets/work/{dataset}/parts-{shard}-of-{shards}"),
        counts=all_shards(
            "results/datasets/work/{dataset}/rows-{shard}-of-{shards}.json"
        ),
    output:
        dataset=directory("results/datasets/{dataset}"),
        counts="results/datasets/counts/{dataset}.json",
    log:
        "results/logs/make_dataset.{dataset}.log",
    benchmark:
        "results/benchmarks/make_dataset.{dataset}.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        datasets=pick("datasets", "max_unknown_share", "max_left_out_share"),
        code=code_of("make_dataset.py"),
    message:
        "Gathering {wildcards.dataset}"
    script:
        "../scripts/make_dataset.py"


rule mix_datasets:
    input:
        datasets=mixture_inputs,
        others=other_test_datasets,
    output:
        train=directory("results/datasets/{mixture}/train"),
        test=directory("results/datasets/{mixture}/test"),
        counts="results/datasets/counts/{mixture}.json",
    log:
        "results/logs/mix_datasets.{mixture}.log",
    benchmark:
        "results/benchmarks/mix_datasets.{mixture}.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        mixture=mixture_settings,
        others=other_test_sizes,
        run=pick("run", "seed"),
        code=code_of("mix_datasets.py"),
    message:
        "Mixing datasets into {wildcards.mixture}"
    script:
        "../scripts/mix_datasets.py"


rule lint_datasets:
    input:
        datasets=expand("results/datasets/{dataset}", dataset=TASKS),
        pid2sid="results/pid2sid.parquet",
        product=PRODUCTS,
    output:
        lint="results/datasets/lint.json",
    log:
        "results/logs/lint_datasets.log",
    benchmark:
        "results/benchmarks/lint_datasets.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        lint=settings("lint"),
        datasets=pick("datasets", "tasks", "product_pid2sid"),
        code=code_of("lint_datasets.py"),
    message:
        "Linting the datasets"
    script:
        "../scripts/lint_datasets.py"


rule report_datasets:
    input:
        counts=expand("results/datasets/counts/{dataset}.json", dataset=TASKS),
        lint="results/datasets/lint.json",
    output:
        report="results/datasets/report.json",
    log:
        "results/logs/report_datasets.log",
    benchmark:
        "results/benchmarks/report_datasets.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        datasets=pick("datasets", "tasks"),
        code=code_of("report_datasets.py"),
    message:
        "Reporting on the datasets"
    script:
        "../scripts/report_datasets.py"


rule expand_vocabulary:
    input:
        unpack(expanded_model),
        pid2sid="results/pid2sid.parquet",
        quantizer=chosen("quantizer.safetensors"),
    output:
        model=directory("results/vocabulary/model"),
        trie="results/vocabulary/trie.safetensors",
        tree="results/vocabulary/trie.json",
        regex="results/vocabulary/sids.regex",
        lark="results/vocabulary/sids.lark",
        ebnf="results/vocabulary/sids.ebnf",
        levels="results/vocabulary/levels.ebnf",
        levels_lark="results/vocabulary/levels.lark",
    log:
        "results/logs/expand_vocabulary.log",
    benchmark:
        "results/benchmarks/expand_vocabulary.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 2
    params:
        vocabulary=settings("vocabulary"),
        run=pick("run", "seed"),
        code=code_of("expand_vocabulary.py"),
    message:
        "Adding the SID tokens to {params.vocabulary[model]}"
    script:
        "../scripts/expand_vocabulary.py"
