"""Where a distribution came from, told from ``direct_url.json`` (PEP 610) and the traps around it. Pure."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit, urlunsplit

import msgspec

from likewise.model.snapshot import Origin, OriginKind

# Conda packages are themselves installed with pip from a build directory, and carry a direct_url.json about it, such as
# …/conda-bld/numpy_123/work, …/feedstock_root/…, /croot/…, …/rattler-build_numpy_123/work, /tmp/build/80754af9/….
_CONDA_BUILD = re.compile(
    r"/(conda-bld|feedstock_root|croot)/|/rattler-build_[^/]+/|^/opt/conda/|^/tmp/build/[0-9a-f]{8}/|^/work/ci_py\d+/"
)
# Poetry downloads from the index into its cache and installs from there.
_POETRY_ARTIFACT = re.compile(r"/(pypoetry|poetry)/(Cache/)?artifacts/", re.IGNORECASE)
# conda's and some index servers' way to put a token into the path.
_TOKEN_IN_PATH = re.compile(r"/t/[^/]+(?=/|$)")
_SPEC_URL = re.compile(r"[a-z][a-z0-9+.-]*://(?:[^/\s]*@)?[^\s'\"\[\],]*", re.IGNORECASE)
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*://)(?:[^/\s]*@)?([^/\s@`'\")]+)[^\s`'\")]*")
_SCP_LIKE = re.compile(r"(?:[^/@:]+@)?(?P<host>[^/@:]{2,}):(?P<path>.*)")


class _VcsInfo(msgspec.Struct):
    vcs: str = ""
    commit_id: str = ""
    requested_revision: str | None = None


class _DirInfo(msgspec.Struct):
    editable: bool = False


class DirectUrl(msgspec.Struct, kw_only=True):
    """``direct_url.json`` as PEP 610 defines it; fields that do not matter here are ignored."""

    url: str
    vcs_info: _VcsInfo | None = None
    dir_info: _DirInfo | None = None
    archive_info: dict[str, object] | None = None
    subdirectory: str | None = None


def parse_direct_url(data: bytes) -> DirectUrl | None:
    """Read ``direct_url.json``; None when it is damaged."""
    try:
        return msgspec.json.decode(data, type=DirectUrl)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # the latter: nested too deeply
        return None


def redact(url: str) -> str:
    """`url` without user info, query, fragment and path tokens; "" when it can't be understood, and so not be cleaned.

    An scp-like address (``git@host:path``) loses its user name.
    """
    if "://" not in url:
        match = _SCP_LIKE.fullmatch(url)
        return f"{match['host']}:{match['path'].partition('?')[0].partition('#')[0]}" if match else ""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return ""
    netloc = f"[{host}]" if ":" in host else host
    if port is not None:
        netloc += f":{port}"
    return urlunsplit((parts.scheme, netloc, _TOKEN_IN_PATH.sub("", parts.path), "", ""))


def hosts_alone(text: str) -> str:
    """`text`, what a program said, with no more of each URL than the host: all else in it may be a credential."""
    return _ADDRESS.sub(r"\1\2/…", text)


def redact_channel(channel: str) -> str:
    """A conda channel's URL or name without credentials; ``t/TOKEN/`` may begin a name, too."""
    return redact(channel) if "://" in channel else _TOKEN_IN_PATH.sub("", f"/{channel.rpartition('@')[2]}")[1:]


def redact_spec(spec: str) -> str:
    """A match spec whose channel, before ``::`` or in brackets, or the URL that it is, has no credentials."""
    if "://" in spec:
        return _SPEC_URL.sub(lambda match: _redact_before(match[0]), spec)
    return _redact_before(spec) if "::" in spec else spec  # nearly all


def _redact_before(spec: str) -> str:
    channel, mark, rest = spec.rpartition("::")
    return f"{redact_channel(channel)}::{rest}" if mark else redact(spec)


def redact_requirement(requirement: str) -> str:
    """`requirement` (PEP 508) with its URL, if it has one, redacted; extras, revision and marker stay."""
    if "://" not in requirement:  # nearly all
        return requirement
    name, at, rest = requirement.partition("@")
    if not at or "://" not in rest:
        return requirement
    url, *marker = rest.strip().split(maxsplit=1)
    scheme, plus, address = url.partition("+")
    clean = f"{scheme}+{redact(address)}" if plus and "://" not in scheme else redact(url)
    return " ".join([f"{name.rstrip()} @ {clean}", *marker])


def local_path(url: str) -> str:
    """The directory or file that a ``file:`` URL names, "" for any other URL."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return unquote(parts.path) if parts.scheme == "file" else ""


def origin_of(direct: DirectUrl | None, *, installer: str) -> Origin:
    """The origin of a distribution that no system package manager owns.

    Parameters
    ----------
    direct : DirectUrl or None
        None means an index: PEP 610 says that installers write the file for everything else.
    installer : str
        Content of ``INSTALLER``.
    """
    if installer == "conda":
        return Origin(kind=OriginKind.CONDA)
    if direct is None:
        return Origin(kind=OriginKind.INDEX)
    path, url = local_path(direct.url), redact(direct.url)
    editable = direct.dir_info is not None and direct.dir_info.editable
    if path and not editable and _CONDA_BUILD.search(path):
        return Origin(kind=OriginKind.CONDA)
    if path and not editable and _POETRY_ARTIFACT.search(path):
        return Origin(kind=OriginKind.INDEX)
    subdirectory = direct.subdirectory or ""
    if direct.vcs_info is not None:
        return Origin(
            kind=OriginKind.VCS,
            url=url,
            commit=direct.vcs_info.commit_id,
            revision=direct.vcs_info.requested_revision or "",
            subdirectory=subdirectory,
        )
    if direct.dir_info is not None:
        kind = OriginKind.EDITABLE if editable else OriginKind.DIRECTORY
        return Origin(kind=kind, url=url, path=path, subdirectory=subdirectory)
    return Origin(kind=OriginKind.ARCHIVE, url=url, path=path, subdirectory=subdirectory)
