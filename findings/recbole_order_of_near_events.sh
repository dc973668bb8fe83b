#!/usr/bin/env bash
# recbole 1.2.1 (with pandas 2.2.3, numpy 2.4.6 and its removed aliases, torch 2.13.0), Python 3.11.
#
# Sequential data sets are ordered by user and timestamp, and timestamps are float32: at 9.8e8 (seconds,
# 2001) a step is 64 s, at 1.6e12 (milliseconds) 131 s. Events of a user within a step keep the order of
# the file. If a file lists the newest first, as many logs do, histories are reversed in time, and the
# event that leave-one-out holds out is not the last one.
#
# Guess: events that are 10 s apart come oldest first, whatever the order of the file.
# Seen: written newest first, a to e (10 s apart) give the history a, e, d, c and the target b (a falls
# into the step before the others); 1,000 s apart they give a, b, c, d and the target e.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 pandas==2.2.3 scipy==1.17.1 scikit-learn==1.9.1 PyYAML==6.0.3 tqdm==4.70.1
"$folder/venv/bin/pip" install --quiet --no-deps recbole==1.2.1 colorlog==4.7.2 colorama==0.4.4 \
    thop==0.1.1.post2209072238 tabulate==0.10.0 texttable==1.7.2 plotly==7.1.0 tensorboard==2.21.0
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PY'
import logging
import sys
import types
from pathlib import Path

import numpy as np

# RecBole 1.2.1 was written for numpy 1: these names are gone. Its logger of experiments is not used.
for name, value in {"bool8": np.bool_, "float_": np.float64, "complex_": np.complex128, "unicode_": np.str_, "long": np.int64}.items():
    if not hasattr(np, name):
        setattr(np, name, value)
tensorboard = types.ModuleType("torch.utils.tensorboard")
tensorboard.SummaryWriter = object
sys.modules["torch.utils.tensorboard"] = tensorboard

from recbole.config import Config
from recbole.data import create_dataset

logging.disable(logging.CRITICAL)
sys.argv = sys.argv[:1]


def longest(seconds):
    """History and target of the longest sequence of one user with the events a to e."""
    name = f"apart{seconds}"
    rows = [f"u\t{letter}\t{978300760 + seconds * number}\n" for number, letter in enumerate("abcde")]
    Path(name).mkdir()
    text = "user_id:token\titem_id:token\ttimestamp:float\n" + "".join(reversed(rows))
    Path(name, f"{name}.inter").write_text(text)
    settings = {
        "data_path": ".",
        "train_neg_sample_args": None,
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
    }
    data = create_dataset(Config(model="SASRec", dataset=name, config_dict=settings))
    data.build()
    feature = data.inter_feat
    name_of = lambda item: str(data.id2token("item_id", int(item)))
    sequences = [
        ("".join(name_of(item) for item in items if item), name_of(target))
        for items, target in zip(feature["item_id_list"], feature["item_id"])
    ]
    return max(sequences, key=lambda one: len(one[0]))


found = {seconds: longest(seconds) for seconds in (10, 1000)}
print("seconds between events: history, target:", found)
assert found[10] == ("aedc", "b")
assert found[1000] == ("abcd", "e")
PY
