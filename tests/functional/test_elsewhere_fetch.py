"""Wheels for nodes of another platform: which ones the client fetches, which ones it leaves to the nodes, and what it
does when nodes can't have them. With real indexes; nodes are not here, so an index on loopback counts as one of theirs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from likewise.elsewhere import Wheels, fetch, glibc_needed
from likewise.errors import FetchError, LayerError
from likewise.events import Notice, Silent
from likewise.forms import Packed
from likewise.indexes.urls import is_of_this_machine
from likewise.layers.wheel import wheel_source
from likewise.model.digest import digest_bytes
from likewise.model.keys import layer_key
from likewise.model.plan import Action, Decision, LockedFile, Plan
from likewise.model.snapshot import Distribution, Origin, OriginKind, Snapshot
from likewise.model.target import Platform, Target
from likewise.settings import resolve_settings
from likewise.stages import Stages
from likewise.store.local import LocalStore
from likewise.supply import Later
from support.indexes import IndexServer, dead_url, offer, serve_index
from support.values import make_interpreter
from support.wheels import record_hash, write_wheel

TARGET = Target(platform=Platform(os="linux", arch="x86_64", libc="glibc", libc_version="2.28"), python="3.11.7")
MANYLINUX = "cp311-cp311-manylinux_2_17_x86_64"
LARGE = bytes(range(256)) * 4_000


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """The folder of the index."""
    return tmp_path / "wheels"


@pytest.fixture
def index(wheels: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[IndexServer]:
    """An index that nodes could reach."""
    monkeypatch.setattr("likewise.indexes.urls.is_of_this_machine", lambda url: False)
    with serve_index(wheels) as server:
        monkeypatch.setenv("UV_INDEX", f"own={server.url}")
        yield server


def large(wheels: Path, name: str, **more: Any) -> Path:
    """A compiled distribution with a megabyte of code."""
    files = {f"{name}/__init__.py": b"", f"{name}/fast.so": LARGE, **more.pop("files", {})}
    return offer(wheels, name, "1.0", tag=more.pop("tag", MANYLINUX), files=files, **more)


def planned(index: IndexServer, *files: Path, kit: tuple[str, ...] = ()) -> Plan:
    """A plan that fetches these wheels."""
    decisions = [
        Decision(
            name=path.name.partition("-")[0],
            version="1.0",
            action=Action.FETCH,
            reason="",
            file=LockedFile(
                filename=path.name,
                url=index.files_url + path.name,
                sha256=digest_bytes(path.read_bytes()),
                size=path.stat().st_size,
            ),
        )
        for path in files
    ]
    return Plan(target=TARGET, decisions=tuple(decisions), kit=("distributed", *kit))


def client() -> Snapshot:
    """A Mac that has likewise."""
    own = Distribution(name="likewise", version="0.5", origin=Origin(kind=OriginKind.INDEX))
    interpreter = make_interpreter(platform=Platform(os="macos", arch="aarch64"), executable="")
    return Snapshot(interpreter=interpreter, distributions=(own,), code=())


def fetched(plan: Plan, *, leave: bool = True) -> tuple[Wheels, Mapping[str, int]]:
    """What is fetched, and what the stage counted."""
    stages = Stages(Silent())
    wheels = fetch(plan, client(), settings=resolve_settings(), stages=stages, leave=leave)
    return wheels, stages.launch_report().stages[0].done


def changed(manner: Any, **changes: Any) -> Any:
    """`manner`, a dataclass, with other values."""
    return dataclasses.replace(manner, **changes)


def whole(index: IndexServer) -> list[str]:
    """The files that the index has given whole."""
    return sorted(one.path.rpartition("/")[2] for one in index.asked if "range" not in one.headers)


def left(wheels: Wheels) -> list[str]:
    """Names of what is left to the nodes."""
    return sorted(name for name, layer in wheels.layers.items() if layer.digest in wheels.later)


def test_what_is_public_is_left_to_the_nodes(tmp_path: Path, wheels: Path, index: IndexServer) -> None:
    """Its layer is known, nothing of it is fetched whole, and the layer can be had all the same."""
    wheel = large(wheels, "sample", requires=["other>=1"])
    got, done = fetched(planned(index, wheel))
    layer = got.layers["sample"]
    assert layer.digest == wheel_source(wheel, unpack_to=tmp_path / "whole").digest
    assert whole(index) == []
    assert (done["left"], done["asked"], done.get("fetched", 0), done.get("bytes", 0)) == (1, 1, 0, 0)
    (offer_,) = got.offers
    assert (offer_.layer, offer_.file.filename, offer_.client_has) == (layer.digest, wheel.name, False)
    assert got.needs == {"GLIBC": "2.17"}
    made = got.later[layer.digest]()
    assert made.digest == layer.digest
    assert all(Path(file.path).stat().st_size == file.entry.size for file in made.files)
    assert whole(index) == [wheel.name]


def test_without_leave_everything_is_fetched(wheels: Path, index: IndexServer) -> None:
    """As for nodes that read the client's store, or that the user wants to have everything from the client."""
    wheel = large(wheels, "sample")
    got, done = fetched(planned(index, wheel), leave=False)
    assert (got.later, got.offers, got.needs) == ({}, (), {})
    assert whole(index) == [wheel.name]
    assert done["fetched"] == 1


def test_the_kit_is_fetched_whoever_says_what_it_needs(wheels: Path, index: IndexServer) -> None:
    """A list of versions says nothing of requirements: those that count are in the wheels, however deep."""
    all_of_it = [
        offer(wheels, "distributed", "1.0", requires=["dask"]),
        offer(wheels, "dask", "1.0", requires=["deep; python_version > '3'", "sample; extra == 'array'"]),
        large(wheels, "deep", requires=["deeper"]),
        large(wheels, "deeper"),
        large(wheels, "sample", requires=["deep"]),
    ]
    got, done = fetched(planned(index, *all_of_it))
    assert left(got) == ["sample"]
    assert whole(index) == [path.name for path in sorted(all_of_it) if not path.name.startswith("sample")]
    assert {one.file.filename.partition("-")[0]: one.client_has for one in got.offers} == {
        "distributed": True, "dask": True, "deep": True, "deeper": True, "sample": False,
    }  # fmt: skip
    assert (done["fetched"], done["left"]) == (4, 1)
    for name in ("dask", "deep", "deeper"):
        assert all(file.path or file.entry.link for file in got.layers[name].files)


def test_a_second_launch_asks_nothing(wheels: Path, index: IndexServer) -> None:
    """What is known of a wheel is kept."""
    plan = planned(index, large(wheels, "sample"), large(wheels, "dask"), kit=("dask",))
    first, _ = fetched(plan)
    index.asked.clear()
    again, done = fetched(plan)
    assert index.asked == []
    assert {name: layer.digest for name, layer in again.layers.items()} == {
        name: layer.digest for name, layer in first.layers.items()
    }
    assert left(again) == left(first) == ["sample"]
    assert again.offers == first.offers
    assert (done.get("asked", 0), done.get("fetched", 0), done["reused"]) == (0, 0, 1)


def test_what_is_here_is_not_left_to_the_nodes(wheels: Path, index: IndexServer) -> None:
    """A wheel that was fetched once can be given from here; nodes may fetch it, too."""
    plan = planned(index, large(wheels, "sample"))
    fetched(plan, leave=False)
    got, _ = fetched(plan)
    assert left(got) == []
    assert [one.client_has for one in got.offers] == [True]


@pytest.mark.parametrize("secret", [{"user": "me", "password": "secret"}, {"path_token": "abcdefgh12345678"}])
def test_what_wants_a_credential_is_fetched(
    wheels: Path, index: IndexServer, secret: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No node is told of it."""
    wheel = large(wheels, "sample")
    index.manner = changed(index.manner, **secret)
    monkeypatch.setenv("UV_INDEX", f"own={index.url_with_credentials}")
    plan = planned(index, wheel)
    if "path_token" in secret:
        url = index.files_url.replace(secret["path_token"], "***") + wheel.name
        (decision,) = plan.decisions
        assert decision.file is not None
        hidden = msgspec.structs.replace(decision.file, url=url, index="own")
        plan = msgspec.structs.replace(plan, decisions=(msgspec.structs.replace(decision, file=hidden),))
    got, _ = fetched(plan)
    assert (left(got), got.offers) == ([], ())
    assert whole(index) == [wheel.name]


@pytest.mark.parametrize("private", [True, False])
def test_files_on_a_host_of_others(
    wheels: Path, index: IndexServer, private: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an open index they are left to the nodes; where a private one has them is nobody's business."""
    wheel = large(wheels, "sample")
    plan = planned(index, wheel)
    with serve_index(wheels, host="127.0.0.2", files_at=index.files_url) as named:
        if private:
            named.manner = changed(named.manner, user="me", password="secret", guard="pages")
        monkeypatch.setenv("UV_INDEX", f"named={named.url_with_credentials}")
        monkeypatch.setenv("UV_DEFAULT_INDEX", f"other={dead_url()}")
        got, _ = fetched(plan)
    assert left(got) == ([] if private else ["sample"])
    assert len(got.offers) == (0 if private else 1)
    assert whole(index) == ([wheel.name] if private else [])


@pytest.mark.parametrize("manner", [{"ranges": False}, {}])
def test_what_cant_be_claimed_is_fetched_and_offered(wheels: Path, index: IndexServer, manner: dict[str, Any]) -> None:
    """Its server sends no parts of files; or Python would run something of it when it starts, before it was checked."""
    index.manner = changed(index.manner, **manner)
    wheel = large(wheels, "sample", files={} if manner else {"sample.pth": b"import sample\n"})
    got, _ = fetched(planned(index, wheel))
    assert left(got) == []
    assert [one.client_has for one in got.offers] == [True]
    assert wheel.name in whole(index)


def test_a_wheel_that_lies_is_an_error_and_then_counts_as_it_is(wheels: Path, index: IndexServer) -> None:
    """RECORD names another hash: no node can make that layer, nor can the client; the next launch knows better."""
    lie = {"sample/fast.so": f"sample/fast.so,{record_hash(b'other')},{len(LARGE)}"}
    made = write_wheel(wheels, {"sample/__init__.py": b"", "sample/fast.so": LARGE}, record=lie)
    got, _ = fetched(planned(index, made))
    (later,) = got.later.values()
    with pytest.raises(LayerError, match=r"holds other files than its RECORD says") as caught:
        later()
    assert "Start again" in caught.value.todo
    again, _ = fetched(planned(index, made))
    assert left(again) == []
    assert again.layers["sample"].digest != got.layers["sample"].digest


def test_later_is_when_somebody_asks(tmp_path: Path, wheels: Path, index: IndexServer) -> None:
    """The archive is in the store then, made once; what fails is told, and tried again by the next who asks."""
    got, _ = fetched(planned(index, large(wheels, "sample")))
    (digest,) = got.later
    store = LocalStore(tmp_path / "store", max_age=1e6, max_size=1 << 30)
    told: list[Notice] = []
    later = Later(got.later, Packed(store, level=1), store, told.append)
    index.manner = changed(index.manner, fault="status", status=403)
    with pytest.raises(FetchError):
        later.bring(digest)
    assert len(told) == 1 and "403" in told[0].message
    assert not store.has(layer_key(digest))
    index.manner = changed(index.manner, fault="")
    later.bring(digest)
    assert store.has(layer_key(digest))
    index.asked.clear()
    later.bring(digest)
    later.bring(digest_bytes(b"something else"))
    assert index.asked == []


@pytest.mark.parametrize(
    ("url", "own"),
    [
        ("http://127.0.0.1:3141/a.whl", True),
        ("http://127.8.8.8/a.whl", True),
        ("https://localhost/a.whl", True),
        ("https://index.localhost/a.whl", True),
        ("http://[::1]:80/a.whl", True),
        ("file:///wheels/a.whl", True),
        ("https://index.example/a.whl", False),
        ("http://10.0.0.1/a.whl", False),
        ("https://localhost.example/a.whl", False),
    ],
)
def test_addresses_of_this_machine(url: str, own: bool) -> None:
    """No node could reach them."""
    assert is_of_this_machine(url) is own


@pytest.mark.parametrize(
    ("tags", "needed"),
    [
        ((), {}),
        (("any",), {}),
        (("linux_x86_64", "musllinux_1_2_x86_64"), {}),
        (("manylinux_2_17_x86_64.manylinux2014_x86_64",), {"GLIBC": "2.17"}),
        (("manylinux2014_aarch64", "manylinux_2_28_aarch64", "manylinux1_x86_64"), {"GLIBC": "2.28"}),
        (("manylinux_2_28_x86_64.manylinux_2_5_x86_64", "manylinux2010_x86_64"), {"GLIBC": "2.12"}),
    ],
)
def test_tags_say_which_glibc_nodes_need(tags: tuple[str, ...], needed: dict[str, str]) -> None:
    """Of one wheel the lowest counts, of all the highest."""
    assert glibc_needed(f"sample-1.0-cp311-cp311-{tag}.whl" for tag in tags) == needed
