"""Content hash of a workflow script and of everything it imports from this package.

Snakemake reruns a ``script:`` rule when the script's own mtime moves: it does not see the modules
the script imports, and it does see a checkout. Rules therefore carry ``params: code=code_of(...)``,
which changes exactly when the code that makes the output changes.
"""

import ast
import hashlib
from functools import cache
from pathlib import Path
from typing import NamedTuple

PACKAGE = __name__.partition(".")[0]
ROOT = Path(__file__).parents[__name__.count(".")]  # the folder that the package lies in


class Source(NamedTuple):
    """One parsed file: a hash of its syntax tree, and the package modules it imports."""

    digest: str
    imports: tuple[str, ...]


def source_digest(script: str | Path) -> str:
    """Return 12 hex digits naming the code of ``script`` and of its imports from this package.

    Sources are parsed, never imported, so a rule file can call this without loading torch.
    Comments, layout and docstrings do not count. Imports are followed in every module, through
    absolute names only (relative ones are banned by the linter). Versions of other packages do
    not count: the lock file and the environments pin those.

    Args:
        script: path of a Python file.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    sources = {"": _parse(Path(script))}
    waiting = list(sources[""].imports)
    while waiting:
        name = waiting.pop()
        if name not in sources:
            sources[name] = _parse(_file_of(name))
            waiting += sources[name].imports
    text = "\n".join(f"{name} {sources[name].digest}" for name in sorted(sources))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@cache
def _parse(path: Path) -> Source:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports = _imports(tree)
    _strip_docstrings(tree)
    return Source(hashlib.sha256(ast.dump(tree).encode()).hexdigest(), imports)


def _strip_docstrings(tree: ast.Module) -> None:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node, clean=False
        ):
            del node.body[0]


def _imports(tree: ast.Module) -> tuple[str, ...]:
    """Modules of this package that ``tree`` imports, ``from a import b`` included as ``a.b``."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(name for name in names if name.partition(".")[0] == PACKAGE and _file_of(name))


@cache
def _file_of(name: str) -> Path | None:
    """The file of a module, looked for and not imported; None if there is no such module."""
    place = ROOT.joinpath(*name.split("."))
    candidates = (place.with_suffix(".py"), place / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)
