"""What Linux says of the CPU: the maker, the family, the instructions."""

from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


def first_core() -> dict[str, str]:
    """Facts of the first core by their names; nothing where they cannot be read.

    Only the entry of this core is read: machines of hundreds of cores say the same of each.
    """
    facts: dict[str, str] = {}
    try:
        with CPUINFO.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                name, colon, value = line.partition(":")
                if not colon:  # the empty line at the end of the entry
                    break
                facts[name.strip()] = value.strip()
    except OSError:
        return {}
    return facts


def flags(facts: dict[str, str]) -> set[str]:
    """Names of the instructions, such as ``avx2``, among the facts of a core."""
    return set(facts.get("flags", "").split())
