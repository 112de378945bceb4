"""A dask-gateway cluster in a replica of the environment that runs this file.

    python client.py http://gateway:8000 /shared/me/likewise

The folder is one that the cluster's machines see under the same path. The environment must hold dask-gateway itself,
because its scheduler runs a preload of dask-gateway.
"""

import argparse
import json

from dask_gateway import Gateway

import likewise


def main() -> None:
    """Lay the environment out in the folder, start a cluster in it, and compute there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("gateway", help="address of the gateway")
    parser.add_argument("folder", help="a folder that the cluster's machines can read")
    parser.add_argument("--only", action="append", default=[], help="ship this and what it requires, not everything")
    parser.add_argument("--cache", default="auto", help="the nodes' cache")
    arguments = parser.parse_args()

    with likewise.bootstrap_files(only=arguments.only) as files:
        files.write_to(arguments.folder, shared=True)  # the processes may run as another user
        prefix = likewise.command_prefix(store=arguments.folder, files=files, cache=arguments.cache)

    with Gateway(arguments.gateway) as gateway, gateway.new_cluster(likewise=prefix.shell) as cluster:
        cluster.scale(2)
        with cluster.get_client() as client:
            client.wait_for_workers(2)
            print(json.dumps(compute(client)))


def compute(client):
    """Where scheduler and workers run, and what they compute."""
    import sys

    from measurements import where  # it is installed here, and nowhere else

    return {
        "scheduler": client.run_on_scheduler(lambda: sys.prefix),
        "workers": list(client.run(lambda: sys.prefix).values()),
        "results": client.gather(client.map(where, range(8))),
    }


if __name__ == "__main__":
    main()
