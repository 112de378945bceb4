"""Links to files, folders and repositories in files about distributions, without their credentials."""

from __future__ import annotations

import re
from urllib.parse import unquote

import msgspec
from packaging.utils import InvalidSdistFilename, InvalidWheelFilename, parse_sdist_filename, parse_wheel_filename

from likewise.model.digest import is_digest
from likewise.model.origins import DirectUrl, origin_of, redact
from likewise.model.plan import LockedFile
from likewise.model.snapshot import Origin

_VCS = re.compile(r"(git|hg|svn|bzr)\+")
_SUBDIRECTORY = re.compile(r"(?:^|&)subdirectory=([^&]+)")


def link_origin(url: str) -> Origin:
    """The origin (PEP 610) that the URL of a direct reference (PEP 508) stands for.

    A repository is ``git+https://host/path@revision#subdirectory=folder``.
    """
    if found := _VCS.match(url):
        address, _, fragment = url[found.end() :].partition("#")
        slash = address.rfind("/")  # an @ before it belongs to user info
        path, _, revision = address[slash + 1 :].partition("@")
        subdirectory = _SUBDIRECTORY.search(fragment)
        return vcs_origin(
            address[: slash + 1] + path,
            vcs=found[1],
            commit=revision,
            subdirectory=subdirectory[1] if subdirectory else "",
        )
    is_folder = url.startswith("file:") and not named_file(url)[0]
    return _origin({"url": url, **({"dir_info": {}} if is_folder else {"archive_info": {}})})


def vcs_origin(url: str, *, vcs: str, commit: str, revision: str = "", subdirectory: str = "") -> Origin:
    """The origin of what was installed from a repository."""
    info = {"vcs": vcs, "commit_id": commit, "requested_revision": revision or None}
    return _origin({"url": url, "vcs_info": info, "subdirectory": subdirectory or None})


def named_file(url: str) -> tuple[str, str]:
    """Name and version that the name of a wheel or sdist says, empty texts when it is no such name."""
    filename = filename_of(url)
    try:
        name, version = parse_wheel_filename(filename)[:2]
        return name, str(version)
    except InvalidWheelFilename:
        pass
    try:
        name, version = parse_sdist_filename(filename)
        return name, str(version)
    except InvalidSdistFilename:
        return "", ""


def filename_of(url: str) -> str:
    """The last part of a URL's path, or of a path."""
    path = re.split(r"[?#]", url, maxsplit=1)[0] if "://" in url else url
    return unquote(path.rpartition("/")[2])


def locked_file(*, url: str, filename: str, sha256: str, size: int | None) -> LockedFile | None:
    """A file that is pinned; None without a usable sha256 or URL, for then nothing is."""
    digest, clean = sha256.removeprefix("sha256:").lower(), redact(url)
    if not (clean and is_digest(digest)):
        return None
    return LockedFile(filename=filename or filename_of(url), url=clean, sha256=digest, size=size)


def _origin(direct: dict[str, object]) -> Origin:
    return origin_of(msgspec.convert(direct, DirectUrl), installer="")
