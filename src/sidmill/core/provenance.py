"""Names the code behind a result: of a workflow script and of what it imports from this package.

Snakemake reruns a ``script:`` rule when the script's own mtime moves: it does not see the modules
the script imports, and it does see a checkout. Rules therefore carry ``params: code=code_of(...)``,
which changes exactly when code that makes the output changes.

What is named is the syntax tree of each module, with what computes nothing taken out:

- comments, layout, docstrings, type comments;
- statements that only log (``logger.info(...)``), but for the functions they call;
- the meaning of a setting, which is its comment in config.yaml;
- the words of a message under ``raise``: literals and f-strings. The names beside them stay, and so
  does a message that is put together before;
- the names of a function's local variables, where no other scope can see them (:func:`_locals`);
- the modules of ``PLUMBING``, and those of ``CHOICES`` that belong to what a run did not choose.

All else counts: operators, constants, the order of calls, names of functions, of arguments and of
attributes, decorators, type hints. Versions of other packages do not: the lock file pins those.

The text of a tree does not depend on the version of Python: fields that are empty are not written,
since later versions add some (``type_params``), and literal pieces of an f-string that follow each
other are one.
"""

import ast
import builtins
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeGuard

PACKAGE = __name__.partition(".")[0]
ROOT = Path(__file__).parents[__name__.count(".")]  # the folder that the package lies in

# Modules that say how a job runs and what it tells, never what it writes into a result.
PLUMBING = (
    "sidmill.core.errors",
    "sidmill.core.job",
    "sidmill.core.no_pandas",
    "sidmill.core.listing",
    "sidmill.core.locks",
    "sidmill.core.logs",
    "sidmill.core.rendezvous",
    "sidmill.core.processes",
    "sidmill.core.secrets",
    "sidmill.core.terminal",
    "sidmill.core.threads",
    "sidmill.embed.progress",
    "sidmill.io.remedy",
)

LOGGERS = ("log", "logger")
# What makes a setting or a section: see sidmill.settings.base. Words after the first argument are
# the comment of config.yaml.
SETTING_MAKERS = ("machine", "nested", "science", "section")
LEVELS = ("debug", "info", "warning", "error", "exception", "critical")
# Calls of these change nothing, so a log line or a condition that holds no other computes nothing.
PURE = ("abs", "bool", "float", "int", "isinstance", "len", "repr", "round", "str", "type")
NO_MEANING = ("ctx", "kind", "type_comment", "type_ignores")  # fields; ctx follows from the place
FIELDS = {  # those that have one, of each kind of node
    kind: tuple(field for field in kind._fields if field not in NO_MEANING)
    for kind in vars(ast).values()
    if isinstance(kind, type) and issubclass(kind, ast.AST)
}
OF_SITE = ("_", "copyright", "credits", "exit", "help", "license", "quit")  # builtins at times
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
IMPORTS = (ast.Import, ast.ImportFrom)
NAMED = (*FUNCTIONS, ast.ClassDef)
CAPTURES = (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)
SCOPES = (ast.Global, ast.Nonlocal)
LEAVES = frozenset((ast.Name, ast.Constant))  # half of a tree
# Nodes that bind or declare names otherwise than by assignment: most are none of these.
NAMING = frozenset((*IMPORTS, *NAMED, *CAPTURES, *SCOPES, ast.arg, ast.MatchMapping))
SCOPE_READERS = ("dir", "eval", "exec", "globals", "locals", "vars")  # see names of variables


class Choice(NamedTuple):
    """A setting that decides which modules a rule uses.

    Attributes:
        rules: the rules that have it.
        modules: value to the modules that are used with it alone. A value that is not named here
            uses none of them.
    """

    rules: tuple[str, ...]
    modules: dict[str, tuple[str, ...]]


# A module stands here if a job with another value never calls it; tests hold that.
CHOICES = {
    "backend": Choice(
        ("embed_shard", "measure_dimensions"),
        {
            "lsa": ("sidmill.embed.backends.lsa", "sidmill.embed.backends.tfidf"),
            "sentence_transformers": ("sidmill.embed.backends.sentence_transformers",),
            "openai": ("sidmill.embed.backends.openai",),
            "precomputed": ("sidmill.embed.backends.precomputed",),
        },
    ),
    "balance": Choice(
        ("train_rqkmeans",),
        dict.fromkeys(("sinkhorn", "capacity"), ("sidmill.quantize.load_balance",)),
    ),
    "generator": Choice(
        (
            "train_generative",
            "evaluate_generative",
            "recommend_generative",
            "measure_recommender",
        ),
        {"tiger": ("sidmill.recommend.generative.tiger",)},
    ),
    "learned": Choice(("train_rqvae",), {"fsq": ("sidmill.quantize.rqvae.fsq",)}),
    "source": Choice(
        ("import_dataset", "import_collection"),
        {
            name: (f"sidmill.imports.sources.{name.replace('-', '_')}",)
            for name in (
                *("amazon-2018", "amazon-2023", "beir", "goodreads", "kuairec", "lc-rec", "mind"),
                *("movielens", "msmarco", "onerec", "recbole", "steam", "yelp"),
            )
        },
    ),
    "strategy": Choice(
        ("resolve_collisions", "resolve_quantizer"), {"sinkhorn": ("sidmill.sids.sinkhorn",)}
    ),
}


class Source(NamedTuple):
    """One parsed file: a hash of what it computes, and the package modules it imports."""

    digest: str
    imports: tuple[str, ...]


# By the SHA-256 of a file's bytes: the digest of what it computes, and the names in this package
# that it imports. sidmill.core.digest_cache keeps it between runs.
Known: TypeAlias = dict[str, tuple[str, tuple[str, ...]]]
known: Known = {}


def source_digest(script: str | Path, chosen: Mapping[str, str] | None = None) -> str:
    """Return 12 hex digits naming the code of ``script`` and of its imports from this package.

    Sources are parsed, never imported, so a rule file can call this without loading torch. Imports
    are followed in every module, through absolute names only (relative ones are banned by the
    linter).

    Args:
        script: path of a Python file, named as its rule.
        chosen: the value of each of the ``CHOICES`` that the rule has.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if ``chosen`` does not name the choices of the rule.
    """
    result = sources(script, chosen)
    text = "\n".join(f"{name} {result[name].digest}" for name in sorted(result))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def sources(script: str | Path, chosen: Mapping[str, str] | None = None) -> dict[str, Source]:
    """What :func:`source_digest` names: the script, as ``""``, and each module by its name."""
    chosen = dict(chosen or {})
    expected = choices_of(script)
    if set(chosen) != set(expected):
        raise ValueError(f"{script}: wanted a value of {sorted(expected)}, found {sorted(chosen)}")
    left_out = {*PLUMBING}
    used: list[str] = []  # a registry may name them: no import need be seen
    for name, choice in expected.items():
        used += choice.modules.get(chosen[name], ())
        left_out |= {module for each in choice.modules.values() for module in each} - {*used}

    result = {"": _parse(Path(script))}
    waiting = [*result[""].imports, *used]
    while waiting:
        name = waiting.pop()
        if name not in result and name not in left_out:
            result[name] = _parse(_file_of(name))
            waiting += result[name].imports
    return result


def choices_of(script: str | Path) -> dict[str, Choice]:
    """The choices that a rule has, by name."""
    rule = Path(script).stem
    return {name: choice for name, choice in CHOICES.items() if rule in choice.rules}


@cache
def _parse(path: Path) -> Source:
    content = path.read_bytes()
    key = hashlib.sha256(content).hexdigest()
    if key in known:
        known[key] = known.pop(key)  # the one that was used last stands last
    else:
        tree = ast.parse(content.decode("utf-8"))
        nodes = _walk(tree)
        out: list[str] = []
        _write(tree, _bound_outside(tree, nodes), {}, out)
        known[key] = (hashlib.sha256("".join(out).encode()).hexdigest(), _imports(nodes))
    digest, names = known[key]
    return Source(digest, tuple(name for name in names if _file_of(name)))


def _write(
    node: object, reserved: set[str], renamed: dict[str, str], out: list[str], raised: bool = False
) -> None:
    """Write what a tree computes, in a form that differs where the meaning may differ.

    Args:
        node: a node, a list of nodes, or a plain value.
        reserved: names that no local variable gives up: see :func:`_bound_outside`.
        renamed: local variables of the function around the node, and how they are written.
        out: the text so far, in pieces.
        raised: whether the node is part of what a ``raise`` raises: its wording is left out.
    """
    # Names are a third of a tree.
    if isinstance(node, ast.Name):
        out.append(f"Name(id={renamed.get(node.id, node.id)!a})")
        return
    if isinstance(node, list):
        out.append("[")
        for entry in _statements(node):
            _write(entry, reserved, renamed, out, raised)
            out.append(",")
        out.append("]")
        return
    if raised and _is_wording(node):
        out.append("''")
        return
    if not isinstance(node, ast.AST):
        out.append(ascii(node))  # repr asks the Unicode tables, which grow with the version
        return
    if not renamed and isinstance(node, FUNCTIONS):
        renamed = _locals(node, reserved)

    # Fields that are told in another way than they stand in the tree.
    kind, is_raised = type(node), raised
    out.append(f"{kind.__name__}(")
    for field in FIELDS[kind]:
        value = getattr(node, field, None)
        if value is None or value == []:
            continue
        if kind is ast.JoinedStr:
            value = _joined(value)
        elif field == "args" and isinstance(node, ast.Call) and _makes_setting(node):
            value = [*value[:1], *(entry for entry in value[1:] if not _is_wording(entry))]
        elif kind is ast.Raise:
            is_raised = raised or field == "exc"

        out.append(f"{field}=")
        if type(value) is str:
            out.append(ascii(value))
        else:
            _write(value, reserved, renamed, out, is_raised)
    out.append(")")


def _makes_setting(call: ast.Call) -> bool:
    """Whether a call is such as ``science(3, "tokens per SID")``."""
    return isinstance(call.func, ast.Name) and call.func.id in SETTING_MAKERS


def _statements(nodes: list[Any]) -> Iterator[object]:
    """The entries of a list without docstrings, log lines, and conditions of log lines alone."""
    for node in nodes:
        if isinstance(node, ast.Expr):
            if _logs(node.value):
                yield from _effects(node.value)
            elif not _is_text(node.value):
                yield node
        elif not (isinstance(node, ast.If) and _is_quiet(node)):
            yield node


def _is_text(node: object) -> TypeGuard[ast.Constant]:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _logs(node: ast.AST) -> TypeGuard[ast.Call]:
    """Whether an expression is a call such as ``logger.info(...)``."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in LEVELS
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in LOGGERS
    )


def _effects(call: ast.Call) -> Iterator[ast.AST]:
    """What the arguments of a log line may do besides: calls of functions, ``:=``, ``yield``."""
    waiting: list[ast.AST] = [*call.args, *(keyword.value for keyword in call.keywords)]
    while waiting:
        node = waiting.pop(0)
        if _may_act(node):
            yield node
        else:
            waiting = [*ast.iter_child_nodes(node), *waiting]


def _may_act(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return not (isinstance(node.func, ast.Name) and node.func.id in PURE)
    return isinstance(node, ast.NamedExpr | ast.Yield | ast.YieldFrom | ast.Await)


def _is_quiet(node: ast.If) -> bool:
    """Whether an ``if`` asks without acting, and then only logs."""
    return not any(map(_may_act, ast.walk(node.test))) and not (
        [*_statements(node.body), *_statements(node.orelse)]
    )


def _is_wording(node: object) -> bool:
    """Whether a part of a message is literal text, an f-string, or several of them added up."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _is_wording(node.left) and _is_wording(node.right)
    return isinstance(node, ast.JoinedStr) or _is_text(node)


def _joined(pieces: Sequence[ast.AST]) -> list[ast.AST]:
    """The pieces of an f-string, literal ones that follow each other as one."""
    result: list[ast.AST] = []
    for piece in pieces:
        last = result[-1] if result else None
        if _is_text(piece) and _is_text(last):
            result[-1] = ast.Constant(str(last.value) + str(piece.value))
        elif not _is_text(piece) or piece.value:
            result.append(piece)
    return result


def _walk(tree: ast.AST) -> list[ast.AST]:
    """All nodes of a tree in the order of ``ast.walk``, which takes three times as long.

    Left out is the context of a name, which only says again whether it is assigned.
    """
    found = [tree]
    for node in found:  # which grows: breadth first
        if type(node) in LEAVES:
            continue
        for value in vars(node).values():
            if type(value) is list:
                found += [entry for entry in value if isinstance(entry, ast.AST)]
            elif isinstance(value, ast.AST):
                found.append(value)
    return found


def _bound_outside(tree: ast.Module, nodes: list[ast.AST]) -> set[str]:
    """Names that a function may mean though it does not assign them: of the module, of Python."""
    result = {*dir(builtins), *OF_SITE}
    waiting: list[ast.AST] = [*tree.body]
    while waiting:
        node = waiting.pop()
        result |= _names_of(node)
        if isinstance(node, ast.Name):
            result.add(node.id)
        if not isinstance(node, FUNCTIONS):
            waiting += ast.iter_child_nodes(node)
    for node in nodes:
        if isinstance(node, ast.Global):
            result |= {*node.names}
    return result


def _locals(function: ast.AST, reserved: set[str]) -> dict[str, str]:
    """How the local variables of a function, and of functions in it, are written: by number.

    Renaming is one to one over the whole function, so two functions are written alike only if
    their variables are used in the same places. A name is left as it is if it could mean anything
    but a variable that is assigned in here: a name of the module or of Python, an argument, a
    name that an import, an ``except``, a class, a function or a pattern binds, one of a class body.
    Nothing is renamed where ``locals()`` and the like could see names.

    Args:
        function: one that stands in a module or a class.
        reserved: names that have a meaning outside.
    """
    assigned: dict[str, None] = {}  # in the order of their first use
    kept = {*reserved}
    if "*" in reserved:  # from a import *
        return {}
    for node in _walk(function):
        if type(node) in NAMING:
            kept |= _names_of(node)
        if isinstance(node, ast.ClassDef):
            kept |= {inner.id for inner in _walk(node) if isinstance(inner, ast.Name)}
        if isinstance(node, ast.Name):
            if node.id in SCOPE_READERS:
                return {}
            if not isinstance(node.ctx, ast.Load):
                assigned.setdefault(node.id)
    names = [name for name in assigned if name not in kept]
    return {name: f"%{number}" for number, name in enumerate(names)}


def _names_of(node: ast.AST) -> set[str]:
    """Names that a node binds or declares otherwise than by assignment."""
    if type(node) not in NAMING:
        return set()
    if isinstance(node, IMPORTS):
        return {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    if isinstance(node, NAMED):
        return {node.name}
    if isinstance(node, ast.arg):
        return {node.arg}
    if isinstance(node, CAPTURES):
        return {node.name} if node.name else set()
    if isinstance(node, ast.MatchMapping):
        return {node.rest} if node.rest else set()
    if isinstance(node, SCOPES):
        return {*node.names}
    return set()


def _imports(nodes: list[ast.AST]) -> tuple[str, ...]:
    """Names in this package that a tree imports, ``from a import b`` included as ``a.b``."""
    names = []
    for node in nodes:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(name for name in names if name.partition(".")[0] == PACKAGE)


@cache
def _file_of(name: str) -> Path | None:
    """The file of a module, looked for and not imported; None if there is no such module."""
    base = ROOT.joinpath(*name.split("."))
    candidates = (base.with_suffix(".py"), base / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)
