"""When a client looks for indexes behind a launch, what it tells the hub, and where layers are said to come from."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from typing import Any

import dask
import pytest

from likewise.arguments import source
from likewise.cluster.arrivals import deliveries, deliveries_from_store
from likewise.cluster.ssh import near
from likewise.cluster.ssh.near import Near, Uplink, bytes_left
from likewise.console.reports import describe_layers
from likewise.errors import PlanError, UsageError
from likewise.events import Event
from likewise.model.digest import Digest, digest_bytes
from likewise.model.layer import LayerKind
from likewise.model.manifest import LayerRef, Manifest
from likewise.model.offer import Offer
from likewise.model.plan import LockedFile
from likewise.settings import resolve_settings
from likewise.transport.fetch import SourceFailed
from support.values import TARGET

MEGABYTE = 1 << 20


def digest_of(name: str) -> Digest:
    return digest_bytes(name.encode())


def ref(kind: LayerKind, name: str, size: int, bytecode: str = "") -> LayerRef:
    return LayerRef(
        kind=kind,
        name=name,
        version="1.0",
        digest=digest_of(name),
        files=1,
        size=size,
        bytecode=digest_of(bytecode) if bytecode else None,
    )


MANIFEST = Manifest(
    target=TARGET,
    python="python3.11",
    cache_tag="cpython-311",
    layers=(
        ref(LayerKind.INTERPRETER, "cpython", 50 * MEGABYTE),
        ref(LayerKind.DISTRIBUTION, "dask", 5 * MEGABYTE),
        ref(LayerKind.DISTRIBUTION, "large", 1000 * MEGABYTE, bytecode="large's bytecode"),
        ref(LayerKind.CODE, "code-0", 1000),
    ),
    kit=("dask",),
    outline=digest_of("outline"),
)
LARGE = Offer(
    digest_of("large"),
    LockedFile(
        filename="large-1.0-py3-none-any.whl", url="https://example.org/l", sha256="0" * 64, size=400 * MEGABYTE
    ),
)
PACKAGES: list[Offer] = []
"""What channels of conda offer."""

MINE = Offer(digest_of("dask"), LockedFile(filename="d.whl", url="https://example.org/d", sha256="1" * 64))


class Hub:
    """The upload, as `Near` knows it."""

    def __init__(self, missing: Iterable[Digest], *, silent: int = 0, rate: float = 0.0) -> None:
        self.missing, self.silent, self.rate = list(missing), silent, rate
        self.looks = 0
        self.offers: list[tuple[tuple[Offer, ...], bool]] = []

    async def hub_status(self) -> dict[str, Any]:
        self._answer()
        self.looks += 1
        return {"missing": self.missing, "rates": {"client": self.rate}}

    async def offer(self, offers: Iterable[Offer], *, first: bool = False) -> None:
        self._answer()
        self.offers.append((tuple(offers), first))

    def _answer(self) -> None:
        self.silent -= 1
        if self.silent >= 0:
            raise SourceFailed("There was no answer.")


class Environment:
    """What `Near` reads of a `Prepared`."""

    manifest = MANIFEST

    def __init__(self, *offers: Offer) -> None:
        self.offers = offers


class Heard:
    """Keeps what is reported."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def report(self, event: Event, /) -> None:
        self.events.append(event)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near, "_LOOK", 0.01)
    monkeypatch.setattr(near, "find_packages", lambda prepared, known: PACKAGES)
    PACKAGES.clear()


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[set[Digest]]:
    """What was known each time that indexes were looked at; they offer `LARGE`."""
    found: list[set[Digest]] = []

    def find(prepared: Any, known: Collection[Digest] = ()) -> tuple[Offer, ...]:
        found.append(set(known))
        return (LARGE,)

    monkeypatch.setattr(near, "find_offers", find)
    return found


def run(
    hub: Hub, chosen: str, uplink: Uplink, *offers: Offer, asks: bool = True, until: Callable[[], bool] | None = None
) -> list[Event]:
    """Look near, for a moment, or (at most for some seconds) until something is so; what was reported."""

    async def look() -> list[Event]:
        heard = Heard()
        looking = Near(hub, Environment(*offers), chosen, uplink, heard)  # type: ignore[arg-type]
        if asks:
            looking.asked()
        for _ in range(500 if until else 10):
            if until and until():
                break
            await asyncio.sleep(0.01)
        await looking.close()
        return heard.events

    return asyncio.run(look())


def slow() -> Uplink:
    """A megabyte in a second."""
    uplink = Uplink()
    uplink.pushed(50 * MEGABYTE, 50.0)
    return uplink


def test_what_takes_long_is_offered(looked: list[set[Digest]]) -> None:
    """About 400 MB are left, at one in a second."""
    hub = Hub([digest_of("large")])
    run(hub, "auto", slow(), until=lambda: bool(hub.offers))
    assert hub.offers == [((LARGE,), False)]


@pytest.mark.parametrize(
    ("missing", "kit", "seconds", "asks"),
    [
        ("large", 50 * MEGABYTE, 0.5, True),  # a quick line
        ("code-0", 50 * MEGABYTE, 50.0, True),  # little to push
        ("large", 0, 0.0, True),  # nothing was measured yet
        ("large", 50 * MEGABYTE, 50.0, False),  # nobody wants anything
    ],
)
def test_else_no_index_is_looked_at(
    looked: list[set[Digest]], missing: str, kit: int, seconds: float, asks: bool
) -> None:
    """Neither asked nor offered."""
    hub, uplink = Hub([digest_of(missing)]), Uplink()
    uplink.pushed(kit, seconds)
    run(hub, "auto", uplink, asks=asks)
    assert (looked, hub.offers) == ([], [])


def test_the_upload_itself_is_measured(looked: list[set[Digest]]) -> None:
    """Once the hub knows how quick it is, that counts, and not the kit; before that, the kit does."""
    assert slow().rate({"rates": {"client": 0.0}}) == MEGABYTE
    assert slow().rate({"rates": {"client": 5.0}}) == 5.0
    hub = Hub([digest_of("large")], rate=1000 * MEGABYTE)
    run(hub, "auto", slow(), until=lambda: hub.looks > 3)
    assert (looked, hub.offers) == ([], [])


def test_a_hub_that_is_silent_for_a_moment_is_asked_again(looked: list[set[Digest]]) -> None:
    """Nothing is given up for that, and what it could not be told is told by the upload itself later."""
    hub = Hub([digest_of("large")], silent=4)
    run(hub, "auto", slow(), MINE, until=lambda: bool(hub.offers))
    assert hub.offers == [((LARGE,), False)]
    assert hub.looks == 1  # the first word that was lost was the offer


@pytest.mark.parametrize("asks", ["before", "after"])
def test_another_environment_is_looked_for_anew(looked: list[set[Digest]], asks: str) -> None:
    """After a live sync: even if the hub asked for a layer of it before it was known here, and for no other."""

    async def change() -> None:
        hub = Hub([])
        looking = Near(hub, Environment(), "auto", slow(), Heard())  # type: ignore[arg-type]
        looking.asked()
        while not hub.looks:
            await asyncio.sleep(0.01)
        if asks == "before":
            hub.missing = [digest_of("large")]
            looking.asked()
        looking.renew(Environment(MINE))  # type: ignore[arg-type]
        await asyncio.sleep(0.05)
        if asks == "after":
            assert hub.offers == [((MINE,), False)]
            hub.missing = [digest_of("large")]
            looking.asked()
        for _ in range(500):
            if len(hub.offers) > 1:
                break
            await asyncio.sleep(0.01)
        await looking.close()
        assert hub.offers == [((MINE,), False), ((LARGE,), False)]
        assert looked == [{MINE.layer}]

    asyncio.run(change())


def test_what_proved_to_be_another_layer_is_remembered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often the hub tells it."""
    noted: list[dict[Digest, str]] = []
    monkeypatch.setattr(near, "remember_others", lambda prepared, wheels: noted.append(wheels))

    async def learn() -> None:
        looking = Near(Hub([]), Environment(), "client", slow(), Heard())  # type: ignore[arg-type]
        for _ in range(3):
            await looking.learn(Environment(), {LARGE.layer: LARGE.file.sha256})  # type: ignore[arg-type]
        await looking.close()

    asyncio.run(learn())
    assert noted == [{LARGE.layer: LARGE.file.sha256}]


def test_client_alone_and_index_first(looked: list[set[Digest]]) -> None:
    """With "client" nothing is offered, with "index" everything at once, whoever is quick."""
    hub = Hub([digest_of("large")])
    run(hub, "client", slow(), MINE)
    assert (looked, hub.offers) == ([], [])
    run(hub, "index", Uplink(), MINE, asks=False, until=lambda: len(hub.offers) == 2)
    assert hub.offers == [((MINE,), True), ((LARGE,), True)]
    assert looked == [{MINE.layer}]


def test_an_index_that_fails_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes get everything from the client."""

    def find(prepared: Any, known: Collection[Digest] = ()) -> tuple[Offer, ...]:
        raise PlanError("The index is silent.")

    monkeypatch.setattr(near, "find_offers", find)
    hub = Hub([digest_of("large")])
    events = run(hub, "auto", slow())
    assert [getattr(event, "severity", "") for event in events] == ["note"]
    assert "The index is silent." in getattr(events[0], "message", "")
    assert hub.offers == []


def test_what_nobody_thought_of_is_a_note_without_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """It could have a credential in it."""

    def find(prepared: Any, known: Collection[Digest] = ()) -> tuple[Offer, ...]:
        raise RuntimeError("https://user:canary@index.example")

    monkeypatch.setattr(near, "find_offers", find)
    (event,) = run(Hub([digest_of("large")]), "auto", slow())
    assert "RuntimeError" in getattr(event, "message", "") and "canary" not in repr(event)


def test_conda_packages_are_offered_first(looked: list[set[Digest]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has to be asked about them, so they need not wait for the answer about wheels, nor for there to be one."""
    PACKAGES.append(MINE)
    hub = Hub([digest_of("large")])
    run(hub, "index", slow(), until=lambda: len(hub.offers) == 2)
    assert [offers for offers, _ in hub.offers] == [(MINE,), (LARGE,)]


def test_what_is_left_counts_bytecode() -> None:
    """About as archives have it."""
    large = bytes_left(MANIFEST, [digest_of("large")])
    assert 200 * MEGABYTE < large < 600 * MEGABYTE
    assert large < bytes_left(MANIFEST, [digest_of("large"), digest_of("large's bytecode")]) < 2 * large
    assert bytes_left(MANIFEST, [digest_of("nobody's")]) == 0


def status(wants: int, **given: str) -> dict[str, Any]:
    return {"given": {digest_of(name): source for name, source in given.items()}, "nodes": {"a": {"wants": wants}}}


def test_where_layers_came_from() -> None:
    """From who gave them first; with the kit; or nodes had them, which is known when nobody wants anything more."""
    sizes = {digest_of("large"): 7}
    kit = frozenset({"dask"})
    found = deliveries(MANIFEST, kit, 1, status(3, large="index", outline="client"), sizes)
    assert [(one.name, one.kind.value, one.source, one.size) for one in found] == [
        ("cpython", "interpreter", "kit", 0),
        ("dask", "distribution", "kit", 0),
        ("large", "distribution", "index", 7),
        ("large", "bytecode", "", 0),
        ("code-0", "code", "", 0),
        ("outline", "outline", "client", 0),
    ]
    later = deliveries(MANIFEST, kit, 0, status(0, large="index"), sizes)
    assert [one.source for one in later] == ["cache", "cache", "index", "cache", "cache", "cache"]
    assert {one.source for one in deliveries_from_store(MANIFEST)} == {"store"}


def test_a_person_reads_a_line_per_layer_and_the_sum() -> None:
    """Grouped by source, the largest first."""
    sizes = {digest_of("large"): 400_000_000, digest_of("outline"): 2000, digest_of("code-0"): 1000}
    given = {"large": "index", "outline": "client", "code-0": "client"}
    text = describe_layers(deliveries(MANIFEST, frozenset({"dask"}), 1, status(1, **given), sizes))
    assert text.splitlines()[-1] == "3.00 kB from client, 400 MB from index"
    assert any(line.split() == ["large", "1.0", "400", "MB", "index"] for line in text.splitlines())
    assert any(line.split() == ["large", "1.0", "bytecode", "on", "its", "way"] for line in text.splitlines())


@pytest.mark.parametrize("given", ["auto", "client", "index", None])
def test_sources(given: str | None) -> None:
    """As an argument, and as a setting."""
    assert source(given, "package_sync_source") == given
    if given:
        with dask.config.set({"likewise.source": given}):
            assert resolve_settings().source == given


def test_no_other_source() -> None:
    """It is refused, and the place is named."""
    with pytest.raises(UsageError) as caught:
        source("peer", "package_sync_source")
    assert caught.value.where == "package_sync_source"
    with dask.config.set({"likewise.source": "peer"}), pytest.raises(UsageError, match=r"likewise\.source is 'peer'"):
        resolve_settings()
