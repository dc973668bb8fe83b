"""What README and docs name exists: commands, their options, targets, files, settings, messages."""

import ast
import re
import shlex
from functools import cache
from pathlib import Path

import click
import pytest
import yaml
from conftest import ROOT

from sidmill.cli import commands
from sidmill.settings.registry import QUANTIZERS

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMON = ROOT / "workflow/rules/common.smk"
PRESENT = [page for page in PAGES if page.name != "log.md"]  # which names what once was
CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
FOLDERS = ("benchmarks", "configs", "docs", "envs", "profiles", "src", "tests", "workflow")
OWN = re.compile(r"(python3?|snakemake|sidmill|make)$")  # what begins a command of this project
# ``index.json`` is a file, though ``index`` is a section too.
SUFFIXES = {
    "json",
    "parquet",
    "safetensors",
    "npy",
    "svg",
    "html",
    "csv",
    "h5",
    "topk",
    "py",
    "md",
    "trec",
}
# What pages name on purpose though this project has none of it.
ABSENT = {
    "architecture": {"store.formats"},  # "there is no key"
    "datasets": {
        "workflow/resources/tasks/sft_next_title.yaml",  # "a task of your own"
        "workflow/resources/prompts/next_title.yaml",
        "guided_regex",  # of older vLLM
    },
    "measurements": {"faiss.Kmeans"},
    "serving": {  # of vLLM and SGLang
        *("allowed_token_ids", "beam_width", "custom_logit_processor", "json_schema"),
        *("max_logprobs", "structural_tag", "structured_outputs", "use_beam_search"),
    },
    "rqvae": {"results/rqvae/checkpoints/"},  # stays beside the outputs, and is none
    # Of other software.
    "constrained-decoding": {"n_vocab"},
    "metrics": {"divide_by_achievable"},
    "other-engines": {"map_partitions"},
    "snakemake": {"replace_prefix", "results/..."},
    "vector-stores": {"set_ef"},
}


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(text: str) -> list[str]:
    """Code blocks, fenced and indented, without their indentation."""
    fenced = re.findall(r"^```\w*\n(.*?)^```$", text, re.M | re.S)
    rest = re.sub(r"^```\w*\n.*?^```$", "", text, flags=re.M | re.S)
    indented = re.findall(r"(?:^(?: {4}|\t).*\n(?:\n(?= {4}))?)+", rest, re.M)
    return fenced + [re.sub(r"^ {4,7}", "", block, flags=re.M) for block in indented]


def spans(text: str) -> list[str]:
    """Inline code."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```\w*\n.*?^```$", "", text, flags=re.M | re.S))


def command_lines(text: str) -> list[list[str]]:
    """Every command of this project on a page, as words, without ``VARIABLE=value`` before it."""
    joined = "\n".join(blocks(text)).replace("\\\n", " ")
    found = []
    for line in [*joined.splitlines(), *spans(text)]:
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # an apostrophe: prose, or a file of another kind
            continue
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words = words[1:]
        if words and OWN.fullmatch(words[0]) and len(words) > 1:
            found.append(words)
    return found


@cache
def rule_files() -> str:
    files = sorted((ROOT / "workflow/rules").glob("*.smk"))
    return "\n".join(text_of(file) for file in [ROOT / "Snakefile", *files])


@cache
def sources() -> str:
    """All that is no prose: where a name that a page gives is looked up."""
    folders = ("src", "workflow", "tests", "benchmarks", "configs", "profiles")
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.*") if file.is_file()]
    files = [file for file in files if file.name != Path(__file__).name]  # they hold wrong names
    kinds = {".py", ".smk", ".yaml", ".jinja", ".rst"}
    named = [ROOT / "config.yaml", ROOT / "Snakefile", ROOT / "Makefile", ROOT / "pyproject.toml"]
    texts = [text_of(file) for file in [*named, *files] if file.suffix in kinds | {""}]
    return "\n".join([*texts, *(file.stem for file in files)])


def rules() -> set[str]:
    return set(re.findall(r"^rule (\w+):", rule_files(), re.M))


@cache
def outputs() -> list[tuple[list[re.Pattern], bool]]:
    """Paths under results/ that rule files quote, part by part; whether each is a folder."""
    said = dict(
        re.findall(r'^    (\w+)=r?"([\w|]+)",', text_of(COMMON), re.M)
    )  # wildcard_constraints
    said["quantizer"] = "|".join([*QUANTIZERS, "published"])  # the file joins these names
    said["encoded"] = said["learned"] = said["quantizer"]

    def pattern(part: str) -> re.Pattern:
        pieces = re.split(r"\{(\w+)(?:,[^{}]*)?\}", part)  # text and wildcards in turn
        opened = [
            f"(?:{said.get(piece, '.+')})" if n % 2 else re.escape(piece)
            for n, piece in enumerate(pieces)
        ]
        return re.compile("".join(opened))

    quoted = re.findall(r'(directory\()?(?<![\w"])"(results/[^"\n]+)"', rule_files())
    return [([pattern(part) for part in path.split("/")], bool(folder)) for folder, path in quoted]


def is_made(path: str) -> bool:
    """Whether a rule makes it, or files in it, or it is a file of a folder that a rule makes."""
    parts = path.rstrip("/").split("/")
    return any(
        (len(parts) <= len(made) or folder)
        and all(one.fullmatch(part) for one, part in zip(made, parts, strict=False))
        for made, folder in outputs()
    )


@cache
def snakemake_parser():
    from snakemake.cli import get_argument_parser

    return get_argument_parser()


def check_snakemake(words: list[str]) -> None:
    # Options of a plugin that is not among the packages of this project, each with a value.
    of_plugin = [n for n, word in enumerate(words) if word.startswith("--report-fairscape-")]
    words = [word for n, word in enumerate(words) if not {n, n - 1} & set(of_plugin)]
    arguments, unknown = snakemake_parser().parse_known_args(words[1:])
    slurm = [word for word in unknown if word.startswith("--slurm-")]
    assert unknown == slurm, f"snakemake has no {unknown}"
    for path in map(str, arguments.configfile or ()):
        assert path.endswith((".yaml", "...")), f"--configfile swallows {path}"
        assert not path.startswith(tuple(FOLDERS)) or (ROOT / path).is_file(), path
    for target in [*(arguments.targets or ()), *(arguments.forcerun or ())]:
        assert target in rules() or is_made(target), f"no rule makes {target}"
    if arguments.profile:
        assert all((ROOT / profile / "config.yaml").is_file() for profile in arguments.profile)


def check_sidmill(words: list[str]) -> None:
    command = commands.commands.get(words[1])
    assert isinstance(command, click.Command), f"no command sidmill {words[1]}"
    known = {name for option in command.params for name in option.opts} | {"--help"}
    asked = {word.partition("=")[0] for word in words[2:] if word.startswith("-")}
    assert asked <= known, f"sidmill {words[1]} has no {sorted(asked - known)}"


def check_python(words: list[str]) -> None:
    quoted = "\n".join(text_of(page) for page in PAGES)  # a block that begins with its name
    scripts = [word for word in words[1:] if word.endswith(".py")]
    scripts = [word for word in scripts if f"```python\n# {word}" not in quoted]
    for script in scripts:
        assert (ROOT / script).is_file(), f"no {script}"
    if scripts and "pytest" not in words:
        source = text_of(ROOT / scripts[0])
        for word in words[1:]:
            option = word.partition("=")[0]
            assert not option.startswith("--") or f'"{option}"' in source, f"{scripts[0]}: {option}"


def check_make(words: list[str]) -> None:
    for target in words[1:]:
        assert re.search(rf"^{re.escape(target)}:", text_of(ROOT / "Makefile"), re.M), target


CHECKS = {
    "snakemake": check_snakemake,
    "sidmill": check_sidmill,
    "python": check_python,
    "python3": check_python,
    "make": check_make,
}


@pytest.mark.parametrize("page", PRESENT, ids=lambda page: page.stem)
def test_commands_name_what_exists(page):
    wrong = []
    for words in command_lines(text_of(page)):
        try:
            CHECKS[words[0]](words)
        except (AssertionError, SystemExit) as error:
            wrong.append(f"{shlex.join(words)}: {error}")
    assert not wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if re.match(r"https?:|mailto:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            wrong.append(target)
    assert not wrong


def anchors(page: Path) -> set[str]:
    """Headings, as GitHub writes them in addresses."""
    heads = re.findall(r"^#+ (.+)$", text_of(page), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PRESENT, ids=lambda page: page.stem)
def test_files_in_backticks_exist(page):
    wrong = []
    for span in spans(text_of(page)):
        name = span.strip()
        if not re.fullmatch(r"[\w./*{},-]+", name):
            continue
        if name.startswith("results/") and not is_made_of_any(name):
            wrong.append(name)
        if name.split("/")[0] in FOLDERS and "/" in name and not list(ROOT.glob(name.rstrip("/"))):
            wrong.append(name)
    assert set(wrong) - ABSENT.get(page.stem, set()) == set()


def is_made_of_any(name: str) -> bool:
    """A path under results/, with braces for several, or the folder of several."""
    name = name.replace("RULE", "*")
    if "*" in name:
        return f"{name.rpartition('/')[0]}/" in rule_files()
    name = name.replace("{quantizer}", CONFIG["quantizer"])
    # --report writes the one, index.path names the other
    if name in {"results/", "results/report.html", CONFIG["index"]["path"]} or is_made(name):
        return True
    choice = re.search(r"\{([^}]*,[^}]*)\}", name)
    if not choice:
        return False
    return all(is_made_of_any(name.replace(choice[0], one)) for one in choice[1].split(","))


def file_patterns() -> list[re.Pattern]:
    """The files of docs/formats.md, under results/: first column of its table, with wildcards."""
    table = re.findall(r"^\| (`.+?) \| ", text_of(ROOT / "docs/formats.md"), re.M)
    found = []
    for cell in table:
        folder = ""
        for name in re.findall(r"`([^`]+)`", cell):
            # A name without a folder is in the folder of the name before it, or in none.
            folder = name.rpartition("/")[0] if "/" in name else folder
            for full in {name, f"{folder}/{name}".lstrip("/") if "/" not in name else name}:
                pieces = re.split(r"(\*|\{[^{}]*\}|0{5}-of-0{4}\d|\.\.\.)", full)
                rest = ".*" if full.endswith("/") else ""
                found.append(re.compile("".join(map(pattern_of, pieces)).rstrip("/") + rest))
    return found


def pattern_of(piece: str) -> str:
    if piece.startswith("{") and "," in piece:
        return f"(?:{'|'.join(map(re.escape, piece[1:-1].split(',')))})"
    return ".+" if re.fullmatch(r"\*|\{.*\}|\d{5}-of-\d{5}|\.\.\.", piece) else re.escape(piece)


def test_every_output_of_a_rule_has_a_row_in_formats():
    """A row for each file, or for a folder of it; a wildcard stands for its first value."""
    known, missing = file_patterns(), set()
    said = dict(re.findall(r'^    (\w+)=r?"([\w|]+)",', text_of(COMMON), re.M))
    for block in re.findall(r"(?ms)^    output:\n(.*?)^    \w+:", rule_files()):
        for path in re.findall(r'"results/([^"]+)"', block):
            name = re.sub(r"\{shard\}-of-\{shards\}", "00000-of-00002", path)
            name = re.sub(
                r"\{(\w+)(?:,([^{}|]*)[^{}]*)?\}",
                lambda match: match[2] or said.get(match[1], "word").split("|")[0],
                name,
            )
            if not any(pattern.fullmatch(name) for pattern in known):
                missing.add(path)
    assert not missing, "\n".join(sorted(missing))


def keys_of(settings: dict) -> set[str]:
    """``section.key`` of a piece of configuration."""
    return {
        f"{section}.{key}"
        for section, value in settings.items()
        if isinstance(CONFIG.get(section), dict) and isinstance(value, dict)
        for key in value
    }


def settings_on(page: Path) -> set[str]:
    """Every ``section.key`` that a page names, in inline code and in YAML."""
    text, found = text_of(page), set()
    for span in spans(text):
        match = re.match(r"(\w+)\.(\w+)(?=$|:)", span)
        if match and match[1] in CONFIG and match[2] not in SUFFIXES:
            found.add(match[0])
    for piece in [*blocks(text), *spans(text)]:
        try:
            settings = yaml.safe_load(piece)
        except yaml.YAMLError:
            continue
        if isinstance(settings, dict) and set(settings) <= set(CONFIG):
            found |= keys_of(settings)
    return found


@pytest.mark.parametrize("page", PRESENT, ids=lambda page: page.stem)
def test_settings_exist(page):
    assert settings_on(page) - keys_of(CONFIG) - ABSENT.get(page.stem, set()) == set()


@pytest.mark.parametrize("page", PRESENT, ids=lambda page: page.stem)
def test_names_in_backticks_stand_in_the_sources(page):
    """``snake_case`` names: rules, keys of files, functions, metrics."""
    names = {span for span in spans(text_of(page)) if re.fullmatch(r"[a-z]+(_[a-z0-9]+)+", span)}
    words = set(re.findall(r"\w+", sources()))
    assert names - words - ABSENT.get(page.stem, set()) == set()


def imports_on(page: Path) -> list[tuple[str, str]]:
    """Modules of SIDMill with the names that a page imports from them."""
    found = re.findall(r"^\s*(?:>>> )?from (sidmill[\w.]*) import ([\w, ]+)$", text_of(page), re.M)
    return [(module, name.split()[0]) for module, names in found for name in names.split(",")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_imports_exists(page):
    """A module, or a name at the top of one."""
    wrong = []
    for module, name in imports_on(page):
        folder = ROOT / "src" / module.replace(".", "/")
        if (folder / f"{name}.py").is_file() or (folder / name).is_dir():
            continue
        files = [
            file for file in (folder / "__init__.py", folder.with_suffix(".py")) if file.is_file()
        ]
        texts = "\n".join(map(text_of, files))
        if not re.search(rf"^(?:def {name}\b|class {name}\b|{name}\b.* = )", texts, re.M):
            wrong.append(f"{module}: {name}")
    assert not wrong


def messages() -> list[str]:
    """Every text in the sources, and Snakemake's of its lock; a line feed for what is put in."""
    import snakemake.exceptions

    found = []
    for file in [*(ROOT / "src").rglob("*.py"), Path(snakemake.exceptions.__file__)]:
        for node in ast.walk(ast.parse(text_of(file))):
            if isinstance(node, ast.JoinedStr):
                parts = [getattr(part, "value", None) for part in node.values]
                found.append("".join(part if isinstance(part, str) else "\n" for part in parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return [text for text in found if " " in text]


def test_every_error_that_the_table_explains_is_a_message():
    """``...`` stands for what is put in; what is written must stand so in one message."""
    table = text_of(ROOT / "docs/operating.md").partition("## What each error means")[2]
    told = re.findall(r"^\| `(.+?)` \| .+ \| .+ \|$", table, re.M)
    assert len(told) >= 20
    known = messages()
    for message in told:
        pieces = [piece.strip() for piece in message.split("...")]
        assert any(stand_in(text, pieces) for text in known), message


def stand_in(text: str, pieces: list[str]) -> bool:
    """Whether all pieces stand in a text, one after the other."""
    place = 0
    for piece in pieces:
        place = text.find(piece, place)
        if place < 0:
            return False
        place += len(piece)
    return True


@pytest.mark.parametrize(
    "line",
    [
        "snakemake --cores 8 --forcerun train_nothing",
        "snakemake --no-such-option",
        "snakemake --cores 8 --configfile my.yaml results/pid2sid.parquet",
        "snakemake --cores 8 results/pid2sids.parquet",
        "snakemake --cores 8 results/pid2sid.parquetfoo",
        "snakemake --cores 8 results/items/nonsense.parquet",
        "snakemake --cores 8 results/rqkmeans/nonsense",
        "snakemake --cores 8 results/itemsX",
        "snakemake --cores 8 results/nonsense/quantizer.safetensors",
        "snakemake --profile profiles/moon",
        "sidmill shine",
        "sidmill diff --loud a b",
        "python benchmarks/rqkmeans.py --colour red",
        "python -m pytest tests/unit/test_nothing.py",
        "make gold",
    ],
)
def test_a_command_that_does_not_exist_is_found(line):
    words = shlex.split(line)
    with pytest.raises((AssertionError, SystemExit)):
        CHECKS[words[0]](words)
    page = f"Text.\n\n    FOO=1 {line}  # really\n\nOr `{line}`.\n\n```sh\n{line}\n```\n"
    assert command_lines(page) == [words] * 3


@pytest.mark.parametrize("page", PRESENT, ids=lambda page: page.name)
def test_lines_have_at_most_120_characters(page):
    """But for tables, code, and addresses behind links."""
    long, is_code = [], False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        is_fence = line.lstrip().startswith("```")
        is_code ^= is_fence
        if is_fence or is_code or line.startswith(("|", "    ")):
            continue
        if len(re.sub(r"\]\([^)]*\)", "]", line)) > 120:
            long.append(f"{page.name}:{number}: {line[:60]}...")
    assert not long, "wrap these lines:\n" + "\n".join(long)
