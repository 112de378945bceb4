"""Credentials in requirements' URLs stay on the client."""

from __future__ import annotations

from pathlib import Path

import pytest

from likewise.errors import LayerError
from likewise.layers import metadata
from likewise.layers.metadata import clean_layers, redact_requirements, without_credentials
from likewise.model.digest import digest_bytes
from likewise.model.layer import FileEntry, LayerKind, SourceFile, layer_source

METADATA = (
    b"Metadata-Version: 2.1\nName: mine\nVersion: 1\n"
    b"Requires-Dist: tool @ git+https://user:s3cret@host.invalid/tool@v1 ; python_version > '3'\n"
    b"Requires-Dist: other @ https://conda.invalid/t/s3cret/other.whl\nRequires-Dist: numpy>=2\n\n"
    b"Example: Requires-Dist: x @ https://user:password@host/\n"
)


def _layer(path: str, data: bytes) -> tuple[FileEntry, SourceFile]:
    entry = FileEntry(path=path, sha256=digest_bytes(data), size=len(data))
    return entry, SourceFile(entry=entry, data=data)


def test_user_info_and_path_tokens_of_requirements_go() -> None:
    """Only the credential goes: host, path, revision and marker stay, and the description is left alone."""
    clean = redact_requirements("METADATA", METADATA)
    assert b"s3cret" not in clean
    assert b"tool @ git+https://host.invalid/tool@v1 ; python_version > '3'" in clean
    assert b"other @ https://conda.invalid/other.whl" in clean
    assert clean.endswith(b"Example: Requires-Dist: x @ https://user:password@host/\n")


def test_requires_txt_of_an_egg_is_cleaned() -> None:
    """setuptools' requires.txt holds the same requirements."""
    assert redact_requirements("requires.txt", b"a @ git+ssh://tok@h.invalid/a\nb>=1\n") == (
        b"a @ git+ssh://h.invalid/a\nb>=1\n"
    )


def test_a_layer_with_a_credential_gets_clean_metadata_and_says_so() -> None:
    """The layer's file, its digest and the problem tell of the removal."""
    _, file = _layer("purelib/mine-1.dist-info/METADATA", METADATA)
    _, code = _layer("purelib/mine.py", b"https://user:password@host")
    source = layer_source(LayerKind.DISTRIBUTION, "mine", "1", [file, code])
    clean, problems = without_credentials(source)
    assert clean.digest != source.digest
    assert [p.code for p in problems] == ["credential-removed"]
    by_path = {f.entry.path: f for f in clean.files}
    assert b"s3cret" not in (by_path["purelib/mine-1.dist-info/METADATA"].data or b"")
    assert by_path["purelib/mine.py"] is code


def test_a_layer_without_one_is_the_same_object() -> None:
    """Nothing is copied or changed where there is nothing to clean."""
    _, file = _layer("purelib/mine-1.dist-info/METADATA", b"Name: mine\n\nRequires-Dist: x @ https://u:p@h/\n")
    source = layer_source(LayerKind.DISTRIBUTION, "mine", "1", [file])
    assert without_credentials(source) == (source, ())
    assert without_credentials(source)[0] is source


def test_what_is_clean_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer with nothing to clean is not read again; one with a credential is cleaned each time, and says so."""
    (tmp_path / "METADATA").write_bytes(b"Name: mine\n")
    entry = FileEntry(path="purelib/mine-1.dist-info/METADATA", sha256=digest_bytes(b"Name: mine\n"), size=11)
    mine = layer_source(LayerKind.DISTRIBUTION, "mine", "1", [SourceFile(entry=entry, path=str(tmp_path / "METADATA"))])
    other = layer_source(LayerKind.DISTRIBUTION, "other", "1", [_layer("purelib/o-1.dist-info/METADATA", METADATA)[1]])
    first = clean_layers([mine, other], work=tmp_path / "work")
    (tmp_path / "METADATA").unlink()
    assert clean_layers([mine, other], work=tmp_path / "work") == first
    assert first[0][0] is mine
    assert (first[0][1], first[1]) == without_credentials(other)
    assert [problem.subject for problem in first[1]] == ["other"]
    with pytest.raises(LayerError):
        clean_layers([mine], work=tmp_path / "elsewhere")
    monkeypatch.setattr(metadata, "_RULES", digest_bytes(b"others"))
    with pytest.raises(LayerError):
        clean_layers([mine], work=tmp_path / "work")
