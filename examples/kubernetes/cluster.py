"""A dask-kubernetes cluster in a replica of the environment that runs this file.

    python cluster.py BUNDLE_FOLDER registry.example.org/likewise/me:1 > cluster.json
    (cd BUNDLE_FOLDER && printf 'FROM busybox\\nCOPY . /opt/bundle\\n' | docker build -t … -f - . && docker push …)
    kubectl apply -f cluster.json        # or KubeCluster(custom_cluster_spec=…)

The pods' own image needs a C library that is new enough, sh, tar and gzip: `debian:stable-slim` will do.
"""

import argparse
import copy
import json
import sys

from dask_kubernetes.operator import make_cluster_spec

import likewise

BUNDLE = "/opt/likewise/bundle"  # in every container
CACHE = "/opt/likewise/cache"


def replicate(spec, prefix, *, bundle_image=None, bundle_volume=None):
    """What `make_cluster_spec` returned, so that scheduler and workers run in the replica.

    Everything that takes time happens in init containers: the scheduler's liveness probe starts to count when the
    scheduler's own container starts, and that one finds its prefix ready.

    Parameters
    ----------
    spec : dict
        Of a ``DaskCluster``; it is not changed.
    prefix : likewise.deploy.CommandPrefix
        Made with ``store=BUNDLE`` and a cache beneath `CACHE`.
    bundle_image : str, optional
        An image that has the bundle in ``/opt/bundle`` and the command ``cp``. Or
    bundle_volume : dict, optional
        the source of a volume that holds the bundle: ``{"persistentVolumeClaim": {"claimName": "likewise"}}``.

    Returns
    -------
    dict
    """
    spec = copy.deepcopy(spec)
    for part in ("scheduler", "worker"):
        pod = spec["spec"][part]["spec"]
        [container] = pod["containers"]
        read = [
            {"name": "likewise-bundle", "mountPath": BUNDLE, "readOnly": True},
            {"name": "likewise-cache", "mountPath": CACHE},
        ]
        bring = {
            "name": "likewise-bundle",
            "image": bundle_image,
            "command": ["cp", "-R", "/opt/bundle/.", BUNDLE],
            "volumeMounts": [{"name": "likewise-bundle", "mountPath": BUNDLE}],
        }
        unpack = {
            "name": "likewise-prefix",
            "image": container["image"],
            "command": list(prefix),
            "args": ["-c", "import distributed"],
            "volumeMounts": read,
        }
        command = prefix.instead_of(container["args"])
        container["command"], container["args"] = command[: len(prefix)], command[len(prefix) :]
        container["volumeMounts"] = [*(container.get("volumeMounts") or ()), *read]
        pod["initContainers"] = [*(pod.get("initContainers") or ()), *([bring] if bundle_image else []), unpack]
        pod["volumes"] = [
            *(pod.get("volumes") or ()),
            {"name": "likewise-bundle", **(bundle_volume or {"emptyDir": {}})},
            {"name": "likewise-cache", "emptyDir": {}},
        ]
    return spec


def main():
    """Write the bundle to the folder, and the cluster's description to stdout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="where to write the bundle")
    parser.add_argument("bundle_image", nargs="?", help="the image that you make of the folder; default: a claim")
    parser.add_argument("--only", action="append", default=[], help="ship this and what it requires, not everything")
    parser.add_argument("--image", default="debian:stable-slim", help="of scheduler and workers")
    parser.add_argument("--claim", default="likewise", help="the volume claim that holds the bundle, without an image")
    arguments = parser.parse_args()

    with likewise.bootstrap_files(only=arguments.only) as files:
        files.write_to(arguments.folder, shared=True)  # pods may run as anybody
        prefix = likewise.command_prefix(store=BUNDLE, files=files, cache=f"{CACHE}/node")
    claim = {"persistentVolumeClaim": {"claimName": arguments.claim}}
    spec = replicate(
        make_cluster_spec(name="likewise", image=arguments.image, n_workers=2),
        prefix,
        bundle_image=arguments.bundle_image,
        bundle_volume=None if arguments.bundle_image else claim,
    )
    json.dump(spec, sys.stdout, indent=2)


if __name__ == "__main__":
    main()
