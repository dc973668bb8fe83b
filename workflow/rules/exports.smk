"""
The forms that other tools read: memory maps, HDF5, and the files of other recommenders. Asked for by name: no other rule needs them.

READS    results/items/vectors.npy, ids.parquet, text.parquet
         results/pid2sid.parquet
         results/interactions/sequences.parquet
LEAVES   results/trie.safetensors         the tree of all SIDs and the items of each, as arrays
         results/mmap/mmap.json           shapes and names of the two maps beside it
         results/mmap/mmap_idx_{M}        int32 (M,), item id to row; M = largest id + 1
         results/mmap/mmap_emb_{N}_{D}    float32 (N, D), row 0 zeros for padding
         results/mmap/item_index.parquet  pid, item_id: the integer id of each item
         results/h5/item_data.h5          item_ids, embeddings, features, feature_lengths
         results/h5/item_index.parquet    pid, item_id
         results/h5/sequence.h5           user_ids, sequences, sequence_lengths, timestamps
         results/peers/lcrec/X/X.inter.json, X.item.json              LC-Rec; X is any name
         results/peers/minionerec/X/X.{train,valid,test}.inter        MiniOneRec: user_id, item_id_list, item_id
         results/peers/missrec/X/X.{train,valid,test}.inter           the same, items as rows of X.feat1CLS
         results/peers/missrec/X/X.feat1CLS, item_index.parquet       float32 (N + 1, D), no header; pid, item_id
         results/peers/user_sequence/{train,valid,test}/part-00000.jsonl  user_id, user_sequence of 50, 0 on the left
         results/peers/onerec/metadata.parquet                        uid, split, hist_video_pid, target_video_pid

M, N and D are known only when the maps are there, so mmap.json stands for them.
"""


rule export_trie:
    input:
        pid2sid="results/pid2sid.parquet",
    output:
        trie="results/trie.safetensors",
    log:
        "results/logs/export_trie.log",
    benchmark:
        "results/benchmarks/export_trie.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        code=code_of("export_trie.py"),
    message:
        "Writing the trie of all SIDs"
    script:
        "../scripts/export_trie.py"


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
        embedding=tokenizer_settings(config["embedding"], config["h5"]["features"]),
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


rule write_lcrec:
    input:
        sequences="results/interactions/sequences.parquet",
        text="results/items/text.parquet",
    output:
        histories="results/peers/lcrec/{name}/{name}.inter.json",
        catalogue="results/peers/lcrec/{name}/{name}.item.json",
    log:
        "results/logs/write_lcrec.{name}.log",
    benchmark:
        "results/benchmarks/write_lcrec.{name}.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        code=code_of("write_lcrec.py"),
    message:
        "Writing histories and items for LC-Rec"
    script:
        "../scripts/write_lcrec.py"


rule write_minionerec:
    input:
        sequences="results/interactions/sequences.parquet",
    output:
        train="results/peers/minionerec/{name}/{name}.train.inter",
        valid="results/peers/minionerec/{name}/{name}.valid.inter",
        test="results/peers/minionerec/{name}/{name}.test.inter",
    log:
        "results/logs/write_minionerec.{name}.log",
    benchmark:
        "results/benchmarks/write_minionerec.{name}.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        code=code_of("write_minionerec.py"),
    message:
        "Writing histories for MiniOneRec"
    script:
        "../scripts/write_minionerec.py"


rule write_missrec:
    input:
        sequences="results/interactions/sequences.parquet",
        vectors="results/items/vectors.npy",
        ids="results/items/ids.parquet",
    output:
        train="results/peers/missrec/{name}/{name}.train.inter",
        valid="results/peers/missrec/{name}/{name}.valid.inter",
        test="results/peers/missrec/{name}/{name}.test.inter",
        features="results/peers/missrec/{name}/{name}.feat1CLS",
        index="results/peers/missrec/{name}/item_index.parquet",
    log:
        "results/logs/write_missrec.{name}.log",
    benchmark:
        "results/benchmarks/write_missrec.{name}.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        code=code_of("write_missrec.py"),
    message:
        "Writing histories and vectors for MISSRec"
    script:
        "../scripts/write_missrec.py"


rule write_user_sequences:
    input:
        sequences="results/interactions/sequences.parquet",
        text="results/items/text.parquet",
    output:
        train="results/peers/user_sequence/train/part-00000.jsonl",
        valid="results/peers/user_sequence/valid/part-00000.jsonl",
        test="results/peers/user_sequence/test/part-00000.jsonl",
    log:
        "results/logs/write_user_sequences.log",
    benchmark:
        "results/benchmarks/write_user_sequences.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        code=code_of("write_user_sequences.py"),
    message:
        "Writing padded histories"
    script:
        "../scripts/write_user_sequences.py"


rule write_onerec_metadata:
    input:
        sequences="results/interactions/sequences.parquet",
    output:
        metadata="results/peers/onerec/metadata.parquet",
    log:
        "results/logs/write_onerec_metadata.log",
    benchmark:
        "results/benchmarks/write_onerec_metadata.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        code=code_of("write_onerec_metadata.py"),
    message:
        "Writing histories as metadata of OneRec"
    script:
        "../scripts/write_onerec_metadata.py"
