"""`python -m patchwave`: see `patchwave.cli.main`."""

from __future__ import annotations

import sys

from patchwave.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
