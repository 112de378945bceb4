"""What a plan for Linux makes of environments that people have on their laptops: a line for each, as Markdown or JSON.

``python bench/realenvs.py FILE…`` plans each file that ``likewise plan --from`` can read, for ``--target``, with the
index as it was at ``--exclude-newer``. Without files it takes those in tests/data/snapshots. A distribution counts as
*exact* when the nodes get the version that the client has (or its build for another accelerator), as *moved* when they
get another one, as *dropped* when it exists on the client's platform alone, and as *failed* when it should be on the
nodes and is not. *Same version there* are those of which the index has a wheel of that very version for the target,
which is asked for each of them alone, with nothing that could conflict.
"""

from __future__ import annotations

import argparse
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
from uv import find_uv_bin

from likewise.errors import LikewiseError
from likewise.model.plan import Action, Plan
from likewise.model.snapshot import Severity, Snapshot
from likewise.sync import plan, read_source

ROOT = Path(__file__).parent.parent
SNAPSHOTS = ROOT / "tests" / "data" / "snapshots"
NEWEST = "2026-11-20"


class Row(msgspec.Struct, kw_only=True):
    """What became of one file: numbers, and name → what is to be said about it."""

    name: str
    client: str = ""
    python: str = ""
    distributions: int = 0
    exact: int = 0
    moved: dict[str, str] = {}
    dropped: dict[str, str] = {}
    failed: dict[str, str] = {}
    added: int = 0
    there: list[str] = []
    error: str = ""
    seconds: float = 0.0


COLUMNS = ("file", "client", "in", "exact", "moved", "dropped", "failed", "added", "same version there", "seconds")


def main() -> int:
    """Plan all files and print the report; 1 when one of them could not even be read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--target", default="linux-64")
    parser.add_argument("--exclude-newer", default=NEWEST)
    parser.add_argument("--python", default="3.11", help="for files that name none")
    parser.add_argument("--json", type=Path, help="also write all details there")
    given = parser.parse_args()
    rows = []
    print(f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}", sep="\n")
    for path in given.files or sorted(SNAPSHOTS.glob("*.txt")):
        row = row_of(path, given.target, given.exclude_newer, given.python)
        print(line_of(row), flush=True)
        rows.append(row)
    print(*details(rows), sep="\n")
    if given.json:
        given.json.write_bytes(msgspec.json.format(msgspec.json.encode(rows), indent=1))
    return any(row.error for row in rows)


def row_of(path: Path, target: str, newest: str, python: str) -> Row:
    """Plan one file."""
    try:
        reading = read_source(path)
        if reading.listing is not None and not reading.listing.python:
            reading = read_source(path, python=python)
    except LikewiseError as error:
        return Row(name=path.name, error=str(error))
    snapshot = reading.snapshot
    row = Row(
        name=path.name,
        client=f"{snapshot.interpreter.platform.os}-{snapshot.interpreter.platform.arch}",
        python=snapshot.interpreter.version,
        distributions=len(snapshot.distributions),
    )
    began = time.monotonic()
    try:
        chosen = plan(reading, target=target, exclude_newer=newest)
    except LikewiseError as error:
        row.error = str(error)
        return row
    row.seconds = round(time.monotonic() - began, 1)
    count(row, snapshot, chosen)
    row.there = [name for name in (*row.moved, *row.failed) if is_there(snapshot, name, chosen, newest)]
    return row


def count(row: Row, snapshot: Snapshot, chosen: Plan) -> None:
    """Sort the decisions into `row`."""
    errors = {problem.subject for problem in chosen.problems if problem.severity is Severity.ERROR}
    for decision in chosen.decisions:
        installed = snapshot.get(decision.name)
        if installed is None:
            row.added += 1
        elif decision.action is Action.DROP:
            (row.failed if decision.name in errors else row.dropped)[decision.name] = decision.reason
        elif public(decision.version) == public(installed.version):
            row.exact += 1
        else:
            row.moved[decision.name] = f"{installed.version} → {decision.version}: {decision.reason}"


def public(version: str) -> str:
    """`version` without its local label (PEP 440), which names the accelerator that a build is for."""
    return version.partition("+")[0]


def is_there(snapshot: Snapshot, name: str, chosen: Plan, newest: str) -> bool:
    """Whether the index has a wheel of the client's version for the target, asked for this distribution alone."""
    installed = snapshot.get(name)
    assert installed is not None
    platform = chosen.target.platform
    done = subprocess.run(
        [
            *(find_uv_bin(), "pip", "compile", "-", "--quiet", "--no-config", "--no-deps", "--only-binary", ":all:"),
            *("--python-platform", f"{platform.arch}-manylinux_{platform.libc_version.replace('.', '_')}"),
            *("--python-version", chosen.target.python, "--exclude-newer", newest),
        ],
        input=f"{name}=={public(installed.version)}\n",
        text=True,
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


def line_of(row: Row) -> str:
    """The line of the table."""
    if row.error:
        numbers = ["refused", *[""] * (len(COLUMNS) - 4)]
    else:
        there = row.exact + len(row.there)
        kept = f"{row.exact} of {there} ({100 * row.exact / there:.1f} %)" if there else "–"
        sizes = map(len, (row.moved, row.dropped, row.failed))
        numbers = [str(row.exact), *map(str, sizes), str(row.added), kept, f"{row.seconds:.1f}"]
    client = f"{row.client}, {row.python}" if row.client else ""
    return f"| {' | '.join([row.name, client, str(row.distributions or ''), *numbers])} |"


def details(rows: Iterable[Row]) -> Iterator[str]:
    """What is not exact, file by file, each with its reason."""
    for row in rows:
        lines = [f"- error: {row.error}"] if row.error else []
        for word, what in (("moved", row.moved), ("dropped", row.dropped), ("failed", row.failed)):
            lines += [f"- {word}: {name}: {reason}" for name, reason in what.items()]
        if lines:
            yield from ("", f"**{row.name}**", "", *lines)


if __name__ == "__main__":
    raise SystemExit(main())
