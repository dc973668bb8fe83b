"""``python -m sidmill.settings [ROOT]``: write the files that follow from the settings."""

import sys

from sidmill.settings import generate

for name in generate.write(sys.argv[1] if len(sys.argv) > 1 else "."):
    print(f"wrote {name}")
