"""What a configuration chooses by name: quantizers, embedding backends, collision strategies.

Each entry names the section that holds its settings and the function that does the work, as
``module:function``. Only names are stored here, so that the workflow can read the registry without
importing a stage. ``tests/unit/test_quantizer_contract.py`` runs over every quantizer.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple


class Quantizer(NamedTuple):
    """One way to get codes.

    Attributes:
        section: key of its settings in config.yaml; its type is the one of that section.
        function: fits or reads it, as ``module:function``.
        rule: the rule of the workflow that makes it.
        is_trained: whether it is fitted to the vectors of the run; otherwise a file holds it.
        is_network: whether it is an encoder with codebooks.
        is_compared: whether a comparison may take it.
        resumes: whether an interrupted training continues, and ends in the same bytes.
        needs_row_per_code: whether fewer rows than codewords are refused.
        needs_distinct_rows: whether rows that are all equal are refused.
    """

    section: str
    function: str
    rule: str
    is_trained: bool = True
    is_network: bool = False
    is_compared: bool = True
    resumes: bool = False
    needs_row_per_code: bool = False
    needs_distinct_rows: bool = False


def _network(section: str, *, needs_row_per_code: bool = True) -> Quantizer:
    """Return an entry of a network, which ``train_rqvae`` trains."""
    return Quantizer(
        section,
        "sidmill.quantize.rqvae.fit:fit",
        "train_rqvae",
        is_network=True,
        resumes=True,
        needs_row_per_code=needs_row_per_code,
        needs_distinct_rows=True,
    )


_RQKMEANS = Quantizer(
    "rqkmeans",
    "sidmill.quantize.rqkmeans:fit",
    "train_rqkmeans",
    resumes=True,
    needs_row_per_code=True,
)

QUANTIZERS = {
    "rqkmeans": _RQKMEANS,
    "rqkmeans_balanced": _RQKMEANS,
    "rqkmeans_plus": _network("rqvae", needs_row_per_code=False),
    "rqvae": _network("rqvae"),
    "fsq": _network("fsq", needs_row_per_code=False),
    "opq": Quantizer("opq", "sidmill.quantize.opq:fit", "train_opq", needs_row_per_code=True),
    "pca_grid": Quantizer("pca_grid", "sidmill.quantize.pca_grid:fit", "train_pca_grid"),
    "pretrained": Quantizer(
        "pretrained",
        "sidmill.quantize.pretrained:load",
        "import_pretrained",
        is_trained=False,
        is_compared=False,
    ),
    "given": Quantizer("given", "sidmill.sids.given:load", "import_given", is_trained=False),
}
TRAINED = [name for name, entry in QUANTIZERS.items() if entry.is_trained]
NETWORKS = [name for name, entry in QUANTIZERS.items() if entry.is_network]
COMPARED = [name for name, entry in QUANTIZERS.items() if entry.is_compared]

BACKENDS = {
    name: f"sidmill.embed.backends.{name}"
    for name in ("lsa", "sentence_transformers", "openai", "precomputed")
}

STRATEGIES = ["reassign", "sinkhorn", "suffix", "none"]


def load_function(name: str) -> Callable[..., Any]:
    """Import the function that an entry names as ``module:function``."""
    module, _, function = name.partition(":")
    loaded: Callable[..., Any] = getattr(import_module(module), function)
    return loaded
