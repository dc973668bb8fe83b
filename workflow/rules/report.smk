"""
Figures and SIDs -> what a person looks at.

READS    results/quality.json
         results/pid2sid.parquet, results/codes.parquet, results/items/text.parquet
         results/{quantizer}/quantizer.safetensors  with category_level.field: names of the first tokens
         results/{quantizer}/metrics.csv    of a quantizer that is trained by epochs
         results/benchmarks/*.tsv, and the metadata of whatever lies in results/
LEAVES   results/plots/code_usage.svg       items per code, level by level
         results/plots/prefix_sizes.svg     items per prefix, before and after resolution
         results/plots/reconstruction.svg   error left after each level
         results/plots/training.{quantizer}.svg  losses, error and collisions, epoch by epoch
         results/explorer.html              prefix -> item texts, collisions, search; one file, no network
         results/run.json                   versions, settings, commit, time and memory by rule, rows in and out by stage
         results/runs.jsonl                 a line for each run of this folder: settings, figures, commit, seconds
         results/runs.html                  the latest ten of them side by side; one file, no network
"""


rule plot_quality:
    input:
        quality="results/quality.json",
    output:
        code_usage=report(
            "results/plots/code_usage.svg",
            caption="../report/code_usage.rst",
            category="Quality",
            labels={"what": "code usage", "form": "plot"},
        ),
        prefix_sizes=report(
            "results/plots/prefix_sizes.svg",
            caption="../report/prefix_sizes.rst",
            category="Quality",
            labels={"what": "prefix sizes", "form": "plot"},
        ),
        reconstruction=report(
            "results/plots/reconstruction.svg",
            caption="../report/reconstruction.rst",
            category="Quality",
            labels={"what": "reconstruction error", "form": "plot"},
        ),
    log:
        "results/logs/plot_quality.log",
    benchmark:
        "results/benchmarks/plot_quality.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        code=code_of("plot_quality.py"),
    message:
        "Plotting {input.quality}"
    script:
        "../scripts/plot_quality.py"


rule plot_training:
    input:
        metrics="results/{quantizer}/metrics.csv",
    output:
        training=report(
            "results/plots/training.{quantizer}.svg",
            caption="../report/training.rst",
            category="Training",
            labels={"what": "training of {quantizer}", "form": "plot"},
        ),
    log:
        "results/logs/plot_training.{quantizer}.log",
    benchmark:
        "results/benchmarks/plot_training.{quantizer}.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        code=code_of("plot_training.py"),
    message:
        "Plotting {input.metrics}"
    script:
        "../scripts/plot_training.py"


rule explore_sids:
    input:
        pid2sid="results/pid2sid.parquet",
        codes="results/codes.parquet",
        text=item_text(),
        quantizer=where_categories(chosen("quantizer.safetensors")),
        template=of_workflow("workflow/resources/explorer.html.jinja"),
    output:
        page=report(
            "results/explorer.html",
            caption="../report/explorer.rst",
            category="SIDs",
            labels={"what": "SID explorer", "form": "page"},
        ),
    log:
        "results/logs/explore_sids.log",
    benchmark:
        "results/benchmarks/explore_sids.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        explorer=settings("explorer"),
        run=pick("run", "seed"),
        code=code_of("explore_sids.py"),
    message:
        "Writing the SID explorer"
    script:
        "../scripts/explore_sids.py"


rule describe_run:
    input:
        artefacts=default_target,
        template=of_workflow("workflow/resources/runs.html.jinja"),
    output:
        run="results/run.json",
        history=update("results/runs.jsonl"),
        page=report(
            "results/runs.html",
            caption="../report/runs.rst",
            category="Runs",
            labels={"what": "runs of this folder", "form": "page"},
        ),
    log:
        "results/logs/describe_run.log",
    benchmark:
        "results/benchmarks/describe_run.tsv"
    conda:
        "../../envs/sidmill.yaml"
    threads: 1
    params:
        settings=shown_settings(config),
        explorer=pick("explorer", "title"),
        code=code_of("describe_run.py"),
    message:
        "Describing the run"
    script:
        "../scripts/describe_run.py"
