"""How long a plan for another platform takes, beside the ``uv pip compile`` inside it.

The snapshot is a macOS one: the distributions of a list (``name==version`` lines, by default W160's) with the
requirements that their wheels have, installed into a prefix for Linux and then taken for compiled for macOS wherever
they are not pure. What is measured: `plan_elsewhere` as a whole, the resolver's calls in it (from the question to the
lock), and uv's own process among these. uv's cache is warm: a first plan that is not counted fills it.

    python bench/plan.py --prefix PYTHON [--target linux-64] [--runs 7]

`PYTHON` is the interpreter of a prefix that has the list and likewise's own requirements.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from likewise.model.plan import Action, Plan
from likewise.model.snapshot import Distribution, Snapshot
from likewise.model.target import Platform, Target
from likewise.planner.elsewhere import plan_elsewhere
from likewise.planner.options import PlanOptions
from likewise.planner.requirements import requirement_graph
from likewise.planner.resolver import Lock, Question
from likewise.planner.tags import is_pure
from likewise.planner.targets import parse_target
from likewise.resolution.uv import UvResolver
from likewise.sync import scan

MAC = Platform(os="macos", arch="aarch64")


class Timed(UvResolver):
    """uv, and how long it took."""

    def __init__(self, work: Path, exclude_newer: str) -> None:
        super().__init__(work=work, exclude_newer=exclude_newer)
        self.questions = 0
        self.asking = 0.0
        self.running = 0.0

    def resolve(self, question: Question) -> Lock:
        """Answer, and take the time."""
        begun = time.perf_counter()
        self.questions += 1
        try:
            return super().resolve(question)
        finally:
            self.asking += time.perf_counter() - begun

    def _run(self, arguments: Sequence[str], question: Question) -> subprocess.CompletedProcess[str]:
        begun = time.perf_counter()
        try:
            return super()._run(arguments, question)
        finally:
            self.running += time.perf_counter() - begun


def main() -> None:
    """Measure and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prefix", help="the python of the prefix (default: the running one)")
    parser.add_argument("--target", default="linux-64")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--exclude-newer", default="")
    given = parser.parse_args()
    snapshot = on_a_mac(scan(given.prefix))
    target = parse_target(given.target, python=snapshot.interpreter.version)
    with tempfile.TemporaryDirectory() as work:
        runs = [one_run(snapshot, target, Path(work), given.exclude_newer) for _ in range(given.runs + 1)][1:]
    print(json.dumps(report(snapshot, runs), indent=2))


def one_run(snapshot: Snapshot, target: Target, work: Path, exclude_newer: str) -> tuple[float, Timed, Plan]:
    """Seconds, what uv took of them, and the plan."""
    requirement_graph.cache_clear()
    resolver = Timed(work, exclude_newer)
    begun = time.perf_counter()
    plan = plan_elsewhere(snapshot, target, PlanOptions(), resolver, here=True)
    return time.perf_counter() - begun, resolver, plan


def report(snapshot: Snapshot, runs: list[tuple[float, Timed, Plan]]) -> dict[str, object]:
    """Medians over `runs`, and what the plan is."""
    plan = runs[-1][2]
    return {
        "distributions": len(snapshot.distributions),
        "pure": sum(is_pure(d.tags) for d in snapshot.distributions),
        "questions": runs[-1][1].questions,
        "plan_s": round(statistics.median(total for total, _, _ in runs), 3),
        "resolver_s": round(statistics.median(resolver.asking for _, resolver, _ in runs), 3),
        "uv_s": round(statistics.median(resolver.running for _, resolver, _ in runs), 3),
        "ratio": round(statistics.median(total / resolver.running for total, resolver, _ in runs), 3),
        "around_uv_s": round(statistics.median(total - resolver.running for total, resolver, _ in runs), 3),
        "actions": {action.value: sum(d.action is action for d in plan.decisions) for action in Action},
        "moved": sum(bool(d.installed) for d in plan.decisions),
        "new": sum(d.new for d in plan.decisions),
    }


def on_a_mac(snapshot: Snapshot) -> Snapshot:
    """`snapshot` as if what is compiled in it were compiled for macOS."""
    interpreter = msgspec.structs.replace(snapshot.interpreter, platform=MAC)
    return msgspec.structs.replace(
        snapshot, interpreter=interpreter, distributions=tuple(map(_for_a_mac, snapshot.distributions))
    )


def _for_a_mac(d: Distribution) -> Distribution:
    return d if is_pure(d.tags) else msgspec.structs.replace(d, tags=("cp311-cp311-macosx_11_0_arm64",))


if __name__ == "__main__":
    main()
