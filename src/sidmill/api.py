"""The quantizer from Python, without the pipeline: numpy or torch in, numpy out.

>>> import numpy as np
>>> from sidmill import api
>>> vectors = np.random.default_rng(0).standard_normal((1000, 16), dtype=np.float32)
>>> quantizer = api.fit(vectors, n_levels=3, codebook_size=32)
>>> codes = api.encode(quantizer, vectors)
>>> codes.shape, codes.dtype
((1000, 3), dtype('int32'))
>>> sids = api.resolve(quantizer, vectors, codes)  # as codes, but no two rows are equal
>>> len(np.unique(sids, axis=0))
1000
>>> bool(np.square(vectors - api.decode(quantizer, codes)).mean() < 0.5 * np.square(vectors).mean())
True

Shapes: N rows, D dimensions, L levels, K_l codewords at level l.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from sidmill.core import paths
from sidmill.core.errors import SidmillError
from sidmill.formats import (
    category_file,
    code_files,
    foreign_tokenizers,
    onerec_checkpoint,
    quantizer_file,
)
from sidmill.formats.quantizer_file import Quantizer
from sidmill.formats.vector_file import Streamed, open_vectors
from sidmill.io import tensors
from sidmill.numeric import category_codes, latents, mlp, residual_codec
from sidmill.quantize import rqkmeans
from sidmill.settings import base, check
from sidmill.settings.quantize import Encoding, Rqkmeans
from sidmill.settings.run import Run
from sidmill.settings.sids import Collisions
from sidmill.sids import resolve as resolution

DEVICE = "auto"
MEMORY_MB = 1024
NUMPY_FLOATS = (torch.float16, torch.float32, torch.float64)


def fit(
    vectors: np.ndarray | torch.Tensor | Streamed,
    *,
    n_levels: int,
    codebook_size: int | list[int],
    n_iter: int = 20,
    tolerance: float = 0.0004,
    max_points_per_centroid: int | None = None,
    balance: str = "none",
    max_load: float = 1.5,
    seed: int = 42,
    device: str = DEVICE,
    memory_mb: int = MEMORY_MB,
) -> Quantizer:
    """Fit residual k-means from Python: see :func:`sidmill.quantize.rqkmeans.fit`.

    Args:
        vectors: floats (N, D): float32 and float16 as they are, others as float32; a memory map is
            streamed, and so is what :func:`open_vectors` opens.
        n_levels: L.
        codebook_size: K, or one K per level.
        n_iter: passes over the rows per level, at most.
        tolerance: a level ends when a pass lowers its error by less than this share.
        max_points_per_centroid: train on a sample of so many rows per codeword, or None for all.
        balance: none, sinkhorn or capacity.
        max_load: with capacity, the largest load of a codeword over the mean.
        seed: covers every random draw.
        device: auto (every GPU, or the CPU), cpu, cuda:1, or several with commas between them.
        memory_mb: MiB for blocks and the sample.

    Raises:
        SidmillError: if an argument is not as the configuration has to have it, there are fewer
            rows than codewords, or a row is not finite.
    """
    # Check the arguments as the configuration is checked.
    settings = _checked(
        "fit",
        _properties(Rqkmeans) | {"seed": _properties(Run)["seed"]},
        {
            "n_levels": n_levels,
            "codebook_size": codebook_size,
            "n_iter": n_iter,
            "tolerance": tolerance,
            "max_points_per_centroid": max_points_per_centroid,
            "balance": balance,
            "max_load": max_load,
            "seed": seed,
            "device": device,
            "memory_mb": memory_mb,
        },
    )

    # Fit; the seed belongs to the run and not to the section.
    seed = settings["seed"]
    chosen = Rqkmeans(**{key: value for key, value in settings.items() if key != "seed"})
    fitted = rqkmeans.fit(_array(vectors), chosen, seed=seed)
    return Quantizer(
        "rqkmeans", fitted.codebooks, settings, {}, prices=fitted.prices, balance=fitted.balance
    )


def encode(
    quantizer: Quantizer,
    vectors: np.ndarray | torch.Tensor | Streamed,
    *,
    categories: Sequence[str | None] | pa.ChunkedArray | None = None,
    device: str = DEVICE,
    memory_mb: int = MEMORY_MB,
) -> np.ndarray:
    """Encode vectors from Python, without the pipeline: float (N, D) to int32 (N, L).

    See :func:`sidmill.numeric.residual_codec.encode`.

    Args:
        quantizer: trained on these embeddings.
        vectors: floats (N, D).
        categories: the category of each item, None for an item that has none; needed where the
            first level of the quantizer is the category, else not read.
        device: auto (every GPU, or the CPU), cpu, cuda:1, or several with commas between them.
        memory_mb: MiB for blocks.

    Raises:
        SidmillError: if the vectors do not fit the quantizer, or it needs categories.
    """
    machine = _machine("encode", device, memory_mb)
    names = pa.array(categories, pa.string()) if isinstance(categories, Sequence) else categories
    blocks = category_codes.encode(quantizer, _array(vectors), names, **machine)
    none = np.empty((0, len(quantizer.codebooks)), dtype=np.int32)
    return np.concatenate([none, *blocks])


def encode_file(
    quantizer: Quantizer,
    vectors_path: str | Path,
    codes_path: str | Path,
    *,
    column: str = "embedding",
    id_column: str = "pid",
    ids_path: str | Path | None = None,
    categories_path: str | Path | None = None,
    device: str = DEVICE,
    memory_mb: int = MEMORY_MB,
) -> int:
    """Encode a file of vectors to a parquet of ``pid`` and ``codes``, in constant memory.

    Args:
        quantizer: trained on these embeddings.
        vectors_path: a .npy, an item_data.h5, or parquet: a file, a folder or a glob.
        codes_path: the parquet to write, atomically.
        column: the list column of a parquet.
        id_column: the column of ids of a parquet; without one the rows are numbered.
        ids_path: ids of a .npy, in the same order: .parquet, .npy or .txt.
        categories_path: a parquet of ``pid`` and ``category`` with all of these items; needed where
            the first level of the quantizer is the category.
        device: see :func:`sidmill.numeric.residual_codec.encode`.
        memory_mb: MiB for blocks.

    Returns:
        How many items it holds.

    Raises:
        SidmillError: if the vectors do not fit the quantizer, a file is not what it should be, or
            ``codes_path`` would replace a file that is read.
    """
    machine = _machine("encode_file", device, memory_mb)
    paths.refuse_overwrite(codes_path, [vectors_path, ids_path, categories_path])
    items = open_vectors(vectors_path, column, id_column=id_column, ids_path=ids_path)
    if items.fingerprint and quantizer.fingerprint:
        quantizer_file.check_fingerprint(quantizer, items.fingerprint, vectors_path)
    names = category_file.of_ids(categories_path or "", items.ids)
    blocks = category_codes.encode(quantizer, items.vectors, names, **machine)
    code_files.write(codes_path, "codes", items.ids, blocks, quantizer.codebook_sizes)
    return len(items.ids)


def resolve(
    quantizer: Quantizer,
    vectors: np.ndarray | torch.Tensor,
    codes: np.ndarray | torch.Tensor,
    *,
    strategy: str = "reassign",
    suffix_size: int = 256,
    device: str = DEVICE,
    memory_mb: int = MEMORY_MB,
) -> np.ndarray:
    """Make SIDs from codes: int32 (N, L) to int32 (N, L), or (N, L + 1) with ``suffix``.

    See :func:`sidmill.sids.resolve.resolve`. With every strategy but ``none`` no two items share a
    SID. The same input gives the same SIDs.

    Args:
        quantizer: that gave the codes.
        vectors: floats (N, D), of these items; a memory map stays on disk.
        codes: integers (N, L), of :func:`encode`.
        strategy: reassign (move the fewest items to free codes), sinkhorn, suffix or none.
        suffix_size: suffix: largest number of items with the same codes.
        device: auto, cpu, or cuda:1; where the quantizer has an encoder.
        memory_mb: MiB for blocks.

    Raises:
        SidmillError: if the codes are not of these vectors, an argument is not as the configuration
            has to have it, or there are more items than SIDs.
    """
    # Check the arguments as the configuration is checked.
    chosen = _checked(
        "resolve", _properties(Collisions), {"strategy": strategy, "suffix_size": suffix_size}
    )
    machine = _machine("resolve", device, memory_mb)
    items = _array(vectors)
    if isinstance(items, Streamed):
        raise SidmillError(
            "vectors are read as a stream, and rows are wanted in any order: save them as .npy and "
            'give numpy.load(path, mmap_mode="r")'
        )
    codes = _numbers(codes)
    shape = (len(items), len(quantizer.codebooks))
    if codes.shape != shape or codes.dtype.kind not in "iu":
        raise SidmillError(
            f"codes are {codes.dtype} {codes.shape}, wanted integers {shape}: take those that "
            "sidmill.api.encode() gives for these vectors"
        )
    if quantizer.codebooks:
        residual_codec.require_dim(items.shape, quantizer.codebooks, quantizer.encoder)
    for level, size in enumerate(quantizer.codebook_sizes):
        if len(codes) and not 0 <= codes[:, level].min() <= codes[:, level].max() < size:
            raise SidmillError(
                f"codes of level {level + 1} lie between {codes[:, level].min()} and "
                f"{codes[:, level].max()}, wanted 0 to {size - 1}: take those of this quantizer"
            )

    if not len(codes):
        return np.empty((0, shape[1] + (strategy == "suffix")), dtype=np.int32)

    # Distances are measured among latents, where the quantizer has an encoder.
    numbers, books = codes.astype(np.int32), quantizer.codebooks
    with (
        tempfile.TemporaryDirectory() as folder,
        latents.projected(items, quantizer, numbers, folder, **machine) as rows,
    ):
        settings = Collisions(**chosen)
        found = resolution.resolve(numbers, quantizer.codebook_sizes, rows, books, None, settings)
    return found.sids


def decode(quantizer: Quantizer, codes: np.ndarray | torch.Tensor) -> np.ndarray:
    """Add up codewords and decode: codes int (N, M), M <= L, to vectors float32 (N, D)."""
    numbers = _numbers(codes)
    total = residual_codec.decode(numbers, quantizer.codebooks)
    return np.asarray(mlp.load(quantizer.decoder, "cpu")(total))


def load(path: str | Path) -> Quantizer:
    """Load quantizer.safetensors, or a checkpoint of OneRec, LC-Rec or MiniOneRec.

    Raises:
        SidmillError: if the file is neither, or damaged.
    """
    if tensors.has_facts(path):
        return quantizer_file.read(path)
    return foreign_tokenizers.read(path)


def save(path: str | Path, quantizer: Quantizer) -> None:
    """Save as quantizer.safetensors; under a name that ends in .pt as a OneRec checkpoint.

    Raises:
        SidmillError: if a quantizer with an encoder or with categories shall become a OneRec
            checkpoint.
    """
    if Path(path).suffix == ".pt" and quantizer.encoder:
        raise SidmillError(
            f"{path}: a OneRec checkpoint holds codebooks alone, and this {quantizer.kind} has an "
            "encoder: save it as .safetensors"
        )
    if Path(path).suffix == ".pt" and quantizer.categories:
        raise SidmillError(
            f"{path}: a OneRec checkpoint holds codebooks alone, and the first level of this "
            f"{quantizer.kind} is a category: save it as .safetensors"
        )
    if Path(path).suffix == ".pt":
        onerec_checkpoint.write(path, quantizer.codebooks)
    else:
        quantizer_file.write(path, quantizer)


def _checked(
    function: str, properties: dict[str, Any], arguments: dict[str, Any]
) -> dict[str, Any]:
    """Arguments as Python's own numbers and lists, if the configuration may have them too."""
    plain = {name: _plain(value) for name, value in arguments.items()}
    check.check_arguments(f"sidmill.api.{function}", plain, properties)
    return plain


def _machine(function: str, device: str, memory_mb: int) -> dict[str, Any]:
    """Settings of the machine, checked."""
    arguments = {"device": device, "memory_mb": memory_mb}
    return _checked(function, _properties(Encoding), arguments)


def _properties(section: type) -> dict[str, Any]:
    """JSON Schema of each setting of a section."""
    result: dict[str, Any] = base.schema(section)["properties"]
    return result


def _plain(value: object) -> object:
    """Numbers of NumPy and sequences as Python's own."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    return value


def _numbers(codes: np.ndarray | torch.Tensor) -> np.ndarray:
    """Codes as an array, on the CPU."""
    return codes.detach().cpu().numpy() if isinstance(codes, torch.Tensor) else np.asarray(codes)


def _array(vectors: np.ndarray | torch.Tensor | Streamed) -> np.ndarray | Streamed:
    """Float32 or float16 (N, D), the caller's own where it is that already.

    Raises:
        SidmillError: if it is no dense array or tensor of floats with two axes, or a value is
            beyond float32.
    """
    if isinstance(vectors, Streamed):
        return vectors

    # Take a dense array or tensor.
    if isinstance(vectors, torch.Tensor) and vectors.layout == torch.strided:
        array = _of_tensor(vectors)
    elif isinstance(vectors, np.ndarray) and not isinstance(vectors, np.ma.MaskedArray):
        array = vectors
    else:
        kind = f"{type(vectors).__module__}.{type(vectors).__qualname__}"
        raise SidmillError(
            f"vectors are a {kind}, wanted a dense array of NumPy or tensor of torch, or what "
            "sidmill.api.open_vectors() opens: convert them"
        )
    if array.dtype.kind != "f" or array.ndim != 2 or not array.shape[1]:
        raise SidmillError(
            f"vectors are {array.dtype} {array.shape}, wanted floats (N, D): convert them"
        )

    # Keep float32 and float16; convert the rest.
    if array.dtype in (np.float32, np.float16):
        return array
    try:
        with np.errstate(over="raise"):
            return array.astype(np.float32)
    except FloatingPointError:
        raise SidmillError(
            f"vectors are {array.dtype} with values that float32 does not hold: divide all of them "
            "by one number"
        ) from None


def _of_tensor(vectors: torch.Tensor) -> np.ndarray:
    """A tensor as an array; of a type that NumPy lacks, as float32."""
    vectors = vectors.detach().cpu()
    lacking = vectors.is_floating_point() and vectors.dtype not in NUMPY_FLOATS
    return (vectors.float() if lacking else vectors).resolve_conj().resolve_neg().numpy()
