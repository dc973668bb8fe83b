"""
Interaction log -> one history per user.

READS    interactions.path                        missrec, sequences, events, onerec or inter; file, folder or glob
         results/items/text.parquet               pid: the items that are known; results/given/codes.parquet without a catalogue
LEAVES   results/interactions/sequences.parquet   user_id, item_ids, splits (0 train, 1 valid, 2 test), timestamps
         results/interactions/rejects.parquet     file, row, position, user_id, item_id, interactions, reason
         results/interactions/report.json         users, lengths, items never seen, cold items, ties, leakage, what was rejected
"""


rule read_interactions:
    input:
        interactions=interaction_files,
        text=item_ids(),
    output:
        sequences="results/interactions/sequences.parquet",
        rejects="results/interactions/rejects.parquet",
        report="results/interactions/report.json",
    log:
        "results/logs/read_interactions.log",
    benchmark:
        "results/benchmarks/read_interactions.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        interactions=settings("interactions"),
        code=code_of("read_interactions.py"),
    message:
        "Reading interactions"
    script:
        "../scripts/read_interactions.py"
