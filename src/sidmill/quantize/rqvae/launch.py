"""Start the processes of a training through torchrun, and be one of them.

Source: https://docs.pytorch.org/docs/stable/elastic/run.html
"""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

from sidmill.core.atomic import write_text
from sidmill.core.errors import SidmillError

logger = logging.getLogger(__name__)

MODULE = "sidmill.quantize.rqvae.member"


def is_member() -> bool:
    """Whether torchrun started this process."""
    return "WORLD_SIZE" in os.environ


def run(processes: int, arguments: dict, folder: Path) -> None:
    """Run ``fit(**arguments)`` in ``processes`` processes; its checkpoints stay in ``folder``.

    Raises:
        SidmillError: if one of them failed; what it said is above.
    """
    request = folder / "request.json"
    write_text(request, json.dumps(arguments))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*torchrun, f"--nproc-per-node={processes}", "-m", MODULE, str(request)]
    threads = str(max(1, (os.cpu_count() or 1) // processes))
    environment = {"OMP_NUM_THREADS": threads, **os.environ}
    source = str(Path(__file__).parents[3])
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [source, os.environ.get("PYTHONPATH")])
    )
    try:
        done = subprocess.run(command, env=environment)
    finally:
        request.unlink()
    if done.returncode:
        raise SidmillError(f"a process of {processes} failed with {done.returncode}: see above")
