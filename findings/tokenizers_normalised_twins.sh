#!/usr/bin/env bash
# tokenizers 0.23.3, Python 3.11.
#
# A tokenizer that lowercases, with the added tokens <A_1> and <a_1> (levels and codes of two catalogues,
# say). Both encode alike, as is known. But which of the two ids they become is drawn anew in every
# process: the same file of a tokenizer encodes the same text differently in two runs, so rows tokenized
# by one process name rows of the embedding matrix that another process does not use.
#
# Guess: one of the two ids, the same in every process.
# Seen: in 16 processes that load one file, both ids occur.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tokenizers==0.23.3
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
from tokenizers import Tokenizer, models, normalizers

made = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
made.normalizer = normalizers.Lowercase()
pairs = [name for code in range(8) for name in (f"<A_{code}>", f"<a_{code}>")]
assert made.add_tokens(pairs) == 16
made.save("tokenizer.json")
PY
for process in $(seq 16); do
    "$folder/venv/bin/python" -c '
from tokenizers import Tokenizer
print(Tokenizer.from_file("tokenizer.json").encode("<a_0><a_1><a_2><a_3>").ids)'
done | sort | uniq -c | tee encodings.txt
test "$(wc -l < encodings.txt)" -gt 1
