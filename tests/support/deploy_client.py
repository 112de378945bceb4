"""A client of a cluster that somebody else has started; run by the user's Python.

python deploy_client.py ADDRESS
"""

from __future__ import annotations

import json
import sys

from distributed import Client
from measurements import where


def main() -> None:
    """Print where two workers run, and what they compute."""
    with Client(sys.argv[1], timeout=30) as client:
        client.wait_for_workers(2, timeout=60)
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        print(
            json.dumps(
                {
                    "scheduler": client.run_on_scheduler(lambda: sys.prefix),
                    "workers": list(client.run(lambda: sys.prefix).values()),
                    "names": sorted(worker["name"] for worker in workers),
                    "results": client.gather(client.map(where, range(8))),
                }
            )
        )


if __name__ == "__main__":
    main()
