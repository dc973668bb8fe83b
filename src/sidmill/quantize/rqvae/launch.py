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
from sidmill.quantize.rqvae import team

logger = logging.getLogger(__name__)


def run(processes: int, arguments: dict, folder: Path) -> None:
    """Run ``fit(**arguments)`` in ``processes`` processes; its checkpoints stay in ``folder``.

    Raises:
        SidmillError: if one of them failed; what it said is above.
    """
    from sidmill.quantize.rqvae import member  # here, since it imports what imports this module

    request = folder / "request.json"
    write_text(request, json.dumps(arguments))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*torchrun, f"--nproc-per-node={processes}", "-m", member.__name__, str(request)]
    threads = str(max(1, (os.cpu_count() or 1) // processes))
    environment = {"OMP_NUM_THREADS": threads, **os.environ, team.MEMBER: "1"}
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
