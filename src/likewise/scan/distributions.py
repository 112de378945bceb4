"""Finding the installed distributions of a ``sys.path``: every dist-info, egg-info and egg-link, in order, first wins.

The list is what ``pip list`` shows (it uses `importlib.metadata`, which takes a directory's entries in the order in
which the file system lists them), but for two things: ``argparse`` and ``wsgiref``, which pip hides, are listed when
they are installed, and what is so damaged that pip shows no version for it is a problem and no distribution.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import msgspec
from packaging.utils import canonicalize_name

from likewise.model.snapshot import Problem, Severity
from likewise.scan.metadata import (
    Metadata,
    decode,
    is_valid_name,
    parse_metadata,
    parse_requires_txt,
    parse_wheel_tags,
    split_folder_name,
)
from likewise.scan.origins import DirectUrl, parse_direct_url

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


def find_installed(folders: Iterable[str]) -> tuple[list[Installed], list[Problem]]:
    """The distributions that Python finds in `folders` (absolute, in ``sys.path`` order), and what is wrong with any.

    A distribution found twice counts once, where it is found first; the other is a problem:
    ``duplicate-dist-info`` in one directory, ``shadowed-dist-info`` in two.
    """
    found: dict[str, Installed] = {}
    problems: list[Problem] = []
    for folder in folders:
        here = list(_in_folder(folder, problems))
        # A folder without METADATA is what an interrupted uninstall leaves: it must not hide a sound one.
        for one in sorted(here, key=lambda d: d.metadata == Metadata()):
            first = found.setdefault(one.name, one)
            if first is not one:
                problems.extend(_twice(first, one))
    return list(found.values()), problems


def _in_folder(folder: str, problems: list[Problem]) -> Iterator[Installed]:
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):  # sys.path may name what isn't there, and zip files
        return
    except OSError as error:
        problems.append(_problem("unreadable-directory", folder, f"{folder} is on sys.path and can't be read "
                                 f"({error.strerror}); what is in it is not shipped.", Severity.ERROR))  # fmt: skip
        return
    if folder.endswith(".egg") and "EGG-INFO" in names:
        yield from _read(os.path.join(folder, "EGG-INFO"), folder, problems)
    links = []
    for name in names:
        lower = name.lower()
        if lower.endswith((DIST_INFO, EGG_INFO)):
            yield from _read(os.path.join(folder, name), folder, problems)
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
        for one in _read(os.path.join(target, name), site, problems):
            yield msgspec.structs.replace(one, link=target)


def _read(folder: str, site: str, problems: list[Problem]) -> Iterator[Installed]:
    """The distribution with this metadata folder (or file); none when it is only a leftover."""
    base = os.path.basename(folder)
    if base.startswith("~"):  # reported with the other leftovers
        return
    names = _names(folder)
    is_file = not names and os.path.isfile(folder)
    main = folder if is_file else os.path.join(folder, "METADATA" if "METADATA" in names else "PKG-INFO")
    data = _bytes(main)
    if data is None and os.path.lexists(main):
        problems.append(_problem("unreadable-file", base, f"{main} can't be read; name and version are taken from the "
                                 "name of its folder.", Severity.ERROR))  # fmt: skip
    metadata = parse_metadata(data or b"")
    if "requires.txt" in names and not metadata.requires:
        requires, extras = parse_requires_txt(decode(_bytes(os.path.join(folder, "requires.txt")) or b""))
        metadata = msgspec.structs.replace(metadata, requires=requires, provides_extras=extras)
    name, version = _identify(metadata, base, folder, names, problems)
    if not name or not version:
        return

    def text(file: str) -> bytes:
        return (_bytes(os.path.join(folder, file)) or b"") if file in names else b""

    direct = parse_direct_url(text("direct_url.json")) if "direct_url.json" in names else None
    if direct is None and "direct_url.json" in names:
        problems.append(_problem("bad-direct-url", name, f"{folder}/direct_url.json is damaged; where {name} came from "
                                 "is not known.", Severity.NOTE))  # fmt: skip
    yield Installed(
        name=canonicalize_name(name),
        version=version,
        folder=folder,
        site=site,
        metadata=metadata,
        tags=parse_wheel_tags(text("WHEEL")),
        installer=decode(text("INSTALLER")).strip(),
        requested="REQUESTED" in names,
        direct=direct,
        top_level=tuple(decode(text("top_level.txt")).split()),
        has_record="RECORD" in names,
    )


def _identify(
    metadata: Metadata, base: str, folder: str, names: frozenset[str], problems: list[Problem]
) -> tuple[str, str]:
    """Name and version, from the metadata or else from the folder's name; ("", "") when it is no distribution."""
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
