r"""Generative recommendation: training to the quality of the ordinary way, and decoding.

The ordinary way is written out below: T5 of transformers with about as many parameters as SIDMill's
model, one training row per position of a history, a plain PyTorch loop that stops early by the
NDCG@10 of ``generate`` on validation items; and ``generate`` with 20 beams and a dictionary of
legal prefixes. SIDMill trains with the settings of config.yaml until the same validation items have
the NDCG@10 that the ordinary loop ends with; ``time_ratio`` is its time over the loop's time to its
best epoch, from the start of the process, imports included.

Both then answer the same test users with their own models: ``decode_time_ratio``, without imports
and loading. SIDMill also decodes the weights of the ordinary loop, by beams (side ``tiger``):
``same_top_10`` is the share of users with the same ten SIDs in the same order, where both ways
score alike. On a crowded machine the ratios of CPU time say more.

    python benchmarks/generative.py
    python benchmarks/generative.py --interactions=results/interactions/sequences.parquet \
        --pid2sid=results/pid2sid.parquet --quantizer=results/rqkmeans/quantizer.safetensors

Without ``--interactions`` a catalogue with planted successors is drawn, ``--items`` and
``--histories`` of them, on which the plain loop is cut at 15 epochs: it would go on improving for
much longer.
"""

import argparse
import json
import math
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import _paired

BEGAN = time.perf_counter()  # of a side: at its start, before its imports
PADDING, START, FIRST_CODE = 0, 1, 2  # tokens
TRAIN, VALID, TEST = 0, 1, 2  # splits
BEAMS, K = 20, 10
BATCH, LR, MAX_NORM = 256, 3e-3, 1.0
EPOCHS, DRAWN_EPOCHS = 100, 15
MAX_LENGTH = 20  # items of a history that T5 reads
LAYERS, HEADS, DROPOUT = 4, 6, 0.1  # as published
LEVELS, CODES, DIM = 3, 8, 16  # of the catalogue that is drawn
SUCCESSORS = (0.6, 0.2)  # how often an item is followed by each of its own; else by any


def main() -> None:
    """Train both ways in turn, decode in turn, compare."""
    options = _options()
    if options.side:
        SIDES[options.side](options)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        own = [__file__, *_paired.flags(options, folder)]
        _paired.run([*own, "--side=data"])

        trained = _alternate(own, ("train_sidmill", "train_plain"), options.repeats, Path(folder))
        names = ("decode_sidmill", "decode_tiger", "decode_plain")
        decoded = _alternate(own, names, options.repeats, Path(folder))
    best = {side: [_best(one) for one in runs] for side, runs in trained.items()}
    goal = min(best["train_plain"])
    reached = {
        side.removeprefix("train_"): [_until(one, goal) for one in runs]
        for side, runs in trained.items()
    }
    medians = {
        side: _paired.Run(*(statistics.median(part) for part in zip(*runs, strict=True)))
        for side, runs in reached.items()
    }
    figures = _figures(trained, decoded)
    figures |= {"goal_valid": goal, "sidmill_best_valid": statistics.median(best["train_sidmill"])}
    _paired.report(medians, figures, figures["test_sidmill"] / figures["test_plain"])


class Side(NamedTuple):
    """One run of a side: the process, and what it wrote of itself."""

    run: _paired.Run
    facts: dict


def _alternate(
    own: list[str], sides: Sequence[str], repeats: int, folder: Path
) -> dict[str, list[Side]]:
    """Run the sides in turn, each in a fresh process."""
    found: dict[str, list[Side]] = {side: [] for side in sides}
    for number in range(repeats):
        for side in sides:
            run = _paired.run([*own, f"--side={side}"])
            facts = json.loads((folder / f"{side}.json").read_text())
            found[side].append(Side(run, facts))
            shown = {name: value for name, value in facts.items() if name != "answers"}
            print(f"run {number + 1} {side}: {run}, {shown}", file=sys.stderr, flush=True)
    return found


def _best(side: Side) -> float:
    """The best NDCG@10 on the validation items."""
    return max(entry["valid"] for entry in side.facts["epochs"])


def _until(side: Side, goal: float) -> _paired.Run:
    """The run up to its first epoch that is as good as the goal; its peak is that of the whole."""
    for entry in side.facts["epochs"]:
        if entry["valid"] >= goal:
            return _paired.Run(entry["seconds"], entry["cpu_seconds"], side.run.peak_mb)
    raise SystemExit(f"SIDMill ended before valid NDCG@10 {goal:.4f}")


def _figures(trained: dict[str, list[Side]], decoded: dict[str, list[Side]]) -> dict:
    """What the table of processes does not say."""

    def median(name: str, measured: Callable[[Side], float]) -> float:
        return statistics.median(measured(one) for one in decoded[f"decode_{name}"])

    measures: dict[str, Callable[[Side], float]] = {
        "seconds": lambda side: side.facts["seconds"],
        "cpu_seconds": lambda side: side.facts["cpu_seconds"],
        "peak_mb": lambda side: side.run.peak_mb,
    }
    found = {
        (name, measure): median(name, measured)
        for name in ("sidmill", "tiger", "plain")
        for measure, measured in measures.items()
    }
    last = {side.removeprefix("decode_"): runs[-1].facts for side, runs in decoded.items()}
    pairs = list(zip(last["tiger"]["answers"], last["plain"]["answers"], strict=True))
    return {
        "parameters_sidmill": trained["train_sidmill"][-1].facts["parameters"],
        "parameters_plain": trained["train_plain"][-1].facts["parameters"],
        "decoded_users": len(pairs),
        **{
            f"{prefix}_{label}_ratio": round(found[name, measure] / found["plain", measure], 4)
            for prefix, name in (("decode", "sidmill"), ("same_model", "tiger"))
            for label, measure in (
                ("time", "seconds"),
                ("cpu", "cpu_seconds"),
                ("memory", "peak_mb"),
            )
        },
        "same_top_10": sum(one == other for one, other in pairs) / len(pairs),
        "same_ten_in_any_order": sum(sorted(a) == sorted(b) for a, b in pairs) / len(pairs),
        **{f"decode_{measure}_{name}": round(value, 3) for (name, measure), value in found.items()},
        **{f"test_{name}": round(facts["test"], 4) for name, facts in last.items()},
    }


# The data that both ways read.


def make_data(options: argparse.Namespace) -> None:
    """Draw a catalogue unless one is given, and draw the users that are validated on.

    Writes sequences.parquet for SIDMill, and the same as arrays for the plain loop.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from sidmill.formats import code_files, sequence_table

    paths = _paths(options)
    if not options.interactions:
        _draw(options)
    coded = code_files.read(paths.pid2sid, "sid")

    # Both ways validate on the same users: for the others, validation items become test items.
    n_users = sequence_table.count(paths.interactions)
    rng = np.random.default_rng(options.seed)
    is_asked = np.zeros(n_users, bool)
    is_asked[rng.permutation(n_users)[: options.valid_users]] = True
    tables, first, arrays = [], 0, {"numbers": [], "splits": [], "lengths": [], "asked": []}
    for table in sequence_table.read(paths.interactions):
        lists, splits = (table[name].combine_chunks() for name in ("item_ids", "splits"))
        lengths = np.diff(lists.offsets.to_numpy())
        numbers = pc.index_in(lists.flatten(), coded.ids.combine_chunks())
        flat = splits.flatten().to_numpy()
        arrays["numbers"].append(numbers.to_numpy(zero_copy_only=False))
        arrays["lengths"].append(lengths)

        # No training reads the split test.
        is_other = ~np.repeat(is_asked[first : first + len(table)], lengths)
        asked = np.where(is_other & (flat == sequence_table.VALID), sequence_table.TEST, flat)
        arrays["splits"].append(flat)
        arrays["asked"].append(asked == sequence_table.VALID)
        column = pa.ListArray.from_arrays(splits.offsets, pa.array(asked))
        tables.append(table.set_column(2, "splits", column))
        first += len(table)
    sequence_table.write(
        Path(options.folder, "histories.parquet"),
        sequence_table.pid_type(paths.interactions),
        tables,
    )
    np.savez(
        Path(options.folder, "histories.npz"),
        codes=coded.codes,
        sizes=coded.sizes,
        **{name: np.concatenate(parts) for name, parts in arrays.items()},
    )


def _draw(options: argparse.Namespace) -> None:
    """Draw items with codes, and histories in which an item has successors of its own.

    The successors of items that share codes share codes too, so that a model can learn of an item
    from others.
    """
    import numpy as np
    import pyarrow as pa
    from scipy.optimize import linear_sum_assignment

    from sidmill.formats import code_files, quantizer_file, sequence_table

    rng = np.random.default_rng(options.seed)
    paths = _paths(options)

    # Distinct SIDs, and codebooks with less in every level.
    combinations = rng.permutation(CODES**LEVELS)[: options.items]
    codes = np.stack(np.unravel_index(combinations, [CODES] * LEVELS), axis=1).astype(np.int32)
    books = [
        rng.standard_normal((CODES, DIM), dtype=np.float32) / 2**level for level in range(LEVELS)
    ]
    vectors = sum(book[codes[:, level]] for level, book in enumerate(books))

    # Successor n of an item: the item near its vector after rotation n, each of one item only.
    successors = []
    for _ in SUCCESSORS:
        rotation = np.linalg.qr(rng.standard_normal((DIM, DIM)))[0].astype(np.float32)
        turned = vectors @ rotation
        distances = (vectors**2).sum(axis=1) - 2 * turned @ vectors.T
        np.fill_diagonal(distances, distances.max())
        successors.append(linear_sum_assignment(distances)[1])

    # Histories: items by popularity where no successor follows.
    popularity = 1 / np.arange(1, options.items + 1)
    cumulated = np.cumsum(popularity / popularity.sum())
    histories, limits = [], np.cumsum(SUCCESSORS)
    for length in rng.integers(5, 16, size=options.histories):
        history = [int(np.searchsorted(cumulated, rng.random()))]
        while len(history) < length:
            number = int(np.searchsorted(limits, rng.random()))
            history.append(
                int(successors[number][history[-1]])
                if number < len(SUCCESSORS)
                else int(np.searchsorted(cumulated, rng.random()))
            )
        histories.append(history)

    ids = pa.chunked_array([pa.array(np.arange(options.items))])
    code_files.write(paths.pid2sid, "sid", ids, [codes], [CODES] * LEVELS)
    quantizer_file.write(
        paths.quantizer,
        quantizer_file.Quantizer("rqkmeans", books, {}, {"backend": "drawn", "dim": DIM}),
    )
    splits = [[0] * (len(history) - 2) + [1, 2] for history in histories]
    users = [str(number) for number in range(len(histories))]
    columns = [users, histories, splits, [None] * len(users)]
    table = pa.table(columns, schema=sequence_table.schema(pa.int64()))
    sequence_table.write(paths.interactions, pa.int64(), [table])


class Paths(NamedTuple):
    """Files of a run of the workflow, or those that were drawn instead."""

    interactions: str
    pid2sid: str
    quantizer: str


def _paths(options: argparse.Namespace) -> Paths:
    drawn = Paths("sequences.parquet", "pid2sid.parquet", "quantizer.safetensors")
    given = (options.interactions, options.pid2sid, options.quantizer)
    if not any(given):
        return Paths(*(str(Path(options.folder, name)) for name in drawn))
    if not all(given):
        raise SystemExit("--interactions, --pid2sid and --quantizer go together")
    return Paths(*given)


class Data(NamedTuple):
    """Histories as lists of tokens.

    Attributes:
        train: (history, target) per position of the split train, each a list of tokens.
        valid: the same for the validation items.
        test: the same for the test items.
        histories: of the test items, as numbers of items.
        sids: the tokens of each item.
        n_tokens: tokens in all.
    """

    train: list[tuple[list[int], list[int]]]
    valid: list[tuple[list[int], list[int]]]
    test: list[tuple[list[int], list[int]]]
    histories: list[list[int]]
    sids: list[list[int]]
    n_tokens: int


def read_data(options: argparse.Namespace) -> Data:
    """Read the histories, cut to their last items."""
    import numpy as np

    arrays = np.load(Path(options.folder, "histories.npz"))
    firsts = FIRST_CODE + np.cumsum([0, *arrays["sizes"]])
    sids = (arrays["codes"] + firsts[:-1]).tolist()
    numbers, splits = arrays["numbers"].tolist(), arrays["splits"].tolist()
    is_asked = arrays["asked"].tolist()
    rows: list[list] = [[], [], []]
    histories, first = [], 0
    for length in arrays["lengths"].tolist():
        for position in range(first + 1, first + length):
            items, split = numbers[max(first, position - MAX_LENGTH) : position], splits[position]
            if split == VALID and not is_asked[position]:
                continue
            if split == TEST:
                histories.append(items)
            history = [token for item in items for token in sids[item]]
            rows[split].append((history, sids[numbers[position]]))
        first += length
    n_asked = min(options.users, len(histories))
    asked = sorted(random.Random(options.seed).sample(range(len(histories)), n_asked))
    test, histories = [rows[TEST][row] for row in asked], [histories[row] for row in asked]
    return Data(rows[TRAIN], rows[VALID], test, histories, sids, int(firsts[-1]))


# The ordinary way.


def train_plain(options: argparse.Namespace) -> None:
    """Train T5 with a plain loop; keep the weights of the best epoch."""
    import torch

    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    data = read_data(options)
    known = Path(options.folder, "train_sidmill.json")
    n_parameters = options.parameters or json.loads(known.read_text())["parameters"]
    model = _make_t5(n_parameters, data.n_tokens)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr)
    trie, epochs = _trie(data.sids), []
    while not epochs or _may_improve(epochs, options):
        model.train()
        order = torch.randperm(len(data.train)).tolist()
        for start in range(0, len(order), BATCH):
            rows = [data.train[row] for row in order[start : start + BATCH]]
            tokens, mask = _pad([history for history, _ in rows])
            labels = torch.tensor([target for _, target in rows])
            loss = model(input_ids=tokens, attention_mask=mask, labels=labels).loss
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
            optimizer.step()
        model.eval()
        answers = generate(model, trie, [history for history, _ in data.valid], options)
        valid = ndcg(answers, [target for _, target in data.valid], data.sids)
        if valid > max((entry["valid"] for entry in epochs), default=-1.0):
            model.save_pretrained(Path(options.folder, "t5"))
        epochs.append(_epoch(valid))
        print(f"plain epoch {len(epochs)}: {epochs[-1]}", file=sys.stderr, flush=True)
        facts = {"parameters": sum(one.numel() for one in model.parameters()), "epochs": epochs}
        Path(options.folder, "train_plain.json").write_text(json.dumps(facts))


def decode_plain(options: argparse.Namespace) -> None:
    """Answer the test users with ``generate``."""
    import torch
    from transformers import T5ForConditionalGeneration

    torch.set_num_threads(options.threads)
    data = read_data(options)
    model = T5ForConditionalGeneration.from_pretrained(Path(options.folder, "t5")).eval()
    began = _now()
    answers = generate(model, _trie(data.sids), [history for history, _ in data.test], options)
    _write_answers("plain", began, answers, data, options)


def generate(model, trie: dict, histories: list[list[int]], options) -> list[list[tuple]]:
    """The best SIDs of each history, as tokens."""
    import torch

    def allowed(_: int, tokens) -> list[int]:
        return trie[tuple(tokens.tolist())]

    depth, answers = len(next(reversed(trie))), []
    with torch.inference_mode():
        for start in range(0, len(histories), options.generate_batch):
            tokens, mask = _pad(histories[start : start + options.generate_batch])
            found = model.generate(
                input_ids=tokens,
                attention_mask=mask,
                num_beams=BEAMS,
                num_return_sequences=BEAMS,
                max_new_tokens=depth,
                prefix_allowed_tokens_fn=allowed,
            )
            sids = [tuple(row) for row in found[:, 1:].tolist()]
            answers += [sids[row : row + BEAMS] for row in range(0, len(sids), BEAMS)]
    return answers


def ndcg(answers: list[list[tuple]], targets: list[list[int]], sids: list[list[int]]) -> float:
    """NDCG@10 over items; items that share a SID take their ranks in every order equally often."""
    sharers: dict[tuple, int] = {}
    for sid in map(tuple, sids):
        sharers[sid] = sharers.get(sid, 0) + 1
    total = 0.0
    for answer, target in zip(answers, map(tuple, targets), strict=True):
        distinct = list(dict.fromkeys(answer))
        if target in distinct:
            above = sum(sharers[sid] for sid in distinct[: distinct.index(target)])
            ranks = range(above + 1, above + sharers[target] + 1)
            total += sum(1 / math.log2(1 + rank) for rank in ranks if rank <= K) / len(ranks)
    return total / len(targets)


def _make_t5(n_parameters: int, n_tokens: int):
    """A T5 whose number of parameters is the nearest, in the proportions of TIGER's."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    def make(width: int):
        config = T5Config(
            vocab_size=n_tokens,
            d_model=width,
            d_kv=width // 2,
            d_ff=8 * width,
            num_layers=LAYERS,
            num_heads=HEADS,
            dropout_rate=DROPOUT,
            pad_token_id=PADDING,
            eos_token_id=None,
        )
        config.decoder_start_token_id = START
        return T5ForConditionalGeneration(config)

    def distance(width: int) -> int:
        with torch.device("meta"):
            return abs(sum(one.numel() for one in make(width).parameters()) - n_parameters)

    return make(min(range(8, 129, 4), key=distance))


def _trie(sids: list[list[int]]) -> dict[tuple, list[int]]:
    """Legal tokens after each prefix, the start of a SID included; the longest prefixes last."""
    children: dict[tuple, set[int]] = {}
    for length in range(len(sids[0])):
        for sid in sids:
            children.setdefault((START, *sid[:length]), set()).add(sid[length])
    return {prefix: sorted(tokens) for prefix, tokens in children.items()}


def _pad(rows: list[list[int]]):
    """Tokens (B, S), and their mask."""
    import torch

    width = max(map(len, rows))
    tokens = torch.tensor([row + [PADDING] * (width - len(row)) for row in rows])
    return tokens, tokens != PADDING


def _may_improve(epochs: list[dict], options: argparse.Namespace) -> bool:
    valid = [entry["valid"] for entry in epochs]
    since = len(valid) - 1 - valid.index(max(valid))
    most = options.epochs or (EPOCHS if options.interactions else DRAWN_EPOCHS)
    return len(valid) < most and since < options.patience


def _epoch(valid: float) -> dict[str, float]:
    return {"valid": valid} | _now()


def _now() -> dict[str, float]:
    """Time since the side began, and its CPU time."""
    return {"seconds": time.perf_counter() - BEGAN, "cpu_seconds": time.process_time()}


def _write_answers(
    name: str, began: dict, answers: list[list[tuple]], data: Data, options: argparse.Namespace
) -> None:
    ended = _now()
    taken = {clock: ended[clock] - began[clock] for clock in began}
    test = ndcg(answers, [target for _, target in data.test], data.sids)
    best = [answer[:K] for answer in answers]
    facts = {**taken, "test": test, "answers": best}
    Path(options.folder, f"decode_{name}.json").write_text(json.dumps(facts))


# SIDMill.


def train_sidmill(options: argparse.Namespace) -> None:
    """Train with SIDMill, and note the time of each epoch."""
    import logging

    import torch

    from sidmill.recommend.generative import models, train
    from sidmill.settings.generative import Generative

    epochs: list[dict] = []

    class Clock(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            print(record.getMessage(), file=sys.stderr, flush=True)
            if record.msg.startswith("epoch"):
                epochs.append(_epoch(record.args[-1]))

    torch.set_num_threads(options.threads)
    logging.getLogger("sidmill").addHandler(Clock())
    logging.getLogger("sidmill").setLevel(logging.INFO)
    settings = Generative(seeds=1, device="cpu")
    sequences = Path(options.folder, "histories.parquet")
    fitted, _ = train.fit(
        sequences, _sid_items(options), settings, seed=options.seed, code="benchmark"
    )
    models.save(Path(options.folder, "model.safetensors"), fitted)
    n_parameters = sum(one.numel() for one in fitted[0].network.model.parameters())
    facts = {"parameters": n_parameters, "epochs": epochs}
    Path(options.folder, "train_sidmill.json").write_text(json.dumps(facts))


def decode_sidmill(options: argparse.Namespace) -> None:
    """Answer the test users with the model that SIDMill trained: its scores of all SIDs."""
    import torch

    from sidmill.recommend.generative import models

    torch.set_num_threads(options.threads)
    data, items = read_data(options), _sid_items(options)
    path = Path(options.folder, "model.safetensors")
    network = models.load(path, items, torch.device("cpu"))[0].network

    began = _now()
    trie, scores = network.trie, network.scores()
    firsts = trie.items[trie.first_item[:-1]]  # an item of each SID

    def answer(histories, lengths):
        found = scores.item_scores(scores.encode(histories, lengths))[:, firsts]
        return found.topk(BEAMS, dim=1).indices

    answers = _tokens_of(trie, _in_batches(data.histories, answer, options.sidmill_batch))
    _write_answers("sidmill", began, answers, data, options)


def _sid_items(options: argparse.Namespace):
    from sidmill.recommend.generative import sid_items

    paths = _paths(options)
    return sid_items.load([paths.pid2sid], [paths.quantizer])


def _tokens_of(trie, sids) -> list[list[tuple]]:
    """SIDs by number as the tokens that T5 has."""
    import numpy as np

    from sidmill.numeric import sid_trie

    firsts = FIRST_CODE + np.cumsum([0, *trie.sizes[:-1]])
    tokens = (sid_trie.codes_of(trie, sids).numpy() + firsts).tolist()
    return [[tuple(sid) for sid in row] for row in tokens]


def decode_tiger(options: argparse.Namespace) -> None:
    """Answer the test users with the weights of the plain loop, decoded by SIDMill."""
    import numpy as np
    import torch
    from transformers import T5ForConditionalGeneration

    from sidmill.numeric import sid_trie
    from sidmill.recommend.generative import decode, tiger

    torch.set_num_threads(options.threads)
    data = read_data(options)
    arrays = np.load(Path(options.folder, "histories.npz"))
    weights = T5ForConditionalGeneration.from_pretrained(Path(options.folder, "t5"))
    config = weights.config
    shape = tiger.Shape(
        config.num_layers,
        config.d_model,
        config.num_heads,
        config.d_kv,
        config.d_ff,
        config.dropout_rate,
        MAX_LENGTH,
    )
    codes = torch.from_numpy(arrays["codes"].astype(np.int64))
    model = tiger.Tiger(codes, arrays["sizes"].tolist(), shape).eval()
    model.t5.load_state_dict(weights.state_dict())

    began = _now()
    trie = sid_trie.build(arrays["codes"], arrays["sizes"].tolist())
    scores = tiger.TigerScores(model, trie)

    def answer(histories, lengths):
        state = scores.encode(histories, lengths)
        return decode.beam(trie, scores.token_scores(state), len(lengths), BEAMS, BEAMS).sids

    answers = _tokens_of(trie, _in_batches(data.histories, answer, options.sidmill_batch))
    _write_answers("tiger", began, answers, data, options)


def _in_batches(histories: list[list[int]], answer, n_rows: int):
    """Answer histories, those of similar length together: int64 (users, BEAMS)."""
    import torch

    order = sorted(range(len(histories)), key=lambda row: len(histories[row]))
    parts = []
    for start in range(0, len(order), n_rows):
        rows = [histories[row] for row in order[start : start + n_rows]]
        lengths = torch.tensor([len(row) for row in rows])
        width = int(lengths.max())
        padded = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        parts.append(answer(padded, lengths))
    sids = torch.cat(parts)
    return torch.empty_like(sids).index_copy_(0, torch.tensor(order), sids)


SIDES = {
    "data": make_data,
    "train_plain": train_plain,
    "train_sidmill": train_sidmill,
    "decode_plain": decode_plain,
    "decode_sidmill": decode_sidmill,
    "decode_tiger": decode_tiger,
}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--interactions", help="sequences.parquet; without it data is drawn")
    parser.add_argument("--pid2sid", help="pid2sid.parquet of the same run")
    parser.add_argument("--quantizer", help="quantizer.safetensors of the same run")
    parser.add_argument("--items", type=int, default=200, help="that are drawn")
    parser.add_argument("--histories", type=int, default=1000, help="that are drawn")
    parser.add_argument("--users", type=int, default=1000, help="whose test items are asked for")
    parser.add_argument("--valid-users", type=int, default=200, help="in the validation")
    parser.add_argument("--parameters", type=int, help="of T5; default: those of SIDMill's model")
    parser.add_argument("--epochs", type=int, help="of the plain loop, at most; 15 on drawn data")
    parser.add_argument("--patience", type=int, default=5, help="of the plain loop, in epochs")
    parser.add_argument("--lr", type=float, default=LR, help="of the plain loop")
    parser.add_argument("--generate-batch", type=int, default=50, help="users of a generate")
    parser.add_argument("--sidmill-batch", type=int, default=250, help="users that SIDMill decodes")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--folder", help="where the temporary folder goes")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
