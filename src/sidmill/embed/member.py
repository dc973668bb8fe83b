"""One process of several that share a shard: ``member.py request.json PROCESS PROCESSES``."""

import json
import logging
import sys
from pathlib import Path

from sidmill.core.errors import SidmillError
from sidmill.embed import compute, launch
from sidmill.formats import report


def main() -> None:
    """Compute a share of the chunks; end a user's mistake without a traceback."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    request = Path(sys.argv[1])
    process, processes = map(int, sys.argv[2:])
    try:
        task = compute.Task(**json.loads(request.read_text(encoding="utf-8")))
        done = compute.compute(task, process, processes)
    except SidmillError as error:
        logging.error("%s", error)
        sys.exit(2)
    report.write(launch.result_path(request.parent, process), done._asdict())


if __name__ == "__main__":
    main()
