"""
Catalogue and vectors -> the category level, with category_level.field: a first level of codes that no quantizer learns.

READS    items.path                              the field that category_level.field names
         results/items/text.parquet, rejects.parquet   which rows of the catalogue are items
         results/items/vectors.npy or fused.npy, their ids
LEAVES   results/items/categories.parquet        pid, category (string, null for none)
         results/items/category_level.safetensors  the level as a quantizer: codebook.0 float32 (K, D), category.*
         results/items/residuals.npy             float32 (N, D): vectors less the codewords of the level
         results/items/residual_ids.parquet      pid, in row order of both

Quantizers are trained on the residuals, and put the level before their own. Without the field none of these files is made.
"""


rule read_categories:
    input:
        catalogue=catalogue_files,
        text="results/items/text.parquet",
        rejects="results/items/rejects.parquet",
    output:
        categories="results/items/categories.parquet",
    log:
        "results/logs/read_categories.log",
    benchmark:
        "results/benchmarks/read_categories.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        catalogue=settings("items"),
        category_level=pick("category_level", "field", "path_separator", "depth"),
        code=code_of("read_categories.py"),
    message:
        "Reading the category of each item"
    script:
        "../scripts/read_categories.py"


rule fit_categories:
    input:
        vectors=item_vectors(),
        ids=item_vector_ids(),
        categories="results/items/categories.parquet",
    output:
        level="results/items/category_level.safetensors",
        vectors="results/items/residuals.npy",
        ids="results/items/residual_ids.parquet",
    log:
        "results/logs/fit_categories.log",
    benchmark:
        "results/benchmarks/fit_categories.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        category_level=settings("category_level"),
        code=code_of("fit_categories.py"),
    message:
        "Making categories the first level"
    script:
        "../scripts/fit_categories.py"
