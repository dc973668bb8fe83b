"""The start of processes that import a module: forks of one server against a Python for each.

    python benchmarks/process_start.py                     4 processes that need residual k-means
    python benchmarks/process_start.py --module sidmill.embed.backends.sentence_transformers

Each process waits for a second, so that the memory of all of them together is seen; the wall time
has this second too.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import _paired

WAIT_S = 1.0


def main() -> None:
    """Run both sides in turn, compare."""
    options = _options()
    if options.side:
        SIDES[options.side](options)
        return
    shared = [__file__, f"--processes={options.processes}", f"--module={options.module}"]
    sides = {name: [*shared, f"--side={name}"] for name in SIDES}
    medians = _paired.alternate(sides, options.repeats, _paired.run_tree)
    _paired.report(medians, {"processes": options.processes, "module": options.module}, 1.0)


def run_forks(options: argparse.Namespace) -> None:
    """Start the processes as jobs of the workflow do."""
    from sidmill.core import processes
    from sidmill.core.processes import Inherited

    own = str(Path(__file__).parent)
    os.environ["PYTHONPATH"] = os.pathsep.join([own, os.environ.get("PYTHONPATH", "")])
    arguments = [{"module": options.module}] * options.processes
    inherited = Inherited([options.module])
    found = processes.run("process_start:wait", arguments, task="wait", inherited=inherited)
    if found != [True] * options.processes:
        raise SystemExit(f"processes replied {found}")


def run_each(options: argparse.Namespace) -> None:
    """Start a Python for each."""
    program = f"import {options.module}, time; time.sleep({WAIT_S})"
    started = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(options.processes)]
    if sum(each.wait() != 0 for each in started):
        raise SystemExit("a process failed")


def wait(module: str) -> bool:
    """Wait; return whether the module is there."""
    time.sleep(WAIT_S)
    return module in sys.modules


SIDES = {"forks": run_forks, "each": run_each}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--module", default="sidmill.quantize.rqkmeans", help="what they import")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
