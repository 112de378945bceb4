"""Joining the nodes' reports: what is grouped, what counts as a difference."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from likewise.cluster.verify import (
    SCHEDULER,
    Place,
    client_differences,
    group_processes,
    join_reports,
    unreachable,
    verify_nodes,
)
from likewise.errors import BuildError
from likewise.model.digest import EMPTY
from likewise.model.layer import LayerKind
from likewise.model.manifest import LayerRef, Manifest
from likewise.model.target import Platform, Target
from likewise.model.verify import Difference, DifferenceKind, NodeReport

MANIFEST = Manifest(
    target=Target(platform=Platform(os="linux", arch="x86_64"), python="3.11.7"),
    python="python3.11",
    cache_tag="cpython-311",
    layers=(LayerRef(kind=LayerKind.INTERPRETER, name="python", version="3.11.7", digest=EMPTY, files=1, size=1),),
)
CHANGED = Difference(node="node-1", kind=DifferenceKind.CHANGED, layer="numpy", subject="lib/numpy/x.py")


def report(node: str = "node-0", **changes: Any) -> NodeReport:
    """A report of a node that is as it should be, but for `changes`."""
    good = NodeReport(
        node=node,
        prefix=f"/cache/{node}/prefixes/x",
        executable=f"/cache/{node}/prefixes/x/bin/python",
        python="3.11.7",
        manifest=MANIFEST.id,
        distributions={},
        files=1,
        size=1,
        seconds=0.1,
    )
    return msgspec.structs.replace(good, **changes)


def test_processes_are_grouped_by_prefix() -> None:
    """Each prefix on each node is one place, with the scheduler first of its processes."""
    nodes = {"tls://b": "node-1", "tls://a": "node-0", SCHEDULER: "node-0", "tls://c": "host"}
    prefixes = {"tls://b": "/1", "tls://a": "/0", SCHEDULER: "/0"}
    assert group_processes(nodes, prefixes) == (
        Place(node="node-0", prefix="/0", processes=(SCHEDULER, "tls://a")),
        Place(node="node-1", prefix="/1", processes=("tls://b",)),
    )


def test_two_prefixes_on_one_node_are_two_places() -> None:
    """A process that runs from another prefix is not hidden behind its neighbours."""
    places = group_processes({"a": "node-0", "b": "node-0"}, {"a": "/x", "b": "/usr"})
    assert [p.prefix for p in places] == ["/x", "/usr"]


def test_identical_nodes_are_fine() -> None:
    """Nodes that run the manifest and differ in nothing make a report that is ok."""
    joined = join_reports(MANIFEST, [report(), report("node-1")])
    assert joined.ok
    assert joined.manifest == MANIFEST.id


def test_a_nodes_difference_is_the_clusters() -> None:
    """What a node found is in the whole report."""
    joined = join_reports(MANIFEST, [report(), report("node-1", differences=(CHANGED,))])
    assert not joined.ok
    assert joined.differences == (CHANGED,)


def test_another_environment_is_a_difference() -> None:
    """A node whose prefix is sound, but of another manifest, differs."""
    joined = join_reports(MANIFEST, [report("node-1", manifest=EMPTY)])
    (found,) = joined.differences
    assert (found.kind, found.node, found.expected, found.actual) == (
        DifferenceKind.MANIFEST, "node-1", MANIFEST.id, EMPTY,
    )  # fmt: skip


def test_no_report_is_a_difference() -> None:
    """A node that gave no report is named with the reason; nobody's report is nobody's proof."""
    lost = unreachable("node-2", "tls://x", OSError("long story\nTimed out"))
    joined = join_reports(MANIFEST, [report()], [lost])
    assert not joined.ok
    assert (joined.differences[0].kind, joined.differences[0].actual) == (DifferenceKind.UNREACHABLE, "Timed out")
    assert unreachable("n", "s", TimeoutError()).actual == "TimeoutError"
    assert not join_reports(MANIFEST, []).ok


def test_a_client_that_cannot_be_looked_at_differs() -> None:
    """An editable that no longer builds is a difference of the client, not an error of verify."""

    def drift() -> tuple[Difference, ...]:
        raise BuildError("It does not build.", where="mine")

    (found,) = client_differences(drift)
    assert (found.kind, found.subject, found.actual) == (DifferenceKind.CLIENT, "mine", "It does not build.")
    assert client_differences(lambda: ()) == ()


class FakeClient:
    """Answers as processes would: `answers` maps an address to its prefix and to what its check says."""

    def __init__(self, answers: dict[str, tuple[str, Any]]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    async def run(self, function: Any, *args: Any, workers: list[str]) -> dict[str, Any]:
        return {workers[0]: await self._answer(workers[0], args)}

    async def run_on_scheduler(self, function: Any, *args: Any) -> Any:
        return await self._answer(SCHEDULER, args)

    async def _answer(self, address: str, args: tuple[Any, ...]) -> Any:
        prefix, check = self.answers[address]
        if prefix == "hangs":
            await asyncio.sleep(3600)
        if not args:
            return {"prefix": prefix}
        self.asked.append(address)
        if isinstance(check, Exception):
            raise check
        return check


def test_each_prefix_is_checked_once() -> None:
    """One process of each prefix is asked; when it can't answer the next one is, and all are named in the report."""
    good = (0, msgspec.json.encode(report()), "")
    client = FakeClient({SCHEDULER: ("/0", OSError("gone")), "a": ("/0", good), "b": ("/0", good)})
    nodes = {SCHEDULER: "node-0", "a": "node-0", "b": "node-0"}
    found = asyncio.run(verify_nodes(client, nodes, MANIFEST, timeout=5))
    assert found.ok
    assert client.asked == [SCHEDULER, "a"]
    assert found.nodes[0].processes == (SCHEDULER, "a", "b")


def test_failed_checks_are_differences() -> None:
    """A check that fails, or that says nonsense, is no proof."""
    client = FakeClient({"a": ("/0", (15, b"", "Traceback\nlikewise: There is no prefix")), "b": ("/1", (0, b"{", ""))})
    found = asyncio.run(verify_nodes(client, {"a": "node-0", "b": "node-1"}, MANIFEST, timeout=5))
    assert found.nodes == ()
    assert [(d.node, d.subject) for d in found.differences] == [("node-0", "/0"), ("node-1", "/1")]
    assert found.differences[0].actual == "likewise: There is no prefix"


def test_a_process_that_hangs_is_named() -> None:
    """A process that does not answer holds nothing up for ever, and is a difference."""
    client = FakeClient({"a": ("hangs", None), "b": ("/1", (0, msgspec.json.encode(report("node-1")), ""))})
    found = asyncio.run(verify_nodes(client, {"a": "node-0", "b": "node-1"}, MANIFEST, timeout=0.1))
    assert [(d.kind, d.node, d.subject) for d in found.differences] == [(DifferenceKind.UNREACHABLE, "node-0", "a")]
    assert [n.node for n in found.nodes] == ["node-1"]
