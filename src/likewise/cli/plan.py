"""``likewise plan``: the dry run."""

from __future__ import annotations

from collections.abc import Iterator

import click

from likewise.cli import options
from likewise.cli.perspective import as_session
from likewise.cli.scan import describe_problems
from likewise.console.render import console_reporter
from likewise.console.text import counted, format_bytes, table
from likewise.model.plan import Action, Decision, Plan
from likewise.model.snapshot import OriginKind, Snapshot

_COLORS = {Action.BUILD: "cyan", Action.SHIP: "cyan", Action.DROP: "yellow"}
_ORDINARY = (OriginKind.INDEX, OriginKind.CONDA, OriginKind.SYSTEM)


@click.command()
@click.option("--strict", is_flag=True, help="Refuse everything that is not an exact copy.")
@click.option("--ignore", multiple=True, metavar="NAME", help="Leave this distribution out. May be repeated.")
@click.option("--only", multiple=True, metavar="NAME", help="Ship this one and what it requires. May be repeated.")
@click.option("-v", "--verbose", is_flag=True, help="Also list what is simply copied.")
@options.as_json
@options.quiet
def command(
    strict: bool, ignore: tuple[str, ...], only: tuple[str, ...], verbose: bool, json: bool, quiet: bool
) -> None:
    """What would happen to each distribution, and why. Nothing is built, packed or started."""
    from likewise.sync import plan, scan

    with as_session(), console_reporter(quiet=quiet) as reporter:
        snapshot = scan(reporter=reporter)
        chosen = plan(snapshot, strict=strict, ignore=ignore, only=only, reporter=reporter)
    options.give(chosen, "\n".join(describe(snapshot, chosen, verbose=verbose)), json=json)


def describe(snapshot: Snapshot, plan: Plan, *, verbose: bool) -> Iterator[str]:
    """The plan for people: the sum first, then what is not simply a copy (everything when `verbose`)."""
    counts = {action: sum(d.action is action for d in plan.decisions) for action in Action}
    sizes = {d.name: d.size for d in snapshot.distributions} | {root.name: root.size for root in snapshot.code}
    size = sum(sizes.get(d.name, 0) for d in plan.decisions if d.action is not Action.DROP)
    summary = ", ".join(f"{count} {action.value}" for action, count in counts.items() if count)
    yield options.title(f"{summary or 'nothing to do'}; {format_bytes(size)} for {plan.target.platform}")
    shown = [d for d in plan.decisions if verbose or not is_ordinary(d, snapshot)]
    if shown:
        yield ""
        lines = table([(d.action.value, d.name, d.version, d.reason) for d in shown]).splitlines()
        yield from (click.style(line, fg=_COLORS.get(d.action)) for d, line in zip(shown, lines, strict=True))
    hidden = len(plan.decisions) - len(shown)
    if hidden:
        yield ""
        yield f"{counted(hidden, 'more distribution')} copied exactly; -v lists {'it' if hidden == 1 else 'them'} too"
    yield from describe_problems(plan.problems)


def is_ordinary(decision: Decision, snapshot: Snapshot) -> bool:
    """Whether there is nothing to say about it: an unmodified release, copied, and nobody asked otherwise."""
    distribution = snapshot.get(decision.name)
    return (
        decision.action is Action.COPY
        and decision.reason.startswith("exact copy")
        and distribution is not None
        and distribution.origin.kind in _ORDINARY
        and not distribution.modified
        and not distribution.missing
    )
