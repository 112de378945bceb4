"""``likewise scan``: what is here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import click

from likewise.cli import options
from likewise.cli.perspective import as_session
from likewise.console.render import console_reporter
from likewise.console.text import counted, format_bytes, table
from likewise.model.snapshot import Distribution, OriginKind, Problem, Snapshot


@click.command()
@click.option(
    "--python",
    metavar="EXE",
    help="Look at the prefix of another interpreter (likewise need not be installed there).",
)
@options.as_json
@options.quiet
def command(python: str | None, json: bool, quiet: bool) -> None:
    """What is here: the interpreter, every distribution and where it came from, loose code, and problems.

    Loose code is what a Python started in the working directory could import.
    """
    from likewise.sync import scan

    with nullcontext() if python else as_session(), console_reporter(quiet=quiet) as reporter:
        snapshot = scan(python, reporter=reporter)
    options.give(snapshot, "\n".join(describe(snapshot)), json=json)


def describe(snapshot: Snapshot) -> Iterator[str]:
    """The snapshot for people."""
    interpreter = snapshot.interpreter
    yield options.title(
        f"Python {interpreter.version} ({interpreter.kind.value} of {interpreter.base_kind.value}) "
        f"on {interpreter.platform}"
    )
    yield f"prefix {interpreter.prefix}"
    size = sum(d.size for d in snapshot.distributions)
    files = sum(d.files for d in snapshot.distributions)
    yield ""
    yield options.title(
        f"{counted(len(snapshot.distributions), 'distribution')}, {counted(files, 'file')}, {format_bytes(size)}"
    )
    rows = [
        (d.name, d.version, describe_origin(d), format_bytes(d.size), describe_state(d)) for d in snapshot.distributions
    ]
    if rows:
        yield table(rows, right=[3])
    packages = [one for one in snapshot.conda if one.layer]
    if packages:
        yield ""
        yield options.title(f"{counted(len(packages), 'conda package')} besides")
        yield table([(one.name, one.version, one.build, format_bytes(one.size)) for one in packages], right=[3])
    if snapshot.code:
        yield ""
        yield options.title("loose code")
        yield table(
            [
                (root.name, root.path, root.why, counted(root.files, "file"), format_bytes(root.size))
                for root in snapshot.code
            ],
            right=[3, 4],
        )
    yield from describe_problems(snapshot.problems)


def describe_origin(distribution: Distribution) -> str:
    """Where a distribution came from, in a few words."""
    origin = distribution.origin
    if origin.kind is OriginKind.VCS:
        return f"{origin.url}@{origin.commit[:12]}"
    if origin.kind in (OriginKind.EDITABLE, OriginKind.DIRECTORY, OriginKind.SYSTEM):
        return f"{origin.kind.value} {origin.path}".strip()
    return origin.url or origin.kind.value


def describe_state(distribution: Distribution) -> str:
    """What differs from what was installed, "" when nothing does."""
    return ", ".join(
        f"{len(paths)} {word}"
        for paths, word in ((distribution.modified, "modified"), (distribution.missing, "missing"))
        if paths
    )


def describe_problems(problems: tuple[Problem, ...]) -> Iterator[str]:
    """The problems, the gravest first; nothing when there are none."""
    if not problems:
        return
    yield ""
    yield options.title(counted(len(problems), "problem"))
    gravity = ["error", "warning", "note"]
    for problem in sorted(problems, key=lambda p: gravity.index(p.severity.value)):
        word = problem.severity.value
        color = options.severity_color(word)
        yield f"{click.style(f'{word:7}', fg=color)}  {table([(problem.subject, problem.message)])}"
