"""A cloud on one machine: moto's EC2, a web server, and a hypervisor that runs each instance's user data.

    unshare --net --mount --pid --fork --kill-child --mount-proc python deploy_cloud.py FOLDER HIDE… -- CLIENT ARGS…

Run by the servers' Python in namespaces of its own: instances get the addresses that moto gave them, and when this
process ends, everything does. Prints one JSON document: what the client printed, and what the instances were.
"""

from __future__ import annotations

import base64
import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

CLOUD = "http://127.0.0.1:5000"
FILES = "http://127.0.0.1:8000"
TOOLS = ("sh", "tar", "gzip", "mkdir", "mv", "rm", "sha256sum", "curl")  # all that an instance has


def main() -> None:
    """Run the client in the cloud."""
    folder, *rest = sys.argv[1:]
    hide, client = rest[: rest.index("--")], rest[rest.index("--") + 1 :]
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    environ = {
        **os.environ,
        "AWS_ENDPOINT_URL": CLOUD,
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    os.environ.update(environ)
    with open(f"{folder}/moto.log", "wb") as log:
        subprocess.Popen([sys.executable, "-m", "moto.server", "-p", "5000"], stdout=log, stderr=log)
    serve_files(Path(folder, "www"))
    hypervisor = Hypervisor(Path(folder), hide)
    with open(f"{folder}/client.log", "wb") as log:
        working = subprocess.Popen(client, stdout=subprocess.PIPE, stderr=log, env=environ)
        while working.poll() is None:
            hypervisor.look()
            time.sleep(0.2)
    assert working.stdout is not None
    for _ in range(100):  # until the last instances have gone
        hypervisor.look()
        if not hypervisor.processes:
            break
        time.sleep(0.2)
    print(
        json.dumps(
            {
                "code": working.returncode,
                "client": working.stdout.read().decode(),
                "user_data": hypervisor.user_data,
                "running": len(hypervisor.processes),
            }
        )
    )


def serve_files(root: Path) -> None:
    """A plain web server."""
    root.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 8000), partial(Handler, directory=str(root)))
    threading.Thread(target=server.serve_forever, daemon=True).start()


class Hypervisor:
    """Starts what moto only says to have started: the user data of each instance, on a machine without Python."""

    def __init__(self, folder: Path, hide: list[str]) -> None:
        import boto3

        self._folder = folder
        self._hide = hide
        self._ec2 = boto3.client("ec2")
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.user_data: dict[str, str] = {}
        self._tools = few_tools(folder / "tools")
        self._wait_for_cloud()

    def _wait_for_cloud(self) -> None:
        """Until moto answers; then make the security group, which dask-cloudprovider 2025.9 can find but not make."""
        for _ in range(100):
            try:
                vpc = self._ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
                break
            except Exception:  # nobody listens yet
                time.sleep(0.2)
        self._ec2.create_security_group(GroupName="dask-default", Description="Dask", VpcId=vpc)

    def look(self) -> None:
        """Start new instances, and end those that were terminated."""
        found = self._ec2.describe_instances()["Reservations"]
        for instance in (instance for reservation in found for instance in reservation["Instances"]):
            name, running = instance["InstanceId"], instance["State"]["Name"] == "running"
            if running and name not in self.user_data:
                self._start(name, instance["PublicIpAddress"])
            elif not running and name in self.processes:
                os.killpg(self.processes[name].pid, signal.SIGKILL)  # the power is off
            if name in self.processes and self.processes[name].poll() is not None:
                del self.processes[name]

    def _start(self, name: str, address: str) -> None:
        subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)
        answer = self._ec2.describe_instance_attribute(InstanceId=name, Attribute="userData")
        self.user_data[name] = base64.b64decode(answer["UserData"]["Value"]).decode()
        disk = self._folder / name
        (disk / "var").mkdir(parents=True)
        (disk / "user-data").write_text(self.user_data[name])
        (disk / "shutdown").write_text("#!/bin/sh\n")  # the machine that the tests run on stays
        (disk / "shutdown").chmod(0o755)
        mounts = [f"mount -t tmpfs -o mode=755 none {folder}" for folder in self._hide]
        mounts += [f"mount --bind {disk}/var /var/lib", f"cd {disk}"]
        start = f"exec env -i PATH={disk}:{self._tools} sh ./user-data"
        with (disk / "console.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                ["unshare", "--mount", "sh", "-ec", "\n".join([*mounts, start])],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


def few_tools(folder: Path, names: tuple[str, ...] = TOOLS) -> Path:
    """A folder with these programs."""
    folder.mkdir()
    for name in names:
        found = shutil.which(name)
        assert found, name
        (folder / name).symlink_to(found)
    return folder


if __name__ == "__main__":
    main()
