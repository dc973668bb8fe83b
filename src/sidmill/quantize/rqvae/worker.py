"""One process of a training that torchrun started: ``member.py request.json``."""

import json
import logging
import sys
from pathlib import Path

from sidmill.core.atomic import write_text
from sidmill.core.errors import SidmillError
from sidmill.quantize.rqvae import fit, workers


def main() -> None:
    """Train with the arguments of the request; end a user's mistake without a traceback.

    The mistake is written beside the request, for the process that started this one.
    """
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    request = Path(sys.argv[1])
    try:
        fit.fit(**json.loads(request.read_text(encoding="utf-8")))
    except SidmillError as error:
        logging.error("%s", error)
        write_text(request.with_name(workers.FAILURE), str(error))
        sys.exit(2)


if __name__ == "__main__":
    main()
