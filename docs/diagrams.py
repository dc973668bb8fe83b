"""Write the diagrams of docs/index.md: the rules of the default run, and the modules.

``make docs`` runs it. A test fails where the page is not what it would write.

The rules come from ``snakemake --rulegraph mermaid-js`` on config.yaml in an empty folder, without
colours and in sorted order, so that equal workflows give equal text. The modules come from the
layers of import-linter in pyproject.toml.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/index.md"
LAYERS = "Stages meet only in files"  # the contract whose layers are drawn
PACKAGE = "sidmill."


def main() -> None:
    """Write the page, and say whether it has changed."""
    before = PAGE.read_text(encoding="utf-8")
    after = page(before)
    if after != before:
        PAGE.write_text(after, encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)}: {'written' if after != before else 'unchanged'}")


def page(text: str) -> str:
    """The page with both diagrams.

    Args:
        text: the page as it is.

    Raises:
        ValueError: if a pair of markers is missing.
    """
    for name, diagram in (("rules", rules()), ("modules", modules())):
        start, end = f"<!-- {name}: written by make docs -->\n", f"<!-- end of {name} -->"
        before, found, rest = text.partition(start)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise ValueError(f"{PAGE}: lacks the markers {start.strip()} and {end}")
        text = f"{before}{start}```mermaid\n{diagram}```\n{end}{after}"
    return text


def rules() -> str:
    """The rules of the default configuration: an arrow from each rule to the rules that read it."""
    # An empty folder: the state of a run does not matter.
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(ROOT / "config.yaml", folder)
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
        graph = subprocess.run(
            [*command, "--rulegraph", "mermaid-js"],
            cwd=folder,
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    # Numbers of nodes depend on the order in which Snakemake visits them; names do not.
    names = dict(re.findall(r"(?m)^\s*(id\d+)\[(\w+)\]$", graph))
    edges = re.findall(r"(?m)^\s*(id\d+) --> (id\d+)$", graph)
    lines = sorted(f"    {names[source]} --> {names[target]}" for source, target in edges)
    return "\n".join(["flowchart TB", *lines, ""])


def modules() -> str:
    """The layers of the library: a layer may import those below it, never those above."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    (layers,) = (each["layers"] for each in contracts if each["name"] == LAYERS)

    # Modules of one layer, which do not import each other, are nodes side by side.
    lines = ["flowchart TB"]
    for number, layer in enumerate(layers):
        members = [name.strip().removeprefix(PACKAGE) for name in layer.split("|")]
        lines.append(f"    subgraph layer{number}[ ]")
        lines += [f"        {name}" for name in members]
        lines.append("    end")
    lines += [f"    layer{number} --> layer{number + 1}" for number in range(len(layers) - 1)]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
