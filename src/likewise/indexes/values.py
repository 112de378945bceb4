"""The indexes that distributions come from, with the credentials that go with them."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn, SupportsIndex
from urllib.parse import quote, urlsplit

import msgspec

from likewise.indexes.assigned import choose
from likewise.indexes.keyring import Question, ask_keyring
from likewise.indexes.netrc_file import Netrc
from likewise.indexes.secret import Credential, Secret
from likewise.indexes.stated import Source
from likewise.indexes.urls import (
    HIDDEN,
    common_path,
    is_public,
    plain,
    realm,
    secret_parts,
    secret_texts,
    with_credential,
)
from likewise.indexes.uv_store import UvStore
from likewise.model.plan import LockedFile
from likewise.model.snapshot import Problem
from likewise.model.target import Target

SHORTEST = 4
"""Characters of a secret that is looked for in what programs say: shorter ones are found in any text."""

LIKE_A_TOKEN = 16
"""Characters from which on a user's name may be the token itself, and the password no more than a word."""


class Index(msgspec.Struct, frozen=True):
    """One index (PEP 503, 691).

    Attributes
    ----------
    name : str
        Unique among a user's indexes, and stable from one run to the next.
    url : str
        Without user info and query, tokens in its path hidden: it can always be shown.
    where : str
        The file or variable that names it.
    """

    name: str
    url: str
    where: str = ""


@dataclass(frozen=True)
class Known:
    """What only this process knows of an index: its true URL (without user info), and what is sent to it."""

    index: Index
    url: Secret
    credential: Credential | None = None
    anonymous: bool = False

    @property
    def hidden(self) -> tuple[str, ...]:
        """What its URLs begin with, and how that is shown; empty when there is no token in its path."""
        length = secret_parts(self.url.reveal())
        pair = (plain(self.url.reveal()), self.index.url)
        return tuple("/".join(url.split("/")[: 2 + length]) for url in pair) if length else ()

    @property
    def can_be_written(self) -> bool:
        """Whether its true URL may stand in a file: there is no token in its path, and no query."""
        return plain(self.url.reveal()) == self.url.reveal() and not self.hidden

    @property
    def variable(self) -> str:
        """What uv calls it in the names of its variables."""
        return re.sub(r"[^A-Za-z0-9]", "_", self.index.name).upper()


@dataclass(frozen=True)
class Connection:
    """How hosts are reached.

    Attributes
    ----------
    unverified : tuple of str
        Hosts (or ``host:port``) whose TLS certificates aren't checked.
    certificates : str
        A file of certificates to trust instead of the system's, "" when not given.
    proxy : Secret or None
        For all hosts; None means what the environment variables say.
    """

    unverified: tuple[str, ...] = ()
    certificates: str = ""
    proxy: Secret | None = None


@dataclass(frozen=True)
class KeyringAccess:
    """Where keyring would be asked. `python` is None when it may not be."""

    python: str | None = None
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)


class Indexes:
    """The indexes of this user, in the order in which they are asked, and their credentials.

    It is made by `find_indexes`. Its `repr` has no secret; it can't be pickled or copied, so it can't leave the
    process.

    Attributes
    ----------
    order : tuple of Index
        A name that one of them has is not looked for on those that follow (with the strategy ``first-index``).
    explicit : tuple of Index
        Those that are asked only about what is `assigned` to them.
    sources : mapping
        Normalized distribution name → where uv's or (PyTorch's own) pip's configuration says that it comes from.
    find_links : tuple of str
        Flat lists of files, and folders, asked beside all indexes; printable.
    strategy : str
        uv's ``index-strategy``.
    problems : tuple of Problem
        What was odd about the configuration.
    """

    def __init__(
        self,
        known: Iterable[Known] = (),
        *,
        explicit: Iterable[Known] = (),
        sources: Mapping[str, tuple[Source, ...]] | None = None,
        links: Iterable[Known] = (),
        strategy: str = "first-index",
        netrc: Netrc | None = None,
        stored: UvStore | None = None,
        keyring: KeyringAccess | None = None,
        connection: Connection | None = None,
        problems: Iterable[Problem] = (),
    ) -> None:
        self._known, self._explicit, self._links = tuple(known), tuple(explicit), tuple(links)
        self._netrc, self._stored, self._keyring = netrc or Netrc(), stored or UvStore(), keyring or KeyringAccess()
        self._lock = threading.Lock()
        self._from_keyring: dict[str, Credential | None] | None = None
        self._why_no_keyring = ""
        self.order = tuple(one.index for one in self._known)
        self.explicit = tuple(one.index for one in self._explicit)
        self.sources = dict(sources or {})
        self.find_links = tuple(one.index.url for one in self._links)
        self.strategy = strategy
        self.connection = connection or Connection()
        self.problems = tuple(problems)

    def __repr__(self) -> str:
        names = ", ".join(f"{index.name}={index.url}" for index in self.order)
        return f"<Indexes {names or 'none'}; {self.strategy}>"

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("Indexes can't be pickled or copied: their credentials stay in this process.")

    # ---- for uv

    def for_uv(self) -> tuple[dict[str, str], list[str]]:
        """What makes uv ask these indexes and no others.

        uv has to be kept from reading its own configuration (``--no-config`` or a ``--config-file``): all that matters
        of it is here.

        Returns
        -------
        environment : dict
            Variables to be added to those of this process; those that would steer uv elsewhere are empty. The
            credentials are here alone.
        arguments : list of str
            To be put behind the subcommand. They have no secret.
        """
        environment = {"UV_INDEX_URL": "", "UV_EXTRA_INDEX_URL": "", "UV_KEYRING_PROVIDER": "disabled"}
        environment["UV_INDEX_STRATEGY"] = self.strategy
        environment["UV_INDEX"] = " ".join(f"{one.index.name}={one.url.reveal()}" for one in self._known[:-1])
        environment["UV_FIND_LINKS"] = ",".join(self._full(one).replace(",", "%2C") for one in self._links)
        if self._known:
            environment["UV_DEFAULT_INDEX"] = f"{self._known[-1].index.name}={self._known[-1].url.reveal()}"
        for one in (*self._known, *self._explicit):
            environment |= _variables(one, self._credential_of(one))
        environment |= self._connection_variables()
        return environment, [] if self._known else ["--no-index"]

    def assigned(self, target: Target) -> dict[str, tuple[str, str]]:
        """Normalized distribution name → name and URL of the one index that it comes from, for nodes like `target`."""
        there = {one.index.name: one.url.reveal() for one in (*self._known, *self._explicit) if one.can_be_written}
        return {name: (index, there[index]) for name, index in self._chosen(target) if index in there}

    def withheld(self, target: Target) -> dict[str, str]:
        """Normalized distribution name → why no index may be asked about it.

        uv is told in a file of an index that is asked about some names alone, and no token may stand there. Whoever
        has a name on one index wants it from no other.
        """
        hidden = {one.index.name for one in self._explicit if not one.can_be_written}
        chosen = self._chosen(target)
        return {
            name: f"it comes from the index {index} alone, which is not asked because its address has a token"
            for name, index in chosen
            if index in hidden
        }

    def _chosen(self, target: Target) -> Iterable[tuple[str, str]]:
        urls = {one.index.name: one.url.reveal() for one in (*self._known, *self._explicit)}
        return choose(self.sources, urls, target).items()

    def _connection_variables(self) -> dict[str, str]:
        found: dict[str, str] = {}
        if self.connection.unverified:
            found["UV_INSECURE_HOST"] = " ".join(self.connection.unverified)
        if self.connection.certificates:
            found["SSL_CERT_FILE"] = self.connection.certificates
        if self.connection.proxy:
            found |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), self.connection.proxy.reveal())
        if self._netrc.path:
            found["NETRC"] = str(self._netrc.path)
        if self._stored.folder:
            found["UV_CREDENTIALS_DIR"] = str(self._stored.folder)
        return found

    def _full(self, one: Known) -> str:
        return with_credential(one.url.reveal(), self._credential_of(one))

    # ---- for fetching

    def authorization(self, url: str) -> str | None:
        """The value of the header ``Authorization`` for `url`, None when no credential fits.

        A credential is sent to the scheme, host and port that it was given for, and nowhere else; of several, that of
        the index whose path has most in common with the URL's. What netrc has for all hosts is for indexes alone.
        """
        if realm(url)[0] not in ("http", "https"):
            return None
        for one in self._of_realm(url):
            found = None if one.anonymous else self._credential_of(one)
            if found or one.anonymous:
                return found.header() if found else None
        found = self._written(url, known=False)
        return found.header() if found else None

    def index_of(self, url: str) -> str:
        """The name of the index that offers the file at `url`, as far as the URL tells, else ""."""
        places = [one for one in self._of_realm(url) if one not in self._links]
        return places[0].index.name if places else ""

    def printable(self, url: str) -> str:
        """`url`, of an index or of one of its files, without user info, query and fragment, known tokens hidden."""
        return self._exchange(plain(url), lambda one: one.hidden)

    def true_url(self, url: str) -> str:
        """`url`, as `printable` made it, with the tokens of its index again."""
        return self._exchange(url, lambda one: one.hidden[::-1])

    def _exchange(self, url: str, pair: Callable[[Known], tuple[str, ...]]) -> str:
        for one in self._of_realm(url):
            if one.hidden:
                old, new = pair(one)
                if url == old or url.startswith(f"{old}/"):
                    return new + url[len(old) :]
        return url

    def named(self, file: LockedFile) -> LockedFile:
        """`file` as it may be stored and shown, with the name of the index that offers it, as far as that is known."""
        only = self.order[0].name if len(self.order) == 1 and not self._links else ""
        index = file.index or self.index_of(file.url) or only
        return msgspec.structs.replace(file, url=self.printable(file.url), index=index)

    def conceal(self, text: str) -> str:
        """`text`, what a program said, without the credentials and tokens that are known here."""
        for secret in self._secrets():
            text = text.replace(secret, HIDDEN)
        return text

    def open_to_all(self, file: LockedFile) -> bool:
        """Whether a node could fetch `file` by itself: over HTTP, and without anything secret."""
        scheme = realm(file.url)[0]
        return scheme in ("http", "https") and self.true_url(file.url) == file.url and not self.authorization(file.url)

    def true_pages(self, name: str = "") -> tuple[tuple[Index, Secret], ...]:
        """The indexes with their true URLs: the one called `name`, or all in their order."""
        known = (*self._known, *self._explicit)
        return tuple((one.index, one.url) for one in known if not name or one.index.name == name)

    def why_no_credential(self, url: str) -> str:
        """Where a credential for `url` was looked for in vain, as the end of a sentence."""
        name = self.index_of(url)
        known = next((one for one in (*self._known, *self._explicit) if one.index.name == name), None)
        places = ["the URL", f"UV_INDEX_{known.variable}_USERNAME and …_PASSWORD"] if known else ["the URLs of indexes"]
        places.append(str(self._netrc.path) if self._netrc.path else "netrc (there is none)")
        places.append("what uv auth login has kept")
        self._ask_keyring()
        places.append(self._why_no_keyring or "keyring")
        return ", ".join(places)

    # ---- credentials

    def _secrets(self) -> list[str]:
        """Every text that must not be shown, longest first, also as it stands in a URL."""
        places = (*self._known, *self._explicit, *self._links)
        found = {token for one in places for token in secret_texts(one.url.reveal())}
        given = [*(self._credential_of(one) for one in places), *self._netrc.hosts.values()]
        for one in filter(None, (*given, *(kept.credential for kept in self._stored.kept))):
            user = one.user.reveal()
            found.add(one.password.reveal() if one.password else user)
            found |= {user} if len(user) >= LIKE_A_TOKEN else set()
            found.add(one.header().partition(" ")[2])
        found |= {quote(secret, safe="") for secret in found}
        return sorted((secret for secret in found if len(secret) >= SHORTEST), key=len, reverse=True)

    def _of_realm(self, url: str) -> list[Known]:
        """The places with the scheme, host and port of `url`, that with the most of its path first."""
        places = [
            one
            for one in (*self._known, *self._explicit, *self._links)
            if realm(one.url.reveal()) == realm(url) != ("", "", 0)
        ]
        return sorted(places, key=lambda one: -common_path(one.url.reveal(), url))

    def _credential_of(self, one: Known) -> Credential | None:
        """In the order in which pip and uv look: what the configuration says, netrc, uv's store, keyring."""
        if one.anonymous or realm(one.url.reveal())[0] not in ("http", "https"):
            return None
        given = one.credential
        if given and given.password:
            return given
        found = self._written(one.url.reveal(), known=True, user=given.user.reveal() if given else "")
        return found or self._ask_keyring().get(one.index.name) or given

    def _written(self, url: str, *, known: bool, user: str = "") -> Credential | None:
        """What the user's files of credentials have for `url`; `known` and `user` are those of `Netrc.get`."""
        return self._netrc.get(realm(url)[1], known=known, user=user) or self._stored.get(url, user)

    def _ask_keyring(self) -> dict[str, Credential | None]:
        """Ask once, about every index that might want a credential and has none."""
        with self._lock:
            if self._from_keyring is None:
                self._from_keyring = self._answers_of_keyring()
            return self._from_keyring

    def _answers_of_keyring(self) -> dict[str, Credential | None]:
        if self._keyring.python is None:
            self._why_no_keyring = "keyring (which may not be asked)"
            return {}
        unknown = [one for one in (*self._known, *self._explicit, *self._links) if self._keyring_may_know(one)]
        if not unknown:
            return {}
        asked = ask_keyring(self._keyring.python, [_question(one) for one in unknown], environ=self._keyring.environ)
        self._why_no_keyring = asked.why
        return {one.index.name: found for one, found in zip(unknown, asked.found, strict=True)}

    def _keyring_may_know(self, one: Known) -> bool:
        url = one.url.reveal()
        if realm(url)[0] not in ("http", "https") or one.anonymous or (is_public(url) and not one.credential):
            return False
        user = one.credential.user.reveal() if one.credential else ""
        complete = one.credential is not None and one.credential.password is not None
        return not complete and self._written(url, known=True, user=user) is None


def _question(one: Known) -> Question:
    """As pip asks: about the index's URL, then about the host."""
    url = one.url.reveal()
    return Question((url, urlsplit(url).netloc), one.credential.user.reveal() if one.credential else "")


def _variables(one: Known, found: Credential | None) -> dict[str, str]:
    """How uv is told a credential. An empty password is one, too. A bearer token it finds itself, in its own store."""
    if found is None or found.bearer:
        return {}
    return {
        f"UV_INDEX_{one.variable}_USERNAME": found.user.reveal(),
        f"UV_INDEX_{one.variable}_PASSWORD": found.password.reveal() if found.password else "",
    }
