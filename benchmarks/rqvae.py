"""RQ-VAE: time to where a plain textbook loop ends.

The plain loop is the one that most public trainers share, written out below: a Dataset that hands
out one item at a time, k-means on the first batch, residuals that keep the straight-through term,
no scaling, no restart. It trains for ``--epochs`` and is measured at its end: held-out
reconstruction error and collision rate. SIDMill then trains with the settings of config.yaml, the
layers aside, until a measurement has both figures at least as good; ``time_ratio`` is its time over
the loop's, from the start of the process, imports included.

    python benchmarks/rqvae.py --vectors results/items/vectors.npy
    python benchmarks/rqvae.py --vectors results/items/vectors.npy --full

Without ``--vectors`` a mixture is drawn, ``--rows`` x ``--dim``. ``--full`` takes the default
layers and 2,000 epochs of the plain loop.
"""

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import _paired

from sidmill.settings.quantize import Rqvae

LAYERS = [512, 256, 128, 64]
EPOCHS, FULL_EPOCHS = 200, 2000
E_DIM, BETA, LR, LEVELS = 32, 0.25, 1e-3, 3
TEST_RATIO = 0.05


def main() -> None:
    """Run the plain loop to its end, then SIDMill to the same figures."""
    options = _options()
    if options.side:
        SIDES[options.side](options)
        return
    layers = options.layers or (Rqvae().layers if options.full else LAYERS)
    epochs = options.epochs or (FULL_EPOCHS if options.full else EPOCHS)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        vectors = options.vectors or str(Path(folder, "vectors.npy"))
        shared = [
            __file__,
            f"--vectors={vectors}",
            f"--rows={options.rows}",
            f"--dim={options.dim}",
            f"--codes={options.codes}",
            f"--epochs={epochs}",
            f"--layers={json.dumps(layers)}",
            f"--batch-size={options.batch_size}",
            f"--seed={options.seed}",
            f"--folder={folder}",
        ]
        if not options.vectors:
            _paired.run([*shared, "--side=vectors"])
        plain = _paired.run([*shared, "--side=plain"])
        goal = json.loads(Path(folder, "plain.json").read_text())
        print(f"plain: {plain}, {goal}", file=sys.stderr, flush=True)
        sidmill, reached = _until([*shared, "--side=sidmill"], Path(folder), goal)
    figures = {
        "rows": goal["rows"],
        "dim": goal["dim"],
        "codes": options.codes,
        "layers": layers,
        "plain_epochs": epochs,
        "plain_heldout_mse": goal["heldout_mse"],
        "plain_collision_rate": goal["collision_rate"],
        "plain_utilisation": goal["utilisation"],
        "sidmill_epochs": int(reached["epoch"]),
        "sidmill_heldout_mse": float(reached["heldout_mse"]),
        "sidmill_collision_rate": float(reached["collision_rate"]),
    }
    ratio = figures["sidmill_heldout_mse"] / figures["plain_heldout_mse"]
    _paired.report({"sidmill": sidmill, "plain": plain}, figures, ratio)


def run_sidmill(options: argparse.Namespace) -> None:
    """Train with SIDMill; the caller ends it early."""
    import logging

    from sidmill.quantize.rqvae import fit

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    settings = Rqvae(
        layers=options.layers,
        codebook_sizes=[options.codes] * LEVELS,
        e_dim=E_DIM,
        test_ratio=TEST_RATIO,
        device="cpu",
    )
    folder = str(Path(options.folder, "checkpoints"))
    fit.fit(fit.Inputs([options.vectors], {}), settings, fit.Run(folder, options.seed, "benchmark"))


def run_plain(options: argparse.Namespace) -> None:
    """Train the textbook loop and write its final figures."""
    import numpy as np
    import torch
    from sklearn.cluster import KMeans
    from torch import nn
    from torch.nn import functional as F
    from torch.utils.data import DataLoader, Dataset

    from sidmill.quantize.rqvae import data

    class Items(Dataset):
        def __init__(self, vectors):
            self.vectors = vectors

        def __len__(self):
            return len(self.vectors)

        def __getitem__(self, index):
            return torch.tensor(self.vectors[index], dtype=torch.float32)

    def mlp(widths):
        layers = []
        for number, (start, end) in enumerate(pairwise(widths)):
            linear = nn.Linear(start, end)
            nn.init.xavier_normal_(linear.weight)
            nn.init.zeros_(linear.bias)
            layers += [linear] + ([nn.ReLU()] if number + 2 < len(widths) else [])
        return nn.Sequential(*layers)

    def quantize(latents):
        left, total, loss, codes = latents, 0, 0, []
        for words in books:
            code = torch.cdist(left.detach(), words.weight.detach()).argmin(dim=1)
            chosen = words(code)
            loss = loss + F.mse_loss(chosen, left.detach())
            loss = loss + BETA * F.mse_loss(left, chosen.detach())
            passed = left + (chosen - left).detach()
            left, total = left - passed, total + passed
            codes.append(code)
        return total, loss / len(books), torch.stack(codes, dim=1)

    torch.manual_seed(options.seed)
    vectors = np.load(options.vectors)
    held = data.held_out(len(vectors), TEST_RATIO, options.seed)
    widths = [vectors.shape[1], *options.layers, E_DIM]
    encoder, decoder = mlp(widths), mlp(widths[::-1])
    books = nn.ModuleList(nn.Embedding(options.codes, E_DIM) for _ in range(LEVELS))
    network = nn.ModuleList([encoder, decoder, books])
    optimizer = torch.optim.AdamW(network.parameters(), lr=LR)
    loader = DataLoader(Items(vectors[~held]), batch_size=options.batch_size, shuffle=True)
    began = False
    for epoch in range(options.epochs):
        for batch in loader:
            latents = encoder(batch)
            if not began:
                left = latents.detach().numpy()
                for words in books:
                    found = KMeans(options.codes, n_init=1, random_state=options.seed).fit(left)
                    words.weight.data.copy_(torch.from_numpy(found.cluster_centers_))
                    left = left - found.cluster_centers_[found.labels_]
                began = True
            quantized, loss, _ = quantize(latents)
            loss = loss + F.mse_loss(decoder(quantized), batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if (epoch + 1) % 20 == 0:
            print(f"epoch {epoch + 1}: loss {loss.item():.6f}", file=sys.stderr, flush=True)
    with torch.no_grad():
        quantized, _, codes = quantize(encoder(torch.from_numpy(np.float32(vectors))))
        error = decoder(quantized[torch.from_numpy(held)]).numpy() - vectors[held]
    figures = {
        "rows": len(vectors),
        "dim": vectors.shape[1],
        "heldout_mse": float(np.square(error, dtype=np.float64).mean()),
        "collision_rate": 1 - len(np.unique(codes.numpy(), axis=0)) / len(codes),
        "utilisation": [len(column.unique()) / options.codes for column in codes.T],
    }
    Path(options.folder, "plain.json").write_text(json.dumps(figures))


def make_vectors(options: argparse.Namespace) -> None:
    """Write a mixture of groups, unit norm."""
    import numpy as np

    random = np.random.default_rng(options.seed)
    centres = random.standard_normal((64, options.dim))
    vectors = centres[random.integers(64, size=options.rows)]
    vectors += random.standard_normal(vectors.shape)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    np.save(options.vectors, vectors.astype(np.float32))


def _until(arguments: list[str], folder: Path, goal: dict) -> tuple[_paired.Run, dict]:
    """Run SIDMill until a row of its metrics.csv is as good as the goal."""
    began = time.perf_counter()
    child = subprocess.Popen([sys.executable, *arguments], stdout=sys.stderr)
    try:
        ended = reached = None
        while not (ended or reached):
            time.sleep(0.05)
            ended, _, usage = os.wait4(child.pid, os.WNOHANG)
            reached = _first(folder / "checkpoints/metrics.csv", goal)
        seconds = time.perf_counter() - began
        if not ended:
            os.kill(child.pid, signal.SIGKILL)
            _, _, usage = os.wait4(child.pid, 0)
        child.returncode = 0
    except BaseException:
        child.kill()
        raise
    if not reached:
        raise SystemExit("SIDMill ended without getting there")
    return _paired.measured(seconds, usage), reached


def _first(metrics: Path, goal: dict) -> dict | None:
    if not metrics.exists():
        return None
    with metrics.open(newline="") as file:
        return next((row for row in csv.DictReader(file) if _as_good(row, goal)), None)


def _as_good(row: dict, goal: dict) -> bool:
    names = ("heldout_mse", "collision_rate")
    return all(row.get(name) and float(row[name]) <= goal[name] for name in names)


SIDES = {"vectors": make_vectors, "plain": run_plain, "sidmill": run_sidmill}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vectors", help="a .npy; without it a mixture is drawn")
    parser.add_argument("--rows", type=int, default=3686)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--codes", type=int, default=256)
    parser.add_argument("--epochs", type=int, help="of the plain loop")
    parser.add_argument("--layers", type=json.loads, help="JSON list; default 512 to 64")
    parser.add_argument("--batch-size", type=int, default=1024, help="of the plain loop")
    parser.add_argument("--full", action="store_true", help="default layers, 2,000 epochs")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--folder", help="where the temporary folder goes")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
