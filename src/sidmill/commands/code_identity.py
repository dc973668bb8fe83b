"""The modules whose change reruns a rule, each with a digest of what it computes."""

from itertools import product
from pathlib import Path
from typing import NamedTuple

from sidmill.core.errors import SidmillError
from sidmill.core.listing import some
from sidmill.core.provenance import PLUMBING, choices_of, sources
from sidmill.core.terminal import table

SCRIPTS = "workflow/scripts"
SHOWN_DIGITS = 12
OTHER = "any other"  # a value that no module belongs to


class Module(NamedTuple):
    """A module that counts.

    Attributes:
        name: of the module; for the script its path.
        digest: 12 digits of what it computes.
        only_with: the choices that it counts for, each with its values; empty: always.
    """

    name: str
    digest: str
    only_with: dict[str, list[str]]


def modules_of(rule: str, snakefile: Path) -> list[Module]:
    """List what a rule's ``code`` is made from, the script first.

    Raises:
        SidmillError: if there is no such rule.
    """
    folder = snakefile.parent / SCRIPTS
    script = folder / f"{rule}.py"
    if not script.is_file():
        rules = sorted(path.stem for path in folder.glob("*.py"))
        similar = [name for name in rules if any(word in name for word in rule.split("_"))]
        raise SidmillError(f"--code: no rule {rule!r}: choose one of {some(similar or rules)}")

    # Ask for every combination of choices, and note in which of them a module counts.
    choices = choices_of(script)
    values = {name: [*choice.modules, OTHER] for name, choice in choices.items()}
    digests: dict[str, str] = {}
    choices_by_module: dict[str, list[dict[str, str]]] = {}
    combinations = [dict(zip(values, chosen, strict=True)) for chosen in product(*values.values())]
    for chosen in combinations:
        for name, source in sources(script, chosen).items():
            digests[name] = source.digest[:SHOWN_DIGITS]
            choices_by_module.setdefault(name, []).append(chosen)

    counted = []
    for name in sorted(choices_by_module):
        only_with = {
            choice: sorted(
                {chosen[choice] for chosen in choices_by_module[name]}, key=values[choice].index
            )
            for choice in values
        }
        only_with = {key: used for key, used in only_with.items() if used != values[key]}
        counted.append(Module(name or f"{SCRIPTS}/{rule}.py", digests[name], only_with))
    return counted


def lines(rule: str, modules: list[Module]) -> str:
    """Format the list of modules behind a rule's code as lines for a terminal."""
    rows = [
        [
            module.name,
            module.digest,
            "; ".join(f"{key}: {some(used)}" for key, used in module.only_with.items()),
        ]
        for module in modules
    ]
    listing = table(rows, ["module", "digest", "counts only with"])
    head = f"a change in what one of these computes reruns {rule}:"
    return "\n".join([head, "", *listing, "", f"never counted: {', '.join(PLUMBING)}"])
