"""``python -m likewise`` is the command ``likewise``."""

from __future__ import annotations

import sys

from likewise.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
