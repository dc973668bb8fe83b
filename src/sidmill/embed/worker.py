"""One process of several that share a shard: ``member.py request.json PROCESS PROCESSES``.

It ends with the process that started it, which holds the other end of its standard input: that is
closed by the kernel even after a SIGKILL, so no GPU and no chunk is held for a job that is gone.
"""

import json
import logging
import os
import sys
import threading
from pathlib import Path

from sidmill.core.errors import SidmillError
from sidmill.embed import compute, workers
from sidmill.io import json_report

ORPHANED = 3  # exit code that nobody is left to read


def main() -> None:
    """Compute a share of the chunks; end a user's mistake without a traceback."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    request = Path(sys.argv[1])
    process, processes = map(int, sys.argv[2:])
    try:
        task = compute.of_json(json.loads(request.read_text(encoding="utf-8")))
        done = compute.compute(task, process, processes)
    except SidmillError as error:
        logging.error("%s", error)
        sys.exit(2)
    json_report.write(workers.result_path(request.parent, process), done._asdict())


def _end_with_parent() -> None:
    os.read(0, 1)  # nothing is ever written there; not sys.stdin, whose lock would be held at exit
    os._exit(ORPHANED)


if __name__ == "__main__":
    main()
