"""Certificates of one cluster: an authority of its own, and a key for each role that no other role has.

The authority's private key never leaves the client's memory; it is there to sign certificates for the roles. Every
connection is authenticated on both ends by that authority. A client can besides insist that whoever answers is the
scheduler, by name: the address under which it is reached says nothing where connections are forwarded.
"""

from __future__ import annotations

import datetime
import ssl
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from distributed.security import Security

SCHEDULER_NAME = "scheduler.likewise.internal"
"""The name in the scheduler's certificate; the hub beside it bears it, too."""

_VALID = datetime.timedelta(days=365)
_SKEW = datetime.timedelta(days=1)  # a node's clock may be behind the client's
_ROLES = ("scheduler", "worker", "client")


class ClusterSecurity(Security):  # type: ignore[misc]
    """`distributed.Security` whose clients can insist on the scheduler's name.

    Parameters
    ----------
    check_name : bool
        Whether a client verifies that the other end is the scheduler. It can't talk to workers directly then.
    **kwargs
        As for `distributed.Security`.
    """

    def __init__(self, *, check_name: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.check_name = check_name

    def get_connection_args(self, role: str) -> dict[str, Any]:
        """What `distributed.comm.connect` has to be told."""
        arguments: dict[str, Any] = super().get_connection_args(role)
        if self.check_name and role == "client":
            context: ssl.SSLContext = arguments["ssl_context"]
            context.check_hostname = True
            arguments["server_hostname"] = SCHEDULER_NAME
        return arguments


@dataclass(frozen=True)
class Identity:
    """A certificate and its private key, as PEM text."""

    certificate: str
    key: str

    def __repr__(self) -> str:
        return "Identity(…)"


class Authority:
    """A certificate authority that exists in memory only."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "likewise cluster")])

    @cached_property
    def certificate(self) -> str:
        """The authority's own certificate, as PEM text."""
        return self._sign(self._name, self._key.public_key(), (), authority=True)

    def identity(self, name: str) -> Identity:
        """A new key, and a certificate that says it belongs to `name` (a DNS name)."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Identity(self._sign(subject, key.public_key(), (name,), authority=False), pem.decode())

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, names: tuple[str, ...], *, authority: bool
    ) -> str:
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _SKEW)
            .not_valid_after(now + _VALID)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=0 if authority else None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), False)
        signed: bytes = builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        return signed.decode()


def make_security(*, check_name: bool = False) -> ClusterSecurity:
    """Credentials for one cluster: an authority, and a certificate and key for scheduler, workers and client each.

    Parameters
    ----------
    check_name : bool
        See `ClusterSecurity`.
    """
    authority = Authority()
    fields: dict[str, str] = {"tls_ca_file": authority.certificate}
    for role in _ROLES:
        identity = authority.identity(f"{role}.likewise.internal")
        fields |= {f"tls_{role}_cert": identity.certificate, f"tls_{role}_key": identity.key}
    return ClusterSecurity(require_encryption=True, check_name=check_name, **fields)
