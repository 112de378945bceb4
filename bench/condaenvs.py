"""Plan every conda file in a folder for Linux, against the metadata of one channel, and report what happens.

    python bench/condaenvs.py FILES CHANNEL > report.md

FILES is a folder; what is no file of conda's, mamba's or pixi's in it is passed over. CHANNEL is a folder shaped like
a channel's root: one folder for each subdir, with a ``repodata.json``. Nothing is downloaded. Every environment and
every platform that a file has is planned for each of `TARGETS`.

*kept* is the share of packages, among those that the channel has for the target in the client's very version and that
the target's environment has at all, whose version is the client's. *not there* counts what had to be there and is not,
which the plan names. Where the channel lacks the exact version of Python or of something critical, that is the plan's
answer: there is none. So that the rest is not hidden by it, such a file is planned once more as if the client had the
nearest version that there is; these plans are counted apart. With ``--conflicts`` the words of the solver follow, for
each plan that there is not, and for each package that moved though the target has it in the client's version.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from likewise.errors import LikewiseError, PlanError
from likewise.formats.conda import is_conda, read_conda
from likewise.model.conda import CondaPackage
from likewise.model.plan import Action
from likewise.model.subdirs import platform_of, subdir_of
from likewise.model.target import Platform
from likewise.planner.conda import CondaPlan, plan_conda
from likewise.planner.conda_pins import by_distance, virtual_packages
from likewise.planner.options import PlanOptions
from likewise.planner.targets import parse_target
from likewise.resolution.rattler import RattlerSolver

TARGETS = ("linux-64", "linux-aarch64")
UNSTATED = "osx-64"
"""The platform of files that name none, unless a name in them does."""


@dataclass(frozen=True)
class Line:
    """One line of the report."""

    file: str
    environment: str
    client: str
    target: str
    packages: int
    lacking: tuple[str, ...]  # what must be exact and is not there, and what there is of it
    conflict: str  # what the solver says
    plan: CondaPlan | None
    kept: int
    available: int


def main() -> None:
    """Print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path)
    parser.add_argument("channel", type=Path)
    parser.add_argument("--conflicts", action="store_true", help="also why something is not as on the client")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        lines = list(report(given.files, given.channel.resolve(), Path(cache)))
    if not lines:
        sys.exit(f"No file of conda's is in {given.files}.")
    print("\n".join(table(lines)))
    if given.conflicts:
        print("\n".join(conflicts(lines)))


def report(files: Path, channel: Path, cache: Path) -> Iterator[Line]:
    """A line for each file, environment, platform and target."""
    for path in sorted(path for path in files.iterdir() if path.is_file()):
        text = path.read_text("utf-8", "replace")
        if not is_conda(text):
            continue
        for (environment, subdir), contents in read_conda(text).contents.items():
            where = subdir or next(iter(subdirs_in(contents.packages)), UNSTATED)
            client = platform_of(where)
            assert client is not None, where
            for target in TARGETS:
                yield line(path.name, environment, where, target, contents.packages, client, channel, cache)


def line(
    file: str,
    environment: str,
    where: str,
    name: str,
    packages: Sequence[CondaPackage],
    client: Platform,
    channel: Path,
    cache: Path,
) -> Line:
    """One plan; where something exact is lacking, another one with the nearest version of that."""
    target = parse_target(name, python="3.11.0")
    solver = RattlerSolver([channel.as_uri()], subdir_of(target.platform), virtual_packages(target), cache=cache)
    lacking: list[str] = []
    conflict = ""
    plan = None
    tried = list(packages)
    for _ in range(2):
        try:
            plan = plan_conda(tried, target, PlanOptions(), solver, client=client)
            break
        except PlanError as error:
            lacking += error.details.get("lacking", [])
            conflict = error.details.get("rattler", "")
            tried = list(nearest(tried, set(lacking), solver))
        except LikewiseError as error:
            conflict = str(error)
            break
    kept, available = count(plan, tried, solver) if plan else (0, 0)
    named = tuple(instead(one, packages, solver) for one in dict.fromkeys(lacking))
    return Line(file, environment, where, name, len(packages), named, conflict, plan, kept, available)


def instead(lacking: str, packages: Iterable[CondaPackage], solver: RattlerSolver) -> str:
    """What the channel has in place of a package: name and version, and the versions nearest to that."""
    one = next(package for package in packages if str(package) == lacking)
    offered = {offer.version for offer in solver.candidates([one.name]).get(one.name, ())}
    near = by_distance(one.version, offered, solver)[:2]
    return f"{one.name} {one.version} ({', '.join(near) or 'none'})"


def nearest(packages: Iterable[CondaPackage], lacking: set[str], solver: RattlerSolver) -> Iterator[CondaPackage]:
    """`packages` with the nearest version of what is lacking, without those of which there is none."""
    for one in packages:
        if str(one) not in lacking:
            yield one
            continue
        offered = {offer.version for offer in solver.candidates([one.name]).get(one.name, ())}
        if versions := by_distance(one.version, offered, solver):
            yield msgspec.structs.replace(one, version=versions[0], build="")


def count(plan: CondaPlan, packages: Sequence[CondaPackage], solver: RattlerSolver) -> tuple[int, int]:
    """How many packages keep their version, and of how many the channel has that version."""
    offers = solver.candidates([one.name for one in packages])
    has = {one.name for one in packages if any(o.version == one.version for o in offers.get(one.name, ()))}
    shipped = [d for d in plan.decisions if d.action is not Action.DROP and not d.new and d.name in has]
    return sum(not d.installed for d in shipped), len(shipped)


def subdirs_in(packages: Iterable[CondaPackage]) -> Iterator[str]:
    """Platforms that packages are named after: ``ld_impl_linux-64``."""
    return (match[1] for one in packages if (match := re.search(r"[-_]((?:linux|osx|win)-\w+)$", one.name)))


def table(lines: Sequence[Line]) -> Iterator[str]:
    """The report as Markdown."""
    exact = [one for one in lines if one.plan and not one.lacking]
    near = [one for one in lines if one.plan and one.lacking]
    refused = [one for one in lines if not one.plan]
    yield f"{len(lines)} plans. {len(exact)} are solved with Python and what is critical exact: {share(exact)}"
    yield f"{len(near)} would be with the nearest version of what the channel lacks of these: {share(near)}"
    yield f"{len(refused)} conflict even so."
    yield ""
    yield "| file | environment | client | target | packages | kept | moved | added | dropped | not there |"
    yield "|---|---|---|---|--:|--:|--:|--:|--:|--:|"
    yield from map(row, exact)
    yield ""
    yield "| file | environment | client | target | kept | moved | not there | lacking (there is) |"
    yield "|---|---|---|---|--:|--:|--:|---|"
    for one in [*near, *refused]:
        shown = f"{one.kept} of {one.available} | {moved(one)} | {absent(one)}" if one.plan else "conflict | | "
        yield f"| {place(one)} | {shown} | {', '.join(one.lacking)} |"


def share(lines: Sequence[Line]) -> str:
    """How much of what there is keeps its version, in all and in the worst of these plans."""
    kept, available = sum(one.kept for one in lines), sum(one.available for one in lines)
    least = min((one.kept / one.available for one in lines if one.available), default=1.0)
    return f"{kept} of {available} packages keep their version ({kept / max(available, 1):.1%}; at least {least:.0%})."


def row(one: Line) -> str:
    """A line about a plan."""
    decisions = one.plan.decisions if one.plan else ()
    new = sum(d.new for d in decisions)
    dropped = sum(d.action is Action.DROP for d in decisions)
    counts = f"{one.kept} of {one.available} | {moved(one)} | {new} | {dropped} | {absent(one)}"
    return f"| {place(one)} | {one.packages} | {counts} |"


def place(one: Line) -> str:
    """Which plan it is."""
    return f"{one.file} | {one.environment} | {one.client} | {one.target}"


def moved(one: Line) -> int:
    """How many packages have another version than on the client."""
    return sum(bool(d.installed) for d in one.plan.decisions) if one.plan else 0


def absent(one: Line) -> int:
    """How many that had to be there are not."""
    return sum(problem.code == "not-on-target" for problem in one.plan.problems) if one.plan else 0


def conflicts(lines: Sequence[Line]) -> Iterator[str]:
    """Why plans are not there, and why packages moved that need not have."""
    for one in lines:
        if not one.plan:
            yield f"\n{place(one)}\n{one.conflict}"
            continue
        for d in one.plan.decisions:
            if d.installed and "does not go" in d.reason:
                yield f"\n{place(one)}\n{d.name} {d.installed} → {d.version}: {d.reason}"


if __name__ == "__main__":
    main()
