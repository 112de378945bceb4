"""Origins from direct_url.json, and what is left of a URL."""

from __future__ import annotations

import json

import pytest

from likewise.model.origins import local_path, origin_of, parse_direct_url, redact, redact_requirement
from likewise.model.snapshot import Origin, OriginKind


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("https://host.invalid/a/b.whl", "https://host.invalid/a/b.whl"),
        ("https://user:secret@host.invalid:8443/a", "https://host.invalid:8443/a"),
        ("https://secret@host.invalid/a?x=secret#secret", "https://host.invalid/a"),
        ("https://host.invalid/t/secret/main/noarch", "https://host.invalid/main/noarch"),
        ("https://host.invalid/t/secret", "https://host.invalid"),
        ("https://host.invalid/part/tail", "https://host.invalid/part/tail"),
        ("ssh://git@host.invalid:22/o/r.git", "ssh://host.invalid:22/o/r.git"),
        ("git+https://secret@host.invalid/r@v1", "git+https://host.invalid/r@v1"),
        ("git@host.invalid:owner/repo.git", "host.invalid:owner/repo.git"),
        ("file:///home/me/x.whl", "file:///home/me/x.whl"),
        ("https://u:secret@[::1]:80/a", "https://[::1]:80/a"),
        ("https://[secret/a", ""),
        ("https://host:secret/a", ""),
        ("secret", ""),
        ("", ""),
    ],
)
def test_redaction(url: str, clean: str) -> None:
    """User info, query, fragment and path tokens go; what can't be understood goes entirely."""
    assert redact(url) == clean
    assert "secret" not in redact(url)


@pytest.mark.parametrize(
    ("direct", "expected"),
    [
        (None, Origin(kind=OriginKind.INDEX)),
        (
            {"url": "https://u:p@h.invalid/r.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            Origin(kind=OriginKind.VCS, url="https://h.invalid/r.git", commit="abc"),
        ),
        (
            {"url": "https://h.invalid/a.whl", "archive_info": {"hash": "sha256=0"}},
            Origin(kind=OriginKind.ARCHIVE, url="https://h.invalid/a.whl"),
        ),
        (
            {"url": "file:///a%20b", "dir_info": {}, "subdirectory": "c"},
            Origin(kind=OriginKind.DIRECTORY, url="file:///a%20b", path="/a b", subdirectory="c"),
        ),
        (
            {"url": "file:///a", "dir_info": {"editable": True}},
            Origin(kind=OriginKind.EDITABLE, url="file:///a", path="/a"),
        ),
        (
            {"url": "file:///home/conda-bld/mine", "dir_info": {"editable": True}},
            Origin(kind=OriginKind.EDITABLE, url="file:///home/conda-bld/mine", path="/home/conda-bld/mine"),
        ),
        ({"url": "file:///x/conda-bld/n_1/work", "dir_info": {}}, Origin(kind=OriginKind.CONDA)),
        ({"url": "file:///c/pypoetry/artifacts/a/n.whl", "archive_info": {}}, Origin(kind=OriginKind.INDEX)),
    ],
)
def test_origins(direct: dict[str, object] | None, expected: Origin) -> None:
    """Each kind of direct_url.json has its origin."""
    parsed = parse_direct_url(json.dumps(direct).encode()) if direct else None
    assert origin_of(parsed, installer="pip") == expected


def test_what_conda_installed_is_condas_whatever_else_it_says() -> None:
    """INSTALLER conda decides."""
    direct = parse_direct_url(b'{"url": "file:///src/dir", "dir_info": {}}')
    assert origin_of(direct, installer="conda") == Origin(kind=OriginKind.CONDA)


DEEP = b'{"url": "u", "archive_info": {"a": ' + b"[" * 100_000


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"dir_info": {}}', b'{"url": 3}', b"\xff", DEEP])
def test_damaged_direct_urls(data: bytes) -> None:
    """What is no direct_url.json is None."""
    assert parse_direct_url(data) is None


def test_local_paths() -> None:
    """Only file URLs name a local path."""
    assert local_path("file:///a%20b/c") == "/a b/c"
    assert local_path("https://h.invalid/a") == ""
    assert local_path("file://[broken") == ""


@pytest.mark.parametrize(
    ("requirement", "clean"),
    [
        ("numpy>=2 ; extra == 'x'", "numpy>=2 ; extra == 'x'"),
        ("a @ git+https://u:tok@h.invalid/a@v1", "a @ git+https://h.invalid/a@v1"),
        (
            "a[x]@https://tok@h.invalid/a.whl ; python_version > '3'",
            "a[x] @ https://h.invalid/a.whl ; python_version > '3'",
        ),
        ("a @ git+ssh://git@h.invalid/a", "a @ git+ssh://h.invalid/a"),
    ],
)
def test_requirements_lose_their_credentials(requirement: str, clean: str) -> None:
    """A requirement's URL is redacted; its name, extras, revision and marker stay."""
    assert redact_requirement(requirement) == clean
