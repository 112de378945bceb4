"""Finding the installed distributions of a ``sys.path``: every dist-info, egg-info and egg-link, in order, first wins.

The list is what ``pip list`` shows (it uses `importlib.metadata`, which takes a directory's entries in the order in
which the file system lists them), but for two things: ``argparse`` and ``wsgiref``, which pip hides, are listed when
they are installed, and what is so damaged that pip shows no version for it is a problem and no distribution.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import msgspec
from packaging.utils import canonicalize_name

from likewise.model.origins import DirectUrl, parse_direct_url
from likewise.model.snapshot import Problem, Severity
from likewise.scanner.metadata import (
    Metadata,
    decode,
    is_valid_name,
    parse_metadata,
    parse_requires_txt,
    parse_wheel_tags,
    split_folder_name,
)

DIST_INFO, EGG_INFO, EGG_LINK = ".dist-info", ".egg-info", ".egg-link"


class Installed(msgspec.Struct, frozen=True, kw_only=True):
    """One installed distribution, as its metadata folder describes it.

    Attributes
    ----------
    name, version : str
        Normalized name; version as spelled.
    folder : str
        The dist-info or egg-info, absolute.
    site : str
        The directory of ``sys.path`` that it was found in.
    metadata : Metadata
    tags : tuple of str
    installer : str
    requested : bool
    direct : DirectUrl or None
    top_level : tuple of str
        From ``top_level.txt``.
    link : str
        The source directory that an egg-link in `site` leads to, else "".
    has_record : bool
    flawed : bool
        Whether there is a `Problem` with its metadata.
    """

    name: str
    version: str
    folder: str
    site: str
    metadata: Metadata
    tags: tuple[str, ...] = ()
    installer: str = ""
    requested: bool = False
    direct: DirectUrl | None = None
    top_level: tuple[str, ...] = ()
    link: str = ""
    has_record: bool = False
    flawed: bool = False

    @property
    def home(self) -> str:
        """The site directory that its files belong to: `site`, and for an egg the directory with the egg."""
        return os.path.dirname(self.site) if self.site.endswith(".egg") else self.site


Recall = Callable[[str], Installed | None]
"""What is known of the distribution with this metadata folder, when that is as it was."""


def find_installed(folders: Iterable[str], recall: Recall | None = None) -> tuple[list[Installed], list[Problem]]:
    """The distributions that Python finds in `folders` (absolute, in ``sys.path`` order), and what is wrong with any.

    A distribution found twice counts once, where it is found first; the other is a problem:
    ``duplicate-dist-info`` in one directory, ``shadowed-dist-info`` in two. `recall` is asked about each metadata
    folder before that is read.
    """
    found: dict[str, Installed] = {}
    problems: list[Problem] = []
    for folder in folders:
        here = list(_in_folder(folder, recall or _unknown, problems))
        # A folder without METADATA is what an interrupted uninstall leaves: it must not hide a sound one.
        for one in sorted(here, key=lambda d: d.metadata == Metadata()):
            first = found.setdefault(one.name, one)
            if first is not one:
                problems.extend(_twice(first, one))
    return list(found.values()), problems


def _unknown(_folder: str) -> None:
    """Nothing is known of any distribution."""


def _in_folder(folder: str, recall: Recall, problems: list[Problem]) -> Iterator[Installed]:
    try:
        names = os.listdir(folder)
    except FileNotFoundError:  # sys.path may name what isn't there
        return
    except NotADirectoryError:
        if folder.endswith(".egg"):
            yield from _installed(_zipped_egg(folder), folder, problems)
        return
    except OSError as error:
        problems.append(_problem("unreadable-directory", folder, f"{folder} is on sys.path and can't be read "
                                 f"({error.strerror}); what is in it is not shipped.", Severity.ERROR))  # fmt: skip
        return
    if folder.endswith(".egg") and "EGG-INFO" in names:
        yield from _installed(_opened(os.path.join(folder, "EGG-INFO")), folder, problems)
    links = []
    for name in names:
        lower = name.lower()
        if lower.endswith((DIST_INFO, EGG_INFO)):
            path = os.path.join(folder, name)
            known = recall(path)
            yield from [known] if known else _installed(_opened(path), folder, problems)
        elif lower.endswith(EGG_LINK):
            links.append(name)
    for name in links:
        yield from _follow(os.path.join(folder, name), folder, problems)


def _follow(egg_link: str, site: str, problems: list[Problem]) -> Iterator[Installed]:
    """What an egg-link leads to: its first line names the directory with the egg-info (setuptools' *develop*)."""
    lines = [line.strip() for line in decode(_bytes(egg_link) or b"").splitlines() if line.strip()]
    target = os.path.normpath(os.path.join(site, lines[0])) if lines else ""
    found = [n for n in _names(target) if n.lower().endswith(EGG_INFO)] if target else []
    if not found:
        problems.append(_problem("dangling-egg-link", egg_link, f"{egg_link} leads to {target or 'nothing'}, where no "
                                 "egg-info is; run the editable install again."))  # fmt: skip
    for name in found:
        for one in _installed(_opened(os.path.join(target, name)), site, problems):
            yield msgspec.structs.replace(one, link=target)


class _Folder(NamedTuple):
    """A metadata folder, an egg-info file, or the EGG-INFO in a zipped egg: its file names, and how to read one."""

    path: str
    names: frozenset[str]
    main: str  # the file with the headers, absolute
    read: Callable[[str], bytes | None]


def _opened(path: str) -> _Folder:
    names = _names(path)
    main = os.path.join(path, "METADATA" if "METADATA" in names else "PKG-INFO")
    if not names and os.path.isfile(path):
        main = path
    return _Folder(path, names, main, lambda name: _bytes(os.path.join(path, name)))


def _zipped_egg(path: str) -> _Folder:
    files: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            inside = [name for name in archive.namelist() if name.startswith("EGG-INFO/") and name.count("/") == 1]
            files = {name[9:]: archive.read(name) for name in inside}
    except (OSError, zipfile.BadZipFile):
        pass  # as good as an egg without metadata
    return _Folder(path, frozenset(files), "PKG-INFO", files.get)


def _installed(folder: _Folder, site: str, problems: list[Problem]) -> Iterator[Installed]:
    """The distribution with this metadata folder; none when it is only a leftover."""
    base, names, before = os.path.basename(folder.path), folder.names, len(problems)
    if base.startswith("~"):  # reported with the other leftovers
        return
    data = folder.read(folder.main)  # an absolute path stays what it is
    if data is None and os.path.lexists(folder.main):
        problems.append(_problem("unreadable-file", base, f"{folder.main} can't be read; name and version are taken "
                                 "from the name of its folder.", Severity.ERROR))  # fmt: skip

    def text(name: str) -> bytes:
        return (folder.read(name) or b"") if name in names else b""

    metadata = parse_metadata(data or b"")
    if "requires.txt" in names and not metadata.requires:
        requires, extras = parse_requires_txt(decode(text("requires.txt")))
        metadata = msgspec.structs.replace(metadata, requires=requires, provides_extras=extras)
    name, version = _identify(metadata, folder, problems)
    if not name or not version:
        return
    direct = parse_direct_url(text("direct_url.json")) if "direct_url.json" in names else None
    if direct is None and "direct_url.json" in names:
        problems.append(_problem("bad-direct-url", name, f"{folder.path}/direct_url.json is damaged; where {name} came "
                                 "from is not known.", Severity.NOTE))  # fmt: skip
    yield Installed(
        name=canonicalize_name(name),
        version=version,
        folder=folder.path,
        site=site,
        metadata=metadata,
        tags=parse_wheel_tags(text("WHEEL")),
        installer=decode(text("INSTALLER")).strip(),
        requested="REQUESTED" in names,
        direct=direct,
        top_level=tuple(decode(text("top_level.txt")).split()),
        has_record="RECORD" in names,
        flawed=len(problems) > before,
    )


def _identify(metadata: Metadata, source: _Folder, problems: list[Problem]) -> tuple[str, str]:
    """Name and version, from the metadata or else from the folder's name; ("", "") when it is no distribution."""
    folder, base, names = source.path, os.path.basename(source.path), source.names
    folder_name, folder_version = split_folder_name(base)
    name, version = metadata.name or folder_name, metadata.version or folder_version
    if not is_valid_name(name):
        problems.append(_problem("invalid-name", base, f"{folder} names its distribution {name!r}, which no "
                                 "distribution may be called, so pip ignores it too; its modules are shipped as files "
                                 "that nothing owns."))  # fmt: skip
        return "", ""
    if metadata.name and metadata.version:
        if metadata.name == "UNKNOWN":
            problems.append(_problem("nameless", base, f"{folder} calls its distribution UNKNOWN: whoever built it did "
                                     "not find its name.", Severity.NOTE))  # fmt: skip
        return name, version
    if metadata == Metadata() and "RECORD" not in names:
        problems.append(_problem("no-metadata", base, f"{folder} has no METADATA and no RECORD: what an interrupted "
                                 "uninstall left. It is not shipped; delete it."))  # fmt: skip
        return "", ""
    lacks = " and ".join(word for word, there in (("name", metadata.name), ("version", metadata.version)) if not there)
    problems.append(_problem("no-metadata" if metadata == Metadata() else "nameless" if not metadata.name else
                             "no-version", base, f"The metadata in {folder} has no {lacks}; taken from the folder's "
                             f"name: {name} {version}. Reinstall it."))  # fmt: skip
    return name, version


def _twice(first: Installed, second: Installed) -> Iterator[Problem]:
    if first.folder == second.folder or first.link == second.site:
        return  # an egg-link, and the source directory that easy-install.pth puts on sys.path
    same = Severity.NOTE if first.version == second.version else Severity.WARNING
    if first.site == second.site:
        yield _problem(
            "duplicate-dist-info",
            first.name,
            f"{first.name} is installed twice in {first.site}: Python finds {os.path.basename(first.folder)} first, so "
            f"that is the one; {os.path.basename(second.folder)} is left out. Reinstall {first.name} to clean up.",
            same,
        )
    else:
        yield _problem(
            "shadowed-dist-info",
            first.name,
            f"{first.name} {first.version} in {first.site} hides {second.version} in {second.site}, which is left out.",
            Severity.NOTE,
        )


def _problem(code: str, subject: str, message: str, severity: Severity = Severity.WARNING) -> Problem:
    return Problem(code=code, subject=subject, message=message, severity=severity)


def _names(folder: str) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))
    except OSError:
        return frozenset()


def _bytes(path: str) -> bytes | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # half the cost of `open`, and there are many
    except OSError:
        return None
    try:
        chunks = []
        while chunk := os.read(descriptor, 1 << 20):
            chunks.append(chunk)
        return b"".join(chunks)
    except OSError:
        return None
    finally:
        os.close(descriptor)
