#!/usr/bin/env bash
# snakemake 9.27.1, Python 3.11.
#
# The limit of jobs per second (100 if nothing is said) starts a timer of one second whenever jobs
# were selected, and again when that timer ends while jobs wait for a core. Every job that ends adds
# such a chain, and none of them ends as long as jobs wait: 80 jobs of 0.2 s on one core need 81
# selections and get about 700, 300 jobs about 9,500. And the process waits for its last timer, so a
# run of one short job takes a second longer than the job.
#
# Guess: one selection for each job that ends, and one a second besides: about 60 for 40 jobs; a run
# of one job that does nothing ends when the job has.
# Seen: about 180; the run ends a second after its last line.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet snakemake==9.27.1
cd "$folder"
cat > Snakefile <<'SNAKEFILE'
rule all:
    input:
        expand("out/{number}", number=range(config["jobs"])),

rule wait:
    output:
        "out/{number}",
    shell:
        "sleep 0.2; touch {output}"
SNAKEFILE
"$folder/venv/bin/python" - "$folder/venv/bin/snakemake" <<'PY'
import shutil
import subprocess
import sys
import time


def run(jobs):
    """How often jobs were selected, and the seconds between the last line and the end."""
    command = [sys.argv[1], "--cores", "1", "--scheduler", "greedy", "--verbose"]
    command += ["--config", f"jobs={jobs}"]
    shutil.rmtree("out", ignore_errors=True)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    selections, last = 0, 0.0
    for line in process.stderr:
        selections += line.startswith("Ready jobs: ")
        last = time.monotonic()
    assert process.wait() == 0
    return selections, time.monotonic() - last


selections, _ = run(40)
_, seconds = run(1)
print({"selections for 40 jobs": selections, "seconds after the last line": round(seconds, 2)})
assert selections > 100
assert seconds > 0.5
PY
