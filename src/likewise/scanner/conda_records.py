"""Conda's records of a prefix (``conda-meta/*.json``): every package, Python or not, read once and remembered.

conda, mamba, micromamba, pixi and rattler write them alike. No conda program is asked. There are hundreds, with all
that conda knows of each file, so what they say is kept for as long as they are as they were.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import msgspec

from likewise.model import conda, origins
from likewise.model.conda import NO_PLACE, RECORD_DAMAGED, UNKNOWN_CHANNEL, spec_name
from likewise.model.digest import Digest, digest_bytes, is_digest
from likewise.model.origins import redact, redact_channel, redact_spec
from likewise.model.snapshot import Problem, Severity
from likewise.model.subdirs import NOARCH, platform_of
from likewise.scanner.facts import now_ns, read_kept, write_kept
from likewise.scanner.ownership import METADATA
from likewise.scanner.stats import is_young, pack, version_of

_UPDATE = re.compile(r"^# (?:update|install|remove|neutered|create) specs:\s*\[?(.*?)\]?\s*$", re.MULTILINE)
_URL = re.compile(r"https?://[^\s'\"\[\],]+", re.IGNORECASE)
_NAME = re.compile(r"[a-z0-9_][a-z0-9_.-]*")
_GENERATED = frozenset({"unix_python_entry_point", "pyc_file"})
"""Path types of what installers make by themselves."""

_SITE_PACKAGES = "site-packages"
_SITE = re.compile(rf"/{_SITE_PACKAGES}/")
_OF_ANY_PYTHON = (f"{_SITE_PACKAGES}/", "python-scripts/")
"""Where a package for any Python has its modules and scripts."""


class Claim(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a record says of one file.

    Attributes
    ----------
    path : str
        Relative to the prefix.
    sha256 : str
        Of the file in the package; "" when unknown.
    sha256_there : str
        Of the file in the prefix, in which it may name that; "" when unknown.
    link, generated : bool
        A symbolic link; a file that was made when the package was installed.
    placeholder : str
        What the file in the package names in place of the prefix, "" when it names none.
    binary : bool
    folder : bool
        A folder, which has to be there though nothing is in it.
    """

    path: str
    sha256: str = ""
    sha256_there: str = ""
    link: bool = False
    generated: bool = False
    placeholder: str = ""
    binary: bool = False
    folder: bool = False


class Record(msgspec.Struct, frozen=True, array_like=True):
    """What a record says. `facts` are those of its file; see `CondaPackage` for what has the same name there."""

    facts: bytes
    name: str
    version: str
    build: str
    build_number: int
    channel: str
    subdir: str
    url: str
    private: bool
    sha256: str
    md5: str
    archive_size: int
    requested: tuple[str, ...]
    noarch: str
    requires: tuple[str, ...]
    constrains: tuple[str, ...]
    claims: tuple[Claim, ...]
    folders: tuple[str, ...]  # metadata folders of Python distributions, relative to the prefix

    def __str__(self) -> str:
        """``numpy-2.0.1-py311h64a7726_0``."""
        return f"{self.name}-{self.version}-{self.build}"


class Records(msgspec.Struct, frozen=True):
    """All records of one prefix, sorted by name, one for each; and what is wrong with them."""

    packages: tuple[Record, ...] = ()
    problems: tuple[Problem, ...] = ()


class _Path(msgspec.Struct):
    path: str = msgspec.field(name="_path")
    path_type: str | None = None
    sha256: str | None = None
    sha256_in_prefix: str | None = None
    prefix_placeholder: str | None = None
    file_mode: str | None = None


class _Paths(msgspec.Struct):
    paths: list[_Path] = []


class _Written(msgspec.Struct):
    """A record as conda and its like write it; what each leaves out or spells differently is allowed for."""

    name: str
    version: str
    build: str = ""
    build_number: int = 0
    channel: str | None = ""
    subdir: str | None = ""
    url: str | None = ""
    sha256: str | None = ""
    md5: str | None = ""
    size: int | None = 0
    requested_spec: str | None = ""
    requested_specs: list[str] | None = []
    noarch: str | bool | None = ""
    depends: list[str] = []
    constrains: list[str] | None = []
    files: list[str] = []
    paths_data: _Paths | None = None


class _Kept(msgspec.Struct, frozen=True):
    """The content of the file, by name of record."""

    rules: str
    said: dict[str, Record]


def read_records(prefix: str, folder: Path | None = None) -> Records:
    """The records of `prefix`; none where there is no ``conda-meta``.

    Parameters
    ----------
    prefix : str
    folder : Path, optional
        Where it is kept what the records say, for as long as they are as they were.
    """
    began, rules = now_ns(), version_of(origins, conda, sys.modules[__name__])
    file = folder / f"{digest_bytes(os.fsencode(prefix))[:32]}.conda" if folder else None
    kept = read_kept(file, _Kept) if file else None
    known = kept.said if kept and kept.rules == rules else {}
    problems: list[Problem] = []
    said = _ask(os.path.join(prefix, "conda-meta"), known, problems)
    old = {name: one for name, one in said.items() if not is_young(one.facts, began)}
    if file and old != known:
        write_kept(file, _Kept(rules, old))
    if not said:
        return Records((), tuple(problems))
    history = _history(prefix)
    asked, guarded = _asked(history), _guarded(history)
    packages = [_private(_requested(one, asked), guarded) for one in _one_each(prefix, said, problems)]
    problems += _unknown_channels(packages)
    return Records(tuple(packages), tuple(problems))


def _ask(folder: str, known: dict[str, Record], problems: list[Problem]) -> dict[str, Record]:
    """What all records in `folder` say; those that are as they were when they were `known` are not read."""
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".json") and not name.startswith("."))
    except OSError:
        return {}
    said: dict[str, Record] = {}
    for name in names:
        path = os.path.join(folder, name)
        try:
            facts = pack([os.stat(path)])
            same = name in known and known[name].facts == facts
            said[name] = known[name] if same else _read(path, facts)
        except FileNotFoundError:  # the package was removed just now
            continue
        except (OSError, OverflowError, ValueError, RecursionError, msgspec.MsgspecError) as error:
            problems.append(_damaged(name, path, error))
    return said


def _read(path: str, facts: bytes) -> Record:
    with open(path, "rb") as stream:
        said = msgspec.json.decode(stream.read(), type=_Written)
    claims = tuple(_claims(said))
    folders = {_metadata_folder(claim.path) for claim in claims} - {""}
    specs = [*(said.requested_specs or ()), said.requested_spec or ""]
    url = "" if (said.url or "").startswith(NO_PLACE) else said.url or ""
    return Record(
        facts=facts,
        name=said.name,
        version=said.version,
        build=said.build,
        build_number=said.build_number,
        channel=_channel(said),
        subdir=said.subdir or "",
        url=redact(url),
        private=redact(url) != url,
        sha256=said.sha256 or "",
        md5=said.md5 or "",
        archive_size=said.size or 0,
        requested=tuple(dict.fromkeys(redact_spec(spec) for spec in specs if spec and spec != "None")),
        noarch=said.noarch if isinstance(said.noarch, str) else "generic" if said.noarch else "",
        requires=tuple(map(redact_spec, said.depends)),
        constrains=tuple(map(redact_spec, said.constrains or ())),
        claims=claims,
        folders=tuple(sorted(folders)),
    )


def _channel(said: _Written) -> str:
    """The channel without a subdir, which conda and mamba write behind it: ``…/conda-forge/linux-64``.

    "" for what they write where there is none, so that nobody is asked for a channel of that name.
    """
    text = redact_channel(said.channel or "").rstrip("/")
    channel, _, last = text.rpartition("/")
    channel = channel if channel and (last == NOARCH or platform_of(last)) else text
    return "" if channel in UNKNOWN_CHANNEL else channel


def _claims(said: _Written) -> Iterator[Claim]:
    described = _described(said)
    for path in dict.fromkeys([*described, *said.files]):
        if not _is_plain(path):
            raise ValueError(f"it names the path {path!r}")
        one = described.get(path)
        if one is None:
            yield Claim(path)
            continue
        sha256, kind = one.sha256 or "", one.path_type or ""
        yield Claim(
            path=path,
            sha256=sha256 if is_digest(sha256) else "",
            sha256_there=one.sha256_in_prefix or ("" if one.prefix_placeholder else sha256),
            link=kind == "softlink",
            generated=kind in _GENERATED,
            placeholder=one.prefix_placeholder or "",
            binary=one.file_mode == "binary",
            folder=kind == "directory",
        )


def _described(said: _Written) -> dict[str, _Path]:
    """What a record describes, by where it lies in the prefix.

    Of a package for any Python, conda's own records describe files as they lie in the package (``site-packages/…``,
    ``python-scripts/…``), and list them as they lie in the prefix.
    """
    paths = said.paths_data.paths if said.paths_data else []
    if said.noarch != "python" or not any(one.path.startswith(_OF_ANY_PYTHON) for one in paths):
        return {one.path: one for one in paths}
    listed = frozenset(said.files)
    sites = {path[: match.start()] for path in listed if (match := _SITE.search(path))}

    def there(path: str) -> str:
        folder, _, rest = path.partition("/")
        places = [f"{site}/{path}" for site in sites] if folder == _SITE_PACKAGES else [f"bin/{rest}"]
        return next((place for place in places if place in listed), path)

    return {there(one.path) if one.path.startswith(_OF_ANY_PYTHON) else one.path: one for one in paths}


def _is_plain(path: str) -> bool:
    """Whether a path stays beneath the prefix."""
    return not any(part in ("", ".", "..") or "\0" in part for part in path.split("/"))


def _metadata_folder(file: str) -> str:
    """The dist-info or egg-info, directly in a site directory, that `file` is the metadata of; else ""."""
    folder, _, name = file.rpartition("/")
    if name in ("METADATA", "PKG-INFO") and folder.endswith(METADATA):
        return folder if folder.count("/") <= 3 else ""
    return file if name.endswith(".egg-info") and file.count("/") <= 3 else ""


def _one_each(prefix: str, said: dict[str, Record], problems: list[Problem]) -> Iterator[Record]:
    """The records by name. Of two for one name it is the one with more of its files there, then the newer one."""
    by_name: dict[str, list[tuple[str, Record]]] = {}
    for file, one in said.items():
        by_name.setdefault(one.name, []).append((file, one))
    for name in sorted(by_name):
        several = by_name[name]
        if len(several) > 1:
            several.sort(key=lambda item: (_share_there(prefix, item[1]), item[1].facts[8:16][::-1]))
            problems.append(_twice(name, [file for file, _ in several]))
        yield several[-1][1]


def _share_there(prefix: str, record: Record) -> float:
    there = sum(os.path.lexists(f"{prefix}/{claim.path}") for claim in record.claims)
    return there / len(record.claims) if record.claims else 1.0


def _history(prefix: str) -> str:
    """What conda and mamba note of what was done to the prefix, "" when there is nothing."""
    try:
        with open(os.path.join(prefix, "conda-meta", "history"), encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""


def _guarded(history: str) -> frozenset[str]:
    """Channels that were named with a credential: conda's records don't have it."""
    lines = (line for line in history.splitlines() if line.startswith("#") and "://" in line)
    named = {url.partition("::")[0] for line in lines for url in _URL.findall(line)}
    return frozenset(clean.rstrip("/") for url in named if (clean := redact(url)) != url and clean)


def _private(record: Record, guarded: Collection[str]) -> Record:
    if record.private or not any(record.url.startswith(f"{channel}/") for channel in guarded):
        return record
    return msgspec.structs.replace(record, private=True)


def _asked(history: str) -> dict[str, tuple[str, ...]]:
    """Package name → match specs that the user gave, as the history of the prefix has them."""
    found: dict[str, tuple[str, ...]] = {}
    for match in _UPDATE.finditer(history):
        action = match.group().split()[1]
        for spec in _specs(match[1]):
            if action in ("remove", "neutered"):
                found.pop(spec_name(spec), None)
            else:
                found[spec_name(spec)] = (redact_spec(spec),)
    return found


def _specs(text: str) -> Iterable[str]:
    """The match specs in a line of a history: mamba writes a list as JSON does, conda as Python does."""
    try:
        found = msgspec.json.decode(f"[{text}]", type=list[str])
    except (msgspec.DecodeError, RecursionError):
        quoted = re.findall(r"'([^']+)'|\"([^\"]+)\"", text)
        found = [a or b for a, b in quoted] if quoted else [part.strip() for part in text.split(",")]
    return filter(_is_spec, found)


def _is_spec(text: str) -> bool:
    return bool(_NAME.fullmatch(spec_name(text))) and text.count("[") == text.count("]")


def _requested(record: Record, asked: dict[str, tuple[str, ...]]) -> Record:
    if record.requested or record.name not in asked:
        return record
    return msgspec.structs.replace(record, requested=asked[record.name])


def _damaged(name: str, path: str, error: Exception) -> Problem:
    return Problem(
        code=RECORD_DAMAGED,
        subject=name,
        message=f"{path} can't be read ({error}), so what its package has outside the site directory is not shipped. "
        "Install the package again (conda install --force-reinstall).",
        severity=Severity.ERROR,
    )


def _twice(name: str, files: list[str]) -> Problem:
    return Problem(
        code="conda-record-twice",
        subject=name,
        message=f"conda has {len(files)} records of {name} ({', '.join(files)}); {files[-1]} counts, whose files are "
        "there. Install the package again to be rid of the others.",
        severity=Severity.WARNING,
    )


def _unknown_channels(packages: Iterable[Record]) -> Iterator[Problem]:
    unknown = [one.name for one in packages if not one.channel or "<unknown>" in one.url]
    if unknown:
        shown = ", ".join(unknown[:3]) + (", …" if len(unknown) > 3 else "")
        yield Problem(
            code="conda-channel-unknown",
            subject=unknown[0],
            message=f"No channel is known for {len(unknown)} conda packages ({shown}); they are copied from this "
            "prefix and can't be had from anywhere else.",
            severity=Severity.NOTE,
        )


def claimed_digest(text: str) -> Digest | None:
    """A digest that a record claims, None when it is none."""
    return Digest(text) if is_digest(text) else None
