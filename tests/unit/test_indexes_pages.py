"""Pages of an index as servers write them, and URLs with and without what must not be shown."""

from __future__ import annotations

import random
import string
from urllib.parse import urlsplit

import pytest

from likewise.indexes.default import default_index
from likewise.indexes.http import Trouble
from likewise.indexes.pages import read_page
from likewise.indexes.urls import (
    common_path,
    is_public,
    plain,
    printable,
    realm,
    secret_segments,
    without_credential,
)

JSON = "application/vnd.pypi.simple.v1+json"
DIGEST = "ab" * 32


def links(data: str, kind: str = "text/html", url: str = "https://a.example/simple/x/") -> list[tuple[str, str, str]]:
    """Name, URL and sha256 of all files of a page."""
    return [(link.filename, link.url.reveal(), link.sha256) for link in read_page(data.encode(), kind, url)]


@pytest.mark.parametrize(
    ("href", "url"),
    [
        ("x-1-py3-none-any.whl", "https://a.example/simple/x/x-1-py3-none-any.whl"),
        ("../../files/x-1-py3-none-any.whl", "https://a.example/files/x-1-py3-none-any.whl"),
        ("/files/x-1-py3-none-any.whl?a=1&amp;b=2", "https://a.example/files/x-1-py3-none-any.whl?a=1&b=2"),
        ("//b.example/x-1-py3-none-any.whl", "https://b.example/x-1-py3-none-any.whl"),
        ("https://b.example/x-1-py3-none-any.whl", "https://b.example/x-1-py3-none-any.whl"),
    ],
)
def test_html(href: str, url: str) -> None:
    """Links may be relative, and are HTML; the hash is their fragment (PEP 503)."""
    page = f'<!DOCTYPE html><html><body><A HREF="{href}#sha256={DIGEST.upper()}">x</A><a>no link</a><p></body>'
    assert links(page) == [("x-1-py3-none-any.whl", url, DIGEST)]


def test_html_with_a_base() -> None:
    """``<base>`` counts, the first one; other hashes do not."""
    page = '<base href="/else/"><base href="/other/"><a href="x%2B1.whl#md5=00">x</a>'
    assert links(page) == [("x+1.whl", "https://a.example/else/x%2B1.whl", "")]


def test_json() -> None:
    """PEP 691, with and without what is optional."""
    page = (
        '{"meta": {"api-version": "1.9", "new": [1]}, "name": "x", "files": ['
        f'{{"filename": "x-1.whl", "url": "../x-1.whl", "hashes": {{"sha256": "{DIGEST}"}}, "yanked": "why"}},'
        '{"filename": "x-2.whl", "url": "https://b.example/x-2.whl", "hashes": {}}]}'
    )
    assert links(page, JSON) == [
        ("x-1.whl", "https://a.example/simple/x-1.whl", DIGEST),
        ("x-2.whl", "https://b.example/x-2.whl", ""),
    ]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ("{", JSON),
        ('{"files": [{"name": 1}]}', JSON),
        ('{"meta": {"api-version": "2.0"}, "files": []}', JSON),
        ("[]", JSON),
        ('{"files": [], "meta": {"a": ' + "[" * 100_000, JSON),
        ("hello", "text/plain"),
        ("hello", ""),
    ],
)
def test_what_is_no_page(data: str, kind: str) -> None:
    """A newer version, damage, and other kinds of answers."""
    with pytest.raises(Trouble, match="no page of an index"):
        links(data, kind)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://a.example/simple/", "https://a.example/simple/"),
        ("https://me:secret@a.example:8080/simple?token=x#y", "https://a.example:8080/simple"),
        ("https://secret@a.example/simple", "https://a.example/simple"),
        ("https://me:s@cret@A.example/simple", "https://a.example/simple"),
        ("https://a.example/t/secret/simple", "https://a.example/t/***/simple"),
        ("https://a.example/9aX4k2Lm7Qw1Zp0b/firm/x/simple/", "https://a.example/***/firm/x/simple/"),
        ("https://a.example/public/firm/x/simple/", "https://a.example/public/firm/x/simple/"),
        ("https://a.example/glpat0123456789abcdefgh/simple", "https://a.example/***/simple"),
        ("https://gitlab.example/api/v4/projects/12345/packages/pypi/simple",) * 2,
        ("https://artifactory.example/artifactory/api/pypi/python-remote-2024/simple",) * 2,
        ("http://[::1]:8080/simple", "http://[::1]:8080/simple"),
        ("file:///srv/wheels/0123456789abcdef0123456789abcdef", "file:///srv/wheels/0123456789abcdef0123456789abcdef"),
        ("https://a.example:port/secret", ""),
    ],
)
def test_what_is_shown_of_a_url(url: str, shown: str) -> None:
    """No user info, no query, no token that can be told from an ordinary name."""
    assert printable(url) == shown


def test_credentials_of_urls() -> None:
    """They are percent-encoded there, and nowhere else."""
    assert plain("https://me:secret@a.example:8080/files/x.whl?token=secret#secret") == (
        "https://a.example:8080/files/x.whl"
    )
    clean, found = without_credential("https://me%40firm:s%2Fcret%25@a.example/x?q=1#f")
    assert (clean, found and found.user.reveal()) == ("https://a.example/x?q=1", "me@firm")
    assert found and found.password and found.password.reveal() == "s/cret%"
    assert without_credential("https://a.example/x") == ("https://a.example/x", None)
    assert without_credential("https://@a.example/x")[1] is None
    for wrong in ("", "a.example/simple", "https://", "https://[x/"):
        with pytest.raises(ValueError, match="no URL"):
            without_credential(wrong)


def test_realms_and_paths() -> None:
    """Scheme, host and port; the usual port may be left out, and letters of a host are alike."""
    assert realm("https://A.example/x") == realm("https://a.example:443/y") == ("https", "a.example", 443)
    assert realm("http://a.example/") != realm("https://a.example/")
    assert realm("https://a.example:x/") == ("", "", 0)
    paths = [common_path("https://a.example/one/simple", f"https://a.example/{path}") for path in ("one/x", "two/x")]
    assert paths == [2, 1]


@pytest.mark.parametrize(
    ("kind", "page"),
    [
        ("text/html", b'<a href="http://[secret/x-1-py3-none-any.whl">x</a>'),
        (
            "application/vnd.pypi.simple.v1+json",
            b'{"meta": {"api-version": "1.0"}, "files": [{"filename": "x", "url": "http://[secret", "hashes": {}}]}',
        ),
    ],
)
def test_a_link_that_is_no_url(kind: str, page: bytes) -> None:
    """The page can't be used, and nothing of the link is told."""
    with pytest.raises(Trouble, match="no URL") as caught:
        read_page(page, kind, "https://a.example/simple/x/")
    assert "secret" not in str(caught.value)


def test_the_usual_index_is_uvs() -> None:
    """uv says which one it is; what belongs to it, and mirrors, are public, and nothing else."""
    usual = urlsplit(default_index()).hostname
    assert usual
    assert is_public(default_index()) and is_public(f"https://test.{usual}/simple")
    assert is_public("https://mirrors.a.example/simple")
    assert not is_public("https://a.example/simple") and not is_public(f"https://not{usual}/simple")


@pytest.mark.parametrize(
    "token",
    [
        "fZkQ3mWpXaLrTb7c",
        "fZkQmWpXaLrTbcHd",
        "aB3xYq9LmNpR",
        "fZk-3mWpXaL_Tb7c",
        "glpat-xk3uqvmwpd_arltb",
        "ghp_xkquvmwpd7arltbzkquvmw",
        "eyJhbGciOiJub25lIn0.eyJhIjoxfQ.",
        "0f4a3c2b1d5e6f708192a3b4c5d6e7f8",
    ],
)
def test_tokens_in_paths_are_hidden(token: str) -> None:
    """Wherever in the path they stand."""
    for url in (f"https://dl.example/{token}/firm/python/simple/", f"https://a.example/simple/{token}"):
        assert token not in printable(url) and printable(url) == url.replace(token, "***")


@pytest.mark.parametrize(("length", "known"), [(12, 0.75), (16, 0.95), (20, 0.98), (32, 0.99)])
def test_most_random_texts_are_taken_for_tokens(length: int, known: float) -> None:
    """Whatever digits they happen to have."""
    chosen, of = random.Random(1), string.ascii_letters + string.digits
    tokens = ["".join(chosen.choices(of, k=length)) for _ in range(4000)]
    assert sum(bool(secret_segments(f"https://a.example/{one}/simple/")) for one in tokens) >= known * len(tokens)


@pytest.mark.parametrize(
    "path",
    [
        "/simple/",
        "/Firm/DataPlatform2/_packaging/MachineLearning-Feed2%40Local/pypi/simple/",
        "/artifactory/api/pypi/Team1Python3Packages/simple",
        "/repository/ML-Team-PyPI-Virtual-Prod/simple/",
        "/nexus/repository/NVIDIA-CUDA-12-Wheels/simple",
        "/api/v4/projects/12345678/packages/pypi/simple",
        "/whl/nightly/rocm6.2.4/",
        "/MachineLearningTeam/our-project-of-2024/simple/",
        "/root/pypi/+simple/",
        "/packages/ab/cd/ef/Pillow_SIMD-9.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "/root/pypi/+f/abc/Pillow-10.4.0-cp312-cp312-macosx_10_10_x86_64.whl",
    ],
)
def test_names_in_paths_are_shown(path: str) -> None:
    """Of projects, feeds, folders and files."""
    assert secret_segments(f"https://a.example{path}") == ()
