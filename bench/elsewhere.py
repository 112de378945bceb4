"""A Mac's W160 on Linux hosts without Python: the plans, and a launch whose wheels hosts fetch past the client.

What the Mac has is a list of versions (tests/data/snapshots/w160-macos-arm64.txt: the distributions of bench/w160.txt,
resolved by uv for macOS with the index as it was on one day) and what likewise requires there, resolved in the same
way. It is planned for each target. Then hosts are started that have sh, tar and gzip (namespaces of this machine, see
`tests/support/testbed.py`; needs root), and beside them an index that has the wheels of the plan for this machine's
platform and notes who asks for what. A client that has likewise, and nothing of the rest but Dask, plans with that
index, starts a cluster on the hosts, runs a task there and verifies; and once more, now that everything is there.

The process fails when a host differs from the plan, when the client has read a whole wheel that is not in the kit, or
when hosts have fetched one twice. Client, hosts and index share this machine's cores: the seconds are of work, not of
wires. ``--uplink`` limits what the client sends to the hosts, in Mbit/s.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from importlib.metadata import requires
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from uv import find_uv_bin

from likewise.formats.write import write
from likewise.model.plan import Plan
from likewise.sync import plan, read_source

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "tests"))

from environments import W160_TASK  # noqa: E402
from realenvs import COLUMNS, NEWEST, Row, count, line_of  # noqa: E402

from support.near_index import Got, near_index, slow_uplink  # noqa: E402
from support.prefixes import run  # noqa: E402
from support.testbed import Testbed, testbed  # noqa: E402
from support.users import make_user_venv  # noqa: E402

LISTED = REPOSITORY / "tests" / "data" / "snapshots" / "w160-macos-arm64.txt"
MAC, OWN = "osx-arm64", "linux-64"
CRITICAL = ("dask", "distributed", "tornado", "cloudpickle", "msgpack")
"""The client has them in the versions of the list: it is the one that talks to the nodes."""

CLIENT = """
import json, resource, sys, time
from pathlib import Path
from likewise import SSHCluster, sync

def task():
    import sys
    import MODULES
    return {name: str(getattr(sys.modules[name], "__version__", "")) for name in "MODULES".split(", ")}

if __name__ == "__main__":
    mac, python, config, *hosts = sys.argv[1:]
    began = time.monotonic()
    at = lambda: round(time.monotonic() - began, 1)
    plan = sync.plan(sync.read_source(Path(mac), client="osx-arm64", python=python), target="linux-64")
    seconds = {"planned": at()}
    with SSHCluster([hosts[0], *hosts], connect_options={"config": config}, worker_options={"nthreads": 1},
                    package_sync_target=plan) as cluster, cluster.get_client() as client:
        seconds["started"] = at()
        versions = client.submit(task).result()
        seconds["first task"] = at()
        report = cluster.verify()
        seconds["verified"] = at()
        prepared = cluster._prepared
        while [one for one in cluster.report.layers if not one.source and one.kind.value != "bytecode"]:
            time.sleep(0.2)
        print(json.dumps({
            "ok": report.ok and sorted(node.node for node in report.nodes) == sorted(hosts),
            "differences": [str(difference) for difference in report.differences],
            "seconds": seconds,
            "stages": {stage.name: [round(stage.seconds, 2), stage.summary] for stage in cluster.report.stages},
            "versions": versions,
            "kit": list(prepared.manifest.kit),
            "layers": [[one.kind.value, one.name, one.source, one.size] for one in cluster.report.layers],
            "peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000,
        }))
"""


def main() -> int:
    """Plan, launch, tell; 1 when a promise was not kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", nargs="+", default=[OWN, "linux-aarch64"])
    parser.add_argument("--exclude-newer", default=NEWEST)
    parser.add_argument("--hosts", type=int, default=2)
    parser.add_argument("--uplink", type=float, metavar="MBIT", help="default: as quick as it can")
    parser.add_argument("--wheels", type=Path, help="keep them there for the next time")
    parser.add_argument("--json", type=Path, help="also write all details there")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="likewise-bench-") as name:
        folder = Path(name)
        os.environ["LIKEWISE_CACHE"] = str(folder / "plans")  # no plan is remembered there
        mac = resolve_mac(folder / "mac.txt", given.exclude_newer)
        print(f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}", sep="\n")
        plans = {target: planned(mac, target, given.exclude_newer) for target in dict.fromkeys([OWN, *given.targets])}
        wheels = given.wheels or folder / "wheels"
        download(plans[OWN], wheels, folder)
        python = make_user_venv(folder / "venv", "asyncssh", *pins(mac, CRITICAL))
        with testbed(given.hosts) as bed:
            launches = launch(python, mac, bed, wheels, given.uplink)
    failed = [said for one in launches for said in complaints(one)]
    print(*tell(launches), *failed, sep="\n")
    if given.json:
        given.json.write_text(json.dumps({"load": os.getloadavg(), "launches": launches}, indent=1) + "\n")
    return bool(failed)


# ---- before the launch


def resolve_mac(path: Path, newest: str) -> Path:
    """The list with what likewise requires on a Mac."""
    own = [one for one in requires("likewise") or () if "extra ==" not in one]
    platform_ = ("--python-platform", "aarch64-apple-darwin", "--python-version", platform.python_version())
    how = ("--no-header", "--no-annotate", "--only-binary", ":all:", "--exclude-newer", newest)
    subprocess.run(
        [find_uv_bin(), "pip", "compile", "--quiet", "--no-config", *how, *platform_, "--output-file", path, "-"],
        input=LISTED.read_text("utf-8") + "".join(f"{one}\n" for one in own),
        text=True,
        check=True,
    )
    return path


def planned(mac: Path, target: str, newest: str) -> Plan:
    """The plan for a target, with the public index; a line of `realenvs.py`'s table is printed."""
    reading = read_source(mac, client=MAC, python=platform.python_version())
    began = time.monotonic()
    chosen = plan(reading, target=target, exclude_newer=newest)
    row = Row(name=target, client=MAC, python=chosen.target.python, distributions=len(reading.snapshot.distributions))
    row.seconds = round(time.monotonic() - began, 1)
    count(row, reading.snapshot, chosen)
    print(line_of(row), flush=True)
    return chosen


def download(chosen: Plan, wheels: Path, folder: Path) -> None:
    """Bring the wheels of a plan, checked by the hashes that it has, into a folder."""
    requirements = folder / "linux.txt"
    requirements.write_text(write(chosen, "requirements"), "utf-8")
    glibcs = [f"manylinux_2_{minor}_x86_64" for minor in range(5, 29)]
    tags = [word for tag in (*glibcs, "manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64")
            for word in ("--platform", tag)]  # fmt: skip
    run(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:",
        *tags, "--dest", wheels, "--requirement", requirements)  # fmt: skip


def pins(mac: Path, names: tuple[str, ...]) -> list[str]:
    """The lines of a list about these names."""
    return [line for line in mac.read_text("utf-8").split() if line.partition("==")[0] in names]


# ---- the launches


def launch(python: Path, mac: Path, bed: Testbed, wheels: Path, uplink: float | None) -> list[dict[str, Any]]:
    """Start on hosts that have nothing, and again; what the client and the index saw."""
    folder = python.parents[2]
    work = folder / "work"
    work.mkdir()
    (work / "client.py").write_text(CLIENT.replace("MODULES", ", ".join(W160_TASK)))
    argv = [str(python), "client.py", str(mac), platform.python_version(), str(bed.ssh_config)]
    found = []
    with near_index(bed, wheels) as index:
        environ = {"LIKEWISE_CACHE": str(folder / "cache"), "UV_DEFAULT_INDEX": index.url}
        environ |= {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": ""}
        if uplink:
            slow_uplink(bed, uplink)
        for _ in range(2):
            before, sent = len(index.got), bed.client_bytes().sent
            seen = json.loads(run(*argv, *bed.names, cwd=work, **environ).splitlines()[-1])
            seen["to hosts"] = bed.client_bytes().sent - sent
            found.append({**seen, **asked(index.got[before:], wheels, bed.client_address)})
            for host in bed:
                host.wait_idle(30)
    return found


def asked(got: list[Got], wheels: Path, client: str) -> dict[str, dict[str, int]]:
    """Bytes of each wheel, by who asked for it and how."""
    found: dict[str, dict[str, int]] = {"client, whole": {}, "client, parts": {}, "hosts": {}, "hosts, again": {}}
    for one in got:
        if not one.wheel:
            continue
        size = (wheels / one.wheel).stat().st_size
        kind = "hosts" if one.address != client else "client, parts" if one.part else "client, whole"
        if span := re.fullmatch(r"bytes=(\d*)-(\d*)", one.part):
            size = int(span[2]) - int(span[1]) + 1 if span[1] else int(span[2])
        kind = "hosts, again" if kind == "hosts" and one.wheel in found[kind] else kind
        found[kind][one.wheel] = found[kind].get(one.wheel, 0) + size
    return found


def complaints(one: dict[str, Any]) -> list[str]:
    """What is not as it has to be."""
    kit = set(one["kit"])
    mine = sorted({canonicalize_name(wheel.partition("-")[0]) for wheel in one["client, whole"]} - kit)
    said = [] if one["ok"] else [f"not verified: {one['differences'][:5]}"]
    said += [f"the client has read whole wheels: {', '.join(mine)}"] if mine else []
    said += [f"hosts have fetched twice: {', '.join(one['hosts, again'])}"] if one["hosts, again"] else []
    given = [name for kind, name, source, _ in one["layers"] if kind == "distribution" and source == "client"]
    return [*said, *([f"the client gave {', '.join(given)}"] if given else [])]


def tell(launches: list[dict[str, Any]]) -> list[str]:
    """A table with a column for each launch."""
    rows = [("", *("first launch", "again")[: len(launches)])]
    rows.append(("---",) * len(rows[0]))
    for name in launches[0]["seconds"]:
        rows.append((f"{name}, s", *(f"{one['seconds'][name]:.1f}" for one in launches)))
    for what, kind in (
        ("wheels fetched whole by the client (the kit's)", "client, whole"),
        ("wheels read in parts by the client", "client, parts"),
        ("wheels fetched by hosts", "hosts"),
    ):
        cells = [f"{len(one[kind])} ({sum(one[kind].values()) / 1e6:.1f} MB)" for one in launches]
        rows.append((what, *cells))
    rows.append(("sent by the client, MB", *(f"{one['to hosts'] / 1e6:.1f}" for one in launches)))
    rows.append(("the client's memory, MB", *(str(one["peak MB"]) for one in launches)))
    rows.append(("verified", *("yes" if one["ok"] else "no" for one in launches)))
    stages = ["", *(f"{name} {seconds:.1f} s: {said}" for name, (seconds, said) in launches[0]["stages"].items())]
    return ["", *(f"| {' | '.join(row)} |" for row in rows), *stages, ""]


if __name__ == "__main__":
    raise SystemExit(main())
