"""Layers from wheels: unpacked safely, the same as from an installation, and never trusting the wheel's RECORD."""

from __future__ import annotations

import hashlib
import io
import stat
import zipfile
from pathlib import Path

import pytest

from likewise.errors import LayerError
from likewise.layers.wheel import wheel_entries, wheel_source
from likewise.model.layer import LayerKind, layer_digest, layer_source
from support.wheels import Install, files_of, install, pip, write_wheel  # noqa: F401

DATA = "sample-1.0.data"


def test_unpacked_files_are_those_of_the_wheel(tmp_path: Path) -> None:
    """Each lies beneath the given directory under its layer path, with the content and mode that its entry says."""
    wheel = write_wheel(
        tmp_path,
        {"sample/__init__.py": b"", "sample/run.sh": b"#!/bin/sh\n", f"{DATA}/scripts/tool": b"#!python3\n1\n"},
        executable=("sample/run.sh",),
    )
    source = wheel_source(wheel, unpack_to=tmp_path / "out")
    assert (source.kind, source.name, source.version) == (LayerKind.DISTRIBUTION, "sample", "1.0")
    for file in source.files:
        path = Path(file.path)
        assert path == tmp_path / "out" / file.entry.path
        assert hashlib.sha256(path.read_bytes()).hexdigest() == file.entry.sha256
        assert path.stat().st_size == file.entry.size
        assert bool(path.stat().st_mode & 0o111) == file.entry.executable
    assert {f.entry.path for f in source.files if f.entry.executable} == {"purelib/sample/run.sh", "scripts/tool"}
    assert source.digest == layer_digest(wheel_entries(wheel))


def test_name_and_version_come_from_the_metadata(tmp_path: Path) -> None:
    """The name is normalized, the version is as the metadata spells it."""
    wheel = write_wheel(tmp_path, {"x.py": b""}, name="My.Sample_Pkg", version="1.0+local.1")
    source = wheel_source(wheel, unpack_to=tmp_path / "out")
    assert (source.name, source.version) == ("my-sample-pkg", "1.0+local.1")


def test_a_lying_record_changes_nothing(tmp_path: Path) -> None:
    """Content is hashed; RECORD itself is no part of the layer."""
    files = {"sample/a.py": b"a", "sample/b.py": b"b"}
    honest = wheel_entries(write_wheel(tmp_path / "1", files))
    lying = {"sample/a.py": "sample/a.py,sha256=AAAA,99", "sample/b.py": None, "gone": "gone,,"}
    assert wheel_entries(write_wheel(tmp_path / "2", files, record=lying)) == honest


@pytest.mark.parametrize("script", [b"#!python\nprint(1)\n", b"#!pythonw\r\nprint(1)\r\n", b"#!/bin/sh\necho\n"])
def test_scripts_are_the_same_from_the_wheel_and_from_the_prefix(
    install: Install,  # noqa: F811
    tmp_path: Path,
    script: bytes,
) -> None:
    """Whatever the installer puts into the first line, and however the line ends."""
    wheel = write_wheel(tmp_path, {f"{DATA}/scripts/tool": script}, executable=(f"{DATA}/scripts/tool",))
    installed = layer_source(LayerKind.DISTRIBUTION, "sample", "1.0", files_of(install(wheel)).files)
    assert [f.entry for f in installed.files] == list(wheel_entries(wheel))


def test_a_literal_placeholder_in_the_data_scheme_stays(install: Install, tmp_path: Path) -> None:  # noqa: F811
    """Installers don't touch it there, so neither side does; it is not executable, so nodes leave it alone too."""
    wheel = write_wheel(tmp_path, {f"{DATA}/data/bin/template": b"#!python -x\nprint(1)\n"})
    site = install(wheel)
    (entry,) = (e for e in wheel_entries(wheel) if e.path.startswith("scripts/"))
    assert entry == next(f.entry for f in files_of(site).files if f.entry.path == "scripts/template")
    assert entry.sha256 == hashlib.sha256(b"#!python -x\nprint(1)\n").hexdigest()
    assert not entry.executable


def make_zip(path: Path, names: dict[str, bytes]) -> Path:
    """A zip file with exactly these members, in this order."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in names.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return path


METADATA = {"sample-1.0.dist-info/METADATA": b"Name: sample\nVersion: 1.0\n"}


@pytest.mark.parametrize(
    "name",
    [
        "../evil.py",
        "sample/../../evil.py",
        "/etc/evil",
        f"{DATA}/data/../../../evil",
        f"{DATA}/scripts/../evil",
        f"{DATA}/data//etc/evil",
        f"{DATA}/headers/../../evil.h",
        "sample//evil.py",
        "./evil.py",
    ],
)
def test_members_that_lead_outside_are_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    """The error names the wheel and the member; no file appears, in the target directory or elsewhere."""
    wheel = make_zip(tmp_path / "sample-1.0-py3-none-any.whl", {**METADATA, "sample/ok.py": b"", name: b"evil"})
    with pytest.raises(LayerError) as caught:
        wheel_source(wheel, unpack_to=tmp_path / "a/b/out")
    assert caught.value.where == str(wheel)
    assert list(caught.value.details["paths"]) == [name]
    assert list(tmp_path.rglob("*evil*")) == []
    assert not (tmp_path / "a").exists()


def test_two_members_with_one_path_are_refused(tmp_path: Path) -> None:
    """Also when they meet only in the layer: in the root of the wheel and in its purelib folder."""
    wheel = make_zip(tmp_path / "w.whl", {**METADATA, "sample/a.py": b"1", f"{DATA}/purelib/sample/a.py": b"2"})
    with pytest.raises(LayerError, match="is there twice"):
        wheel_entries(wheel)


@pytest.mark.parametrize(
    ("names", "match"),
    [(("sample/A.py", "sample/a.py"), "where case is ignored"), (("sample/a", "sample/a/b"), "beneath another file")],
)
def test_names_that_not_every_file_system_can_hold_together_are_refused(
    tmp_path: Path, names: tuple[str, ...], match: str
) -> None:
    """Names that differ in case alone, a file with files beneath it: nothing has been written."""
    wheel = make_zip(tmp_path / "w.whl", {**METADATA, **dict.fromkeys(names, b"x")})
    with pytest.raises(LayerError, match=match):
        wheel_source(wheel, unpack_to=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_directory_that_is_not_empty_or_not_there(tmp_path: Path) -> None:
    """Nothing is overwritten, no link that somebody left is followed, and the error names the file in the way."""
    wheel = write_wheel(tmp_path, {"sample/a.py": b"a"})
    (tmp_path / "out/purelib/sample").mkdir(parents=True)
    (tmp_path / "out/purelib/sample/a.py").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LayerError, match="can't be unpacked") as caught:
        wheel_source(wheel, unpack_to=tmp_path / "out")
    assert caught.value.where == str(tmp_path / "out/purelib/sample/a.py")
    assert not (tmp_path / "elsewhere").exists()


def test_a_link_in_a_wheel_is_a_file_as_for_installers(tmp_path: Path) -> None:
    """pip and uv write the target's name as content; no link is ever made from a wheel."""
    info = zipfile.ZipInfo("sample/link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    wheel = tmp_path / "w.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(info, "/etc/passwd")
        archive.writestr("sample-1.0.dist-info/METADATA", METADATA["sample-1.0.dist-info/METADATA"])
    source = wheel_source(wheel, unpack_to=tmp_path / "out")
    (link,) = (f for f in source.files if f.entry.path == "purelib/sample/link")
    assert link.entry.link == "" and not link.entry.executable
    assert not Path(link.path).is_symlink() and Path(link.path).read_text() == "/etc/passwd"


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"not a zip", "can't be read"),
        ({"sample/a.py": b""}, "0 dist-info"),
        ({**METADATA, "other-1.dist-info/METADATA": b""}, "2 dist-info"),
        ({"sample-1.0.dist-info/WHEEL": b""}, "no name and version"),
        ({"sample-1.0.dist-info/METADATA": b"Name: sample\n\nVersion: 1\n"}, "no name and version"),
    ],
)
def test_what_is_not_a_wheel_is_refused(tmp_path: Path, content: bytes | dict[str, bytes], match: str) -> None:
    """Each in its own words, naming the file."""
    path = tmp_path / "sample.whl"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        make_zip(path, content)
    with pytest.raises(LayerError, match=match) as caught:
        wheel_entries(path)
    assert caught.value.where == str(path)


def test_a_damaged_wheel_is_refused(tmp_path: Path) -> None:
    """Content that does not have the checksum of the zip file's own directory."""
    wheel = write_wheel(tmp_path, {"sample/a.py": b"content-to-be-damaged"})
    wheel.write_bytes(wheel.read_bytes().replace(b"content-to-be-damaged", b"content-that-was-damag"[:21]))
    with pytest.raises(LayerError, match="damaged"):
        wheel_entries(wheel)


def test_directories_in_a_wheel_are_nothing(tmp_path: Path) -> None:
    """Only files count."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("sample/", "")
        archive.writestr("sample/a.py", "a")
        archive.writestr("sample-1.0.dist-info/METADATA", METADATA["sample-1.0.dist-info/METADATA"])
    (tmp_path / "w.whl").write_bytes(buffer.getvalue())
    assert [e.path for e in wheel_entries(tmp_path / "w.whl")] == [
        "purelib/sample-1.0.dist-info/METADATA",
        "purelib/sample/a.py",
    ]
