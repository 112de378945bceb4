"""A plan as people read it: the answer first, then only what is not trivially exact, each with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import click

from likewise.cli import options
from likewise.cli.scan import describe_problems
from likewise.console.text import counted, format_bytes, table
from likewise.model.plan import Action, CondaDecision, Decision, Plan
from likewise.model.snapshot import OriginKind, Snapshot

_ORDINARY = (OriginKind.INDEX, OriginKind.CONDA, OriginKind.SYSTEM)
_MOVED, _ADDED, _EXACT = "moved", "added", "exact"
_WHOLE = frozenset({Action.COPY, Action.FETCH})  # of one release, that is, not made from something
_ORDER = (_MOVED, _ADDED, Action.DROP.value, Action.BUILD.value, Action.SHIP.value, _EXACT)
_COLORS = {
    **dict.fromkeys((_MOVED, Action.DROP.value), "yellow"),
    **dict.fromkeys((_ADDED, Action.BUILD.value, Action.SHIP.value), "cyan"),
}


def describe(snapshot: Snapshot, plan: Plan, *, verbose: bool) -> Iterator[str]:
    """The plan for people: the sum first, then what is not simply the same (everything when `verbose`)."""
    elsewhere = is_elsewhere(snapshot, plan)
    yield from _sums(snapshot, plan) if elsewhere else _sum(snapshot, plan)
    decisions = (*plan.conda, *plan.decisions)
    shown = [d for d in decisions if verbose or not is_ordinary(d, snapshot)]
    if elsewhere:
        shown.sort(key=lambda d: _ORDER.index(_kind(d)))
    if shown:
        yield ""
        yield from _rows(shown)
    hidden = Counter(d.action for d in decisions)
    hidden.subtract(d.action for d in shown)
    if count := hidden.total():
        what = f"exact ({_counts(hidden)})" if elsewhere else "copied exactly"
        yield ""
        noun = f"{'more ' if shown else ''}{'package' if plan.conda else 'distribution'}"
        yield f"{counted(count, noun)} {what}; -v lists {'it' if count == 1 else 'them'} too"
    yield from describe_problems(plan.problems)


def is_elsewhere(snapshot: Snapshot, plan: Plan) -> bool:
    """Whether more can happen than copying: the nodes are of another platform, or get what is not here."""
    here, there = snapshot.interpreter.platform, plan.target.platform
    return (here.os, here.arch) != (there.os, there.arch) or any(
        d.action is Action.FETCH for d in (*plan.decisions, *plan.conda)
    )


def is_ordinary(decision: Decision, snapshot: Snapshot) -> bool:
    """Whether there is nothing to say about it: an unmodified release, exactly the same, and nobody asked otherwise."""
    if isinstance(decision, CondaDecision):
        return decision.action in _WHOLE and _kind(decision) == _EXACT
    distribution = snapshot.get(decision.name)
    return (
        decision.action in _WHOLE
        and _kind(decision) == _EXACT
        and not decision.reason.startswith("not left out")
        and distribution is not None
        and distribution.origin.kind in _ORDINARY
        and not distribution.modified
        and not distribution.missing
    )


def _sum(snapshot: Snapshot, plan: Plan) -> Iterator[str]:
    """For nodes of the client's own platform."""
    size = sum(_sizes(snapshot).get(d.name, 0) for d in plan.decisions if d.action is not Action.DROP)
    summary = _counts(Counter(d.action for d in plan.decisions)) or "nothing to do"
    yield options.title(f"{summary}; {format_bytes(size)} for {plan.target.platform}")


def _sums(snapshot: Snapshot, plan: Plan) -> Iterator[str]:
    """For another platform: how much of it is the same, and where the bytes come from."""
    kinds = Counter(map(_kind, (*plan.conda, *plan.decisions)))
    summary = ", ".join(f"{kinds[kind]} {kind}" for kind in (_EXACT, *_ORDER[:-1]) if kinds[kind])
    python, here = plan.target.python, snapshot.interpreter.version
    python += f" ({here} here)" if python != here else ""
    cuda = f", CUDA {plan.target.cuda}" if plan.target.cuda else ""
    yield options.title(f"{summary or 'nothing to do'}; for {plan.target.platform}, Python {python}{cuda}")
    sizes = _sizes(snapshot)
    fetched = [d.file.size for d in plan.decisions if d.action is Action.FETCH and d.file is not None]
    ours = [d for d in plan.decisions if d.action in (Action.COPY, Action.BUILD, Action.SHIP)]
    parts = [f"{len(ours)} from here{_amount([sizes.get(d.name) for d in ours])}"] if ours else []
    parts += [f"{counted(len(fetched), 'wheel')} to fetch{_amount(fetched)}"] if fetched else []
    conda = [d.file.size for d in plan.conda if d.action is Action.FETCH and d.file is not None]
    parts += [f"{counted(len(conda), 'conda package')} to fetch{_amount(conda)}"] if conda else []
    if parts:
        yield ", ".join(parts)


def _amount(sizes: Sequence[int | None]) -> str:
    """`` (1.2 GB)``, as far as the sizes are known."""
    known = sum(size or 0 for size in sizes)
    more = " or more" if None in sizes else ""
    return f" ({format_bytes(known)}{more})" if known else ""


def _rows(decisions: Sequence[Decision]) -> Iterator[str]:
    """One line each, the words of its first column by what matters most."""
    cells = [(_word(d), d.name, _versions(d), d.reason) for d in decisions]
    for decision, line in zip(decisions, table(cells).splitlines(), strict=True):
        yield click.style(line, fg=_COLORS.get(_kind(decision)))


def _kind(decision: Decision) -> str:
    """What happens to it as people see it: copied or fetched, an exact one is the same."""
    if decision.action in _WHOLE:
        return _ADDED if decision.new else _MOVED if decision.installed else _EXACT
    return decision.action.value


def _word(decision: Decision) -> str:
    return decision.action.value if _kind(decision) == _EXACT else _kind(decision)


def _versions(decision: Decision) -> str:
    return f"{decision.installed} → {decision.version}" if decision.installed else decision.version


def _sizes(snapshot: Snapshot) -> dict[str, int]:
    return {d.name: d.size for d in snapshot.distributions} | {root.name: root.size for root in snapshot.code}


def _counts(actions: Counter[Action]) -> str:
    return ", ".join(f"{actions[action]} {action.value}" for action in Action if actions[action])
