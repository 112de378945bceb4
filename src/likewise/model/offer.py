"""Layers that a public index or channel offers as files, so that nodes can fetch them by themselves."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from likewise.model.digest import Digest
from likewise.model.plan import LockedFile

WHEEL = ".whl"
"""How the names of wheels end."""

CONDA = (".conda", ".tar.bz2")
"""How the names of conda packages end."""


class Offer(msgspec.Struct, frozen=True):
    """A wheel or a conda package that is the layer.

    Attributes
    ----------
    layer : Digest
        The layer that the file should make.
    file : LockedFile
        The file, with its sha256. Its URL is public: nobody needs a credential for it.
    client_has : bool, default True
        Whether the client has the layer's files. If not, it would have to fetch the file first, so it is asked when no
        node can.
    """

    layer: Digest
    file: LockedFile
    client_has: bool = True


def kind_of(file: LockedFile) -> str:
    """How the file's name ends, which says how to make a layer of it; "" when nobody can."""
    return next((kind for kind in (WHEEL, *CONDA) if file.filename.endswith(kind)), "")


def encode_offers(offers: Iterable[Offer]) -> bytes:
    """Offers as they are sent to the hub."""
    return msgspec.msgpack.encode(tuple(offers))


def decode_offers(data: bytes) -> tuple[Offer, ...]:
    """What `encode_offers` made.

    Raises
    ------
    msgspec.DecodeError
        When it is something else.
    """
    return msgspec.msgpack.decode(data, type=tuple[Offer, ...])
