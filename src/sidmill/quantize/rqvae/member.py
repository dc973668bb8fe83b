"""One process of a training that torchrun started: ``member.py request.json``."""

import json
import logging
import sys
from pathlib import Path

from sidmill.core.errors import SidmillError
from sidmill.quantize.rqvae import fit


def main() -> None:
    """Train with the arguments of the request; end a user's mistake without a traceback."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        fit.fit(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    except SidmillError as error:
        logging.error("%s", error)
        sys.exit(2)


if __name__ == "__main__":
    main()
