"""Run the commands as ``python -m sidmill``."""

from sidmill.cli import main

main()
