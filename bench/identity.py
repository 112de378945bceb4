"""How long it takes to know the identity of every distribution of a prefix from the `RECORD` files alone.

``python bench/identity.py PREFIX [RUNS]``: the digests of all distributions in the prefix, several times; prints the
number of distributions and the fastest, median and slowest run.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

from likewise.scanner.files import layout_for, record_digest


def main(prefix: str, runs: int = 7) -> None:
    """Print the times."""
    (site,) = Path(prefix).absolute().glob("lib/python3*/site-packages")
    layout = layout_for(str(site), python=site.parent.name)
    dist_infos = sorted(site.glob("*.dist-info"))
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        digests = {record_digest(folder, layout=layout) for folder in dist_infos}
        seconds.append(time.perf_counter() - started)
    low, middle, high = min(seconds), statistics.median(seconds), max(seconds)
    print(f"{len(digests)} digests from RECORD, {runs} runs: median {middle:.3f} s (min {low:.3f}, max {high:.3f})")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1], *map(int, sys.argv[2:3]))
