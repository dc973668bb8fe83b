"""The few lines that every workflow script needs around its call into the library."""

import errno
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from sidmill.core.errors import SidmillError

# What the system refuses and an operator mends; no code is at fault.
MACHINE_TROUBLES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


@contextmanager
def job(snakemake) -> Iterator[logging.Logger]:
    """Log to the rule's log file and to stderr; end a user's mistake without a traceback.

    Args:
        snakemake: the object Snakemake puts in a script's namespace. ``log[0]`` must be declared.

    Yields:
        A logger named after the rule.
    """
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        handlers=[
            logging.FileHandler(snakemake.log[0], mode="w", encoding="utf-8"),
            logging.StreamHandler(),
        ],
        force=True,
    )
    log = logging.getLogger(snakemake.rule)
    try:
        yield log
    except SidmillError as error:
        log.error("%s", error)
        sys.exit(2)
    except OSError as error:
        if error.errno not in MACHINE_TROUBLES:
            log.exception("rule %s failed", snakemake.rule)
            raise
        place = error.filename or f"output of rule {snakemake.rule}"
        log.error("%s: %s: mend that and run again", place, os.strerror(error.errno))
        sys.exit(2)
    except Exception:
        log.exception("rule %s failed", snakemake.rule)
        raise
