"""Nothing that a user's file or a model brings is ever run: the source has no way to do it."""

import ast
import re

import pytest
from conftest import ROOT

SOURCES = sorted(
    path for folder in ("src", "workflow") for path in (ROOT / folder).rglob("*.py")
)  # fmt: skip
BANNED_IMPORTS = {"cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "jsonpickle"}
BANNED_CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "read_pickle"}
# A call, and the keyword that makes it safe with the one value it may have.
SAFE = {
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
}


def faults(source):
    """Name what could run code of a file, one line each."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None)
            for name in [module] if module else [alias.name for alias in node.names]:
                if name.split(".")[0] in BANNED_IMPORTS:
                    yield f"line {node.lineno}: import {name}"
        if isinstance(node, ast.Attribute) and re.match(
            r"pickle\.(?!Unpick|[A-Z0-9_]+$)", ast.unparse(node)
        ):
            yield f"line {node.lineno}: {ast.unparse(node)}"
        if isinstance(node, ast.ImportFrom) and node.module == "pickle":
            yield f"line {node.lineno}: from pickle import"
        if isinstance(node, ast.Call):
            yield from unsafe(node)


def unsafe(call):
    name = ast.unparse(call.func)
    options = {word.arg: word.value for word in call.keywords}
    values = {key: getattr(value, "value", "?") for key, value in options.items()}
    last = name.rpartition(".")[2]
    if name in BANNED_CALLS or last == "read_pickle":
        yield f"line {call.lineno}: {name}()"
    if name in SAFE:
        word, wanted = SAFE[name]
        if values.get(word) is not wanted:
            yield f"line {call.lineno}: {name} without {word}={wanted}"
    if re.fullmatch(r"yaml\.(unsafe_|full_)?load(_all)?", name):
        yield f"line {call.lineno}: {name}, wanted yaml.safe_load"
    if values.get("shell", False) is not False:
        yield f"line {call.lineno}: {name} with shell"
    if values.get("trust_remote_code", False) is not False:
        yield f"line {call.lineno}: {name} with trust_remote_code"
    if values.get("allow_pickle", False) is not False:
        yield f"line {call.lineno}: {name} with allow_pickle"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_no_source_can_run_what_a_file_holds(path):
    assert list(faults(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "line",
    [
        "import joblib", "from dill import loads", "import pickle\npickle.loads(b'')",
        "from pickle import loads", "eval('1')", "exec('1')", "os.system('x')",
        "torch.load(path)", "torch.load(path, weights_only=False)", "np.load(path)",
        "np.load(path, allow_pickle=True)", "np.load(path, allow_pickle=flag)", "yaml.load(text)",
        "yaml.unsafe_load(text)", "yaml.load(text, Loader=yaml.SafeLoader)",
        "subprocess.run('ls', shell=True)", "AutoModel.from_pretrained(x, trust_remote_code=True)",
        "AutoModel.from_pretrained(x, trust_remote_code=setting)", "pd.read_pickle(path)",
    ],
)  # fmt: skip
def test_the_search_finds_each_of_them(line):
    assert list(faults(line))
