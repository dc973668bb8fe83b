#!/usr/bin/env bash
# snakemake 9.27.1, Python 3.11.
#
# A job that ends before its first sample is taken has max_rss, mean_load and cpu_time 0 in its
# benchmark file. Means over benchmark files, or sums of CPU time over a run of many short jobs, so
# come out too low, and a zero looks like a measurement.
#
# Guess: what was not measured is NA.
# Seen: 0.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet snakemake==9.27.1
cd "$folder"
cat > Snakefile <<'SNAKEFILE'
rule short:
    output:
        "short.txt",
    benchmark:
        "short.tsv"
    shell:
        "touch {output}"
SNAKEFILE
"$folder/venv/bin/snakemake" --cores 1 --quiet all
"$folder/venv/bin/python" - <<'PY'
import csv

(row,) = csv.DictReader(open("short.tsv"), delimiter="\t")
print({name: row[name] for name in ("s", "max_rss", "mean_load", "cpu_time")})
assert float(row["max_rss"]) == float(row["cpu_time"]) == float(row["mean_load"]) == 0
PY
