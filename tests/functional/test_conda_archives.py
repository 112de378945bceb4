"""The layer of a conda package's archive: what is odd in an archive, and what is wrong with one."""

from __future__ import annotations

import bz2
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from likewise.conda_elsewhere import beneath
from likewise.errors import LayerError
from likewise.layers import conda
from likewise.layers.conda import layer_of_archive
from likewise.layers.pack import write_archive
from likewise.model.zstd import ZstdCompressor
from support.conda_package import Package, script, write_package

INDEX = json.dumps({"name": "tool", "version": "1.0"}).encode()
Entry = tuple[str, bytes | tarfile.TarInfo]


def link(name: str, to: str, kind: bytes = tarfile.LNKTYPE) -> Entry:
    """A member that is a link."""
    item = tarfile.TarInfo(name)
    item.type, item.linkname = kind, to
    return name, item


def tar_of(*entries: Entry) -> bytes:
    """A tar file."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name, content in entries:
            item = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            data = content if isinstance(content, bytes) else b""
            item.size = len(data)
            tar.addfile(item, io.BytesIO(data))
    return raw.getvalue()


def old(folder: Path, *entries: Entry) -> Path:
    """A ``.tar.bz2`` with exactly these members."""
    path = folder / "tool-1.0-h0_0.tar.bz2"
    path.write_bytes(bz2.compress(tar_of(*entries)))
    return path


def new(folder: Path, **parts: bytes) -> Path:
    """A ``.conda`` with these parts."""
    path = folder / "tool-1.0-h0_0.conda"
    with zipfile.ZipFile(path, "w") as archive:
        for part, data in parts.items():
            packed = ZstdCompressor().compress(data, mode=ZstdCompressor.FLUSH_FRAME)
            archive.writestr(f"{part}-tool-1.0-h0_0.tar.zst", packed)
    return path


def paths(*names: str) -> bytes:
    """A ``paths.json`` that lists these."""
    return json.dumps({"paths": [{"_path": name} for name in names], "paths_version": 1}).encode()


def test_a_hard_link_is_another_name_of_a_file(tmp_path: Path) -> None:
    """Both names have the content, each a file of its own to be taken; they can be packed."""
    archive = old(
        tmp_path,
        ("info/index.json", INDEX),
        ("bin/git", b"program"),
        link("bin/git-add", "bin/git"),
        link("./bin/git-rm", "./bin/git"),
        link("bin/g", "git", tarfile.SYMTYPE),
        link("bin/h", "bin/g"),
    )
    layer = layer_of_archive(archive, tmp_path / "files")
    links, files = [[one for one in layer.files if bool(one.entry.link) is linked] for linked in (True, False)]
    assert [file.entry.path for file in files] == ["data/bin/git", "data/bin/git-add", "data/bin/git-rm"]
    assert {file.entry.size for file in files} == {7}
    assert len({file.path for file in files}) == 3
    assert [(one.entry.path, one.entry.link) for one in links] == [("data/bin/g", "git"), ("data/bin/h", "git")]
    write_archive(layer, io.BytesIO())


def test_what_an_archive_says_of_itself_may_come_last(tmp_path: Path) -> None:
    """Old archives have everything in one tar file, in any order, and no list of paths; they are read once."""
    entries: list[Entry] = [("bin/tool", b"/opt/long/prefix/bin"), ("info/index.json", INDEX)]
    archive = old(tmp_path, *entries, ("info/has_prefix", b"/opt/long/prefix text bin/tool\n"))
    (file,) = layer_of_archive(archive).files
    assert (file.entry.placeholder, file.entry.binary) == ("/opt/long/prefix", False)


def test_the_last_of_several_members_with_one_name_counts(tmp_path: Path) -> None:
    """As for tar; the others keep their contents."""
    entries: list[Entry] = [("bin/a", b"first"), ("bin/b", b"b"), ("bin/a", b"second"), ("bin/c", b"c")]
    layer = layer_of_archive(old(tmp_path, ("info/index.json", INDEX), *entries), tmp_path / "files")
    assert [Path(file.path).read_bytes() for file in layer.files] == [b"second", b"b", b"c"]
    write_archive(layer, io.BytesIO())


def test_what_is_not_listed_is_not_installed(tmp_path: Path) -> None:
    """Installers put what paths.json lists into a prefix, and nothing else."""
    archive = new(
        tmp_path,
        info=tar_of(("info/index.json", INDEX), ("info/paths.json", paths("bin/tool"))),
        pkg=tar_of(("bin/tool", b"program"), ("bin/leftover", b"")),
    )
    assert [file.entry.path for file in layer_of_archive(archive).files] == ["data/bin/tool"]


def test_there_may_be_no_bz2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python that was built without it says so when it meets such a package."""
    monkeypatch.setitem(__import__("sys").modules, "bz2", None)
    with pytest.raises(LayerError, match="bz2"):
        layer_of_archive(old(tmp_path, ("info/index.json", INDEX)))


@pytest.mark.parametrize("form", [".conda", ".tar.bz2"])
def test_no_more_is_unpacked_than_may_be(tmp_path: Path, form: str) -> None:
    """Neither to disk, nor into memory where an archive speaks of itself."""
    zeros = Package("zeros", "1.0", {"share/zeros": bytes(8 << 20)})
    archive = write_package(zeros, tmp_path, form=form)
    assert archive.stat().st_size < 100_000
    assert layer_of_archive(archive, tmp_path / "all", most=9 << 20).size == 8 << 20
    with pytest.raises(LayerError, match="unpacks to more than"):
        layer_of_archive(archive, tmp_path / "some", most=1 << 20)
    assert sum(path.stat().st_size for path in (tmp_path / "some").iterdir()) <= 1 << 20


def test_what_an_archive_says_of_itself_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read into memory."""
    monkeypatch.setattr(conda, "MOST_SAID", 1000)
    archive = old(tmp_path, ("info/index.json", INDEX), ("info/files", bytes(1001)))
    with pytest.raises(LayerError, match="info/files has 1001 bytes"):
        layer_of_archive(archive)


GOOD: dict[str, Any] = {"info": tar_of(("info/index.json", INDEX)), "pkg": tar_of(("bin/tool", b""))}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: new(folder, info=GOOD["info"]), "0 pkg-"),
        (lambda folder: new(folder, pkg=GOOD["pkg"]), "0 info-"),
        (lambda folder: new(folder, info=tar_of(), pkg=GOOD["pkg"]), "no info/index.json"),
        (lambda folder: new(folder, info=tar_of(("info/index.json", b"[]")), pkg=GOOD["pkg"]), "can't be read"),
        (lambda folder: new(folder, info=b"no tar", pkg=GOOD["pkg"]), "can't be read"),
        (lambda folder: new(folder, **{**GOOD, "pkg": GOOD["pkg"][:100]}), "can't be read"),
        (lambda folder: new(folder, **{**GOOD, "pkg": tar_of(("../../.ssh/id_rsa", b"key"))}), "escapes"),
        (lambda folder: new(folder, **{**GOOD, "pkg": tar_of(("/etc/passwd", b"root"))}), "escapes"),
        (lambda folder: new(folder, **{**GOOD, "pkg": tar_of(link("a", "../../b", tarfile.SYMTYPE))}), "leaves"),
        (lambda folder: new(folder, **{**GOOD, "pkg": tar_of(link("a", "b"))}), "neither a file nor a link"),
        (lambda folder: new(folder, **{**GOOD, "pkg": tar_of(link("a", "", tarfile.FIFOTYPE))}), "neither a file"),
        (lambda folder: truncated(old(folder, ("info/index.json", INDEX), ("a", bytes(999)))), "can't be read"),
        (lambda folder: truncated(new(folder, **GOOD)), "can't be read"),
        (lambda folder: folder / "tool-gone.conda", "can't be read"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, make: Callable[[Path], Path], said: str) -> None:
    """One error, whatever it is, which names the archive; nothing is written outside of the folder."""
    archive = make(tmp_path)
    with pytest.raises(LayerError, match=said) as caught:
        layer_of_archive(archive, tmp_path / "into" / "files")
    assert "tool" in caught.value.where
    assert {path.name for path in (tmp_path / "into").rglob("*")} <= {"files", "0"}


def truncated(path: Path) -> Path:
    """The first half of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


def test_what_pip_leaves_of_a_package_for_one_platform(tmp_path: Path) -> None:
    """Its entry points are files like its programs: pip's distribution brings its own."""
    info = "lib/python3.11/site-packages/tool-1.0.dist-info"
    files = {
        f"{info}/METADATA": "Name: tool\nVersion: 1.0\n",
        f"{info}/entry_points.txt": "[console_scripts]\ntool = tool:main\n[other]\nplain = tool:plain\n",
        "lib/python3.11/site-packages/tool.py": "def main(): ...\n",
        "bin/tool": script("#!python\n"),
        "bin/plain": script("#!/bin/sh\n"),
        "share/bin/tool": "text\n",
    }
    layer = layer_of_archive(write_package(Package("tool", "1.0", files), tmp_path), tmp_path / "files")
    left = beneath(layer, "tool")
    assert left is not None
    assert [file.entry.path for file in left.files] == ["data/bin/plain", "data/share/bin/tool"]
