"""An ordinary Dask program: it needs numpy, pandas, an editable package, a git dependency, a loose module beside this
script, and a package that somebody patched by hand. Started in the environment that `make_env.py` makes.

Every claim is checked; the exit code is 0 only when all of them hold.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import calibration
import outliers
import pandas as pd
import stations
import tabulate
from distributed import Client

from likewise import Cluster, scan
from likewise.console.reports import describe_launch, describe_verify
from likewise.model.report import Stage


def monthly_means(station: str) -> pd.Series:
    """The work: one station's monthly mean temperatures. Uses everything that is hard to copy."""
    values = outliers.dropped(calibration.corrected(stations.readings(station)))
    means = values.resample("MS").mean().rename(f"{station} ({tabulate.by_hand()})")
    time.sleep(0.05)  # long enough for every worker to get its share
    return means


def whereabouts() -> dict[str, Any]:
    """What a process runs, as it sees it itself: run here, and on every worker."""
    with open("/proc/self/maps") as maps:
        mapped = {line.split(maxsplit=5)[5].strip() for line in maps if "/" in line}
    modules = {getattr(module, "__file__", None) or "" for module in list(sys.modules.values())}
    return {
        "pid": os.getpid(),
        "prefix": sys.prefix,
        "interpreter": os.path.realpath(sys.executable),
        "path": [entry for entry in sys.path if entry],
        "files": sorted(os.path.realpath(f) for f in modules | mapped if f.startswith("/")),
    }


def main() -> None:
    """The demo, step by step."""
    here = whereabouts()
    snapshot = scan()
    heading("The client")
    print(f"Python {snapshot.interpreter.version}, prefix {sys.prefix}")
    print(f"{len(snapshot.distributions)} distributions; among them")
    for d in snapshot.distributions:
        if d.origin.kind.value in ("editable", "vcs") or d.modified:
            print(f"  {d.name} {d.version}: {'patched by hand, ' * bool(d.modified)}{d.origin.kind.value}")
    for root in snapshot.code:
        print(f"  {root.name}: {root.files} loose files ({root.why})")
    check("the patched file was noticed", any(d.name == "tabulate" and d.modified for d in snapshot.distributions))
    check("the git dependency was noticed", snapshot.get("calibration").origin.commit != "")

    heading("First start: nothing is there yet")
    with timed("until the cluster was there"):
        cluster = Cluster(n_workers=2, threads_per_worker=1, nodes=2)
    with cluster, cluster.get_client() as client:
        print(describe_launch(cluster.report))
        compute(client)
        prefixes = prove(cluster, client, here)
    made = {prefix: os.stat(prefix).st_ctime_ns for prefix in prefixes}

    heading("Second start: everything is there")
    with timed("until the cluster was there"):
        cluster = Cluster(n_workers=2, threads_per_worker=1, nodes=2)
    with cluster:
        print(describe_launch(cluster.report))
        check("nothing was built, compiled or packed", not any(map(work_of, cluster.report.stages)))
        check("both nodes run the prefixes they had", {p: os.stat(p).st_ctime_ns for p in prefixes} == made)
    print("\nAll of it held.")


def compute(client: Client) -> None:
    """The computation, on the workers, compared with the same on the client."""
    heading("A computation on the workers")
    names = list(stations.altitudes().index)
    with timed("for the first result and all others"):
        means = pd.concat(client.gather(client.map(monthly_means, names)), axis=1)
    print(means.describe().loc[["mean", "min", "max"]].round(1).T.to_string())
    check("the result is the client's own", means.equals(pd.concat(map(monthly_means, names), axis=1)))


def prove(cluster: Cluster, client: Client, here: dict[str, Any]) -> set[str]:
    """The workers run the same environment, and yet nothing of the client's own. Returns their prefixes."""
    heading("The proof")
    report = cluster.verify()
    print(describe_verify(report))
    check("every node runs exactly the manifest", report.ok)
    there = {"scheduler": client.run_on_scheduler(whereabouts), **client.run(whereabouts)}
    heading("Where they run")
    for who, seen in {"client": here, **there}.items():
        print(f"{who}, process {seen['pid']}\n  prefix       {seen['prefix']}\n  interpreter  {seen['interpreter']}")
    prefixes = {seen["prefix"] for seen in there.values()}
    interpreters = {seen["interpreter"] for seen in there.values()}
    check("no process shares the client's prefix", here["prefix"] not in prefixes)
    check("no process runs the client's interpreter", here["interpreter"] not in interpreters)
    check("the workers are on two nodes", len(prefixes) == 2)
    leaked = [f for s in there.values() for f in [*s["path"], *s["files"]] if is_clients(f)]
    check("no process has loaded a single file of the client's", not leaked, leaked)
    return prefixes


def is_clients(file: str) -> bool:
    """Whether `file` belongs to the client's prefix, its interpreter, its editable packages or its loose code."""
    stdlib = os.path.dirname(os.path.realpath(os.__file__))
    own = [sys.prefix, os.path.dirname(__file__), os.path.dirname(stations.__file__), stdlib]
    return any(file == folder or file.startswith(folder + "/") for folder in map(os.path.realpath, own))


def work_of(stage: Stage) -> int:
    """How many things a stage made; what it started or could use again is not counted."""
    return sum(count for what, count in stage.done.items() if what not in ("processes", "reused"))


def heading(text: str) -> None:
    """Start a part of the output."""
    print(f"\n{text}\n{'─' * len(text)}", flush=True)


def check(claim: str, holds: bool, details: object = "") -> None:
    """Say that a claim holds, or end the demo with exit code 1."""
    if not holds:
        sys.exit(f"✗ {claim}: does not hold. {details}")
    print(f"✓ {claim}", flush=True)


class timed:
    """Print how long the block took."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        self.started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        print(f"{time.perf_counter() - self.started:.2f} s {self.what}", flush=True)


if __name__ == "__main__":
    main()
