"""Steps that the training of the dual and the cross encoder share, from the split to saving.

A training keeps checkpoints and its identity in a folder next to its model. An interrupted training
resumes from the last complete checkpoint; a training with another identity starts from the
beginning.
"""

import json
import logging
import shutil
import sys
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import torch
from sentence_transformers.base.model import BaseModel
from transformers import PrinterCallback, Trainer, TrainingArguments, set_seed
from transformers.utils import logging as transformers_logging

from sidmill.core.atomic import write_text
from sidmill.core.errors import SidmillError
from sidmill.core.folders import replace_folder
from sidmill.formats import triples
from sidmill.io import json_report
from sidmill.numeric import nearest_torch
from sidmill.settings import base
from sidmill.settings.retrieval import Cross, Dual

if TYPE_CHECKING:  # reranking imports this module, and trains nothing
    import datasets

logger = logging.getLogger(__name__)

Arguments = TypeVar("Arguments", bound=TrainingArguments)

DTYPES = ("float32", "bfloat16")  # float16 overflows in Qwen3
NAME = "training.json"
POSITION_TABLES = ("position_embeddings", "wpe")
LAST_WRITTEN = "trainer_state.json"  # of a checkpoint
CHECKPOINT = "checkpoint-"


class Folders(NamedTuple):
    """Where a training writes its model, and its checkpoints until then."""

    model: str | Path
    state: str | Path


class Prepared(NamedTuple):
    """Rows to train on, held-out rows, and arguments of the trainer."""

    rows: pa.Table
    dev: pa.Table
    arguments: dict[str, Any]


def prepare(
    data_path: str | Path,
    schema: pa.Schema,
    state_dir: str | Path,
    settings: Dual | Cross,
    seed: int,
    metric: str,
    others: dict[str, str],
) -> Prepared:
    """Make the folder of the checkpoints, split the rows, and set the seeds of all libraries.

    Args:
        data_path: training file.
        schema: its columns.
        state_dir: folder of the checkpoints; cleared unless the identity of the training, the rows
            and the base model are those of the checkpoints.
        settings: section ``dual`` or ``cross``.
        seed: of the split and of all that is drawn after it.
        metric: figure that names the best checkpoint, where rows are held out.
        others: the rest of the identity: the name of the code, prompts.

    Raises:
        SidmillError: if a setting does not fit the rows or the machine.
    """
    model = require_model(settings.model, "dual.model or cross.model")
    digests = {"data": file_digest(data_path), "weights": model_digests(model)}
    begin(state_dir, base.identity(settings) | others | {"seed": seed} | digests)

    rows = load_rows(data_path, schema, settings.max_rows)
    rows, dev = split(rows, settings.dev_share, seed)
    best = metric if settings.dev_share else None
    return Prepared(rows, dev, arguments(state_dir, rows.num_rows, settings, seed, best))


def require_model(model: str | None, setting: str) -> str:
    """Return the model that an encoder's training starts from.

    Raises:
        SidmillError: if it is null.
    """
    if model is None:
        raise SidmillError(f"{setting} is null: name a hub id or a folder")
    return model


def load_rows(path: str | Path, schema: pa.Schema, max_rows: int | None) -> pa.Table:
    """Read the first rows of an encoder's training file. Memory: the rows."""
    tables, n_rows = [schema.empty_table()], 0
    for table in triples.read(path, schema):
        tables.append(table)
        n_rows += table.num_rows
        if max_rows is not None and n_rows >= max_rows:
            break
    return pa.concat_tables(tables).slice(0, max_rows).combine_chunks()


def split(rows: pa.Table, dev_share: float, seed: int) -> tuple[pa.Table, pa.Table]:
    """Hold whole queries out of an encoder's training, by a hash of the text: train, held-out rows.

    Raises:
        SidmillError: if no row is left to train on, or none is held out although ``dev_share`` > 0.
    """

    def is_held_out(query: str) -> bool:
        digest = blake2b(f"{seed} {query}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "little") < dev_share * 2**64

    mask = pa.array([is_held_out(query) for query in rows["query"].to_pylist()], pa.bool_())
    kept, dev = rows.filter(pc.invert(mask)), rows.filter(mask)
    if not kept.num_rows or (dev_share and not dev.num_rows):
        raise SidmillError(
            f"{kept.num_rows} rows to train on and {dev.num_rows} set aside by dev_share "
            f"{dev_share}: train on more rows, or change dev_share"
        )
    return kept, dev


def dataset(rows: pa.Table) -> "datasets.Dataset":
    """Rows as the trainer takes them, without columns that are null throughout."""
    import datasets

    full = [name for name in rows.column_names if rows[name].null_count < rows.num_rows]
    return datasets.Dataset(rows.select(full))


def arguments(
    state_dir: str | Path, n_rows: int, settings: Dual | Cross, seed: int, best: str | None
) -> dict[str, Any]:
    """Make the arguments of a trainer of sentence-transformers.

    Weights stay float32 whatever ``dtype`` is. The learning rate falls linearly to 0 after the
    warm-up.

    Args:
        state_dir: folder of the checkpoints.
        n_rows: rows to train on.
        settings: section ``dual`` or ``cross``.
        seed: of the order of the rows, of dropout, and of new weights.
        best: figure that names the best checkpoint, the higher the better; None takes the last.

    Raises:
        SidmillError: if a setting does not fit the machine.
    """
    if settings.dtype not in DTYPES:
        raise SidmillError(f"dtype is {settings.dtype!r}: choose one of {', '.join(DTYPES)}")
    nearest_torch.pick_device(settings.device)  # refuses one that is not there

    # The model is evaluated and saved at even distances.
    steps = max(1, round(settings.epochs * -(-n_rows // settings.batch_size)))
    every = max(1, steps // settings.evaluations)

    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    set_seed(seed)
    return {
        "output_dir": str(state_dir),
        "num_train_epochs": settings.epochs,
        "per_device_train_batch_size": settings.batch_size,
        "per_device_eval_batch_size": settings.batch_size,
        "learning_rate": settings.learning_rate,
        "warmup_steps": min(settings.warmup, 0.999),  # below 1 it is a share
        "bf16": settings.dtype == "bfloat16",
        "use_cpu": settings.device == "cpu",
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


def on_one_gpu(make: Callable[..., Arguments], device: str, arguments: dict[str, Any]) -> Arguments:
    """Make the arguments of a trainer that uses one GPU: the one that is named, or the first.

    transformers always trains from ``cuda:0`` on, and divides each batch over all GPUs that torch
    sees (``nn.DataParallel``): a step would take as many times the rows, so that the weights would
    depend on the machine, and losses of cross encoders fail on the wrapped model.

    Args:
        make: the class of the arguments.
        device: setting ``device``.
        arguments: of the class.
    """
    made = make(**arguments)
    if made.device.type != "cuda":
        return made

    # The device is a cached property, which asks for no other.
    chosen = torch.device("cuda", nearest_torch.pick_device(device).index or 0)
    made._n_gpu = 1
    vars(made)["_setup_devices"] = chosen
    logger.info("one of %d GPUs trains: %s", torch.cuda.device_count(), chosen)
    return made


def fit_length(model: Any, max_length: int, setting: str) -> int:
    """``max_length``, or the positions of the model where these are fewer, with a warning.

    Args:
        model: a model of transformers.
        max_length: tokens after which a text is cut.
        setting: config key that names the model, for the warning.
    """
    limits = [max_length]
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if positions is not None:
        limits.append(positions)

    # RoBERTa and similar models number positions from the one after that of the padding.
    for name, module in model.named_modules():
        if name.endswith(POSITION_TABLES) and isinstance(module, torch.nn.Embedding):
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


def begin(state_dir: str | Path, identity: dict[str, Any]) -> None:
    """Make the folder of an encoder's checkpoints; clear it if it belongs to another training.

    Args:
        state_dir: the folder.
        identity: settings, code and digests of the data: equal for the same training alone.
    """
    folder = Path(state_dir)
    name = folder / NAME
    if folder.exists() and not (name.exists() and json.loads(name.read_text()) == identity):
        logger.info("%s belongs to another training; this one starts from the beginning", folder)
        shutil.rmtree(folder)
    write_text(name, json.dumps(identity, sort_keys=True, indent=2))


def run(trainer: Trainer, state_dir: str | Path) -> None:
    """Train an encoder of retrieval, from the last complete checkpoint if there is one.

    Raises:
        SidmillError: if a batch does not fit the device, or weights are no longer finite.
    """
    trainer.remove_callback(PrinterCallback)
    if trainer.args.device.type == "cuda":
        torch.cuda.set_device(trainer.args.device)  # to the libraries ``cuda`` is the current one
    last = _last_checkpoint(Path(state_dir))
    if last:
        logger.info("resuming from %s", last)
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


def require_finite(model: Any, learning_rate: float, half: bool) -> None:
    """Refuse a trained encoder with NaN or infinite weights; the trainer logs no loss that is NaN.

    Raises:
        SidmillError: naming a weight, and the settings to change.
    """
    broken = [name for name, weights in model.named_parameters() if not weights.isfinite().all()]
    if broken:
        exact = ", or set dtype to float32" if half else ""
        raise SidmillError(
            f"training left NaN or infinite numbers in {len(broken)} weights, first {broken[0]}: "
            f"lower learning_rate (it is {learning_rate:g}){exact}"
        )


def finish(trained: BaseModel, folders: Folders, figures: dict[str, Any]) -> None:
    """Write the trained encoder atomically, with its figures; remove the checkpoints.

    A kill at any moment leaves the model that was there or the new one, never a part of it. The
    checkpoints stay until the new model has its name.

    Args:
        trained: the model.
        folders: of the model, and of the checkpoints.
        figures: for ``training.json`` in the folder of the model.
    """
    logger.info("%s", figures)
    target = Path(folders.model)
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    trained.save_pretrained(str(partial), create_model_card=False)
    json_report.write(partial / NAME, figures)
    replace_folder(partial, target)
    shutil.rmtree(folders.state)


def file_digest(path: str | Path) -> str:
    """Digest of a training file, for the identity of a training."""
    digest = blake2b(digest_size=8)
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def model_digests(model: str) -> dict[str, str] | None:
    """Digest of each file of a model folder; None for a hub id, which its revision identifies.

    Every file is read to its end, as loading the model does. Hidden files and folders (``.git``,
    download records, time stamps of the workflow) are left out.
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
