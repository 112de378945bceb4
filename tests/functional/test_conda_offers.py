"""Which conda packages nodes are told of: those that lie where everybody may fetch them, and nothing private."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from likewise.conda_offers import candidates, find_packages
from likewise.indexes.conda_channels import find_channels
from likewise.model.conda import CondaPackage
from likewise.model.digest import digest_bytes
from likewise.model.layer import LayerKind
from likewise.model.manifest import LayerRef, Manifest
from likewise.model.offer import Offer, encode_offers
from likewise.model.snapshot import Snapshot
from likewise.resolution.rattler import Downloads, RattlerSolver
from likewise.scanner.conda_records import Record, read_records
from support.conda_channel import install
from support.conda_package import Package, write_channel
from support.conda_server import serve_channel
from support.plans import snapshot_of
from support.values import LINUX, TARGET

FORGE = "https://conda.example/forge"
CANARY = "canary-token-1234"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home in which nobody has configured anything."""
    for name in ("CONDARC", "MAMBARC", "CONDA_ROOT", "MAMBA_ROOT_PREFIX", "CONDA_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    for name in ("NETRC", "RATTLER_AUTH_FILE", "PIXI_HOME", "PIXI_PROJECT_ROOT", "BINSTAR_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home" / ".config"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def package(name: str, *, channel: str = FORGE, form: str = ".conda", **more: Any) -> CondaPackage:
    """One that was installed from a channel."""
    found = CondaPackage(
        name=name,
        version="1.0",
        build="h0_0",
        channel=channel,
        url=f"{channel}/linux-64/{name}-1.0-h0_0{form}",
        sha256=digest_bytes(f"archive of {name}".encode()),
        archive_size=len(name),
        size=10 * len(name),
        content=digest_bytes(name.encode()),
    )
    return msgspec.structs.replace(found, **more)


def environment(*packages: CondaPackage, kit: tuple[str, ...] = ()) -> tuple[Manifest, Snapshot]:
    """One that has exactly these."""
    snapshot = msgspec.structs.replace(snapshot_of(platform=LINUX), conda=packages)
    layers = [
        LayerRef(kind=LayerKind.CONDA, name=one.layer, version=one.version, digest=one.content, files=1, size=one.size)
        for one in packages
        if one.content
    ]
    return Manifest(
        target=TARGET, python="python3.11", cache_tag="cpython-311", layers=tuple(layers), kit=kit
    ), snapshot


def offered(*packages: CondaPackage, **how: Any) -> list[str]:
    """The files that nodes are told of."""
    found = find_packages(*environment(*packages), **how)
    assert CANARY.encode() not in encode_offers(found)
    return [one.file.filename for one in found]


def test_what_came_from_a_channel_is_offered() -> None:
    """By the URL and the sha256 of its record, the largest first."""
    small, large = package("gd"), package("proj", form=".tar.bz2")
    first, second = find_packages(*environment(small, large))
    assert (first.layer, second.layer) == (large.content, small.content)
    assert isinstance(first, Offer)
    assert (first.file.filename, first.file.url) == ("proj-1.0-h0_0.tar.bz2", large.url)
    assert (first.file.sha256, first.file.size, first.file.index) == (large.sha256, 4, FORGE)


def test_what_may_be_another_file_is_not() -> None:
    """Nothing changed, replaced or without a hash, and nothing that makes several layers; nothing of the kit; nothing
    that is known already.
    """
    fine, known = package("fine"), package("known")
    packages = [
        fine,
        known,
        package("changed", modified=("bin/changed",)),
        package("broken", missing=("bin/broken",)),
        package("replaced", replaced="pip"),
        package("pair", distributions=("alpha", "beta")),
        package("unhashed", sha256=""),
        package("unknown", url="", channel="<unknown>"),
        package("old", url=f"{FORGE}/linux-64/old-1.0-h0_0.tar.xz"),
        package("private", private=True),
        package("kit"),
        package("empty", content=None),
    ]
    manifest, snapshot = environment(*packages, kit=("conda:kit",))
    python = package("python")
    ref = LayerRef(kind=LayerKind.INTERPRETER, name="cpython", version="1", digest=python.content, files=1, size=1)
    manifest = msgspec.structs.replace(manifest, layers=(ref, *manifest.layers))
    snapshot = msgspec.structs.replace(snapshot, conda=(python, *packages))
    assert [one.name for one in candidates(manifest, snapshot)] == ["fine", "known"]
    assert [one.layer for one in find_packages(manifest, snapshot, known=[known.content or ""])] == [fine.content]


def test_what_is_no_longer_the_layer_is_not() -> None:
    """A layer from which a credential was removed is not the package's."""
    manifest, snapshot = environment(package("cleaned"))
    snapshot = msgspec.structs.replace(snapshot, conda=(package("cleaned", content=digest_bytes(b"before")),))
    assert candidates(manifest, snapshot) == ()


def test_a_channel_of_this_machine_is_for_nodes_of_this_machine() -> None:
    """No other machine reaches it; a folder may be on a file system that they share."""
    here, folder = package("here", channel="http://localhost:8000/forge"), package("folder", channel="file:///forge")
    assert offered(here, folder) == ["folder-1.0-h0_0.conda"]
    assert sorted(offered(here, folder, local=True)) == ["folder-1.0-h0_0.conda", "here-1.0-h0_0.conda"]


def condarc(home: Path) -> None:
    """A token in a channel's URL."""
    (home / ".condarc").write_text(f"channels: [https://conda.example/t/{CANARY}/forge]\n")


def alias(home: Path) -> None:
    """A token in what stands before the names of channels."""
    (home / ".condarc").write_text(f"channel_alias: https://conda.example/t/{CANARY}\nchannels: [forge]\n")


def password(home: Path) -> None:
    """A user and a password for a channel that is configured apart."""
    (home / ".condarc").write_text(f"custom_channels:\n  forge: https://me:{CANARY}@conda.example\n")


def mamba(home: Path) -> None:
    """mamba's file."""
    entry = {"type": "BasicHTTPAuthentication", "user": "me", "password": base64.b64encode(CANARY.encode()).decode()}
    (home / ".mamba" / "auth").mkdir(parents=True)
    (home / ".mamba" / "auth" / "authentication.json").write_text(json.dumps({"conda.example": entry}))


def mambas_token(home: Path) -> None:
    """The same, with a token for URLs."""
    (home / ".mamba" / "auth").mkdir(parents=True)
    text = json.dumps({"conda.example/forge": {"type": "CondaToken", "token": CANARY}})
    (home / ".mamba" / "auth" / "authentication.json").write_text(text)


def rattler(home: Path) -> None:
    """rattler's and pixi's file."""
    (home / ".rattler").mkdir()
    text = json.dumps({"*.example": {"BearerToken": CANARY}})
    (home / ".rattler" / "credentials.json").write_text(text)


def rattlers_domain(home: Path) -> None:
    """The same for a domain: that host itself is meant, too."""
    (home / ".rattler").mkdir()
    text = json.dumps({"*.conda.example": {"BearerToken": CANARY}})
    (home / ".rattler" / "credentials.json").write_text(text)


def pixi(home: Path) -> None:
    """A file that pixi's configuration names."""
    (home / ".pixi").mkdir()
    (home / ".pixi/config.toml").write_text(f'authentication-override-file = "{home / "auth.json"}"\n')
    (home / "auth.json").write_text(json.dumps({"conda.example": {"CondaToken": CANARY}}))


def anaconda(home: Path) -> None:
    """anaconda-client's folder."""
    (home / ".config/binstar").mkdir(parents=True)
    (home / ".config/binstar/https%3A%2F%2Fconda.example.token").write_text(CANARY)


def conda_auth(home: Path) -> None:
    """conda's configuration says that one signs in there; whatever has the secret is not asked."""
    (home / ".condarc").write_text(f"channel_settings:\n  - {{channel: {FORGE}, auth: http-basic, username: me}}\n")


def conda_auths_pattern(home: Path) -> None:
    """The same for many channels, with a plugin that nobody knows, in a folder of files."""
    (home / ".conda/condarc.d").mkdir(parents=True)
    text = "channel_settings:\n  - {channel: 'https://conda.example/*', auth: firm}\n"
    (home / ".conda/condarc.d/firm.yml").write_text(text)


def netrc(home: Path) -> None:
    """netrc."""
    (home / ".netrc").write_text(f"machine conda.example login me password {CANARY}\n")


KEPT = [condarc, alias, password, mamba, mambas_token, rattler, rattlers_domain, pixi, anaconda, conda_auth]
KEPT += [conda_auths_pattern, netrc]


@pytest.mark.parametrize("known", KEPT, ids=lambda known: str(known.__name__))
def test_what_needs_a_credential_is_not_offered(home: Path, known: Callable[[Path], None]) -> None:
    """Wherever it is kept; packages of others are offered all the same."""
    others = package("others", channel="https://open.invalid/forge")
    assert len(offered(package("mine"), others)) == 2
    known(home)
    assert offered(package("mine"), others) == ["others-1.0-h0_0.conda"]


def test_all_files_of_rattlers_count(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that a variable names does not hide the usual one."""
    rattler(home)
    (home / "auth.json").write_text(json.dumps({"open.invalid": {"BearerToken": CANARY}}))
    monkeypatch.setenv("RATTLER_AUTH_FILE", str(home / "auth.json"))
    packages = [
        package(name, channel=f"https://{name}/forge") for name in ("conda.example", "open.invalid", "a.invalid")
    ]
    assert offered(*packages) == ["a.invalid-1.0-h0_0.conda"]


def mirror(home: Path, *places: str) -> None:
    """What pixi's users configure."""
    (home / ".pixi").mkdir(exist_ok=True)
    (home / ".pixi" / "config.toml").write_text(f'[mirrors]\n"{FORGE}/" = {json.dumps(places)}\n')


def test_what_has_mirrors_is_offered_from_there(home: Path) -> None:
    """From the first one that nodes can ask, and from nowhere else: people behind a firewall have mirrors."""
    guarded, opened = f"https://me:{CANARY}@one.example/forge", "https://two.example/forge/"
    mirror(home, "oci://three.example/forge", guarded, opened)
    others = package("others", channel="https://open.invalid/forge")
    first, second = find_packages(*environment(package("mine"), others))
    assert first.file.url == others.url
    assert second.file.url == "https://two.example/forge/linux-64/mine-1.0-h0_0.conda"
    mirror(home, guarded)
    assert offered(package("mine"), others) == ["others-1.0-h0_0.conda"]


def test_a_client_asks_mirrors(home: Path, tmp_path: Path) -> None:
    """For lists of packages, and for packages; the channel itself is never asked."""
    write_channel(tmp_path / "forge", [Package("tool", "1.0", {"bin/tool": "tool\n"})])
    archive = next((tmp_path / "forge").glob("*/tool-*.conda"))
    with serve_channel(tmp_path / "forge") as near:
        mirror(home, near.plain_url)
        where = find_channels([FORGE], environ={}, home=home, python="")
        solver = RattlerSolver(where.names, archive.parent.name, (), cache=tmp_path / "cache", mirrors=where.reveal())
        (tool,) = solver.candidates(["tool"])["tool"]
        got: list[bytes] = []
        Downloads(None, where.reveal()).fetch(tool.url, got.append)
    assert tool.url == f"{FORGE}/{archive.parent.name}/{archive.name}"
    assert b"".join(got) == archive.read_bytes()
    assert near.archives() == [archive.name]


def test_a_mirror_may_have_a_credential(home: Path) -> None:
    """Nothing that shows the channels has it, and nothing that was read with it is kept."""
    mirror(home, f"https://me:{CANARY}@one.example/forge")
    where = find_channels([FORGE], environ={}, home=home, python="")
    assert CANARY in str(where.reveal()) and CANARY not in repr(where)


def test_a_mirror_may_have_a_token(home: Path) -> None:
    """One that is kept for its host, as for a channel's; no other mirror is told."""
    mirror(home, "https://conda.one.example/forge", "https://two.example/forge")
    config = home / ".pixi" / "config.toml"
    config.write_text(f'authentication-override-file = "{home / "auth.json"}"\n{config.read_text()}')
    (home / "auth.json").write_text(json.dumps({"*.one.example": {"CondaToken": CANARY}}))
    (places,) = find_channels([FORGE], environ={}, home=home, python="").reveal().values()
    assert places == (f"https://conda.one.example/t/{CANARY}/forge", "https://two.example/forge")
    mine, others = package("mine"), package("others", channel="https://open.invalid/forge")
    assert sorted(offered(mine, others)) == ["mine-1.0-h0_0.conda", "others-1.0-h0_0.conda"]
    assert {one.file.url for one in find_packages(*environment(mine))} == {
        "https://two.example/forge/linux-64/mine-1.0-h0_0.conda"
    }


def test_an_address_that_looks_like_a_token_is_not_offered() -> None:
    """Whoever knows it may read it, so it is not passed on."""
    assert offered(package("mine", channel="https://conda.example/a1b2c3d4e5f6g7h8i9/forge")) == []


def test_a_record_says_whether_its_channel_wanted_a_token(tmp_path: Path) -> None:
    """py-rattler leaves it in the record's URL. It is not kept, but that there was one is."""
    write_channel(tmp_path / "forge", [Package("tool", "1.0", {"bin/tool": "tool\n"})])
    with serve_channel(tmp_path / "forge", token=CANARY) as guarded:
        install(tmp_path / "guarded", ["tool"], [guarded.url], tmp_path / "cache-1")
    with serve_channel(tmp_path / "forge") as opened:
        install(tmp_path / "opened", ["tool"], [opened.url], tmp_path / "cache-2")
    (mine,) = read_records(str(tmp_path / "guarded")).packages
    (theirs,) = read_records(str(tmp_path / "opened")).packages
    assert (mine.private, theirs.private) == (True, False)
    assert CANARY not in mine.url and mine.url.endswith(".conda")
    archive = next((tmp_path / "forge").glob("*/tool-*.conda"))
    assert mine.archive_size == theirs.archive_size == archive.stat().st_size
    assert mine.sha256 == digest_bytes(archive.read_bytes())


@pytest.mark.parametrize("named", ["me:{}@conda.invalid/forge", "conda.invalid/t/{}/forge", "me:{}@conda.invalid"])
def test_a_channel_that_was_named_with_a_credential_is_private(tmp_path: Path, named: str) -> None:
    """conda's own records don't have a user and a password; the command in the history of the prefix does."""
    write_channel(tmp_path / "forge", [Package("tool", "1.0", {"bin/tool": "tool\n"})])
    install(tmp_path / "prefix", ["tool"], [tmp_path / "forge"], tmp_path / "cache")
    (path,) = (tmp_path / "prefix" / "conda-meta").glob("tool-*.json")
    path.write_text(path.read_text().replace((tmp_path / "forge").as_uri(), "https://conda.invalid/forge"))

    def record(command: str) -> Record:
        (tmp_path / "prefix/conda-meta/history").write_text(f"==> 2026-01-01 00:00:00 <==\n# cmd: {command}\n")
        (found,) = read_records(str(tmp_path / "prefix")).packages
        return found

    assert record("conda create -c https://conda.invalid/forge tool").private is False
    assert record(f"conda create -c https://{named.format(CANARY)} tool").private is True
    assert record(f"conda create -c https://{named.format(CANARY)}2 tool").private is False
    assert CANARY not in repr(record(f"conda create --channel=https://{named.format(CANARY)} tool"))
