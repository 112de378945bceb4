"""The bundle of certificate authorities."""

from __future__ import annotations

from pathlib import Path

import pytest

from likewise.layers.interpreter import certificate_bundle


def pem(text: str, kind: str = "CERTIFICATE") -> str:
    """A PEM block with `text` for its content."""
    return f"-----BEGIN {kind}-----\n{text}\n-----END {kind}-----\n"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A compiled-in file with A, and a folder with A and B by hash, and C by another name."""
    (tmp_path / "certs").mkdir()
    (tmp_path / "cert.pem").write_text("# comment\n" + pem("AAAA"))
    for name, text in {"0a1b2c3d.0": "AAAA", "0a1b2c3e.1": "BBBB", "named.pem": "CCCC"}.items():
        (tmp_path / "certs" / name).write_text(pem(text))
    return tmp_path


def bundle(place: Path, **environ: str) -> str:
    """The bundle for the compiled-in paths in `place`."""
    return certificate_bundle(f"{place}/cert.pem", f"{place}/certs", environ).decode()


def test_file_and_hashed_folder_are_joined_without_doubles(place: Path) -> None:
    """Each certificate that OpenSSL would find is there once; names that it would not look up are not."""
    assert bundle(place) == pem("AAAA") + pem("BBBB")


def test_the_environment_goes_before_the_compiled_in_paths(place: Path) -> None:
    """SSL_CERT_FILE and SSL_CERT_DIR replace file and folder, as in OpenSSL; the folder may be several."""
    (place / "mine.pem").write_text(pem("DDDD"))
    (place / "empty").mkdir()
    assert bundle(place, SSL_CERT_FILE=f"{place}/mine.pem", SSL_CERT_DIR=f"{place}/empty") == pem("DDDD")
    assert bundle(place, SSL_CERT_DIR=f"{place}/empty:{place}/certs") == pem("AAAA") + pem("BBBB")


def test_only_certificates_are_taken(place: Path) -> None:
    """A private key and a revocation list in the same file stay on the client."""
    (place / "mine.pem").write_text(
        pem("KKKK", "PRIVATE KEY") + pem("TTTT", "TRUSTED CERTIFICATE") + pem("RRRR", "X509 CRL")
    )
    found = bundle(place, SSL_CERT_FILE=f"{place}/mine.pem", SSL_CERT_DIR="/nonexistent")
    assert found == pem("TTTT", "TRUSTED CERTIFICATE")


def test_nothing_there_gives_an_empty_bundle() -> None:
    """Missing files and folders are no error."""
    assert certificate_bundle("", "", {}) == b""
    assert certificate_bundle("/nonexistent/file", "/nonexistent", {}) == b""
