"""dask-cloudprovider's EC2Cluster in a replica of the environment that runs this file. No image, no Docker.

    python ec2.py /srv/www/likewise https://files.example.org/likewise

The folder is what a web server shows under the address: the bundle is written there, and machines fetch it from there.
They need what every Linux image has: sh, tar, gzip, sha256sum, and curl or wget.
"""

import argparse
import json
import re
import shlex

from dask_cloudprovider.aws import EC2Cluster

import likewise

HOME = "/var/lib/likewise"  # of the bundle's files and of the node's cache, on a machine

USER_DATA = """\
#!/bin/sh
# Runs once, as root, when the machine starts: cloud-init executes user data that begins with #!.
export HOME=/root
umask 077
mkdir -p {home} && cd {home} || exit 1
if command -v curl >/dev/null; then
    curl -fsSL --retry 5 -o bootstrap.sh {url}/bootstrap.sh
else
    wget -q -O bootstrap.sh {url}/bootstrap.sh
fi
if echo '{sha256}  bootstrap.sh' | sha256sum -c - >/dev/null; then # the script checks all the rest
{variables}
    {command}
fi
{last}
"""


class ReplicaCluster(EC2Cluster):
    """`EC2Cluster` whose scheduler and workers run in the replica.

    Parameters
    ----------
    bundle : likewise.deploy.Bundle
        What is at `url`.
    url : str
        Where machines find the bundle.
    **options
        As for `EC2Cluster`. What concerns Docker has no effect.
    """

    def __init__(self, *, bundle, url, **options):
        self._bundle = bundle
        self._url = url
        super().__init__(**options)

    def render_process_cloud_init(self, process):
        """The user data of one machine."""
        return user_data(
            process.command,
            self._bundle,
            self._url,
            variables=process.env_vars or {},
            shutdown=process.auto_shutdown,
        )


def user_data(command, bundle, url, *, variables, shutdown):
    """A shell script that starts what dask-cloudprovider would start in a container."""
    # --spec ''{…}'' is quoted for YAML, where two single quotes stand for one.
    words = shlex.split(re.sub(r"''(\{.*\})''", r"'\1'", command))
    if words[0] == "env":  # the configuration, with the certificates: on no command line, where all can see it
        position = next(i for i, word in enumerate(words[1:], start=1) if "=" not in word)
        variables = {**variables, **dict(word.split("=", 1) for word in words[1:position])}
        words = words[position:]
    prefix = likewise.command_prefix(store=url, files=bundle, script=f"{HOME}/bootstrap.sh", cache=f"{HOME}/node")
    return USER_DATA.format(
        home=HOME,
        url=shlex.quote(url),
        sha256=bundle.files["bootstrap.sh"],
        variables="\n".join(f"    export {name}={shlex.quote(value)}" for name, value in variables.items()),
        command=shlex.join(prefix.instead_of(words)),
        last="shutdown -h now" if shutdown else "",
    )


def main():
    """Write the bundle to the folder, start machines, and compute there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="where the web server takes its files from")
    parser.add_argument("url", help="the address under which machines find them")
    parser.add_argument("--only", action="append", default=[], help="ship this and what it requires, not everything")
    parser.add_argument("--ami", help="the machines' image; by default an Ubuntu")
    arguments = parser.parse_args()

    with likewise.bootstrap_files(only=arguments.only) as files:
        files.write_to(arguments.folder, shared=True)  # for the web server
        bundle = files.bundle
    with (
        ReplicaCluster(bundle=bundle, url=arguments.url, ami=arguments.ami, n_workers=2) as cluster,
        cluster.get_client() as client,
    ):
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
