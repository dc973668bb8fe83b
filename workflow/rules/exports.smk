"""
The forms that other tools read: MISSRec's memory maps and HDF5. Asked for by name: no other rule needs them.

READS    results/items/vectors.npy, ids.parquet, text.parquet
         results/interactions/sequences.parquet
LEAVES   results/mmap/mmap.json           shapes and names of the two maps beside it
         results/mmap/mmap_idx_{M}        int32 (M,), item id to row; M = largest id + 1
         results/mmap/mmap_emb_{N}_{D}    float32 (N, D), row 0 zeros for padding
         results/mmap/item_index.parquet  pid, item_id: the integer id of each item
         results/h5/item_data.h5          item_ids, embeddings, features, feature_lengths
         results/h5/item_index.parquet    pid, item_id
         results/h5/sequence.h5           user_ids, sequences, sequence_lengths, timestamps

M, N and D are known only when the maps are there, so mmap.json stands for them.
"""


rule write_mmap:
    input:
        vectors="results/items/vectors.npy",
        ids="results/items/ids.parquet",
    output:
        facts="results/mmap/mmap.json",
        index="results/mmap/item_index.parquet",
    log:
        "results/logs/write_mmap.log",
    benchmark:
        "results/benchmarks/write_mmap.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        code=code_of("write_mmap.py"),
    message:
        "Writing memory maps of the vectors"
    script:
        "../scripts/write_mmap.py"


rule write_item_h5:
    input:
        vectors="results/items/vectors.npy",
        ids="results/items/ids.parquet",
        text="results/items/text.parquet",
    output:
        item_data="results/h5/item_data.h5",
        index="results/h5/item_index.parquet",
    log:
        "results/logs/write_item_h5.log",
    benchmark:
        "results/benchmarks/write_item_h5.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        h5=settings("h5", "splits"),
        tokenizer=tokenizer_of(config["embedding"], config["h5"]["features"]),
        code=code_of("write_item_h5.py"),
    message:
        "Writing vectors and tokens of the items as HDF5"
    script:
        "../scripts/write_item_h5.py"


rule write_sequence_h5:
    input:
        sequences="results/interactions/sequences.parquet",
        text=item_ids(),
    output:
        sequences="results/h5/sequence.h5",
    log:
        "results/logs/write_sequence_h5.log",
    benchmark:
        "results/benchmarks/write_sequence_h5.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        h5=pick("h5", "splits"),
        code=code_of("write_sequence_h5.py"),
    message:
        "Writing the histories as HDF5"
    script:
        "../scripts/write_sequence_h5.py"
