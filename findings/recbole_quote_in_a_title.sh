#!/usr/bin/env bash
# recbole 1.2.1 (with pandas 2.2.3, numpy 2.4.6 and its removed aliases, torch 2.13.0), Python 3.11.
#
# An atomic file is tab-separated text, but a field that begins with a double quote is read until the next
# field that ends in one: the lines between become one title, their items are gone, and the interactions
# with these items are dropped without a word. A quote inside of a title is harmless.
#
# Guess: a file of six lines has six items, whatever their titles are.
# Seen: two of six items, and their interactions, are gone.
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


def count(name, titles):
    """Items and interactions of a data set with these titles, one interaction each."""
    Path(name).mkdir()
    items = [f"{number}\t{title}\n" for number, title in enumerate(titles, 1)]
    Path(name, f"{name}.item").write_text("item_id:token\tmovie_title:token_seq\n" + "".join(items))
    events = [f"u{number % 2}\t{number}\n" for number in range(1, len(titles) + 1)]
    Path(name, f"{name}.inter").write_text("user_id:token\titem_id:token\n" + "".join(events))
    settings = {
        "data_path": ".",
        "load_col": {"inter": ["user_id", "item_id"], "item": ["item_id", "movie_title"]},
        "filter_inter_by_user_or_item": True,
    }
    data = create_dataset(Config(model="Pop", dataset=name, config_dict=settings))
    return len(data.item_feat) - 1, data.inter_num  # one item is padding


found = {
    "quote inside": count("inside", ["One", 'The "Heroes"', "Plain", "Villains", "Five", "Six"]),
    "quote first": count("first", ["One", '"Heroes', "Plain", 'Villains"', "Five", "Six"]),
}
print("items and interactions:", found)
assert found["quote inside"] == (6, 6)
assert found["quote first"] == (4, 4)
PY
