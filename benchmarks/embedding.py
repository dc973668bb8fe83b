"""Embedding: SIDMill's batches against a plain call of sentence-transformers.

Both put texts of different lengths through the same encoder, whose weights are random: they change
no time. ``quality_ratio`` is the mean cosine between the two sides' vectors. The rate, in tokens
per second of CPU, is the unit cost in docs/measurements.md.

    python benchmarks/embedding.py                                    the shape of all-MiniLM-L6-v2
    python benchmarks/embedding.py --layers=12 --hidden=768 --texts=32          that of a BERT base
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import _paired
import numpy as np

LETTERS = [chr(first) for first in range(0x4E00, 0x4E00 + 500)]  # a token each
HEAD_DIM = {384: 32}  # MiniLM's; 64 otherwise
MAX_LENGTH = 384


def main() -> None:
    """Make a model and texts, run both sides in turn, compare."""
    options = _options()
    if options.side:
        sys.path.remove(str(Path(__file__).parent))  # whose datasets.py is not the library
        SIDES[options.side](options)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        shared = [__file__, *_paired.flags(options, folder)]
        _paired.run([*shared, "--side=make"])
        sides = {name: [*shared, f"--side={name}"] for name in ("sidmill", "plain")}
        medians = _paired.alternate(sides, options.repeats)
        tokens = sum(min(len(text) + 2, MAX_LENGTH) for text in _texts(Path(folder)))
        figures = {"texts": options.texts, "tokens": tokens}
        for name in sides:
            cpu = np.loadtxt(Path(folder, f"{name}.seconds"), ndmin=1)
            figures[f"{name}_tokens_per_cpu_second"] = round(tokens / float(cpu.min()))
        ours, theirs = (np.load(Path(folder, f"{name}.npy")) for name in sides)
        _paired.report(medians, figures, float((ours * theirs).sum(axis=1).mean()))


def make(options: argparse.Namespace) -> None:
    """Write an encoder of the given shape, and texts of 50 to 550 letters."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    words = Tokenizer(
        models.WordLevel({w: n for n, w in enumerate(special + LETTERS)}, unk_token="[UNK]")
    )
    words.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    words.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=512,
    )
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=options.hidden,
        num_hidden_layers=options.layers,
        num_attention_heads=options.hidden // HEAD_DIM.get(options.hidden, 64),
        intermediate_size=4 * options.hidden,
    )
    bare = Path(options.folder, "bare")
    tokenizer.save_pretrained(bare)
    BertModel(config).save_pretrained(bare)
    body = Transformer(str(bare), max_seq_length=MAX_LENGTH)
    modules = [body, Pooling(options.hidden, pooling_mode="cls"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(Path(options.folder, "model")))
    rng = np.random.default_rng(options.seed)
    lines = ["".join(rng.choice(LETTERS, size)) for size in rng.integers(50, 550, options.texts)]
    Path(options.folder, "texts").write_text("\n".join(lines), encoding="utf-8")


def run_sidmill(options: argparse.Namespace) -> None:
    """Embed with SIDMill: batches of so many padded tokens, texts of a length together."""
    from sidmill.embed.backends import sentence_transformers
    from sidmill.settings.embedding import Embedding

    settings = Embedding(
        model=str(Path(options.folder, "model")),
        dim=None,
        batch_tokens=options.batch_tokens,
        max_length=MAX_LENGTH,
        dtype="float32",
        device="cpu",
    )
    encoder = sentence_transformers.load(settings)
    _measure(options, "sidmill", lambda texts: encoder.encode(texts, lambda done: None))


def run_plain(options: argparse.Namespace) -> None:
    """Embed with sentence-transformers as its documentation does."""
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(str(Path(options.folder, "model")), device="cpu")
    _measure(options, "plain", lambda texts: encoder.encode(texts, show_progress_bar=False))


def _measure(options: argparse.Namespace, name: str, encode: object) -> None:
    texts = _texts(Path(options.folder))
    cpu = time.process_time()
    vectors = encode(texts)
    with Path(options.folder, f"{name}.seconds").open("a") as out:
        out.write(f"{time.process_time() - cpu}\n")
    np.save(Path(options.folder, f"{name}.npy"), vectors)


def _texts(folder: Path) -> list[str]:
    return Path(folder, "texts").read_text(encoding="utf-8").split("\n")


SIDES = {"make": make, "sidmill": run_sidmill, "plain": run_plain}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=int, default=128)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=384)
    parser.add_argument("--batch-tokens", type=int, default=16384, help="of SIDMill")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--folder", help="where the temporary folder goes")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
