"""
Catalogue -> one text per item.

READS    items.path                       .jsonl, .json, .csv, .tsv (.gz, .zst), .parquet; file, folder or glob
LEAVES   results/items/text.parquet       pid (int64 or string), text (string, not empty)
         results/items/rejects.parquet    pid, file, row, reason: every row of the catalogue that is not in text.parquet

The demo catalogue, which config.yaml reads as it stands, is written here too:
         results/demo/items.jsonl         item_id, title, description, brand, categories, price
         results/demo/interactions.jsonl  user_id, item_ids, timestamps
"""


rule write_demo:
    output:
        catalogue=local("results/demo/items.jsonl"),
        histories=local("results/demo/interactions.jsonl"),
    log:
        "results/logs/write_demo.log",
    benchmark:
        "results/benchmarks/write_demo.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        demo=settings("demo"),
        run=pick("run", "seed"),
        code=code_of("write_demo.py"),
    message:
        "Writing the demo catalogue"
    script:
        "../scripts/write_demo.py"


rule render_text:
    input:
        catalogue=catalogue_files,
        given=local(OWN_SIDS) if sids_to_keep()["given_sids"] else [],
    output:
        text="results/items/text.parquet",
        rejects="results/items/rejects.parquet",
    log:
        "results/logs/render_text.log",
    benchmark:
        "results/benchmarks/render_text.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        catalogue=settings("items"),
        given=sids_to_keep(),
        code=code_of("render_text.py"),
    message:
        "Rendering the text of each item"
    script:
        "../scripts/render_text.py"
