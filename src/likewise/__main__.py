"""``python -m likewise`` is the command ``likewise``."""

from __future__ import annotations

from likewise.cli.main import program

if __name__ == "__main__":
    program()
