"""What public indexes offer of an environment: asked of a real index, remembered, and nothing private in it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from likewise import offers
from likewise.errors import PlanError
from likewise.model.digest import Digest, digest_bytes
from likewise.model.layer import LayerKind
from likewise.model.manifest import LayerRef, Manifest
from likewise.model.offer import Offer
from likewise.model.plan import LockedFile
from likewise.model.snapshot import Distribution, OriginKind, Snapshot
from likewise.offers import candidates, find_offers, find_wheels, remember_others, the_wheel
from likewise.settings import Settings
from likewise.store.local import LocalStore
from support.indexes import IndexServer, dead_url, offer, offer_sdist, serve_index
from support.plans import Asked, installed, snapshot_of
from support.values import LINUX, TARGET

COMPILED = "cp311-cp311-manylinux_2_17_x86_64"
NEWER = "cp311-cp311-manylinux_2_28_x86_64"
PURE = "py3-none-any"


def here(name: str, version: str = "1.0", tag: str = PURE, **more: Any) -> Distribution:
    """One distribution of the client."""
    return installed(name, version, tags=(tag,), **more)


def environment(*distributions: Distribution) -> tuple[Manifest, Snapshot]:
    """One that has exactly these, and what a node needs to join."""
    snapshot = snapshot_of(*distributions, platform=LINUX)
    layers = [
        LayerRef(kind=LayerKind.DISTRIBUTION, name=d.name, version=d.version, digest=d.content, files=1, size=size)
        for size, d in enumerate(snapshot.distributions)
        if d.content
    ]
    return Manifest(
        target=TARGET, python="python3.11", cache_tag="cpython-311", layers=tuple(layers), kit=("distributed",)
    ), snapshot


@pytest.fixture(autouse=True)
def _own_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that this machine's pip and uv are configured with."""
    for name in ("PIP_CONFIG_FILE", "UV_NO_CONFIG"):
        monkeypatch.setenv(name, "/dev/null" if name.startswith("PIP") else "1")
    for name in ("PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_INDEX", "UV_DEFAULT_INDEX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """What the index offers."""
    folder = tmp_path / "wheels"
    for name in ("alpha", "beta", "gamma"):
        offer(folder, name, "1.0")
    for tag in (COMPILED, NEWER):
        offer(folder, "compiled", "1.0", tag=tag)
    return folder


@pytest.fixture
def index(wheels: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[IndexServer]:
    """The index that is asked by default."""
    with serve_index(wheels) as server:
        monkeypatch.setenv("UV_DEFAULT_INDEX", server.url)
        yield server


@pytest.fixture
def find(tmp_path: Path) -> Any:
    """`find_offers` with a store and settings of the test's own."""
    settings = Settings(cache=tmp_path / "cache")
    store = LocalStore(settings.store, max_age=settings.max_age, max_size=settings.max_size)

    def find(*distributions: Distribution, known: Iterable[Digest] = ()) -> tuple[Offer, ...]:
        manifest, snapshot = environment(*distributions)
        return find_offers(manifest, snapshot, settings=settings, store=store, known=tuple(known), local=True)

    return find


def names(found: Iterable[Offer]) -> list[str]:
    """Their files."""
    return sorted(one.file.filename for one in found)


def test_what_the_index_has_is_offered_with_its_hash(find: Any, index: IndexServer, wheels: Path) -> None:
    """The wheel whose tags are the installed one's, among several that would do; the layer is the installed one."""
    one, two = here("alpha"), here("compiled", tag=NEWER)
    found = {offered.layer: offered.file for offered in find(one, two)}
    assert found.keys() == {one.content, two.content}
    wheel = found[two.content]
    assert wheel.filename == f"compiled-1.0-{NEWER}.whl"
    assert wheel.sha256 == digest_bytes((wheels / wheel.filename).read_bytes())
    assert wheel.url == f"{index.files_url}{wheel.filename}"


def test_what_comes_from_a_certain_index_is_asked_for_nowhere_else(
    find: Any, index: IndexServer, wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An open one may offer it; one whose address has a token is not asked, and nor is anybody else."""
    for name in ("firms-own", "firms-secret"):
        for folder in (wheels, tmp_path / name):
            offer(folder, name, "1.0", files={f"{folder.name}.py": b""})
    with (
        serve_index(tmp_path / "firms-own") as firm,
        serve_index(tmp_path / "firms-secret", path_token="0123456789abcdefghij") as hidden,
    ):
        entries = [
            f'[[tool.uv.index]]\nname = "{name}"\nurl = "{url}"\nexplicit = true\n'
            for name, url in (("firm", firm.url), ("hidden", hidden.url))
        ]
        sources = '[tool.uv.sources]\nfirms-own = { index = "firm" }\nfirms-secret = { index = "hidden" }\n'
        (tmp_path / "pyproject.toml").write_text("".join([*entries, sources]))
        monkeypatch.delenv("UV_NO_CONFIG")
        found = find(here("alpha"), here("firms-own"), here("firms-secret"))
    assert {one.file.filename.partition("-")[0]: one.file.url.startswith(firm.root) for one in found} == {
        "alpha": False,
        "firms_own": True,
    }
    assert not index.asked_for("firms-own") and not index.asked_for("firms-secret")


def test_what_the_index_lacks_does_not_hide_the_rest(find: Any, index: IndexServer, wheels: Path) -> None:
    """A name that nobody knows, a version that is not there, an sdist alone: the others are offered all the same."""
    offer_sdist(wheels, "source", "1.0")
    strange = [here("nobody"), here("beta", "2.0"), here("source"), here("other", "1.0+cu126")]
    assert names(find(*strange, here("alpha"), here("gamma"))) == [
        "alpha-1.0-py3-none-any.whl",
        "gamma-1.0-py3-none-any.whl",
    ]


def test_the_second_time_nothing_is_asked(find: Any, index: IndexServer) -> None:
    """Neither what there is nor what there is not; what is new is asked about alone."""
    first = find(here("alpha"), here("nobody"))
    asked = len(index.asked)
    assert find(here("alpha"), here("nobody")) == first
    assert len(index.asked) == asked
    assert names(find(here("alpha"), here("nobody"), here("beta")))[1] == "beta-1.0-py3-none-any.whl"
    assert not any("/alpha/" in one.path or "/nobody/" in one.path for one in index.asked[asked:])


def test_that_there_is_nothing_is_believed_for_a_day(
    find: Any, index: IndexServer, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not longer, and not when the clock was put back."""
    assert find(here("late")) == ()
    offer(wheels, "late", "1.0")
    monkeypatch.setenv("UV_NO_CACHE", "1")
    assert find(here("late")) == ()
    now = time.time()
    for moment in (now + offers.DAY + 1, now - 100):
        monkeypatch.setattr(offers.time, "time", lambda moment=moment: moment)
        assert names(find(here("late"))) == ["late-1.0-py3-none-any.whl"]
        monkeypatch.setattr(offers.time, "time", lambda: now)


def test_what_proved_to_be_another_layer_is_not_offered_again(
    find: Any, index: IndexServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long ago; the same wheel may still be another layer, and the layer another wheel."""
    settings = Settings(cache=tmp_path / "cache")
    store = LocalStore(settings.store, max_age=settings.max_age, max_size=settings.max_size)
    alpha, beta = find(here("alpha"), here("beta"))
    remember_others(store, {alpha.layer: alpha.file.sha256, beta.layer: alpha.file.sha256})
    now = time.time()
    for later in (0, 2 * offers.DAY):
        monkeypatch.setattr(offers.time, "time", lambda later=later: now + later)
        assert find(here("alpha"), here("beta")) == (beta,)


def test_other_indexes_are_another_question(
    find: Any, index: IndexServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one index lacks, or has, says nothing of another one."""
    assert find(here("elsewhere")) == ()
    offer(tmp_path / "more", "elsewhere", "1.0")
    with serve_index(tmp_path / "more") as other:
        monkeypatch.setenv("UV_DEFAULT_INDEX", other.url)
        assert names(find(here("elsewhere"), here("alpha"))) == ["elsewhere-1.0-py3-none-any.whl"]


def test_what_needs_a_credential_is_not_offered(
    find: Any, wheels: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The index is asked with it, and nothing that is offered, or remembered, has anything of it."""
    with serve_index(wheels, user="me", password="canary-1234") as guarded:
        monkeypatch.setenv("UV_DEFAULT_INDEX", guarded.url_with_credentials)
        assert find(here("alpha")) == ()
        assert any(one.authorization for one in guarded.asked)
    with serve_index(wheels, path_token="canary-1234") as hidden:
        monkeypatch.setenv("UV_DEFAULT_INDEX", hidden.url)
        assert find(here("alpha")) == ()
        assert hidden.asked_for("alpha")
    written = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert written
    assert not [path for path in written if b"canary-1234" in path.read_bytes()]


def test_a_private_indexs_files_elsewhere_are_not_offered(
    find: Any, wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their addresses may be secrets themselves. Those of an open index beside it are offered, wherever they lie."""
    offer(tmp_path / "private", "secret", "1.0")
    with (
        serve_index(tmp_path / "private") as files,
        serve_index(wheels) as open_files,
        serve_index(wheels, files_at=open_files.files_url) as index,
        serve_index(
            tmp_path / "private", user="me", password="canary-1234", guard="pages", files_at=files.files_url
        ) as guarded,
    ):
        monkeypatch.setenv("UV_INDEX", guarded.url_with_credentials)
        monkeypatch.setenv("UV_DEFAULT_INDEX", index.url)
        assert names(find(here("secret"), here("alpha"))) == ["alpha-1.0-py3-none-any.whl"]
        assert guarded.asked_for("secret") and not index.asked_for("secret")


def test_an_index_of_this_machine_is_for_nodes_of_this_machine(index: IndexServer, tmp_path: Path) -> None:
    """No other machine reaches it."""
    settings = Settings(cache=tmp_path / "cache")
    store = LocalStore(settings.store, max_age=settings.max_age, max_size=settings.max_size)
    manifest, snapshot = environment(here("alpha"))
    assert find_offers(manifest, snapshot, settings=settings, store=store) == ()
    assert len(find_offers(manifest, snapshot, settings=settings, store=store, local=True)) == 1


def test_an_index_that_is_down_is_an_error_in_words(find: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks behind a launch goes on without offers; nothing is remembered of it."""
    monkeypatch.setenv("UV_DEFAULT_INDEX", dead_url())
    for _ in range(2):
        with pytest.raises(PlanError):
            find(here("alpha"))


def test_only_what_may_be_a_wheel_is_asked_for(find: Any, index: IndexServer) -> None:
    """Nothing changed, built here or from a repository; not what nodes have with the kit; not what is known."""
    manifest, snapshot = environment(
        here("alpha"),
        here("changed", modified=("purelib/changed.py",)),
        here("broken", missing=("purelib/broken.py",)),
        here("git", origin=OriginKind.VCS),
        here("archive", origin=OriginKind.ARCHIVE),
        here("conda", origin=OriginKind.CONDA),
        here("debian", origin=OriginKind.SYSTEM),
        here("odd", "1.0-custom-build"),
        installed("eggish", "1.0", tags=()),
    )
    assert [one.name for one in candidates(manifest, snapshot)] == ["alpha", "msgspec"]
    assert find(here("alpha"), here("git", origin=OriginKind.VCS), known=[here("alpha").content or Digest("")]) == ()
    assert not index.asked_for("alpha") and not index.asked_for("git") and not index.asked_for("distributed")


def test_few_questions_are_asked(tmp_path: Path, index: IndexServer) -> None:
    """One where the index has everything; with one in a hundred that it lacks about two for each halving."""
    folder = tmp_path / "wheels"
    many = [here(f"many{number}") for number in range(32)]
    for one in many:
        offer(folder, one.name, one.version)
    resolver = Asked(tmp_path, index.url)
    assert len(find_wheels(many, TARGET, resolver)) == 32
    assert len(resolver.questions) == 1
    found = find_wheels([*many, here("nobody")], TARGET, resolver)
    assert len(found) == 32
    assert len(resolver.questions) <= 1 + 2 * 6 + 1


def _file(tag: str) -> LockedFile:
    return LockedFile(filename=f"sample-1.0-{tag}.whl", url="https://example.org/x", sha256="0" * 64)


@pytest.mark.parametrize(
    ("offered", "installed_tags", "chosen"),
    [
        ([COMPILED, NEWER], [COMPILED], COMPILED),
        ([COMPILED, NEWER], [NEWER], NEWER),
        (["py2.py3-none-any"], ["py2-none-any", "py3-none-any"], "py2.py3-none-any"),
        ([f"{COMPILED}.manylinux2014_x86_64", NEWER], [COMPILED], f"{COMPILED}.manylinux2014_x86_64"),
        ([COMPILED], ["cp311-cp311-manylinux1_x86_64"], COMPILED),  # a WHEEL that says something else
        ([COMPILED], ["cp311-cp311-linux_x86_64"], None),  # built on a machine
        ([COMPILED, NEWER], ["cp311-cp311-manylinux1_x86_64"], None),
        (["cp312-cp312-manylinux_2_17_x86_64"], [COMPILED], None),
        (["cp311-cp311-manylinux_2_17_aarch64"], [COMPILED], None),
    ],
)
def test_the_wheel_that_was_installed(offered: list[str], installed_tags: list[str], chosen: str | None) -> None:
    """Its tags tell it from others that would do; where they do not, no wheel is better than a wrong one."""
    found = the_wheel(map(_file, offered), installed_tags, TARGET)
    assert (found and found.filename) == (chosen and f"sample-1.0-{chosen}.whl")
