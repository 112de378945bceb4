"""A plan for another platform, carried out by this client: what comes from where, and what is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from likewise.elsewhere import is_elsewhere, replica_of, require_pure, settle
from likewise.errors import PlanError, UnsupportedError
from likewise.layers.relocate import source_data
from likewise.model.digest import EMPTY
from likewise.model.layer import LayerKind, LayerSource, layer_source
from likewise.model.plan import Action, Decision, Plan
from likewise.model.snapshot import CodePosition, CodeRoot, Distribution, Interpreter, Origin, OriginKind, Snapshot
from likewise.model.target import Platform, Target
from support.values import make_interpreter

MAC = Platform(os="macos", arch="aarch64")
NODES = Target(platform=Platform(os="linux", arch="x86_64", libc="glibc", libc_version="2.28"), python="3.11.7")
KIT = ("distributed", "msgspec")


def installed(name: str, version: str = "1.0", kind: OriginKind = OriginKind.INDEX, **other: Any) -> Distribution:
    return Distribution(name=name, version=version, origin=Origin(kind=kind), **other)


def client(*more: Distribution, interpreter: Interpreter | None = None, own: OriginKind = OriginKind.INDEX) -> Snapshot:
    """A Mac with likewise, distributed and `more`."""
    found = [installed("likewise", "0.5", own), installed("distributed", "2024.8.0"), *more]
    return Snapshot(
        interpreter=interpreter or make_interpreter(platform=MAC),
        distributions=tuple(sorted(found, key=lambda one: one.name)),
        code=(
            CodeRoot(
                name="code-0", path="/work", why="sys.path[0]", position=CodePosition.BEFORE, files=1, size=1,
                content=EMPTY,
            ),
        ),
    )  # fmt: skip


def decided(name: str, action: Action = Action.FETCH, version: str = "1.0", **other: Any) -> Decision:
    return Decision(name=name, version=version, action=action, reason="", **other)


def planned(*more: Decision, kit: tuple[str, ...] = KIT, target: Target = NODES) -> Plan:
    """A plan with what every node needs, and `more`."""
    about = {one.name: one for one in (decided("distributed", version="2024.8.0", critical=True), decided("msgspec"))}
    return Plan(target=target, decisions=tuple({**about, **{one.name: one for one in more}}.values()), kit=kit)


@pytest.mark.parametrize(
    ("system", "python", "expected"),
    [
        ({}, "3.11.7", False),
        ({"libc_version": "2.17"}, "3.11.7", False),  # whether it is new enough the nodes say
        ({"arch": "aarch64"}, "3.11.7", True),
        ({"libc": "musl"}, "3.11.7", True),
        ({}, "3.11.9", True),
    ],
)
def test_what_is_elsewhere(system: dict[str, str], python: str, expected: bool) -> None:
    """Another system, architecture, kind of C library or Python is elsewhere; so is whatever was planned by itself."""
    own = make_interpreter()
    target = Target(platform=msgspec.structs.replace(own.platform, **system), python=python)
    assert is_elsewhere(target, own) is expected
    assert is_elsewhere(Plan(target=target, decisions=(), kit=()), own)
    assert not is_elsewhere(None, own)


@pytest.mark.parametrize("action", [Action.FETCH, Action.DROP, None])
@pytest.mark.parametrize(("own", "how"), [(OriginKind.INDEX, Action.COPY), (OriginKind.EDITABLE, Action.BUILD)])
def test_likewise_is_always_the_clients(action: Action | None, own: OriginKind, how: Action) -> None:
    """Whatever a plan says of likewise, or if it says nothing: the client's own files go to the nodes, and early."""
    more = [decided("likewise", action, "0.1")] if action else []
    settled = settle(planned(*more), client(own=own))
    decision = settled.get("likewise")
    assert decision is not None
    assert (decision.action, decision.version, decision.critical) == (how, "0.5", True)
    assert settled.kit == ("distributed", "likewise", "msgspec")


def test_loose_code_is_what_is_here() -> None:
    """Loose code of the client is shipped unless the plan leaves it out; code that is not here can't be."""
    settled = settle(planned(decided("code-7", Action.SHIP, "")), client())
    assert [d.name for d in settled.decisions if d.action is Action.SHIP] == ["code-0"]
    dropped = settle(planned(decided("code-0", Action.DROP, "")), client())
    assert [d.name for d in dropped.decisions if d.action is Action.SHIP] == []


def test_what_is_copied_must_be_here() -> None:
    """A plan that copies another version than the client has, or what it lacks, names both and what is here."""
    plan = planned(decided("pure", Action.COPY, "2.0"), decided("gone", Action.COPY), decided("there", Action.COPY))
    with pytest.raises(PlanError) as caught:
        settle(plan, client(installed("pure"), installed("there")))
    assert caught.value.details["wrong"] == ["pure 2.0 (1.0 here)", "gone 1.0 (not installed here)"]


def test_critical_versions_are_those_of_the_client() -> None:
    """A fetched distributed of another version than the client's is refused: client and nodes would not understand
    each other."""
    with pytest.raises(PlanError, match=r"distributed 2023\.1\.0 \(2024\.8\.0 here\)"):
        settle(planned(decided("distributed", version="2023.1.0", critical=True)), client())


def test_a_plan_without_what_a_node_needs_is_refused() -> None:
    """The names that are missing are in the error."""
    with pytest.raises(PlanError, match=r"join a cluster: msgpack, msgspec\."):
        settle(planned(decided("msgspec", Action.DROP), kit=(*KIT, "msgpack")), client())


@pytest.mark.parametrize("python", ["3.12.7", "3.10.1"])
def test_another_minor_python_is_refused(python: str) -> None:
    """Pickled functions are bytecode: the nodes' Python has to be of the client's minor version."""
    target = msgspec.structs.replace(NODES, python=python)
    with pytest.raises(PlanError, match=r"and the client runs 3\.11\.7"):
        settle(planned(target=target), client())
    assert settle(planned(target=msgspec.structs.replace(NODES, python="3.11.9")), client()).target.python == "3.11.9"


def test_nodes_that_can_not_be_served_are_refused() -> None:
    """Nodes run Linux, and there is nothing but the ordinary CPython for them yet."""
    with pytest.raises(UnsupportedError, match="have to run Linux"):
        settle(planned(target=Target(platform=MAC, python="3.11.7")), client())
    with pytest.raises(UnsupportedError, match="free-threaded"):
        settle(planned(), client(interpreter=make_interpreter(platform=MAC, abiflags="t")))
    with pytest.raises(UnsupportedError, match="pypy"):
        settle(planned(), client(interpreter=make_interpreter(platform=MAC, implementation="pypy")))


def wheel_layer(name: str, tag: str, metadata: str = "") -> LayerSource:
    info = f"purelib/{name}-1.0.dist-info"
    files = {
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nTag: {tag}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{metadata}",
        f"purelib/{name}/__init__.py": "",
    }
    return layer_source(
        LayerKind.DISTRIBUTION, name, "1.0", [source_data(text.encode(), path) for path, text in files.items()]
    )


def test_what_was_built_for_this_machine_stays_here() -> None:
    """An editable with extension modules can't go to another platform; a pure one can."""
    require_pure([wheel_layer("pure", "py3-none-any")], NODES)
    with pytest.raises(PlanError, match=r"fast \(cp311-cp311-macosx_11_0_arm64\)") as caught:
        require_pure([wheel_layer("pure", "py3-none-any"), wheel_layer("fast", "cp311-cp311-macosx_11_0_arm64")], NODES)
    assert caught.value.details["built"] == ["fast"]


def test_the_replica_is_described_by_what_is_fetched() -> None:
    """What the nodes get is known from the wheels' own metadata, not from the client's other version."""
    snapshot = client(installed("moved", "0.9", requires=("old",)), installed("dropped"))
    fetched = {"moved": wheel_layer("moved", "cp311-cp311-manylinux_2_17_x86_64", "Requires-Dist: new>=1\n")}
    plan = settle(planned(decided("moved"), decided("dropped", Action.DROP)), snapshot)
    replica = replica_of(snapshot, plan, fetched, make_interpreter())
    assert [one.name for one in replica.distributions] == ["likewise", "moved"]
    moved = replica.get("moved")
    assert moved is not None
    assert (moved.version, moved.requires, moved.imports) == ("1.0", ("new>=1",), ("moved",))
    assert moved.content == fetched["moved"].digest
    assert replica.interpreter.platform.os == "linux"
    assert replica.code == snapshot.code
