"""
Files of a published data set -> catalogue and interaction log.

READS    imported.path                                  folder or archive, as it was downloaded
LEAVES   results/imported/{source}/items.parquet        item_id (string) and the text fields of the data set
         results/imported/{source}/interactions.parquet user_id, item_ids, splits (if published), timestamps
         results/imported/{source}/rejects.parquet      file, row, interactions, reason
         results/imported/{source}/import.json          counts: read = written + rejected + left out
         results/imported/{source}/overlay.yaml         settings that read these files
         results/imported/{searched}/corpus.jsonl       BEIR and MS MARCO: _id, title, text
         results/imported/{searched}/queries.jsonl      _id, text
         results/imported/{searched}/qrels.tsv          query-id, corpus-id, score
"""


rule import_dataset:
    input:
        files=imported_files,
    output:
        catalogue="results/imported/{source}/items.parquet",
        interactions="results/imported/{source}/interactions.parquet",
        rejects="results/imported/{source}/rejects.parquet",
        report="results/imported/{source}/import.json",
        overlay="results/imported/{source}/overlay.yaml",
    log:
        "results/logs/import_dataset.{source}.log",
    benchmark:
        "results/benchmarks/import_dataset.{source}.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        imported=settings("imported"),
        code=code_of("import_dataset.py", imported_source),
    message:
        "Importing {wildcards.source}"
    script:
        "../scripts/import_dataset.py"


rule import_collection:
    input:
        files=imported_files,
    output:
        corpus="results/imported/{searched}/corpus.jsonl",
        queries="results/imported/{searched}/queries.jsonl",
        qrels="results/imported/{searched}/qrels.tsv",
        rejects="results/imported/{searched}/rejects.parquet",
        report="results/imported/{searched}/import.json",
        overlay="results/imported/{searched}/overlay.yaml",
    log:
        "results/logs/import_collection.{searched}.log",
    benchmark:
        "results/benchmarks/import_collection.{searched}.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        imported=settings("imported"),
        code=code_of("import_collection.py", imported_source),
    message:
        "Importing {wildcards.searched}"
    script:
        "../scripts/import_collection.py"
