"""The workflow keeps its shape: names, thin adapters, settings through their types, one lock."""

import ast
import inspect
import re

import pytest
import yaml
from conftest import ROOT

from sidmill import api
from sidmill.settings import base
from sidmill.settings.config import SECTIONS

RULE_FILES = sorted((ROOT / "workflow/rules").glob("*.smk"))
SCRIPTS = sorted((ROOT / "workflow/scripts").glob("*.py"))
RULES = {
    match[1]: match[2]
    for file in RULE_FILES
    for match in re.finditer(r"(?ms)^rule (\w+):\n(.*?)(?=^rule |^use rule |\Z)", file.read_text())
}
ORDER = [
    *("input", "output", "log", "benchmark", "conda", "threads", "resources"),
    *("params", "message", "script"),
]
CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())
LONG = 20  # lines of a body that has to read in paragraphs
MOST_PARAMETERS = 8
# Interfaces that users call.
PROMISED = {("api", "fit"), ("api", "encode_file"), ("loaders", "create_h5_dataloader")}
SOURCES = sorted((ROOT / "src/sidmill").rglob("*.py"))


def functions(path):
    """The functions of a module, methods among them."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_every_rule_has_a_script_of_its_name_and_every_script_a_rule():
    assert set(RULES) == {script.stem for script in SCRIPTS}


@pytest.mark.parametrize("name", RULES)
def test_a_rule_says_the_same_name_everywhere_in_one_order(name):
    body = RULES[name]
    assert f'"../scripts/{name}.py"' in body
    assert f'code=code_of("{name}.py"' in body
    assert re.search(rf'"results/logs/{name}[.{{\w}}-]*\.log"', body)
    assert re.search(rf'"results/benchmarks/{name}[.{{\w}}-]*\.tsv"', body)
    directives = re.findall(r"(?m)^    (\w+):", body)
    assert directives == [directive for directive in ORDER if directive in directives]


@pytest.mark.parametrize("file", RULE_FILES, ids=lambda path: path.stem)
def test_a_rule_file_opens_with_what_it_reads_and_leaves(file):
    text = file.read_text()
    assert "lambda" not in text
    if file.stem.startswith("common"):
        assert not re.search(r"(?m)^rule ", text)
    else:
        opening = ast.get_docstring(ast.parse(re.split(r"\n\n\n(?:use )?rule ", text)[0]))
        assert "READS " in opening
        assert "LEAVES " in opening


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_an_adapter(script):
    banned = (
        ast.FunctionDef,
        ast.ClassDef,
        ast.For,
        ast.While,
        ast.Try,
        ast.Lambda,
        ast.comprehension,
    )
    for node in ast.walk(ast.parse(script.read_text())):
        assert not isinstance(node, banned)
        if isinstance(node, ast.If):
            assert ast.unparse(node.test) == "TYPE_CHECKING"


def test_the_snakefile_is_a_table_of_contents():
    lines = (ROOT / "Snakefile").read_text().splitlines()
    assert len(lines) < 60
    assert not [line for line in lines if line.startswith("def ")]


def test_a_param_of_a_section_has_its_name_and_holds_science_alone():
    """``name=settings("section", "left_out", ...)`` or ``pick("section", "key", ...)``."""
    named = set()
    for name, body in RULES.items():
        for param, function, section, keys in re.findall(
            r'(?s)(\w+)=(settings|pick)\(\s*"(\w+)"((?:,\s*"\w+")*),?\s*\)', body
        ):
            # Snakemake keeps the name ``items`` of params for itself.
            assert param == ("catalogue" if section == "items" else section), (name, param)
            science = set(base.science_keys(SECTIONS[section]))
            keys = set(re.findall(r"\w+", keys))
            assert keys <= science, (name, keys - science)
            named |= {
                (section, key) for key in (science - keys if function == "settings" else keys)
            }
    assert len(named) > 150


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_reads_settings_through_their_types(script):
    assert "snakemake.config" not in script.read_text()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_a_function_takes_few_parameters_and_reads_in_paragraphs(path):
    lines = path.read_text().splitlines()
    for node in functions(path):
        if any("click.command" in ast.unparse(call) for call in node.decorator_list):
            continue  # one parameter for each option
        if (path.stem, node.name) in PROMISED:
            continue
        every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        given = [argument.arg for argument in every if argument.arg not in ("self", "cls")]
        assert len(given) <= MOST_PARAMETERS, node.name

        body = node.body[1:] if ast.get_docstring(node) else node.body
        text = lines[body[0].lineno - 1 : body[-1].end_lineno] if body else []
        steps = [line for line in text if not line.strip() or line.strip().startswith("#")]
        assert len(text) < LONG or steps, node.name


def test_the_python_interface_has_the_defaults_of_the_config():
    parameters = inspect.signature(api.fit).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
    settings = {**CONFIG["run"], **CONFIG["rqkmeans"]}
    assert defaults == {name: settings[name] for name in defaults}
    assert {"n_iter", "tolerance", "seed"} <= set(defaults)


def locked():
    names = ("requirements.lock", "requirements-slurm.lock", "requirements-dev.lock")
    lines = "\n".join((ROOT / name).read_text() for name in names).split()
    return dict(line.lower().replace("_", "-").split("==") for line in lines)


def test_the_lock_pins_everything_that_the_project_asks_for():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["slurm"], *extras["dev"]]
    assert {re.split(r"[=<>]", name)[0] for name in wanted} <= set(locked())


def test_a_run_installs_no_plugin_that_it_does_not_use():
    """Snakemake imports every installed plugin in every command: that of Slurm imports pandas."""
    pinned = (ROOT / "requirements.lock").read_text()
    assert not re.findall(r"^snakemake-\w+-plugin-.*", pinned, re.MULTILINE)
    assert "snakemake-executor-plugin-slurm==" in (ROOT / "requirements-slurm.lock").read_text()


@pytest.mark.parametrize("path", sorted((ROOT / "envs").glob("*.yaml")), ids=lambda path: path.name)
def test_environments_name_the_versions_of_the_lock_file(path):
    packages = yaml.safe_load(path.read_text())["dependencies"]
    pins = [
        pin for entry in packages for pin in (entry["pip"] if isinstance(entry, dict) else [entry])
    ]
    pins = dict(re.split(r"={1,2}", pin) for pin in pins if not pin.startswith(("python", "pip")))
    assert len(pins) > 5
    assert pins == {name: locked()[name] for name in pins}


def test_every_conda_environment_exists():
    named = {name for body in RULES.values() for name in re.findall(r'"../../envs/(.+?)"', body)}
    assert named == {path.name for path in (ROOT / "envs").glob("*.yaml")}
