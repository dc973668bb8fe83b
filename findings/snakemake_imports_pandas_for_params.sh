#!/usr/bin/env bash
# snakemake 9.27.1, pandas 3.0.0, Python 3.11.
#
# Where pandas is installed, Snakemake imports it before the first job that runs a script starts, to
# ask whether the params of the job are tables; and again to compare params with those of the last
# run. The params of this job are one number. It costs a quarter of a second before the first job,
# and some 60 MiB that stay as long as the run.
#
# Guess: it looks whether pandas is imported already, since no value can be a table otherwise.
# Seen: it imports pandas.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet snakemake==9.27.1 pandas==3.0.0
cd "$folder"
cat > Snakefile <<'SNAKEFILE'
rule number:
    output:
        "number.txt",
    params:
        number=3,
    script:
        "number.py"
SNAKEFILE
echo 'open(snakemake.output[0], "w").write(str(snakemake.params.number))' > number.py
for option in --dry-run --scheduler=greedy; do
    "$folder/venv/bin/python" -X importtime "$folder/venv/bin/snakemake" --cores 1 "$option" > /dev/null 2> log.txt
    printf '%s: %s\n' "$option" "$(grep -c '| *pandas$' log.txt || true) import of pandas"
done | tee seen.txt
grep -q -- '--dry-run: 0' seen.txt
grep -q -- '--scheduler=greedy: 1' seen.txt
