"""sha256 digests, the only kind of name that content has here."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import NewType

Digest = NewType("Digest", str)
"""64 lower-case hexadecimal digits of a sha256."""

EMPTY = Digest(hashlib.sha256(b"").hexdigest())


def digest_bytes(data: bytes) -> Digest:
    """The digest of `data`."""
    return Digest(hashlib.sha256(data).hexdigest())


def is_digest(text: str) -> bool:
    """Whether `text` has the form of a digest (so that it may be used as a file name)."""
    return len(text) == 64 and all(c in "0123456789abcdef" for c in text)


def digest_from_record(field: str) -> Digest | None:
    """The digest in a `RECORD` hash field such as ``sha256=47DEQpj8…``, None when there is no usable one.

    `RECORD` writes URL-safe base64 without padding (the wheel specification, "Signed wheel files"). Other
    algorithms than sha256 are treated as no hash at all: the file is then hashed from disk.
    """
    algorithm, _, value = field.partition("=")
    if algorithm.lower() != "sha256" or not value:
        return None
    try:
        raw = base64.urlsafe_b64decode(value.rstrip("=") + "=" * (-len(value.rstrip("=")) % 4))
    except (binascii.Error, ValueError):
        return None
    return Digest(raw.hex()) if len(raw) == 32 else None


def digest_to_record(digest: Digest) -> str:
    """`digest` as a `RECORD` hash field."""
    plain = binascii.b2a_base64(bytes.fromhex(digest), newline=False).decode()
    return "sha256=" + plain.rstrip("=").replace("+", "-").replace("/", "_")
