"""Questions about conda packages for a target, answered by py-rattler, from the channels' repodata; and the packages.

Nothing is installed. Credentials stand in the HTTP client that is given, and in the URLs that go to it; what comes back
has none.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from likewise.errors import FetchError, LikewiseError, UnsupportedError, UsageError
from likewise.model.conda import UNKNOWN_CHANNEL, spec_channel, spec_name
from likewise.model.origins import redact
from likewise.model.subdirs import NOARCH
from likewise.planner.conda_solver import Candidate, CondaQuestion, NoSolution
from likewise.resolution.silence import silent

T = TypeVar("T")

Authorization = Callable[[str, str], "dict[str, str] | None"]
"""From a request's host and path to headers that it needs besides, or None."""

PATIENCE = 30.0
"""Seconds without a byte after which a package is given up, and a channel is looked after."""

NOTHING = "0" * 64
"""The sha256 of no package."""

RETRIES = 2
"""How often a request is made again, of those that failed for a reason that may pass."""

_NO_LIST = re.compile(r"could not find subdir '[^']*' in channel '([^']*)'")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://(?:[^/\s]*@)?[^\s`'\")>\]]+", re.IGNORECASE)

_FILE = re.compile(r"failed to (?:parse|open file|read from file) `?(.+?)`?: ")
"""How rattler names the file of its credentials that it can't read."""


def require_rattler() -> None:
    """Make sure that py-rattler is there.

    Raises
    ------
    UnsupportedError
    """
    try:
        import rattler  # noqa: F401
    except ImportError as error:
        raise UnsupportedError(
            f"Conda packages are chosen and fetched by py-rattler, which can't be imported ({error}).",
            todo="Install it: pip install 'likewise[conda]'",
        ) from None


class RattlerSolver:
    """A `likewise.planner.conda_solver.CondaSolver`.

    Parameters
    ----------
    channels : sequence of str
        URLs and names, without credentials, since rattler's cache has them; the first one counts most (strict channel
        priority).
    subdir : str
        The target's: ``linux-64``.
    virtual_packages : sequence of str
        ``__glibc=2.28=0``, …: what the nodes have.
    cache : Path
        Where repodata are kept between runs.
    authorization : callable, optional
        From a request's host and path to headers that it needs besides, or None. Credentials that rattler keeps by
        itself are found in any case.
    mirrors : mapping, optional
        The beginning of a URL, or a channel's name -> what is asked in its place, the first one first; a token may be
        in it.
    exclude_newer : datetime, optional
        What was made later does not exist. Default: everything exists.
    homes : mapping, optional
        Name of a package -> those of `channels` that it is taken from; none at all: from nowhere. Default: what a name
        means is up to the first channel that has it.
    strays : bool
        Whether a package that its homes lack may come from another channel. Default: it may not.

    Raises
    ------
    UnsupportedError
        py-rattler is not installed.
    UsageError
        Something is no channel, or what rattler keeps of credentials can't be read.
    """

    def __init__(
        self,
        channels: Sequence[str],
        subdir: str,
        virtual_packages: Sequence[str],
        *,
        cache: Path,
        authorization: Authorization | None = None,
        mirrors: Mapping[str, Sequence[str]] | None = None,
        exclude_newer: datetime | None = None,
        homes: Mapping[str, Collection[str]] | None = None,
        strays: bool = False,
    ) -> None:
        require_rattler()
        from rattler import Channel, Gateway

        self._channels = [_checked(Channel, channel, "channel") for channel in channels]
        asked = _folders(mirrors)
        self._asked = [_places(str(channel.base_url), asked) for channel in self._channels]
        self._subdirs = [subdir, NOARCH]
        self._virtual = [_virtual(text) for text in virtual_packages]
        self._newest = exclude_newer
        cache.mkdir(parents=True, exist_ok=True)
        self._gateway = Gateway(cache_dir=cache, client=_client(authorization, mirrors))
        self._records: dict[tuple[str, str], Any] = {}  # (url, sha256) -> rattler's own value
        self._homes = {name: frozenset(map(_folder, places)) for name, places in (homes or {}).items()}
        self._strays = strays
        self._offered: dict[str, list[Any]] = {}  # name -> what all channels have for the target, the first one first

    def __repr__(self) -> str:
        return f"<RattlerSolver for {self._subdirs[0]}>"

    def candidates(self, names: Collection[str]) -> Mapping[str, tuple[Candidate, ...]]:
        """See `likewise.planner.conda_solver.CondaSolver`."""
        return self._candidates({name: self._own(name, found) for name, found in self._known(names).items()})

    def described(self, names: Collection[str], subdir: str) -> Mapping[str, tuple[Candidate, ...]]:
        """See `likewise.planner.conda_solver.CondaSolver`."""
        asked = self._ask(names, [subdir, NOARCH])
        return self._candidates({name: self._own(name, found) for name, found in asked.items()})

    def namesakes(self, name: str) -> tuple[str, ...]:
        """See `likewise.planner.conda_solver.CondaSolver`."""
        found = self._known([name]).get(name, [])
        own = {one.channel for one in self._own(name, found)}
        return tuple(dict.fromkeys(redact(one.channel).rstrip("/") for one in found if one.channel not in own))

    def solve(self, question: CondaQuestion) -> tuple[Candidate, ...]:
        """See `likewise.planner.conda_solver.CondaSolver`."""
        from rattler import solve
        from rattler.exceptions import SolverError

        told = {spec_name(spec) for spec in question.specs if spec_channel(spec)}  # those that name a channel
        favored = [self._record(one) for one in question.favored if one.name not in told]
        fixed = {one.name: _made(one) for one in question.fixed}
        try:
            found = self._run(
                solve(
                    [*self._apart(), *self._channels],
                    [_spec(text) for text in question.specs],
                    gateway=self._gateway,
                    platforms=self._subdirs,
                    virtual_packages=self._virtual,
                    locked_packages=favored,
                    pinned_packages=list(fixed.values()),
                    constraints=[_spec(text) for text in (*question.constraints, *self._barred(told))],
                    exclude_newer=self._newest,
                    timestamp_policy="allow-missing",
                )
            )
        except SolverError as error:
            raise NoSolution(_readable(_without_barred(str(error)))) from None
        chosen = [self._candidate(one) for one in found if one.name.normalized not in fixed]
        return tuple(sorted((*chosen, *question.fixed), key=lambda one: one.name))

    def ordered(self, versions: Iterable[str]) -> list[str]:
        """See `likewise.planner.conda_solver.CondaSolver`."""
        from rattler import Version

        return sorted(versions, key=lambda text: _checked(Version, text, "version"))

    def matches(self, spec: str, candidate: Candidate) -> bool:
        """See `likewise.planner.conda_solver.CondaSolver`."""
        return bool(_spec(spec).matches(self._record(candidate)))

    def _record(self, candidate: Candidate) -> Any:
        """As rattler has it, which knows more of what a channel offers."""
        return self._records.get((candidate.url, candidate.sha256)) or _made(candidate)

    def _exists(self, record: Any) -> bool:
        return self._newest is None or record.timestamp is None or record.timestamp <= self._newest

    def _ask(self, names: Collection[str], subdirs: Sequence[str]) -> dict[str, list[Any]]:
        """What all channels have, by name, the first channel first."""
        if not names or not self._channels:
            return {}
        query = self._gateway.query(self._channels, subdirs, sorted(names), recursive=False)
        found: dict[str, list[Any]] = {}
        for records in self._run(query):  # one list for each channel and subdir
            for record in filter(self._exists, records):
                found.setdefault(record.name.normalized, []).append(record)
        return found

    def _known(self, names: Collection[str]) -> dict[str, list[Any]]:
        """The same for the target, each name asked for once."""
        new = set(names).difference(self._offered)
        found = self._ask(new, self._subdirs)
        self._offered.update({name: found.get(name, []) for name in new})
        return {name: self._offered[name] for name in names if self._offered[name]}

    def _own(self, name: str, records: Sequence[Any]) -> list[Any]:
        """Those that `name` means: of its homes, where it has some, and there of the first that has it (strict channel
        priority).
        """
        homes = self._homes.get(name)
        home = [record for record in records if homes is None or _folder(record.channel) in homes]
        return _of_first(home or (records if self._strays else ()))

    def _apart(self) -> list[_Apart]:
        """A source before all channels, of what would be hidden by what an earlier channel calls the same."""
        hidden = []
        for name, records in self._known(self._homes).items():
            own = self._own(name, records)
            if own and own[0].channel != records[0].channel:
                hidden += own
        return [_Apart(hidden)] if hidden else []

    def _barred(self, told: Collection[str]) -> list[str]:
        """Match specs that no package meets, for each one that its homes lack and another channel has, but those of
        which a channel is `told`.
        """
        known = {name: found for name, found in self._known(self._homes).items() if name not in told}
        return [f"{name}[sha256={NOTHING}]" for name in known if not self._own(name, known[name])]

    def _candidates(self, found: Mapping[str, Iterable[Any]]) -> dict[str, tuple[Candidate, ...]]:
        """By name, the lowest version first; none of what there is nothing of."""
        ordered = {name: sorted(some, key=lambda one: (one.version, one.build_number)) for name, some in found.items()}
        return {name: tuple(map(self._candidate, records)) for name, records in ordered.items() if records}

    def _candidate(self, record: Any) -> Candidate:
        noarch = record.noarch
        digest = record.sha256.hex() if record.sha256 else ""
        candidate = Candidate(
            name=record.name.normalized,
            version=str(record.version),
            build=str(record.build),
            build_number=record.build_number,
            channel=redact(record.channel or "").rstrip("/"),
            subdir=record.subdir,
            url=redact(record.url),
            filename=record.file_name,
            sha256=digest,
            md5=record.md5.hex() if record.md5 else "",
            size=record.size,
            noarch="python" if noarch.python else "generic" if noarch.generic else "",
            requires=tuple(record.depends),
            constrains=tuple(record.constrains),
        )
        self._records[candidate.url, candidate.sha256] = record
        return candidate

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Wait for it; what a channel answers becomes an error of ours, without credentials.

        Raises
        ------
        FetchError, UsageError
        """
        from rattler.exceptions import FetchRepoDataError, GatewayError, InvalidMatchSpecError, IoError

        trouble: LikewiseError
        try:
            with ThreadPoolExecutor(1) as aside:  # a notebook has a running loop of its own
                return aside.submit(asyncio.run, self._patiently(coroutine)).result()
        except InvalidMatchSpecError as error:
            trouble = UsageError(f"This is no match spec of conda's: {_readable(str(error))}.")
        except (FetchRepoDataError, GatewayError, IoError) as error:
            trouble = _unreachable(_readable(str(error)))
        raise trouble  # outside, so that it doesn't carry rattler's own, whose words may have a token

    async def _patiently(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Wait as long as it takes, unless a channel gives no sign of life, nor any of its mirrors where it has some:
        rattler itself waits for minutes.

        Raises
        ------
        FetchError
        """
        task = asyncio.ensure_future(coroutine)
        while not (await asyncio.wait([task], timeout=PATIENCE))[0]:
            mute = set(await asyncio.to_thread(silent, itertools.chain(*self._asked), PATIENCE))
            found = [place for places in self._asked if mute.issuperset(places) for place in places]
            if found and not task.done():
                task.cancel()
                raise FetchError(
                    f"A channel does not answer within {PATIENCE:g} seconds: {', '.join(found)}.",
                    todo=_advice(""),
                    details={"channels": found},
                )
        return task.result()


class _Apart:
    """Records that come before those of all channels."""

    def __init__(self, records: Iterable[Any]) -> None:
        self._records: dict[tuple[str, str], list[Any]] = {}
        for record in records:
            self._records.setdefault((record.subdir, record.name.normalized), []).append(record)

    async def fetch_package_records(self, platform: Any, name: Any) -> list[Any]:
        """Of one package in one subdir."""
        return self._records.get((str(platform), name.normalized), [])

    def package_names(self, platform: Any) -> list[str]:
        """Of all that there are in a subdir."""
        return [name for subdir, name in self._records if subdir == str(platform)]


class Downloads:
    """Archives of packages, for whoever may have them.

    Parameters
    ----------
    authorization, mirrors
        As for `RattlerSolver`.

    Raises
    ------
    UnsupportedError
        py-rattler is not installed.
    UsageError
        What rattler keeps of credentials can't be read.
    """

    def __init__(
        self, authorization: Authorization | None = None, mirrors: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        require_rattler()
        self._client = _client(authorization, mirrors)

    def fetch(self, url: str, out: Callable[[bytes], None]) -> None:
        """Give `out` what is at `url`, piece by piece. May be called from several threads.

        Raises
        ------
        FetchError
            It can't be had: the error has no part of the URL but the file's name.
        LikewiseError, OSError
            What `out` raises.
        """
        pieces = _Pieces(out)
        failure: FetchError | None = None
        try:
            asyncio.run(self._fetch(url, pieces))
        except (asyncio.TimeoutError, TimeoutError):
            failure = _not_had(url, f"nothing came for {PATIENCE:g} seconds")
        except Exception as error:  # rattler has many kinds for what a server can do
            failure = None if pieces.failed else _not_had(url, _readable(str(error)))
        if pieces.failed is not None:
            raise pieces.failed
        if failure is not None:
            raise failure  # outside, so that it doesn't carry the other one, which knows the URL

    async def _fetch(self, url: str, pieces: _Pieces) -> None:
        from rattler.package_streaming import download_to_writer

        task = asyncio.ensure_future(download_to_writer(self._client, url, pieces))
        while not task.done():
            before = pieces.size
            await asyncio.wait([task], timeout=PATIENCE)
            if not task.done() and pieces.size == before:
                task.cancel()
                raise TimeoutError
        task.result()


class _Pieces:
    """What rattler writes to."""

    def __init__(self, out: Callable[[bytes], None]) -> None:
        self._out, self.size = out, 0
        self.failed: LikewiseError | OSError | None = None

    def write(self, data: bytes) -> int:
        """Pass it on; what goes wrong there is kept as it is."""
        self.size += len(data)
        try:
            self._out(data)
        except (LikewiseError, OSError) as error:
            self.failed = error
            raise
        return len(data)


def _not_had(url: str, why: str) -> FetchError:
    filename = redact(url).rpartition("/")[2]
    status = re.search(r"\b([45]\d\d)\b", why)
    return FetchError(
        f"{filename} could not be had: {why}",
        where=redact(url).rpartition("/")[0],
        todo=_advice(why),
        details={"filename": filename, "status": int(status[1]) if status else 0},
    )


def _client(authorization: Authorization | None, mirrors: Mapping[str, Sequence[str]] | None) -> Any:
    """rattler's own client, which knows what rattler keeps; mirrors and headers of ours.

    Raises
    ------
    UsageError
        What rattler keeps can't be read.
    """
    from rattler import Client
    from rattler.exceptions import AuthenticationStorageError
    from rattler.networking import (
        AddHeadersMiddleware,
        AuthenticationMiddleware,
        GCSMiddleware,
        MirrorMiddleware,
        OciMiddleware,
        RetryMiddleware,
        S3Middleware,
    )

    asked = _folders(mirrors)
    there = [MirrorMiddleware(asked)] if asked else []
    ours = [AddHeadersMiddleware(authorization)] if authorization else []
    own = [AuthenticationMiddleware(), OciMiddleware(), GCSMiddleware(), S3Middleware()]
    try:
        return Client([RetryMiddleware(RETRIES), *there, *ours, *own])
    except AuthenticationStorageError as error:  # its words may be the file's
        named = _FILE.search(str(error))
    raise UsageError(
        f"rattler keeps credentials in {named[1] if named else 'a file'}, which can't be read or understood.",
        todo="Correct it: `RATTLER_AUTH_FILE` names it, else it is ~/.rattler/credentials.json.",
    )


def _folders(mirrors: Mapping[str, Sequence[str]] | None) -> dict[str, list[str]]:
    return {_folder(place): [*map(_folder, places)] for place, places in (mirrors or {}).items()}


def _places(channel: str, mirrors: Mapping[str, Sequence[str]]) -> list[str]:
    """Where what is beneath a channel's URL is asked for: there or, where it has mirrors, at these; no credentials."""
    nearest = max((one for one in mirrors if channel.startswith(one)), key=len, default="")
    places = [one + channel[len(nearest) :] for one in mirrors[nearest]] if nearest else [channel]
    return [redact(place).rstrip("/") for place in places]


def place_of(channel: str) -> str:
    """The URL of a channel, without a slash at its end; of a name, the one where nothing is configured.

    Raises
    ------
    UsageError
        It is none.
    """
    require_rattler()
    from rattler import Channel

    url = channel if "://" in channel else str(_checked(Channel, channel, "channel").base_url)
    return url.rstrip("/")


def _folder(channel: str) -> str:
    """The URL of a channel, with a slash at its end: of no other channel that only begins so."""
    return f"{place_of(channel)}/"


def _of_first(records: Sequence[Any]) -> list[Any]:
    """With strict channel priority, a name is that of the first channel that has it."""
    first = records[0].channel if records else ""
    return [record for record in records if record.channel == first]


def _without_barred(said: str) -> str:
    """What the solver says, with words of ours for what is kept from it (`NOTHING`), at the beginning."""
    names = dict.fromkeys(re.findall(rf'(\S+) \[sha256="{NOTHING}"\]', said))
    lines = [line for line in said.splitlines() if NOTHING not in line]
    return "\n".join([*(f"{name} is there in another channel than its own alone" for name in names), *lines])


def _unreachable(said: str) -> FetchError:
    words = " ".join(said.split())
    match = _NO_LIST.search(words)
    return FetchError(
        f"A channel's list of packages can't be had: {words}",
        todo=_advice(words),
        details={"rattler": said, "without_list": match[1].rstrip("/") if match else ""},
    )


def _advice(said: str) -> str:
    if re.search(r"\b(401|403)\b|nauthorized|orbidden", said):
        return "Put its credential where conda or rattler looks for it: `rattler auth login`, conda-auth, netrc."
    return "See whether the channel answers and is spelled so, or name others: --channel."


def _readable(said: str) -> str:
    """What rattler says, its URLs without credentials."""
    return _ADDRESS.sub(lambda match: redact(match[0].rstrip(".,;:")) or "a URL", said).strip()


def _made(candidate: Candidate) -> Any:
    """The record of a package that no channel need have."""
    from rattler import PackageRecord, RepoDataRecord
    from rattler.package import BuildString

    record = PackageRecord(
        candidate.name,
        candidate.version,
        BuildString(candidate.build),
        candidate.build_number,
        candidate.subdir or NOARCH,
        noarch="python" if candidate.noarch == "python" else "generic" if candidate.noarch else None,
        depends=list(candidate.requires),
        constrains=list(candidate.constrains),
        sha256=bytes.fromhex(candidate.sha256) or None,
        md5=bytes.fromhex(candidate.md5) or None,
        size=candidate.size,
    )
    name = candidate.filename or f"{candidate.name}-{candidate.version}-{candidate.build}.conda"
    url = candidate.url if "://" in candidate.url else f"file:///{name}"
    return RepoDataRecord(record, name, url, _address(candidate.channel))


def _address(channel: str) -> str:
    """The URL of a channel by its name or URL; of one that nobody knows it is none that anything else has."""
    if channel in UNKNOWN_CHANNEL:
        return "file:///unknown"
    return channel if "://" in channel else _folder(channel)


def _spec(text: str) -> Any:
    from rattler import MatchSpec

    return _checked(MatchSpec, text, "match spec")


def _virtual(text: str) -> Any:
    from rattler import GenericVirtualPackage, PackageName, Version
    from rattler.package import BuildString

    name, version, build = (*text.split("="), "0", "0")[:3]
    return GenericVirtualPackage(PackageName(name), Version(version), BuildString(build))


def _checked(kind: Any, text: str, what: str) -> Any:
    """`text` as rattler's own `kind`.

    Raises
    ------
    UsageError
        It is none.
    """
    from rattler.exceptions import InvalidChannelError, InvalidMatchSpecError, InvalidVersionError

    try:
        return kind(text)
    except (InvalidChannelError, InvalidMatchSpecError, InvalidVersionError, ValueError) as error:
        said = _readable(str(error))
    shown = redact(text) if "://" in text else text
    raise UsageError(f"{shown!r} is no {what} of conda's: {said}.")  # outside: see `_run`
