"""Does every node run exactly the manifest, and is the manifest still the client's environment?

Each process of the cluster says from which prefix it runs; each prefix is checked once, by the node itself, byte for
byte; the client looks at its own environment meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from distributed import Client

from likewise.cluster.node_side import verify_prefix, whereabouts
from likewise.errors import LikewiseError
from likewise.model.change import Change
from likewise.model.manifest import Manifest
from likewise.model.verify import Difference, DifferenceKind, NodeReport, VerifyReport

SCHEDULER = "scheduler"
"""Stands for the scheduler's address where a call goes to the scheduler itself."""

_ANSWER = 30.0  # seconds in which a process that is not stuck answers a simple question

Asker = Callable[..., Any]


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """One prefix on one node, and the addresses of the processes that run from it and have adopted the same deltas."""

    node: str
    prefix: str
    processes: tuple[str, ...]
    deltas: tuple[str, ...] = ()


async def verify_nodes(
    client: Client, nodes: Mapping[str, str | None], manifest: Manifest, *, timeout: float
) -> VerifyReport:
    """Check every node.

    Parameters
    ----------
    client : distributed.Client
        Asynchronous, connected.
    nodes : mapping
        The address of each process to the name of its node; None: what the node calls itself. The scheduler's address
        is `SCHEDULER`.
    manifest : Manifest
        What they should run.
    timeout : float
        Seconds that a node has for its report.
    """
    found = await asyncio.gather(*(ask(client, address, min(timeout, _ANSWER), whereabouts) for address in nodes))
    facts = dict(zip(nodes, found, strict=True))
    names = {a: node or (a if isinstance(facts[a], Exception) else facts[a]["host"]) for a, node in nodes.items()}
    answered = {a: f for a, f in facts.items() if not isinstance(f, Exception)}
    places = group_processes(
        names,
        {a: f["prefix"] for a, f in answered.items()},
        {a: tuple(f.get("deltas", ())) for a, f in answered.items()},
    )
    answers = await asyncio.gather(*(_report(client, place, timeout) for place in places))
    lost = [unreachable(names[address], address, f) for address, f in facts.items() if isinstance(f, Exception)]
    reports = [answer for answer in answers if isinstance(answer, NodeReport)]
    lost += [answer for answer in answers if isinstance(answer, Difference)]
    return join_reports(manifest, reports, lost)


async def ask(client: Client, address: str, timeout: float, function: Asker, *args: Any, nanny: bool = False) -> Any:
    """What `function` returns in the process at `address` (or in its nanny), or the exception that came instead."""
    try:
        if address == SCHEDULER:
            asked = client.run_on_scheduler(function, *args)
            return await asyncio.wait_for(asked, timeout)
        where = {"workers": [address], **({"nanny": True} if nanny else {})}
        asked = client.run(function, *args, **where)
        return (await asyncio.wait_for(asked, timeout))[address]
    except Exception as error:  # whatever a sick process answers
        return error


async def _report(client: Client, place: Place, timeout: float) -> NodeReport | Difference:
    """The report of a prefix, by the first of its processes that can make one."""
    problem: Exception | str = ""
    for address in place.processes:
        answer = await ask(client, address, timeout + 10, verify_prefix, place.node, timeout)
        if isinstance(answer, Exception):
            problem = answer
            continue
        code, out, said = answer
        try:
            if code == 0:
                report = msgspec.json.decode(out, type=NodeReport)
                return msgspec.structs.replace(report, processes=place.processes)
            problem = said.strip() or f"exit code {code}"
        except msgspec.MsgspecError as error:
            problem = error
        break  # another process of the same prefix would say the same
    return unreachable(place.node, place.prefix, problem)


def unreachable(node: str, subject: str, problem: Exception | str) -> Difference:
    """The difference that says that no report came from a process or prefix, and why."""
    text = f"{type(problem).__name__}: {problem}".rstrip(": ") if isinstance(problem, Exception) else problem
    last = text.strip().splitlines()[-1] if text.strip() else ""
    return Difference(
        node=node, kind=DifferenceKind.UNREACHABLE, layer="", subject=subject, expected="a report", actual=last
    )


def group_processes(
    nodes: Mapping[str, str], prefixes: Mapping[str, str], deltas: Mapping[str, tuple[str, ...]] | None = None
) -> tuple[Place, ...]:
    """One `Place` for each prefix on each node, the scheduler's first; one more for each difference in deltas.

    Parameters
    ----------
    nodes : mapping
        Address of a process to the name of its node.
    prefixes : mapping
        Address of a process to its prefix; those that did not answer are missing.
    deltas : mapping, optional
        Address of a process to what it has adopted.
    """
    places: dict[tuple[str, str, tuple[str, ...]], list[str]] = {}
    for address in sorted(prefixes, key=lambda a: (a != SCHEDULER, nodes[a], a)):
        place = (nodes[address], prefixes[address], (deltas or {}).get(address, ()))
        places.setdefault(place, []).append(address)
    return tuple(Place(node=n, prefix=p, processes=tuple(a), deltas=d) for (n, p, d), a in places.items())


def join_reports(manifest: Manifest, reports: Sequence[NodeReport], lost: Iterable[Difference] = ()) -> VerifyReport:
    """All nodes' reports as one; a node that runs another environment is a difference of its own."""
    differences: list[Difference] = []
    for report in reports:
        if report.manifest != manifest.id:
            differences.append(
                Difference(
                    node=report.node,
                    kind=DifferenceKind.MANIFEST,
                    layer="manifest",
                    subject=report.prefix,
                    expected=manifest.id,
                    actual=report.manifest,
                )
            )
        differences += report.differences
    return VerifyReport(manifest=manifest.id, nodes=tuple(reports), differences=(*differences, *lost))


def client_differences(drift: Callable[[], Iterable[Difference]]) -> tuple[Difference, ...]:
    """What `drift` finds; an environment that can't be looked at any more differs, too."""
    try:
        return tuple(drift())
    except LikewiseError as error:
        return (
            Difference(
                node="client", kind=DifferenceKind.CLIENT, layer="", subject=error.where or "client", actual=error.what
            ),
        )


def stale_differences(changes: Iterable[Change], node: str) -> tuple[Difference, ...]:
    """What the scheduler has loaded and keeps, after it was changed in the running cluster."""
    return tuple(
        Difference(
            node=node,
            kind=DifferenceKind.VERSION,
            layer=change.name,
            subject=SCHEDULER,
            expected=change.new or "not there",
            actual=change.old,
        )
        for change in changes
    )
