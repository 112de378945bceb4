"""From a prefix to a Snapshot: what is installed, where it came from, which loose code is importable."""
