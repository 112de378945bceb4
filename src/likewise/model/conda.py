"""Conda packages of a prefix, as its records (``conda-meta/*.json``) and its files say.

The words are conda's: *channel*, *subdir*, *build string*, *match spec*, *virtual package*, *prefix placeholder*.
"""

from __future__ import annotations

import re

import msgspec

from likewise.model.digest import Digest

LAYER_PREFIX = "conda:"
"""Begins the name of the layer of a conda package; no distribution's normalized name (PEP 503) has a colon."""

RECORD_DAMAGED = "conda-record-damaged"
"""The code of the problem with a record that can't be read; its subject is the name of the record's file."""

NO_CHANNEL = "<unknown>"
UNKNOWN_CHANNEL = ("", NO_CHANNEL, "unknown", "<develop>", "dev_0")
"""What conda writes where a package came from no channel that it knows."""

NO_PLACE = "unknown:///"
"""Begins the URL of such a package in the records of nodes: rattler reads none without a URL."""

RECORDS_LAYER = "conda:(records)"
"""Name of the layer with the records of all packages; no package is called so."""


_CHANNEL = re.compile(r"""\bchannel\s*=\s*(?:'([^']*)'|"([^"]*)"|([^,'"\]]*))""")


class CondaPackage(msgspec.Struct, frozen=True, kw_only=True):
    """One conda package, installed or planned.

    Attributes
    ----------
    name, version, build : str
        ``numpy``, ``2.0.1``, ``py311h64a7726_0``: as its channel spells them.
    build_number : int
    channel : str
        URL or name of the channel, without credentials; "" when the record does not know it.
    subdir : str
        ``linux-64``, ``noarch``.
    url : str
        Where the package came from, without credentials; "" when unknown.
    private : bool
        Whether its record has that URL with a credential, so that not everybody can fetch it.
    sha256, md5 : str
        Of the package's archive, in hexadecimal digits; "" when unknown.
    archive_size : int
        Bytes of that archive; 0 when unknown.
    requested : tuple of str
        The match specs by which the user asked for it; empty for what only came along.
    noarch : str
        "", ``python`` or ``generic``.
    requires, constrains : tuple of str
        Match specs: what it depends on, and what others have to fulfil if they are there.
    distributions : tuple of str
        Normalized names of the Python distributions that it brought (whether they are still its own or not).
    files, size : int
        Number and bytes of its files that are there.
    modified, missing : tuple of str
        Paths, relative to the prefix, of files that are not what the record says, and that are not there.
    replaced : str
        ``pip`` (or another installer) when that has put another version of its distribution in its place, else "".
    content : Digest or None
        Identity of the layer that has its files; None when there are none, or they can't be shipped.
    """

    name: str
    version: str
    build: str = ""
    build_number: int = 0
    channel: str = ""
    subdir: str = ""
    url: str = ""
    private: bool = False
    sha256: str = ""
    md5: str = ""
    archive_size: int = 0
    requested: tuple[str, ...] = ()
    noarch: str = ""
    requires: tuple[str, ...] = ()
    constrains: tuple[str, ...] = ()
    distributions: tuple[str, ...] = ()
    files: int = 0
    size: int = 0
    modified: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    replaced: str = ""
    content: Digest | None = None

    @property
    def layer(self) -> str:
        """Name of the layer that is its own, "" when it has none: Python, and a package that is a distribution."""
        carried = self.name == "python" or (self.distributions and not self.replaced)
        return "" if carried or self.content is None else LAYER_PREFIX + self.name

    def __str__(self) -> str:
        """``numpy-2.0.1-py311h64a7726_0``, as the name of its archive begins."""
        return "-".join(filter(None, (self.name, self.version, self.build)))


def spec_name(spec: str) -> str:
    """The package name that a match spec is about, lower case; "" when it names none.

    ``numpy >=1.22,<2``, ``numpy=1.26``, ``conda-forge::numpy[version='1.*']`` and ``numpy`` → ``numpy``.
    """
    name = spec.strip().partition(" ")[0].rpartition("::")[2]
    for mark in "[=<>!~(":
        name = name.partition(mark)[0]
    return name.strip().lower()


def spec_channel(spec: str) -> str:
    """The channel that a match spec names, before ``::`` (perhaps with a subdir) or in brackets; "" without one."""
    before, _, fields = spec.partition("[")
    channel = before.rpartition("::")[0].strip()
    match = None if channel else _CHANNEL.search(fields)
    return channel or next(filter(None, match.groups() if match else ()), "").strip()


def record_name(file: str) -> str:
    """The package that a record is of, by the name of its file: ``openssl-3.3.1-h0_0.json`` → ``openssl``."""
    return file.rsplit("-", 2)[0].lower()
