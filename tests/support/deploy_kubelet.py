"""A node of Kubernetes, as far as containers need one: runs the pods of deployments on this machine.

    unshare --net --mount --pid --fork --kill-child --mount-proc \\
        python deploy_kubelet.py FOLDER BUNDLE HIDE… -- CLIENT ARGS… < objects.json

Run by the servers' Python in namespaces of its own. A container gets the mounts, variables, command and arguments of
its description, in a mount namespace without the hidden folders, with the only programs that the image is said to
have, and runs as nobody. Init containers run to their end first; a container with an HTTP probe is ready when the probe
says so. The client runs when every pod is. Prints one JSON document about it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from deploy_cloud import few_tools

TOOLS = ("sh", "tar", "gzip", "mkdir", "mv", "rm", "cp")
_NOBODY = "setpriv --reuid=65534 --regid=65534 --clear-groups"  # as clusters that allow no root containers demand


class Kubelet:
    """Runs pods one after the other."""

    def __init__(self, folder: Path, bundle: str, hide: list[str]) -> None:
        self._folder = folder
        self._hide = hide
        self._bundle = bundle  # what lies in /opt/bundle of the image that was made of it
        self._tools = few_tools(folder / "tools", TOOLS)
        self.steps: list[str] = []

    def run(self, name: str, pod: dict[str, Any]) -> None:
        """Run the init containers to their end, then start the others, and wait until they are ready."""
        for container in pod.get("initContainers", ()):
            code = self._start(name, pod, container).wait(240)
            assert code == 0, f"{name}/{container['name']} exited {code}"
            self.steps.append(f"{name}/{container['name']}")
        for container in pod["containers"]:
            process = self._start(name, pod, container)
            probe = container.get("readinessProbe", {}).get("httpGet")
            while probe and not healthy(container, probe):
                assert process.poll() is None, f"{name}/{container['name']} exited {process.returncode}"
                time.sleep(0.1)
            self.steps.append(f"{name}/{container['name']}")

    def _start(self, name: str, pod: dict[str, Any], container: dict[str, Any]) -> subprocess.Popen[bytes]:
        mounts = [f"mount -t tmpfs -o mode=755 none {folder}" for folder in (*self._hide, "/opt")]
        mounts += [f"mkdir /opt/tools; mount --bind {self._tools} /opt/tools"]
        if container["name"] == "likewise-bundle":
            mounts += [f"mkdir /opt/bundle; mount --bind {self._bundle} /opt/bundle"]
        for mount in container.get("volumeMounts", ()):
            source, path = self._volume(name, pod, mount["name"]), mount["mountPath"]
            mounts += [f"mkdir -p {path}; mount --bind {source} {path}"]
            mounts += [f"mount -o remount,bind,ro {path}"] if mount.get("readOnly") else []
        variables = {item["name"]: item["value"] for item in container.get("env", ())}
        words = [expand(word, variables) for word in (*container["command"], *container.get("args", ()))]
        log = self._folder / f"{name}-{container['name']}.log"
        settings = [f"{key}={value}" for key, value in variables.items()]
        script = "\n".join([*mounts, "cd /", f'exec {_NOBODY} env -i "$@"'])
        command = ["unshare", "--mount", "sh", "-ec", script, "container", "PATH=/opt/tools", *settings, *words]
        with log.open("wb") as out:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    def _volume(self, name: str, pod: dict[str, Any], volume: str) -> Path:
        [_] = [known for known in pod["volumes"] if known["name"] == volume and "emptyDir" in known]
        path = self._folder / "volumes" / name / volume
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o777)  # as the kubelet makes them
        return path


def expand(word: str, variables: dict[str, str]) -> str:
    """Kubernetes' own ``$(NAME)``; what is not known stays as it is."""
    return re.sub(r"\$\((\w+)\)", lambda match: variables.get(match[1], match[0]), word)


def healthy(container: dict[str, Any], probe: dict[str, Any]) -> bool:
    """What the probe says."""
    [port] = [port["containerPort"] for port in container["ports"] if port["name"] == probe["port"]]
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{probe['path']}", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def main() -> None:
    """Run the pods, then the client."""
    folder, bundle, *rest = sys.argv[1:]
    hide, client = rest[: rest.index("--")], rest[rest.index("--") + 1 :]
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    objects = json.load(sys.stdin)["objects"]
    [service] = [item["metadata"]["name"] for item in objects if item["kind"] == "Service"]
    hosts = Path(folder, "hosts")  # the cluster's own name service
    hosts.write_text(f"127.0.0.1 localhost {service}.default.svc.cluster.local\n")
    subprocess.run(["mount", "--bind", hosts, "/etc/hosts"], check=True)
    kubelet = Kubelet(Path(folder), bundle, hide)
    for item in objects:
        if item["kind"] == "Deployment":
            kubelet.run(item["metadata"]["name"], item["spec"]["template"]["spec"])
    address = f"tcp://{service}.default.svc.cluster.local:8786"
    done = subprocess.run([*client, address], env=dict(os.environ), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    print(json.dumps({"steps": kubelet.steps, "client": json.loads(done.stdout)}))


if __name__ == "__main__":
    main()
