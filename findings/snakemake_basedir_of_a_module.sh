#!/usr/bin/env bash
# snakemake 9.27.1, Python 3.11.
#
# A workflow that finds its own files by workflow.basedir (a library, a resource, a schema) runs by
# itself, and looks into another folder as soon as somebody uses it as a module: there basedir is the
# folder of the outer Snakefile, while script: and include: are still relative to the module's file. If
# the outer folder has a file of that name, it is taken without a word.
#
# Guess: in a module, workflow.basedir is the folder of the module's Snakefile.
# Seen: it is the folder of the outer Snakefile; workflow.current_basedir is the module's.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet snakemake==9.27.1
cd "$folder"
mkdir inner
echo inner > inner/resource.txt
echo outer > resource.txt
cat > inner/Snakefile <<'SNAKEFILE'
rule copy:
    output:
        "base.txt",
        "current.txt",
    params:
        base=f"{workflow.basedir}/resource.txt",
        current=f"{workflow.current_basedir}/resource.txt",
    shell:
        "cp {params.base} base.txt; cp {params.current} current.txt"
SNAKEFILE
cat > Snakefile <<'SNAKEFILE'
module inner:
    snakefile:
        "inner/Snakefile"


use rule * from inner
SNAKEFILE
"$folder/venv/bin/snakemake" --snakefile inner/Snakefile --cores 1 --quiet all
alone="$(cat base.txt) $(cat current.txt)"
rm base.txt current.txt
"$folder/venv/bin/snakemake" base.txt --cores 1 --quiet all
module="$(cat base.txt) $(cat current.txt)"
echo "basedir and current_basedir, alone: $alone; as a module: $module"
test "$alone" = "inner inner"
test "$module" = "outer inner"
