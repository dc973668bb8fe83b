r"""Everything that a GPU computes, at the sizes that matter: one command, one JSON file.

    python benchmarks/gpu.py --output=gpu.json
    python benchmarks/gpu.py --output=gpu.json --sections=rates,rqkmeans,encode
    python benchmarks/gpu.py --output=gpu.json --interactions=interactions.jsonl --index=index.json
    python benchmarks/gpu.py --output=gpu.json --small --device=cpu          a rehearsal, no figures

Sections run in order of worth, each in a process of its own with a time limit; together the limits
stay below nine minutes, but for ``compiled`` and ``calibration``, which run where they are asked
for. The file is written after each figure, so that being cut off loses one figure. All data is
drawn on the device, a seeded mixture, but for the histories that are named.

    rates        bf16, TF32 and fp32 products of 8192 x 8192 x 8192, device and host copies
    rqkmeans     1,000,000 x 4096, K 8192, L 3: share of the bf16 rate, seconds, peak memory;
                 streamed from the host; error against products in fp32
    encode       items per second of the same rows; codes against the CPU on 10,000 rows
    embedding    Qwen3-Embedding-8B and -0.6B, random weights, texts of 64 to 1,024 tokens: tokens
                 per second and share of the bf16 rate, against SentenceTransformer.encode
    rqvae        1,000,000 x 1024: epochs per second, and held-out error over time
    generative   training and decoding, causal and tiger, users per second
    search       8,000,000 x 768, 2,000 queries: queries per second, ids against the CPU
    compiled     the small model on texts of one length, as it is and by torch.compile: tokens per
                 second, seconds of the first batch, share of the bf16 rate
    calibration  with --interactions and --index: the encoder-decoder at published sizes on
                 published SIDs: HR and NDCG at 5 and 10 of all users after --epochs

Operations are counted in the products that SIDMill asks for: 2 b K D for each block of b rows. What
else is computed counts as no work, so that a share of the rate says what is left to gain.
"""

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

BEGAN = time.perf_counter()
HERE = str(Path(__file__).resolve().parent)
sys.path[:] = [place for place in sys.path if place != HERE]  # its datasets.py is not the library

# Seconds of each section at most, in the order in which they run. Without the last two, which run
# only where they are named, or histories are, they add up to 530.
LIMITS = {
    "rates": 25,
    "rqkmeans": 120,
    "encode": 60,
    "embedding": 110,
    "rqvae": 75,
    "generative": 60,
    "search": 80,
    "compiled": 240,
    "calibration": 300,
}
STREAMED_ROWS = 4  # one in so many rows is streamed: the host reads them once per pass


class Sizes(NamedTuple):
    """Sizes of all sections."""

    product: int = 8192
    copy_bytes: int = 4 * 2**30
    rows: int = 1_000_000
    dim: int = 4096
    codes: int = 8192
    levels: int = 3
    compared_rows: int = 10_000
    exact_rows: int = 100_000
    exact_codes: int = 2048
    texts: tuple[int, int] = (640, 6400)  # for the model of 8 billion weights, and the small one
    rqvae_rows: int = 1_000_000
    rqvae_dim: int = 1024
    rqvae_epochs: int = 24
    rqvae_batch: int = 8192
    rqvae_layers: tuple[int, ...] = (2048, 1024, 512, 256, 128, 64)
    items: int = 20_000
    histories: int = 40_000
    search_rows: int = 8_000_000
    search_dim: int = 768
    queries: int = 2000
    memory_mb: int = 8192


SMALL = Sizes(
    product=256,
    copy_bytes=2**22,
    rows=6000,
    dim=32,
    codes=64,
    compared_rows=500,
    exact_rows=3000,
    exact_codes=32,
    texts=(6, 8),
    rqvae_rows=2000,
    rqvae_dim=16,
    rqvae_epochs=4,
    rqvae_batch=256,
    rqvae_layers=(16, 8),
    items=60,
    histories=80,
    search_rows=5000,
    search_dim=16,
    queries=30,
    memory_mb=256,
)

# Configurations of Qwen3-Embedding, as published: 7.57 and 0.60 billion weights with the embedding.
QWEN = {
    "qwen3_8b": {
        "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
    },
    "qwen3_0.6b": {
        "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
        "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
    },
}  # fmt: skip
TINY = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
}  # fmt: skip
VOCABULARY = 151_669
WORDS = 1000  # of the texts
LENGTHS = (64, 1024)  # tokens of a text


# The parent: one process per section.


def main() -> None:
    """Run the sections in turn, and keep what each of them has written."""
    options = _options()
    if options.side:
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        SECTIONS[options.side](options)
        return
    names = options.sections.split(",") if options.sections else list(LIMITS)
    if not options.sections:
        names.remove("compiled")
        if not options.interactions:
            names.remove("calibration")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for name in names:
            _run_section(name, folder, options)


def _run_section(name: str, folder: str, options: argparse.Namespace) -> None:
    """Run one section to its end, or to its limit or that of the whole command."""
    left = options.total - (time.perf_counter() - BEGAN)
    limit = min(LIMITS[name] if not options.limit else options.limit, left)
    if limit < 5:
        _note(options.output, name, {"skipped": "no time is left"})
        return
    words = [sys.executable, __file__, f"--side={name}", f"--folder={folder}"]
    words += [f"--device={options.device}", f"--output={options.output}"]
    words += ["--small"] if options.small else []
    for flag in ("interactions", "index", "epochs"):
        value = getattr(options, flag)
        words += [f"--{flag}={value}"] if value else []

    began = time.perf_counter()
    try:
        code: Any = subprocess.run([*words, f"--limit={limit}"], timeout=limit).returncode
    except subprocess.TimeoutExpired:
        code = f"ended at its limit of {limit:.0f} s"
    _note(options.output, name, {"section_seconds": time.perf_counter() - began, "exit": code})
    print(name, json.dumps(_read(options.output).get(name)), flush=True)


def _note(output: str, name: str, figures: dict[str, Any]) -> None:
    """Add figures of a section to the file, whole at every moment."""
    found = _read(output)
    found.setdefault(name, {}).update(figures)
    part = Path(f"{output}.part")
    part.write_text(json.dumps(found, indent=1), encoding="utf-8")
    part.replace(output)


def _read(output: str) -> dict[str, Any]:
    path = Path(output)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


# What sections share.


class Bench:
    """A section at work: its device, its sizes, and where its figures go."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        """Look at the device."""
        import torch

        self.name, self.options, self.torch = name, options, torch
        self.sizes = SMALL if options.small else Sizes()
        self.device = torch.device(options.device)
        self.is_cuda = self.device.type == "cuda"
        self.generator = torch.Generator(self.device).manual_seed(0)
        card = torch.cuda.get_device_name(self.device) if self.is_cuda else "cpu"
        self.note(device=card, torch=torch.__version__)

    def note(self, **figures: Any) -> None:
        """Write figures now."""
        _note(self.options.output, self.name, figures)

    def rate(self) -> float | None:
        """Operations per second of bf16 products, measured by the section ``rates``."""
        return _read(self.options.output).get("rates", {}).get("bf16_per_second")

    def share(self, operations: float, seconds: float) -> float | None:
        """Share of the measured bf16 rate."""
        rate = self.rate()
        return operations / seconds / rate if rate else None

    def wait(self) -> None:
        """Wait for the device."""
        if self.is_cuda:
            self.torch.cuda.synchronize(self.device)

    def seconds(self, work: Callable[[], Any]) -> float:
        """Wall time of some work, to its end on the device."""
        self.wait()
        began = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - began

    def remaining(self) -> float:
        """Seconds before the limit of the section."""
        return self.options.limit - (time.perf_counter() - BEGAN)

    @contextmanager
    def peak(self, name: str) -> Iterator[None]:
        """Note the peak of device memory of the block, beyond what was there before, in MiB."""
        if not self.is_cuda:
            yield
            return
        self.torch.cuda.empty_cache()
        self.torch.cuda.reset_peak_memory_stats()
        yield
        self.note(**{name: self.torch.cuda.max_memory_allocated() / 2**20})

    def draw(self, n_rows: int, dim: int, block: int = 65536) -> Any:
        """A seeded mixture of 64 x 16 groups of unit length, drawn on the device: float32 (N, D).

        The array lies in the memory of the host.
        """
        import numpy as np

        torch, make = self.torch, {"generator": self.generator, "device": self.device}
        centres = torch.randn(64, 1, dim, **make) / dim**0.5
        centres = (centres + 0.6 * torch.randn(64, 16, dim, **make) / dim**0.5).flatten(0, 1)
        rows = np.empty((n_rows, dim), np.float32)
        for start in range(0, n_rows, block):
            size = min(block, n_rows - start)
            part = centres[torch.randint(len(centres), (size,), **make)]
            part = part + 0.6 * torch.randn(size, dim, **make) / dim**0.5
            torch.nn.functional.normalize(part, dim=1, out=part)
            torch.from_numpy(rows[start : start + size]).copy_(part)
        return rows


class Levels(logging.Handler):
    """Times of messages, from those that a stage logs."""

    def __init__(self, start: str) -> None:
        """Keep the arguments of messages that begin so."""
        super().__init__()
        self.start, self.found = start, []

    def emit(self, record: logging.LogRecord) -> None:
        """Note the time of a message."""
        if str(record.msg).startswith(self.start):
            self.found.append((time.perf_counter(), record.args))


@contextmanager
def _listening(start: str) -> Iterator[Levels]:
    handler, logger = Levels(start), logging.getLogger("sidmill")
    logger.addHandler(handler)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)


# Sections.


def rates(options: argparse.Namespace) -> None:
    """Products of matrices, and copies."""
    bench = Bench("rates", options)
    torch, size = bench.torch, bench.sizes.product
    for name, dtype, precision in (
        ("bf16", torch.bfloat16, "ieee"),
        ("tf32", torch.float32, "tf32"),
        ("fp32", torch.float32, "ieee"),
    ):
        torch.backends.cuda.matmul.fp32_precision = precision
        left, right = (
            torch.randn(size, size, generator=bench.generator, device=bench.device).to(dtype)
            for _ in range(2)
        )
        out = torch.empty_like(left)

        def work(left: Any = left, right: Any = right, out: Any = out) -> None:
            for _ in range(10):
                torch.mm(left, right, out=out)

        work()
        seconds = min(bench.seconds(work) for _ in range(3)) / 10
        bench.note(**{f"{name}_per_second": 2 * size**3 / seconds})

    # Bytes read and written on the device; bytes from the host, from pinned and other memory.
    n_bytes = bench.sizes.copy_bytes
    first = torch.zeros(n_bytes, dtype=torch.uint8, device=bench.device)
    second = torch.empty_like(first)
    seconds = min(bench.seconds(lambda: second.copy_(first)) for _ in range(4))
    bench.note(device_copy_bytes_per_second=2 * n_bytes / seconds)
    for name, host in (
        ("pageable", torch.zeros(n_bytes // 4, dtype=torch.uint8)),
        ("pinned", torch.zeros(n_bytes // 4, dtype=torch.uint8, pin_memory=bench.is_cuda)),
    ):
        target = first[: len(host)]
        seconds = min(bench.seconds(partial(target.copy_, host)) for _ in range(3))
        bench.note(**{f"host_to_device_{name}_bytes_per_second": len(host) / seconds})


@contextmanager
def _counted() -> Iterator[list[float]]:
    """Count the operations of products that search for codewords."""
    from sidmill.numeric import nearest_torch

    score, total = nearest_torch.score, [0.0]

    def counting(rows: Any, codewords: Any, *others: Any, **options: Any) -> Any:
        total[0] += 2.0 * len(rows) * codewords.numel()
        return score(rows, codewords, *others, **options)

    nearest_torch.score = counting
    try:
        yield total
    finally:
        nearest_torch.score = score


def rqkmeans(options: argparse.Namespace) -> None:
    """Residual k-means: on rows that the device holds, streamed, and against fp32."""
    import numpy as np

    from sidmill.numeric import mlp, nearest_torch
    from sidmill.quantize import residual_rows
    from sidmill.quantize import rqkmeans as stage
    from sidmill.settings.quantize import Rqkmeans

    bench = Bench("rqkmeans", options)
    sizes = bench.sizes
    device = "cpu,cpu" if bench.device.type == "cpu" else options.device
    settings = Rqkmeans(
        n_levels=sizes.levels, codebook_size=sizes.codes, device=device, memory_mb=sizes.memory_mb
    )
    rows = bench.draw(sizes.rows, sizes.dim)
    bench.note(rows=sizes.rows, dim=sizes.dim, codes=sizes.codes)

    def fit(name: str, vectors: Any, changed: Rqkmeans) -> Any:
        """Fit, and note seconds, counted work and its share of the rate."""
        with bench.peak(f"{name}_peak_mib"), _counted() as total, _listening("level %d") as heard:
            began = time.perf_counter()
            fitted = stage.fit(vectors, changed, seed=0)
            seconds = time.perf_counter() - began
        levels = [args[3] / args[4] for _, args in heard.found if len(args) == 5]
        bench.note(
            **{
                f"{name}_seconds": seconds,
                f"{name}_level_seconds": levels,
                f"{name}_passes": [args[3] for _, args in heard.found if len(args) == 5],
                f"{name}_mse": [args[2] for _, args in heard.found if len(args) == 5],
                f"{name}_operations": total[0],
                f"{name}_share_of_bf16_rate": bench.share(total[0], sum(levels)),
            }
        )
        return fitted

    fitted = fit("held", rows, settings)
    np.savez(Path(options.folder, "codebooks.npz"), *fitted.codebooks)

    # Products in fp32 in place of rounded ones, on a sample that has fewer codewords.
    small = replace_settings(settings, n_levels=1, codebook_size=sizes.exact_codes)
    some = rows[: sizes.exact_rows]
    fit("rounded_sample", some, small)
    rough = nearest_torch.rough_products
    nearest_torch.rough_products = mlp.exact_products
    fit("fp32_sample", some, small)
    nearest_torch.rough_products = rough

    # A level of rows that are streamed is a level of rows that are held, to the last bit.
    part = rows[: len(rows) // STREAMED_ROWS]
    one_level = replace_settings(settings, n_levels=1)
    held = fit("held_part", part, one_level)
    fits = residual_rows._fit_in_memory
    residual_rows._fit_in_memory = lambda devices, n_bytes: False
    streamed = fit("streamed_part", part, one_level)
    residual_rows._fit_in_memory = fits
    same = all(
        mine.tobytes() == theirs.tobytes()
        for mine, theirs in zip(held.codebooks, streamed.codebooks, strict=True)
    )
    bench.note(streamed_has_the_same_bytes=same)


def replace_settings(settings: Any, **changes: Any) -> Any:
    """Settings with some values changed."""
    from dataclasses import replace

    return replace(settings, **changes)


def encode(options: argparse.Namespace) -> None:
    """Codes of all rows, and those of some rows by the CPU."""
    import numpy as np

    from sidmill.numeric import residual_codec

    bench = Bench("encode", options)
    sizes = bench.sizes
    rows = bench.draw(sizes.rows, sizes.dim)
    path = Path(options.folder, "codebooks.npz")
    if path.exists():
        books = list(np.load(path).values())
    else:
        books = [rows[: sizes.codes] * 0.5**level for level in range(sizes.levels)]
    device = "cpu,cpu" if bench.device.type == "cpu" else options.device

    def codes_of(vectors: Any, device: str) -> Any:
        memory = {"device": device, "memory_mb": sizes.memory_mb}
        return np.concatenate(list(residual_codec.encode(vectors, books, **memory)))

    codes_of(rows[:4096], device)  # starts the libraries
    found: list[Any] = []
    with bench.peak("peak_mib"):
        seconds = bench.seconds(lambda: found.append(codes_of(rows, device)))
    operations = 2.0 * len(rows) * sum(book.size for book in books)
    bench.note(
        seconds=seconds,
        items_per_second=len(rows) / seconds,
        operations_per_second=operations / seconds,
    )
    some = np.linspace(0, len(rows) - 1, sizes.compared_rows).astype(np.int64)
    wanted = codes_of(np.ascontiguousarray(rows[some]), "cpu")
    bench.note(same_as_the_cpu=float((found[0][some] == wanted).all(axis=1).mean()))


def embedding(options: argparse.Namespace) -> None:
    """Models of the shapes of Qwen3-Embedding, with random weights."""
    bench = Bench("embedding", options)
    small = list(QWEN) if not options.small else ["tiny"]
    for number, name in reversed(list(enumerate(small))):
        if bench.remaining() > 20 or options.small:
            _embed(bench, name, bench.sizes.texts[number])


def _embed(bench: Bench, name: str, n_texts: int) -> None:
    """Embed texts of 64 to 1,024 tokens by SIDMill and by sentence-transformers."""
    import numpy as np

    from sidmill.embed import throughput

    backend = _encoder(bench, name)
    reader, _ = getattr(backend.stream, "args")  # noqa: B009  (a functools.partial)
    cost = backend.cost()

    # Texts of random words, one token each, lengths drawn evenly.
    rng = np.random.default_rng(0)
    high = 200 if bench.options.small else LENGTHS[1]
    texts = [
        " ".join(f"w{word}" for word in rng.integers(WORDS, size=size))
        for size in rng.integers(LENGTHS[0], high, size=n_texts)
    ]
    backend.encode(texts[:8], lambda count: None)

    parts: list[Any] = []
    with bench.peak(f"{name}_peak_mib"):
        seconds = bench.seconds(
            lambda: parts.extend(backend.stream(iter([texts]), lambda count: None))
        )
    work = parts[0].work
    operations = throughput.operations(work, cost)
    bench.note(
        **{
            f"{name}_tokens": work.tokens,
            f"{name}_useful_share": work.tokens / work.padded_tokens,
            f"{name}_seconds": seconds,
            f"{name}_tokens_per_second": work.tokens / seconds,
            f"{name}_share_of_bf16_rate": bench.share(operations, seconds),
            f"{name}_share_of_own_product_rate": operations / seconds / cost.matmul_rate,
        }
    )

    # The library's own call, with its defaults.
    if bench.remaining() < 2 * seconds and not bench.options.small:
        return
    model = reader.model
    model[0].can_flatten_inputs = False
    plain: list[Any] = []
    theirs = bench.seconds(lambda: plain.append(model.encode(texts, show_progress_bar=False)))
    found = plain[0] / np.linalg.norm(plain[0], axis=1, keepdims=True)
    bench.note(
        **{
            f"{name}_sentence_transformers_tokens_per_second": work.tokens / theirs,
            f"{name}_time_ratio": seconds / theirs,
            f"{name}_least_cosine": float((parts[0].vectors * found).sum(axis=1).min()),
        }
    )
    reader.model[0].model = None
    if bench.is_cuda:
        bench.torch.cuda.empty_cache()


def _encoder(bench: Bench, name: str, *, is_compiled: bool = False) -> Any:
    """Make an encoder of the shape of a model, with random weights."""
    from transformers import Qwen3Config, Qwen3Model

    from sidmill.embed.backends import sentence_transformers
    from sidmill.settings.embedding import Embedding

    # A tiny model in a folder gives tokenizer, pooling and normalisation; its weights are replaced.
    torch = bench.torch
    folder = Path(bench.options.folder, "tiny-encoder")
    if not folder.exists():
        _write_encoder(folder)
    dtype = "bfloat16" if bench.is_cuda else "float32"
    settings = Embedding(
        backend="sentence_transformers", model=str(folder), dim=None, max_length=LENGTHS[1],
        dtype=dtype, device=bench.options.device, batch_tokens=None if bench.is_cuda else 4096,
        compiled=is_compiled,
    )  # fmt: skip
    backend = sentence_transformers.load(settings)
    reader, space = getattr(backend.stream, "args")  # noqa: B009  (a functools.partial)
    torch.manual_seed(0)
    with torch.device(bench.device):
        torch.set_default_dtype(getattr(torch, dtype))
        shape = {**TINY, **QWEN.get(name, {})}
        config = Qwen3Config(
            vocab_size=VOCABULARY, max_position_embeddings=32768, use_cache=False, **shape
        )
        config._attn_implementation = "sdpa"
        reader.model[0].model = Qwen3Model(config).eval()
        torch.set_default_dtype(torch.float32)
    space["dim"] = config.hidden_size
    if is_compiled and bench.is_cuda:  # the compiler takes minutes on a CPU
        reader.model[0].model.compile(dynamic=False)
    return backend


def compiled(options: argparse.Namespace) -> None:
    """The small model on texts of one length: as it is, and by torch.compile."""
    import numpy as np

    from sidmill.embed import throughput

    bench = Bench("compiled", options)
    rng = np.random.default_rng(0)
    shape = (8, 63) if options.small else (2048, 511)  # words, and a token for the end of a text
    texts = [" ".join(f"w{word}" for word in row) for row in rng.integers(WORDS, size=shape)]
    found: list[Any] = []
    for name in ("plain", "compiled"):
        # The first batch compiles; the others are measured.
        model = "tiny" if options.small else "qwen3_0.6b"
        backend = _encoder(bench, model, is_compiled=name == "compiled")
        first = bench.seconds(partial(backend.encode, texts[:32], lambda count: None))
        stream = backend.stream(iter([texts]), lambda count: None)
        seconds = bench.seconds(partial(found.extend, stream))
        work = found[-1].work
        operations = throughput.operations(work, backend.cost())
        bench.note(
            **{
                f"{name}_first_batch_seconds": first,
                f"{name}_tokens_per_second": work.tokens / seconds,
                f"{name}_share_of_bf16_rate": bench.share(operations, seconds),
            }
        )
    bench.note(least_cosine=float((found[0].vectors * found[1].vectors).sum(axis=1).min()))


def _write_encoder(folder: Path) -> None:
    """Write an encoder of words: a token for each, and one at the end of a text."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

    every = ["[PAD]", "[UNK]", "[END]", *(f"w{number}" for number in range(WORDS))]
    words = Tokenizer(models.WordLevel({w: n for n, w in enumerate(every)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(
        single="$A [END]", special_tokens=[("[END]", 2)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", padding_side="left",
        model_max_length=32768,
    )  # fmt: skip
    bare = folder / "bare"
    tokenizer.save_pretrained(bare)
    config = Qwen3Config(vocab_size=len(every), max_position_embeddings=32768, **TINY)
    Qwen3Model(config).save_pretrained(bare)
    modules = [
        Transformer(str(bare)),
        Pooling(TINY["hidden_size"], pooling_mode="lasttoken"),
        Normalize(),
    ]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder))


def rqvae(options: argparse.Namespace) -> None:
    """Epochs of an RQ-VAE, and its held-out error over time."""
    import numpy as np

    from sidmill.quantize.rqvae import fit
    from sidmill.settings.quantize import Rqvae

    bench = Bench("rqvae", options)
    sizes = bench.sizes
    path = Path(options.folder, "rqvae.npy")
    np.save(path, bench.draw(sizes.rqvae_rows, sizes.rqvae_dim))
    settings = Rqvae(
        layers=list(sizes.rqvae_layers),
        codebook_sizes=[256 if not options.small else 16] * 3,
        e_dim=32 if not options.small else 4,
        autoencoder_epochs=sizes.rqvae_epochs // 4,
        epochs=sizes.rqvae_epochs,
        batch_size=sizes.rqvae_batch,
        eval_step=max(sizes.rqvae_epochs // 8, 1),
        device=options.device,
        memory_mb=sizes.memory_mb,
    )

    # A line of the log per measured epoch: "epoch %d: figures, epochs per second".
    curve: list[dict[str, Any]] = []

    class Clock(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if str(record.msg).startswith("epoch"):
                epoch, figures, speed = tuple(record.args or ())
                seconds = time.perf_counter() - began
                curve.append(
                    {"epoch": epoch, "seconds": seconds, "speed": speed, "figures": figures}
                )
                bench.note(rows=sizes.rqvae_rows, curve=curve, epochs_per_second=speed)

    logging.getLogger("sidmill").addHandler(Clock())
    began = time.perf_counter()
    with bench.peak("peak_mib"):
        trained = fit.fit(
            fit.Inputs([str(path)], {}),
            settings,
            fit.Run(str(Path(options.folder, "rqvae")), 0, "benchmark"),
        )
    bench.note(seconds=time.perf_counter() - began, figures=trained.figures)


def generative(options: argparse.Namespace) -> None:
    """Users per second in training and in decoding, of both models."""
    import numpy as np

    from sidmill.recommend.generative import sid_items

    bench = Bench("generative", options)
    sizes = bench.sizes
    rng = np.random.default_rng(0)
    codes = (8, 8, 8) if options.small else (256, 256, 256)
    numbers = rng.choice(int(np.prod(codes)), size=sizes.items, replace=False)
    sids = np.stack(np.unravel_index(numbers, codes), axis=1).astype(np.int32)
    books = tuple(rng.standard_normal((size, 64), dtype=np.float32) for size in codes)
    successor = rng.permutation(sizes.items)
    histories = []
    for length in rng.integers(5, 20, size=sizes.histories).tolist():
        row = [int(rng.integers(sizes.items))]
        while len(row) < length:
            follows = rng.random() < 0.6
            row.append(int(successor[row[-1]] if follows else rng.integers(sizes.items)))
        histories.append([item + 1 for item in row])
    path = _write_histories(bench, histories)
    items = _sid_items(sizes.items, sid_items.Identifier(sids, codes, books))
    for name, epochs in (("causal", 2), ("tiger", 1)):
        _train(bench, name, path, items, max_epochs=epochs, valid_users=500)


def _write_histories(bench: Bench, histories: list[list[int]]) -> Path:
    """Write sequences.parquet: the last item of a history is test, the one before it valid."""
    import pyarrow as pa

    from sidmill.formats import sequence_table

    splits = [[0] * (len(row) - 2) + [1, 2] for row in histories]
    users = [str(number) for number in range(len(histories))]
    schema = sequence_table.schema(pa.int64())
    table = pa.table([users, histories, splits, [None] * len(users)], schema=schema)
    path = Path(bench.options.folder, f"{bench.name}.parquet")
    sequence_table.write(path, pa.int64(), [table])
    return path


def _sid_items(n_items: int, identifier: Any) -> Any:
    """Items 1 to N, by their SIDs alone."""
    import numpy as np
    import pyarrow as pa

    from sidmill.recommend import item_features
    from sidmill.recommend.generative import sid_items

    ids = pa.array(np.arange(1, n_items + 1))
    own = item_features.of(ids, np.zeros((n_items, 0), np.float32), {})
    return sid_items.SidItems(own, (identifier,))


def _train(bench: Bench, name: str, path: Path, items: Any, **changes: Any) -> None:
    """Train one model, note the speed of its epochs, and answer its test users."""
    from sidmill.recommend import rank, windows
    from sidmill.recommend.generative import score, train
    from sidmill.settings.generative import Generative

    published = {
        "hidden_dim": 128, "n_layers": 4, "n_heads": 6, "head_dim": 64, "feed_forward_dim": 1024,
        "dropout": 0.1, "max_length": 20, "batch_users": 256,
    }  # fmt: skip
    if bench.options.small:
        published |= {"hidden_dim": 16, "n_layers": 1, "n_heads": 2, "feed_forward_dim": 32}
    own = published if name == "tiger" else {"batch_users": 512}
    settings = Generative(
        model=name,
        seeds=1,
        device=bench.options.device,
        dtype="bfloat16" if bench.is_cuda else "float32",
        memory_mb=4096,
        **{**own, **changes},
    )
    parts = [windows.queries(g, 2) for g in windows.read_groups(path, items.items)]
    n_users = sum(len(part.users) for part in parts)
    with bench.peak(f"{name}_peak_mib"), _listening("epoch %d") as heard:
        began = time.perf_counter()
        (fitted,), curves = train.fit(path, items, settings, seed=0, code="benchmark")
    times = [began, *(when for when, _ in heard.found)]
    seconds = [late - early for early, late in pairwise(times)]
    bench.note(
        **{
            f"{name}_users": n_users,
            f"{name}_epoch_seconds": seconds,
            f"{name}_train_users_per_second": n_users / min(seconds),
            f"{name}_loss": [epoch["loss"] for epoch in curves[0]["epochs"]],
            f"{name}_valid": [epoch["valid"] for epoch in curves[0]["epochs"]],
        }
    )

    # All users are answered: ranks among all items, by all scores or by beams of 50.
    found: list[Any] = []
    scorer = score.scorer(fitted.network, settings.max_length)
    is_whole = bench.name == "calibration"
    asked = parts if is_whole else [windows.select(parts[0], slice(0, 4096))]
    options = {"mask_seen": False, "memory_mb": 4096}
    taken = bench.seconds(
        lambda: found.append(rank.rank(scorer, asked, len(items.items.ids), **options))
    )
    n_asked = sum(len(part.users) for part in asked)
    bench.note(**{f"{name}_answered_users_per_second": n_asked / taken, **_quality(name, found[0])})


def _quality(name: str, ranks: Any) -> dict[str, float]:
    from sidmill.recommend import metrics

    names = ("HR@5", "HR@10", "NDCG@5", "NDCG@10")
    return {f"{name}_{metric}": metrics.mean(ranks, metric) for metric in names}


def search(options: argparse.Namespace) -> None:
    """Exact search, and its ids against the CPU for some queries over some rows."""
    import numpy as np

    from sidmill.numeric import exact_search
    from sidmill.settings.retrieval import Retrieval

    bench = Bench("search", options)
    sizes = bench.sizes
    rows = bench.draw(sizes.search_rows, sizes.search_dim)
    queries = bench.draw(sizes.queries, sizes.search_dim)
    found: list[Any] = []

    def find(vectors: Any, some: Any, device: str) -> Any:
        settings = Retrieval(device=device, memory_mb=sizes.memory_mb, search_batch=1000)
        return exact_search.search(vectors, some, 50, settings)

    find(rows[:10_000], queries[:10], options.device)
    with bench.peak("peak_mib"):
        seconds = bench.seconds(lambda: found.append(find(rows, queries, options.device)))
    bench.note(
        rows=len(rows),
        queries=len(queries),
        seconds=seconds,
        queries_per_second=len(queries) / seconds,
        host_bytes_per_second=rows.nbytes / seconds,
        operations_per_second=2.0 * rows.size * len(queries) / seconds,
    )
    part = rows[: max(len(rows) // 20, 100)]
    mine, theirs = (find(part, queries[:100], device) for device in (options.device, "cpu"))
    bench.note(same_ids_as_the_cpu=float(np.mean(mine.rows == theirs.rows)))


def calibration(options: argparse.Namespace) -> None:
    """The encoder-decoder at published sizes on published SIDs and histories."""
    import numpy as np

    from sidmill.recommend.generative import sid_items

    bench = Bench("calibration", options)
    if not options.interactions or not options.index:
        bench.note(skipped="name --interactions and --index")
        return
    lines = Path(options.interactions).read_text(encoding="utf-8").splitlines()
    histories = [json.loads(line)["item_ids"] for line in lines]
    index = json.loads(Path(options.index).read_text(encoding="utf-8"))

    # Item ids run from 1 to N; tokens are <a_183>, <b_70>, ...
    tokens = [index[str(item)] for item in range(1, len(index) + 1)]
    codes = np.array([[int(one[3:-1]) for one in sid] for sid in tokens], np.int32)
    if options.small:
        histories = histories[:60]
    sizes = tuple(int(size) for size in codes.max(axis=0) + 1)
    items = _sid_items(len(codes), sid_items.Identifier(codes, sizes, ()))
    epochs = options.epochs or (1 if options.small else 20)
    path = _write_histories(bench, histories)
    _train(bench, "tiger", path, items, max_epochs=epochs, patience=epochs, valid_users=2000)


SECTIONS = {
    "rates": rates,
    "rqkmeans": rqkmeans,
    "encode": encode,
    "embedding": embedding,
    "rqvae": rqvae,
    "generative": generative,
    "search": search,
    "compiled": compiled,
    "calibration": calibration,
}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="gpu.json", help="JSON of all figures")
    parser.add_argument("--sections", help=f"names with commas between them: {', '.join(LIMITS)}")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="small sizes, to rehearse")
    parser.add_argument("--total", type=float, default=540, help="seconds of all sections, at most")
    parser.add_argument("--limit", type=float, help="seconds of each section, in place of its own")
    parser.add_argument("--interactions", help="interactions.jsonl with item_ids, for calibration")
    parser.add_argument("--index", help="index.json of its SIDs, for calibration")
    parser.add_argument("--epochs", type=int, help="of the calibration")
    parser.add_argument("--folder", help="where the temporary folder goes")
    parser.add_argument("--side", choices=SECTIONS, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
