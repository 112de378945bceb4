"""A certificate authority of the tests' own, and a TLS server that has a certificate from it."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Authority(msgspec.Struct):
    """`bundle`: the authority's certificate and its private key in one PEM file; `chain`: a server's, likewise."""

    bundle: Path
    certificate: bytes
    chain: Path


def make_authority(folder: Path, *, later: datetime.timedelta = datetime.timedelta()) -> Authority:
    """An authority and a certificate for ``localhost``, valid for an hour from `later` on, written to `folder`."""
    folder.mkdir(exist_ok=True)
    key, server_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"authority of {folder.name}")])
    root = _certificate(issuer, issuer, key, key, authority=True)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    leaf = _certificate(name, issuer, server_key, key, authority=False, later=later)
    bundle, chain = folder / "authority.pem", folder / "server.pem"
    bundle.write_bytes(_pem(root) + _key(key))
    chain.write_bytes(_pem(leaf) + _key(server_key))
    return Authority(bundle=bundle, certificate=_pem(root), chain=chain)


@contextlib.contextmanager
def serve_once(chain: Path) -> Iterator[int]:
    """A TLS server for one connection; yields its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)
        thread = threading.Thread(target=_serve, args=(listener, context), name="tls-server")
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join(40)


def _serve(listener: socket.socket, context: ssl.SSLContext) -> None:
    with contextlib.suppress(OSError):
        connection, _ = listener.accept()
        connection.settimeout(30)
        with connection, context.wrap_socket(connection, server_side=True) as secure:
            secure.recv(1)


def _certificate(
    name: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    *,
    authority: bool,
    later: datetime.timedelta = datetime.timedelta(),
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.timezone.utc) + later
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(signer, hashes.SHA256())
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
