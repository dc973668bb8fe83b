#!/usr/bin/env bash
# torch 2.13.0, numpy 2.4.6, Python 3.11, CPU.
#
# A checkpoint of torch.save is a zip archive. One whose entries were zipped again, by Python's zipfile,
# is still a checkpoint: torch.load reads it, compressed or not. With mmap=True it reads another thing:
# numbers of uncompressed entries begin wherever the entries do, so that tensors of float32 lie at odd
# addresses, and of compressed entries the compressed bytes are taken for numbers. Neither says a word.
#
# Guess: torch.load(mmap=True) copies what is not aligned, and refuses what it cannot map, which a
# compressed entry is.
# Seen: data_ptr() of uncompressed entries is 59, 33, 19 and 17 modulo 64; every tensor of the
# compressed archive has its shape and other numbers; without mmap all are equal to what was saved.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - "$folder" <<'PY'
import sys
import zipfile
from pathlib import Path

import torch

folder = Path(sys.argv[1])
torch.manual_seed(0)
saved = {f"centroids.{level}": torch.randn(5 + level, 3) for level in range(4)}
torch.save(saved, folder / "saved.pt")

for name, method in (("stored", zipfile.ZIP_STORED), ("deflated", zipfile.ZIP_DEFLATED)):
    path = folder / f"{name}.pt"
    with zipfile.ZipFile(folder / "saved.pt") as old, zipfile.ZipFile(path, "w", method) as new:
        for entry in old.namelist():
            new.writestr(entry, old.read(entry))
    read, mapped = (torch.load(path, weights_only=True, mmap=mmap) for mmap in (False, True))
    addresses = [tensor.data_ptr() % 64 for tensor in mapped.values()]
    equal = [torch.equal(mapped[key], saved[key]) for key in saved]
    print(name, "mapped: addresses", addresses, "equal", equal)
    assert all(torch.equal(read[key], saved[key]) for key in saved)
    assert all(mapped[key].shape == saved[key].shape for key in saved)
    if name == "stored":
        assert all(equal) and any(address % 4 for address in addresses)
    else:
        assert not any(equal)
PY
