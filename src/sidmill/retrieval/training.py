"""What training the dual and the cross encoder share: the split, the settings, checkpoints, saving.

A training keeps checkpoints in a folder beside its model, with the name of the training: a run that
was cut short goes on from the last whole one, and another training starts anew.
"""

import json
import logging
import shutil
import sys
from hashlib import blake2b
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.compute as pc
import torch
from sentence_transformers.base.model import BaseModel
from transformers import PrinterCallback, Trainer, set_seed
from transformers.utils import logging as transformers_logging

from sidmill.core.atomic import write_text
from sidmill.core.errors import SidmillError
from sidmill.formats import triples
from sidmill.io import json_report

logger = logging.getLogger(__name__)

DTYPES = ("float32", "bfloat16")  # float16 overflows in Qwen3
ARGUMENTS = (
    *("epochs", "batch_size", "learning_rate", "warmup"),
    *("dtype", "evaluations", "device", "seed"),
)
NAME = "training.json"
POSITION_TABLES = ("position_embeddings", "wpe")
LAST_WRITTEN = "trainer_state.json"  # of a checkpoint
CHECKPOINT = "checkpoint-"


def prepare(
    data_path: str | Path, schema: pa.Schema, state_dir: str | Path, given: dict, metric: str
) -> tuple[pa.Table, pa.Table, dict]:
    """Make the folder of the checkpoints, split the rows, and seed what is drawn from here on.

    Args:
        data_path: training file.
        schema: its columns.
        state_dir: folder of the checkpoints; kept only if ``given``, the rows and the weights to
            start from are those it was made with.
        given: settings of the training, and the name of its code.
        metric: figure that names the best checkpoint, where rows are set aside.

    Returns:
        Rows to train on, rows set aside, and settings of the trainer.

    Raises:
        SidmillError: if a setting does not fit the rows or the machine.
    """
    digests = {"data": file_digest(data_path), "weights": model_digests(given["model"])}
    begin(state_dir, given | digests)
    rows = load_rows(data_path, schema, given["max_rows"])
    kept, dev = split(rows, given["dev_share"], given["seed"])
    chosen = {name: given[name] for name in ARGUMENTS}
    best = metric if given["dev_share"] else None
    return kept, dev, arguments(state_dir, kept.num_rows, best=best, **chosen)


def load_rows(path: str | Path, schema: pa.Schema, max_rows: int | None) -> pa.Table:
    """Read the first rows of a training file. Memory: the rows."""
    tables, n_rows = [schema.empty_table()], 0
    for table in triples.read(path, schema):
        tables.append(table)
        n_rows += table.num_rows
        if max_rows is not None and n_rows >= max_rows:
            break
    return pa.concat_tables(tables).slice(0, max_rows).combine_chunks()


def split(rows: pa.Table, dev_share: float, seed: int) -> tuple[pa.Table, pa.Table]:
    """Set whole queries aside, chosen by a hash of their text: training rows, and these.

    Raises:
        SidmillError: if nothing is left to train on, or nothing was set aside though asked for.
    """

    def held_out(query: str) -> bool:
        digest = blake2b(f"{seed} {query}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "little") < dev_share * 2**64

    mask = pa.array([held_out(query) for query in rows["query"].to_pylist()], pa.bool_())
    kept, dev = rows.filter(pc.invert(mask)), rows.filter(mask)
    if not kept.num_rows or (dev_share and not dev.num_rows):
        raise SidmillError(
            f"{kept.num_rows} rows to train on and {dev.num_rows} set aside by dev_share "
            f"{dev_share}: train on more rows, or change dev_share"
        )
    return kept, dev


def dataset(rows: pa.Table) -> datasets.Dataset:
    """Rows as the trainer takes them; a column without any value is left out."""
    full = [name for name in rows.column_names if rows[name].null_count < rows.num_rows]
    return datasets.Dataset(rows.select(full))


def arguments(
    state_dir: str | Path,
    n_rows: int,
    *,
    epochs: float,
    batch_size: int,
    learning_rate: float,
    warmup: float,
    dtype: str,
    evaluations: int,
    device: str,
    seed: int,
    best: str | None,
) -> dict:
    """Settings of a trainer of sentence-transformers.

    Args:
        state_dir: folder of the checkpoints.
        n_rows: rows to train on.
        epochs: passes over them.
        batch_size: rows per step and device.
        learning_rate: its peak.
        warmup: share of the steps that lead up to it; from there it falls to 0 in a line.
        dtype: float32 or bfloat16, of the arithmetic; weights stay float32.
        evaluations: how often the model is evaluated and saved.
        device: auto, cpu or cuda.
        seed: of the order of the rows, of dropout, and of new weights.
        best: figure that names the best checkpoint, the higher the better; None takes the last.

    Raises:
        SidmillError: if a setting does not fit the machine.
    """
    if dtype not in DTYPES:
        raise SidmillError(f"dtype is {dtype!r}: choose one of {', '.join(DTYPES)}")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise SidmillError(f"device {device!r} asked for, but torch finds no GPU: set auto or cpu")
    steps = max(1, round(epochs * -(-n_rows // batch_size)))
    every = max(1, steps // evaluations)
    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
    set_seed(seed)
    return {
        "output_dir": str(state_dir),
        "num_train_epochs": epochs,
        "per_device_train_batch_size": batch_size,
        "per_device_eval_batch_size": batch_size,
        "learning_rate": learning_rate,
        "warmup_steps": min(warmup, 0.999),  # below 1 it is a share
        "bf16": dtype == "bfloat16",
        "use_cpu": device == "cpu",
        "seed": seed,
        "data_seed": seed,
        "eval_strategy": "steps" if best else "no",
        "eval_steps": every,
        "save_strategy": "steps",
        "save_steps": every,
        "save_total_limit": 2,
        "load_best_model_at_end": bool(best),
        "metric_for_best_model": best,
        "greater_is_better": True if best else None,
        "logging_steps": max(1, steps // 100),
        "report_to": "none",
        "disable_tqdm": True,
    }


def fit_length(model: torch.nn.Module, max_length: int, setting: str) -> int:
    """``max_length``, or the positions of the model where these are fewer, with a warning.

    Args:
        model: a model of transformers.
        max_length: tokens after which a text is cut.
        setting: config key that names the model, for the warning.
    """
    limits = [max_length]
    known = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if known is not None:
        limits.append(known)
    for name, module in model.named_modules():
        if name.endswith(POSITION_TABLES) and isinstance(module, torch.nn.Embedding):
            # RoBERTa and its like count positions from behind the one that stands for padding.
            skipped = 0 if module.padding_idx is None else module.padding_idx + 1
            limits.append(module.num_embeddings - skipped)
    fitting = min(limits)
    if fitting < max_length:
        section = setting.partition(".")[0]
        logger.warning(
            "%s.max_length is %d, the model has %d positions: texts are cut there",
            section, max_length, fitting,
        )  # fmt: skip
    return fitting


def begin(state_dir: str | Path, identity: dict) -> None:
    """Make the folder of a training's checkpoints; clear it where it belongs to another one.

    Args:
        state_dir: the folder.
        identity: settings and digests of the data: equal for the same training alone.
    """
    folder = Path(state_dir)
    name = folder / NAME
    if folder.exists() and not (name.exists() and json.loads(name.read_text()) == identity):
        logger.info("%s belongs to another training; this one starts anew", folder)
        shutil.rmtree(folder)
    write_text(name, json.dumps(identity, sort_keys=True, indent=2))


def run(trainer: Trainer, state_dir: str | Path) -> None:
    """Train, from the last whole checkpoint where there is one.

    Raises:
        SidmillError: if a batch does not fit the device, or weights are no longer finite.
    """
    trainer.remove_callback(PrinterCallback)
    last = _last_checkpoint(Path(state_dir))
    if last:
        logger.info("going on from %s", last)
    try:
        trainer.train(resume_from_checkpoint=last)
    except torch.OutOfMemoryError:
        raise SidmillError(
            f"a batch of {trainer.args.per_device_train_batch_size} does not fit the device: lower "
            f"batch_size, or set dual.mini_batch (the same batch in small parts)"
        ) from None
    for entry in trainer.state.log_history:
        if "loss" in entry:
            logger.info("step %d: loss %.4f", entry["step"], entry["loss"])
    require_finite(trainer.model, trainer.args.learning_rate, trainer.args.bf16)


def require_finite(model: torch.nn.Module, learning_rate: float, half: bool) -> None:
    """Refuse a model that training has spoiled; the trainer's log leaves out losses that are NaN.

    Raises:
        SidmillError: naming a weight, and the settings to change.
    """
    spoiled = [name for name, part in model.named_parameters() if not part.isfinite().all()]
    if spoiled:
        exact = ", or set dtype to float32" if half else ""
        raise SidmillError(
            f"training left NaN or infinite numbers in {len(spoiled)} weights, first {spoiled[0]}: "
            f"lower learning_rate (it is {learning_rate:g}){exact}"
        )


def finish(trained: BaseModel, model_dir: str | Path, state_dir: str | Path, figures: dict) -> None:
    """Write the model whole or not at all, with the figures of its training; drop checkpoints.

    Args:
        trained: the model.
        model_dir: the folder it appears in.
        state_dir: folder of the checkpoints.
        figures: for ``training.json`` in it.
    """
    logger.info("%s", figures)
    target = Path(model_dir)
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    trained.save_pretrained(str(partial), create_model_card=False)
    json_report.write(partial / NAME, figures)
    shutil.rmtree(target, ignore_errors=True)
    partial.replace(target)
    shutil.rmtree(state_dir)


def file_digest(path: str | Path) -> str:
    """Digest of a training file, for the name of a training."""
    digest = blake2b(digest_size=8)
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def model_digests(model: str) -> dict[str, str] | None:
    """Digest of each file of a model folder; None for a hub id, which its revision names.

    All of every file is read, as loading the model does. Hidden files and folders (``.git``,
    download records, time stamps of the workflow) do not count.
    """
    root = Path(model)
    if not root.is_dir():
        return None
    files = {path.relative_to(root): path for path in root.rglob("*") if path.is_file()}
    return {
        name.as_posix(): file_digest(path)
        for name, path in sorted(files.items())
        if not any(part.startswith(".") for part in name.parts)
    }


def _last_checkpoint(folder: Path) -> str | None:
    whole = [path.parent for path in folder.glob(f"{CHECKPOINT}*/{LAST_WRITTEN}")]
    newest = max(whole, key=lambda path: int(path.name.removeprefix(CHECKPOINT)), default=None)
    return str(newest) if newest else None
