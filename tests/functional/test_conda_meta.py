"""The records that nodes get in ``conda-meta``: what they say, what they never say, and which packages have one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from likewise.conda_meta import records_layer
from likewise.model.conda import CondaPackage
from likewise.model.digest import EMPTY, digest_bytes
from likewise.model.layer import FileEntry, LayerKind, LayerSource, LazyFiles, SourceFile, layer_source
from likewise.scanner.conda_records import read_records
from likewise.store.local import LocalStore
from support.canaries import canary, words_in
from support.nodes import layer

PLACEHOLDER = "/opt/built" + "_long" * 10
CHANNEL = "https://conda.example/forge"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """Where it is remembered which layer it was."""
    return LocalStore(tmp_path / "store")


def package(name: str, **more: Any) -> CondaPackage:
    """A conda package, installed from a channel."""
    known: dict[str, Any] = {"version": "1.0", "build": "h0_0", "subdir": "linux-64", "channel": CHANNEL, "files": 1}
    known |= {"url": f"{CHANNEL}/linux-64/{name}-1.0-h0_0.conda", "sha256": digest_bytes(name.encode()), **more}
    return CondaPackage(name=name, **known)


def file(path: str, data: bytes = b"1", **more: Any) -> SourceFile:
    """A file of a layer."""
    return SourceFile(entry=FileEntry(path=path, sha256=digest_bytes(data), size=len(data), **more), data=data)


GREETER = layer(
    "greeter",
    {"purelib/greeter.py": b"", "purelib/greeter-1.0.dist-info/METADATA": b"Name: greeter\n", "scripts/greet": b"x"},
)
TOOL = layer_source(
    LayerKind.CONDA,
    "conda:tool",
    "1.0",
    [
        file("data/bin/tool", f"#!{PLACEHOLDER}/bin/sh\n".encode(), executable=True, placeholder=PLACEHOLDER),
        file("data/lib/tool.so", f"{PLACEHOLDER}\0".encode(), placeholder=PLACEHOLDER, binary=True),
        SourceFile(entry=FileEntry(path="data/lib/link", sha256=EMPTY, size=0, link="tool.so")),
    ],
)
PYTHON = layer("cpython", {"data/bin/python3.11": b"python"}, kind=LayerKind.INTERPRETER)
LAYERS = (PYTHON, GREETER, TOOL)
PACKAGES = (
    package("greeter", subdir="noarch", noarch="python", distributions=("greeter",), requires=("python >=3.9",)),
    package("meta", files=0, requested=("meta 1.*",)),
    package("python", build_number=3, md5="0" * 32, archive_size=7, constrains=("old <1",)),
    package("tool", files=3),
)


def written(made: LayerSource | None) -> dict[str, bytes]:
    """What the layer has in conda-meta."""
    assert made is not None
    assert (made.kind, made.name, made.version) == (LayerKind.RECORDS, "conda:(records)", "")
    found = {one.entry.path.removeprefix("data/conda-meta/"): one.data or b"" for one in made.files}
    assert not any("/" in name for name in found)
    return found


def prefix_with(made: LayerSource | None, folder: Path) -> Path:
    """A prefix with these records."""
    (folder / "conda-meta").mkdir(parents=True)
    for name, data in written(made).items():
        (folder / "conda-meta" / name).write_bytes(data)
    return folder


def test_each_package_has_a_record(store: LocalStore, tmp_path: Path) -> None:
    """With what the manifest and the layers know of it, as scanning such a prefix finds it again."""
    prefix = prefix_with(records_layer(PACKAGES, LAYERS, "python3.11", store), tmp_path / "prefix")
    found = {one.name: one for one in read_records(str(prefix)).packages}
    assert list(found) == [one.name for one in PACKAGES]
    for one in PACKAGES:
        for name in ("version", "build", "build_number", "channel", "subdir", "url", "sha256", "md5", "archive_size"):
            assert getattr(found[one.name], name) == getattr(one, name), (one.name, name)
        for name in ("noarch", "requires", "constrains", "requested"):
            assert getattr(found[one.name], name) == getattr(one, name), (one.name, name)
    assert found["greeter"].folders == ("lib/python3.11/site-packages/greeter-1.0.dist-info",)
    assert [(claim.path, claim.generated) for claim in found["greeter"].claims if claim.path.startswith("bin/")] == [
        ("bin/greet", True)
    ]
    claims = {claim.path: claim for claim in found["tool"].claims}
    assert claims["lib/link"].link
    assert (claims["bin/tool"].placeholder, claims["bin/tool"].binary) == (PLACEHOLDER, False)
    assert (claims["lib/tool.so"].placeholder, claims["lib/tool.so"].binary) == (PLACEHOLDER, True)
    assert claims["bin/tool"].sha256_there == ""  # it depends on the prefix
    assert found["meta"].claims == ()


def test_rattler_reads_them(store: LocalStore, tmp_path: Path) -> None:
    """Those of packages of which nobody knows where they came from, too."""
    rattler = pytest.importorskip("rattler")
    packages = (*PACKAGES, package("lost", channel="", url="", sha256="", files=0))
    prefix = prefix_with(records_layer(packages, LAYERS, "python3.11", store), tmp_path / "prefix")
    found = {path: rattler.PrefixRecord.from_path(path) for path in sorted((prefix / "conda-meta").glob("*.json"))}
    names = [(one.name.normalized, str(one.version), str(one.build)) for one in found.values()]
    assert names == sorted((one.name, one.version, one.build) for one in packages)
    assert [path.name for path in found] == sorted(f"{name}-1.0-h0_0.json" for name, _, _ in names)
    tool = next(one for one in found.values() if one.name.normalized == "tool")
    assert sorted(map(str, tool.files)) == ["bin/tool", "lib/link", "lib/tool.so"]
    assert {
        str(one.relative_path): one.prefix_placeholder for one in tool.paths_data.paths if one.prefix_placeholder
    } == dict.fromkeys(["bin/tool", "lib/tool.so"], PLACEHOLDER)
    assert (tool.url, tool.requested_spec or "") == (f"{CHANNEL}/linux-64/tool-1.0-h0_0.conda", "")
    assert read_records(str(prefix)).packages[1].url == ""  # lost


@pytest.mark.parametrize(
    "places",
    [
        {"channel": "https://{}:x@conda.example/forge", "url": "https://{}:x@conda.example/forge/linux-64/t.conda"},
        {"channel": "https://conda.example/t/{}/forge", "url": "https://conda.example/t/{}/forge/linux-64/t.conda"},
        {"channel": "t/{}/forge", "url": "https://conda.example/forge/linux-64/t.conda?key={}"},
        {"channel": "file:///home/{}/forge", "url": "file:///home/{}/forge/linux-64/t.conda"},
        {"channel": "/home/{}/forge", "url": ""},
        {"requested": ("https://conda.example/t/{}/forge::tool", "/home/{}/t.conda", "file:///home/{}/t.conda")},
        {"requested": ("tool[channel='https://conda.example/t/{}/forge']", "~/{}::tool", "./{}")},
        {"requires": ("/home/{}/forge::python >=3", "https://me:{}@conda.example/t.conda")},
        {"constrains": ("t/{}/forge::python >=3",)},
    ],
)
def test_no_credential_and_no_folder_is_in_them(
    store: LocalStore, tmp_path: Path, places: dict[str, str | tuple[str, ...]]
) -> None:
    """Whatever the client's own records, or a plan from a file, have of channels, URLs and specs."""
    secret = canary("in_a_record")
    named: dict[str, Any] = {
        name: one.format(secret) if isinstance(one, str) else tuple(each.format(secret) for each in one)
        for name, one in places.items()
    }
    prefix = prefix_with(records_layer([package("tool", **named)], LAYERS, "python3.11", store), tmp_path / "prefix")
    for path in (prefix / "conda-meta").iterdir():
        assert words_in(path.read_bytes()) == set()
        assert b"/home/" not in path.read_bytes()
    assert [one.name for one in read_records(str(prefix)).packages] == ["tool"]


def test_an_address_that_is_a_secret_is_not_told(store: LocalStore) -> None:
    """Whoever knows it may fetch what is there."""
    hidden = "https://conda.example/9f8a7c6b5d4e3f2a1b0c9d8e7f6a5b4c/forge"
    one = package("tool", channel=hidden, url=f"{hidden}/linux-64/tool-1.0-h0_0.conda")
    assert b"9f8a7c6b" not in b"".join(written(records_layer([one], LAYERS, "python3.11", store)).values())


def test_only_what_is_shipped_has_one(store: LocalStore) -> None:
    """Not what the user leaves out, what can't be shipped, or what has no name that a file can have."""
    left_out = package("numpy", distributions=("numpy",))
    replaced = package("greeter", distributions=("greeter",), replaced="pip")
    odd = (package("../up", files=0), package("a\0b", files=0), package("v", version="1/2", files=0))
    shipped = [*PACKAGES[1:], left_out, *odd]
    assert set(written(records_layer(shipped, LAYERS, "python3.11", store))) == {
        "history",
        *(f"{name}-1.0-h0_0.json" for name in ("meta", "python", "tool")),
    }
    made = written(records_layer([msgspec.structs.replace(replaced, files=0)], LAYERS, "python3.11", store))
    assert json.loads(made["greeter-1.0-h0_0.json"])["files"] == []  # those are pip's
    assert records_layer([left_out, *odd], LAYERS, "python3.11", store) is None


def test_the_history_has_what_was_asked_for(store: LocalStore) -> None:
    """conda takes it for the sign of a prefix; nothing in it depends on when or where this is done."""
    history = written(records_layer(PACKAGES, LAYERS, "python3.11", store))["history"].decode().splitlines()
    assert history[0] == "==> 1970-01-01 00:00:00 <=="
    assert history[1:-1] == [f"+{one.name}-1.0-h0_0" for one in PACKAGES]
    assert history[-1] == "# update specs: ['meta 1.*']"


def test_one_more_package_changes_nothing_but_its_own(store: LocalStore) -> None:
    """All other records are the same, byte for byte."""
    before = written(records_layer(PACKAGES, LAYERS, "python3.11", store))
    after = written(records_layer([*PACKAGES, package("new", files=0)], LAYERS, "python3.11", store))
    assert {name for name in after if after[name] != before.get(name)} == {"history", "new-1.0-h0_0.json"}


def test_an_unchanged_environment_writes_nothing(store: LocalStore, tmp_path: Path) -> None:
    """The layer is remembered; its files are made when somebody wants them, and are the same. Damage costs nothing."""
    made = records_layer(PACKAGES, LAYERS, "python3.11", store)
    again = records_layer(PACKAGES, LAYERS, "python3.11", store)
    assert made is not None and again is not None
    assert isinstance(again.files, LazyFiles)
    assert (again.digest, len(again.files), again.size) == (made.digest, len(made.files), made.size)
    assert tuple(again.files) == tuple(made.files)
    elsewhere = records_layer(PACKAGES, LAYERS, "python3.11", LocalStore(tmp_path / "another"))
    assert elsewhere == made
    for note in (store.root / "notes").rglob("*"):
        if note.is_file():
            note.write_bytes(b"\xff")
    assert records_layer(PACKAGES, LAYERS, "python3.11", store) == made
    other = layer("greeter", {"purelib/greeter.py": b"changed", "purelib/greeter-1.0.dist-info/METADATA": b""})
    changed = records_layer(PACKAGES, (PYTHON, other, TOOL), "python3.11", store)
    assert changed is not None and changed.digest != made.digest
