"""From the configuration of pip and uv to the indexes that are asked, in one order."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from likewise.indexes.default import default_index
from likewise.indexes.netrc_file import read_netrc
from likewise.indexes.pip_config import read_pip
from likewise.indexes.secret import Credential, Secret, credential
from likewise.indexes.stated import Configuration, Source, Stated
from likewise.indexes.urls import is_of_pytorch, is_public, printable, realm, without_credential
from likewise.indexes.uv_config import read_uv
from likewise.indexes.uv_store import read_uv_store
from likewise.indexes.values import Connection, Index, Indexes, KeyringAccess, Known
from likewise.model.accelerators import PYTORCH
from likewise.model.snapshot import Problem, Severity

_CERTIFICATES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def find_indexes(
    *,
    environ: Mapping[str, str],
    home: Path,
    folder: Path,
    python: str | None = None,
    requirements: Sequence[Path | Secret] = (),
    machine: Path = Path("/"),
    system: str = sys.platform,
) -> Indexes:
    """The indexes that this user's pip and uv would ask.

    uv's come first, in uv's order (which is the user's own); then pip's. pip itself has no order among its indexes and
    takes the best version from all of them, which lets whoever can publish on one of them replace what another one has
    (dependency confusion). That is not taken over: pip's extra indexes stand before its main one, those where anybody
    can publish last, and a name is looked for on the first index that has it. A problem says so.

    Parameters
    ----------
    environ : mapping
        The environment variables.
    home, folder : Path
        The user's home, and the working directory: configuration is looked for in both.
    python : str, optional
        Path of the prefix's interpreter: beside it may be a ``pip.conf``, and in its prefix the keyring package.
        Without it neither is asked.
    requirements : sequence of Path or Secret
        Requirements files whose ``--index-url`` and the like count, or the text of one that came through a pipe.
    machine : Path
        Where ``etc`` lies.
    system : str
        ``sys.platform`` of this machine.
    """
    uv = read_uv(environ=environ, home=home, folder=folder, machine=machine, system=system)
    pip = read_pip(
        environ=environ,
        home=home,
        folder=folder,
        prefix=_prefix_of(python, system) if python else None,
        requirements=requirements,
        machine=machine,
        system=system,
    )
    problems = [*uv.problems, *pip.problems]
    netrc = read_netrc(environ, home, problems)
    stored = read_uv_store(environ, home, folder, system, problems)
    book = _Book(environ, problems)
    order = book.enter_all(_order(uv, pip, problems))
    explicit = book.enter_all(stated for stated in uv.indexes if stated.explicit and not uv.no_index)
    of_pytorch = book.enter_all(_of_pytorch(pip, problems))
    problems += [_with_token(known) for known in (*explicit, *of_pytorch) if not known.can_be_written]
    return Indexes(
        order,
        explicit=[*explicit, *of_pytorch],
        sources=_sources(uv, of_pytorch),
        links=book.enter_all(_links((*uv.find_links, *pip.find_links))),
        strategy=uv.strategy or "first-index",
        netrc=netrc,
        stored=stored,
        keyring=KeyringAccess(python if uv.keyring and pip.keyring else None, environ),
        connection=_connection(uv, pip, environ),
        problems=problems,
    )


def _prefix_of(python: str, system: str) -> Path:
    """``<prefix>/bin/python``; on Windows ``<prefix>\\Scripts\\python.exe``, or without a venv right in the prefix."""
    folder = Path(python).parent
    return folder if system == "win32" and folder.name.lower() != "scripts" else folder.parent


def _order(uv: Configuration, pip: Configuration, problems: list[Problem]) -> list[Stated]:
    """The indexes that are asked about any name: uv's, pip's private ones, and the default or the public ones last."""
    uv_is_silent = not (uv.indexes or uv.find_links)
    if uv.no_index or (pip.no_index and uv_is_silent):
        return []
    own = [stated for stated in uv.indexes if not stated.explicit and not stated.default]
    private, last = _pip_order(pip, problems)
    if not any(stated.default for stated in (*private, *last)) and (usual := default_index()):
        last.append(Stated(Secret(usual), "the default of pip and uv", name="pypi", default=True))
    return [*own, *private, *([stated for stated in uv.indexes if stated.default] or last)]


def _pip_order(pip: Configuration, problems: list[Problem]) -> tuple[list[Stated], list[Stated]]:
    """pip's indexes: the private ones, and those where anybody can publish. PyTorch's are neither."""
    own = [stated for stated in pip.indexes if not is_of_pytorch(stated.url.reveal())]
    if len(own) > 1 or (own and not own[0].default):
        problems.append(_no_order(own))
    public = [stated for stated in own if is_public(stated.url.reveal())]
    return [stated for stated in own if stated not in public], public


def _of_pytorch(pip: Configuration, problems: list[Problem]) -> list[Stated]:
    """PyTorch's indexes among pip's; uv's stand where the user put them."""
    if pip.no_index:
        return []
    found = [stated for stated in pip.indexes if is_of_pytorch(stated.url.reveal())]
    problems += [_pytorch(stated) for stated in found]
    return [replace(stated, explicit=True, default=False) for stated in found]


def _sources(uv: Configuration, of_pytorch: Sequence[Known]) -> dict[str, tuple[Source, ...]]:
    """What the project says, and for PyTorch's own distributions otherwise pip's indexes of PyTorch's."""
    choice = tuple(Source(known.index.name, chosen=True) for known in of_pytorch)
    return {**(dict.fromkeys(PYTORCH, choice) if choice else {}), **uv.sources}


def _connection(uv: Configuration, pip: Configuration, environ: Mapping[str, str]) -> Connection:
    return Connection(
        unverified=tuple(dict.fromkeys((*uv.unverified, *pip.unverified))),
        certificates=pip.certificates or next((environ[name] for name in _CERTIFICATES if environ.get(name)), ""),
        proxy=pip.proxy,
    )


def _no_order(stated: Sequence[Stated]) -> Problem:
    where = ", ".join(dict.fromkeys(one.where for one in stated))
    return Problem(
        code="index-order",
        subject="indexes",
        message=(
            f"pip takes the best version from all of its indexes ({where}); here a name comes from the first index "
            "that has it, so that none can replace what another one has. If you trust them all alike, set "
            "UV_INDEX_STRATEGY=unsafe-best-match."
        ),
        severity=Severity.NOTE,
    )


def _with_token(known: Known) -> Problem:
    return Problem(
        code="index-explicit",
        subject=known.index.name,
        message=(
            f"{known.index.url} ({known.index.where}) is asked about some names alone, and its address has a token, "
            "which is written into no file: so it is not asked, and nor is any other index about these names. Put the "
            f"token into netrc or UV_INDEX_{known.variable}_PASSWORD, or name the index in UV_INDEX as well."
        ),
        severity=Severity.WARNING,
    )


def _pytorch(stated: Stated) -> Problem:
    return Problem(
        code="index-pytorch",
        subject="indexes",
        message=(
            f"{printable(stated.url.reveal())} ({stated.where}) has a few old versions of many distributions, so it is "
            f"asked about {', '.join(PYTORCH)} alone, for a target with the accelerator in its address."
        ),
        severity=Severity.NOTE,
    )


@dataclass
class _Book:
    """Gives each index its name, once."""

    environ: Mapping[str, str]
    problems: list[Problem]
    known: dict[str, Known] = field(default_factory=dict)  # URL → what was entered

    def enter_all(self, stated: Iterable[Stated]) -> list[Known]:
        """Those that were not entered before and are URLs."""
        return [known for one in stated if (known := self._enter(one))]

    def _enter(self, stated: Stated) -> Known | None:
        try:
            url, given = without_credential(stated.url.reveal())
        except ValueError:
            self.problems.append(_no_url(stated.where))
            return None
        key = url.rstrip("/")
        if key in self.known:
            return None
        name = self._name(stated.name or _name_of(url))
        index = Index(name=name, url=printable(url), where=stated.where)
        known = Known(index, Secret(url), anonymous=stated.anonymous)
        known = Known(index, Secret(url), self._from_variables(known) or given, stated.anonymous)
        self.known[key] = known
        return known

    def _name(self, wanted: str) -> str:
        """`wanted`, or with a number behind it where another index has that name, or one that uv would confuse."""
        taken = {known.variable for known in self.known.values()}
        names = [wanted, *(f"{wanted}-{number}" for number in range(2, len(taken) + 3))]
        return next(name for name in names if re.sub(r"[^A-Za-z0-9]", "_", name).upper() not in taken)

    def _from_variables(self, known: Known) -> Credential | None:
        user = self.environ.get(f"UV_INDEX_{known.variable}_USERNAME", "")
        password = self.environ.get(f"UV_INDEX_{known.variable}_PASSWORD")
        return credential(user, password) if user or password else None


def _links(urls: Iterable[Secret]) -> list[Stated]:
    """Flat lists and folders, with names that no index has."""
    return [Stated(url, "find-links", name=f"find-links-{n}") for n, url in enumerate(dict.fromkeys(urls), 1)]


def _name_of(url: str) -> str:
    """From the host: ``packages.example.com`` → ``packages-example-com``; PyPI has its usual name."""
    if url.rstrip("/") == default_index():
        return "pypi"
    _, host, port = realm(url)
    shown = host if port in (0, 80, 443) else f"{host}-{port}"
    return re.sub(r"[^a-z0-9]+", "-", shown).strip("-") or "local"


def _no_url(where: str) -> Problem:
    return Problem(
        code="index-configuration",
        subject=where,
        message=f"{where} names an index by something that is no URL; it is passed over.",
        severity=Severity.WARNING,
    )
