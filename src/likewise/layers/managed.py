"""The interpreter layer for another platform: the Python that uv offers for it (python-build-standalone).

uv itself is asked what there is, and downloads it: so its settings count (``UV_PYTHON_INSTALL_MIRROR``,
``UV_PYTHON_DOWNLOADS_JSON_URL``, ``UV_PYTHON_DOWNLOADS``, ``uv.toml``, proxies, certificates, credentials), and it
checks the archive's sha256 against the one that it knows. It unpacks a Python for any platform without running it.
"""

from __future__ import annotations

import os
import re
import shutil
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import uv
from packaging.version import InvalidVersion, Version

from likewise.errors import LayerError, PlanError, UnsupportedError
from likewise.events import Reporter, StageAdvanced, StageFinished, StageStarted
from likewise.layers.build_process import scrub
from likewise.layers.interpreter import certificate_bundle
from likewise.layers.relocate import source_data
from likewise.layers.standalone import Standalone, bytecode_magic
from likewise.model.digest import digest_bytes
from likewise.model.layer import FileEntry, LayerKind, LayerSource, SourceFile, layer_source
from likewise.model.origins import hosts_alone
from likewise.model.target import Platform

__all__ = ["Offer", "bytecode_magic", "choose_python", "managed_interpreter", "offers"]

STAGE = "python"
KEEP_SECONDS = 30 * 86400
"""Pythons that nobody asked for in this time are removed when another one is downloaded."""

_ABANDONED = 24 * 3600.0  # seconds after which a download that nobody finished is removed
_TICK = 0.5  # seconds between two looks at how far a download is
_DOWNLOADING = ".download-"
_ABOUT_THE_CLIENT = ("UV_MANAGED_PYTHON", "UV_NO_MANAGED_PYTHON")  # which Pythons it prefers for itself
_CAUSE = re.compile(r"\s*(error|cause|Caused by): ")  # before what uv says
_LIBC = {"gnu": "glibc", "musl": "musl"}


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """A Python that uv can download.

    Attributes
    ----------
    version : str
        Full version, PEP 440: ``3.11.7``.
    platform : Platform
        Without a C library's version: uv's Pythons for glibc need 2.17.
    key : str
        uv's name for it: ``cpython-3.11.7-linux-aarch64-gnu``.
    build : str
        Says where it is offered, since the same version is built anew now and then: a digest of host and path alone.
    """

    version: str
    platform: Platform
    key: str
    build: str = ""


class _Listed(msgspec.Struct, frozen=True):
    """One item of ``uv python list --output-format json``."""

    key: str
    version: str
    os: str
    arch: str
    libc: str = ""
    implementation: str = ""
    variant: str = "default"
    url: str | None = None


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    """The files of a Python that was downloaded."""

    entries: tuple[FileEntry, ...]


def offers(platform: Platform, *, environ: Mapping[str, str] | None = None) -> tuple[Offer, ...]:
    """The CPythons that uv can download for `platform`, newest first.

    Parameters
    ----------
    platform : Platform
        Of the nodes. The version of its C library does not count.
    environ : mapping, optional
        Environment variables for uv; the process's own by default.

    Raises
    ------
    UnsupportedError
        For another operating system than Linux.
    LayerError
        When uv doesn't answer, because it is too old, or can't read what ``UV_PYTHON_DOWNLOADS_JSON_URL`` names.
    """
    if platform.os != "linux":
        raise UnsupportedError(f"A Python for {platform.os} can't run on Linux nodes.", where=str(platform))
    environ = os.environ if environ is None else environ
    arguments = ["python", "list", "--only-downloads", "--all-versions", "--all-platforms", "--all-arches"]
    process = _start([*arguments, "--output-format", "json"], environ)
    answer = _finish(process, "tell which Pythons it can download", environ)
    try:
        listed = msgspec.json.decode(answer, type=list[_Listed])
    except msgspec.DecodeError as error:
        raise LayerError(
            f"uv's list of Pythons makes no sense ({error}).", todo="Update it: pip install --upgrade uv"
        ) from error
    found = [_offer(one) for one in listed if one.implementation == "cpython" and one.variant == "default"]
    fitting = [one for one in found if _same(one.platform, platform)]
    return tuple(sorted(fitting, key=lambda one: Version(one.version), reverse=True))


def _offer(one: _Listed) -> Offer:
    place = urlsplit(one.url or "")  # of a mirror it may have a password
    return Offer(
        version=one.version,
        platform=Platform(os=one.os, arch=one.arch, libc=_LIBC.get(one.libc, one.libc)),
        key=one.key,
        build=digest_bytes(f"{place.hostname}{place.path}".encode())[:12],
    )


def _same(offered: Platform, wanted: Platform) -> bool:
    libc = wanted.libc or "glibc"
    return (offered.os, offered.arch, offered.libc) == (wanted.os, wanted.arch, libc)


def choose_python(wanted: str, platform: Platform, offered: Sequence[Offer], *, strict: bool) -> tuple[Offer, str]:
    """The Python that nodes of `platform` get for a client that runs `wanted`.

    Parameters
    ----------
    wanted : str
        Full version, PEP 440. Of one that names no patch (``3.11``) the newest is meant.
    platform : Platform
    offered : sequence of Offer
        See `offers`; those for other platforms don't count.
    strict : bool
        Whether nothing but `wanted` will do.

    Returns
    -------
    Offer
        The very version, else the nearest patch of the same major.minor, of two equally near ones the newer.
    str
        The reason, "" when it is the very version.

    Raises
    ------
    PlanError
        When no patch of that major.minor is offered, or none but another one and `strict`.
    """
    version = _version(wanted)
    fitting = {Version(one.version): one for one in offered if _same(one.platform, platform)}
    if version in fitting and len(version.release) > 2:
        return fitting[version], ""
    near = [
        other
        for other in fitting
        if other.release[:2] == version.release[:2] and (version.is_prerelease or not other.is_prerelease)
    ]
    minor = ".".join(map(str, version.release[:2]))
    if not near:
        raise _unknown(wanted, minor, platform, fitting)
    if len(version.release) < 3:
        newest = fitting[max(near)]
        return newest, f"{newest.version} is the newest {minor} that uv offers for {platform.os}-{platform.arch}"
    best = fitting[max(near, key=lambda other: (-abs(other.micro - version.micro), not other.is_prerelease, other))]
    reason = f"uv offers no {wanted} for {platform.os}-{platform.arch}; {best.version} is the nearest {minor}"
    if strict:
        raise PlanError(
            f"{reason}, and strict allows no other.",
            where="python",
            todo=f"Use Python {best.version} on the client, or plan without strict.",
            details={"wanted": wanted, "nearest": best.version},
        )
    return best, reason


def _version(wanted: str) -> Version:
    try:
        return Version(wanted.rstrip("+"))  # 3.11.7+: built from a checkout after 3.11.7
    except InvalidVersion as error:
        raise PlanError(f"{wanted!r} is no version of Python.", where="python") from error


def _unknown(wanted: str, minor: str, platform: Platform, fitting: Iterable[Version]) -> PlanError:
    minors = sorted({other.release[:2] for other in fitting if not other.is_prerelease})
    known = ", ".join(".".join(map(str, two)) for two in minors) or "none"
    return PlanError(
        f"uv offers no Python {minor} for {platform.os}-{platform.arch}, and the client runs {wanted}.",
        where="python",
        todo=f"Update uv (pip install --upgrade uv), or use one of these on the client: {known}.",
        details={"wanted": wanted, "offered": known},
    )


def managed_interpreter(
    offer: Offer, *, work: Path, reporter: Reporter, environ: Mapping[str, str] | None = None
) -> LayerSource:
    """The interpreter layer of `offer`: downloaded the first time, from `work` ever after.

    Parameters
    ----------
    offer : Offer
    work : Path
        Folder where it is kept, unpacked. Safe for several processes at once; a killed one leaves no half Python.
    reporter : Reporter
        Hears of the download, if there is one, in bytes that are unpacked.
    environ : mapping, optional
        Environment variables for uv; the process's own by default.

    Returns
    -------
    LayerSource
        Paths as those of `likewise.layers.interpreter.interpreter_source`.

    Raises
    ------
    LayerError
        When it can't be downloaded, is not what was offered, or can't be written.
    """
    folder = work.absolute() / "managed" / f"{offer.key}-{offer.build or 'own'}"
    files = _load(folder)
    if files is None:
        try:
            files = _get(offer, folder, reporter, os.environ if environ is None else environ)
        except OSError as error:
            raise LayerError(
                f"The Python for the nodes can't be kept ({error.strerror}).",
                where=str(folder.parent),
                todo="Make room there, or point LIKEWISE_CACHE to another folder.",
            ) from error
    authorities = _authorities()
    certificates = [source_data(authorities, "interpreter/ssl/cert.pem")] if authorities else []
    return layer_source(LayerKind.INTERPRETER, "cpython", offer.version, [*files, *certificates])


def _load(folder: Path) -> list[SourceFile] | None:
    """The files that are kept in `folder`, None when there are none or any is not as it was written."""
    try:
        record = msgspec.json.decode((folder / "record.json").read_bytes(), type=_Record)
        files = _files(record, folder)
        whole = all(os.lstat(file.path).st_size == file.entry.size for file in files if not file.entry.link)
        os.utime(folder / "record.json")
    except (OSError, msgspec.MsgspecError):
        return None
    return files if whole else None


def _files(record: _Record, folder: Path) -> list[SourceFile]:
    return [
        SourceFile(entry=entry, path="" if entry.link else str(folder / "files" / entry.path))
        for entry in record.entries
    ]


def _get(offer: Offer, folder: Path, reporter: Reporter, environ: Mapping[str, str]) -> list[SourceFile]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    _sweep(folder.parent)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=_DOWNLOADING, ignore_cleanup_errors=True) as scratch:
        tree = _download(offer, Path(scratch), reporter, environ)
        made = Path(scratch, "made")
        standalone = Standalone(tree, version=offer.version, arch=offer.platform.arch, where=offer.key)
        record = _Record(entries=tuple(file.entry for file in standalone.lay_out(made / "files")))
        (made / "record.json").write_bytes(msgspec.json.encode(record))
        return _keep(made, folder)


def _keep(made: Path, folder: Path) -> list[SourceFile]:
    """Move `made` to its place in one step; what another process put there meanwhile is as good."""
    for _ in range(2):
        with suppress(OSError):
            os.rename(made, folder)
        files = _load(folder)
        if files is not None:
            return files
        with suppress(FileNotFoundError):  # damaged: out of the way
            os.rename(folder, made.with_name("damaged"))
    raise LayerError("The Python for the nodes can't be kept.", where=str(folder))


def _download(offer: Offer, scratch: Path, reporter: Reporter, environ: Mapping[str, str]) -> Path:
    """Have uv unpack the Python beneath `scratch`; the folder that holds it."""
    place = scratch / "uv"
    mine = {
        "UV_PYTHON_INSTALL_DIR": str(place),
        "UV_PYTHON_INSTALL_BIN": "0",  # no python3.11 in ~/.local/bin
        "UV_PYTHON_INSTALL_REGISTRY": "0",
    }
    began = time.perf_counter()
    reporter.report(StageStarted(stage=STAGE))
    process = _start(["python", "install", offer.key], {**environ, **mine})
    grown = 0

    def look() -> None:
        nonlocal grown
        now = _bytes_beneath(str(place))
        if now > grown:
            reporter.report(StageAdvanced(stage=STAGE, amount=now - grown, item=offer.key))
            grown = now

    _finish(process, f"download {offer.key}", environ, look)
    summary = f"Python {offer.version} for {offer.platform.os}-{offer.platform.arch}"
    reporter.report(StageFinished(stage=STAGE, seconds=time.perf_counter() - began, summary=summary))
    return place / offer.key


def _bytes_beneath(folder: str) -> int:
    """Size of all files beneath `folder`, while others write there."""
    total = 0
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                total += _bytes_beneath(entry.path)
            else:
                with suppress(OSError):
                    total += entry.stat(follow_symlinks=False).st_size
    return total


def _start(arguments: Sequence[str], environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    settings = {"UV_HTTP_TIMEOUT": "15", "UV_HTTP_RETRIES": "1"}  # seconds of silence; a dead mirror must not take long
    kept = {name: value for name, value in environ.items() if name not in _ABOUT_THE_CLIENT}
    try:
        return subprocess.Popen(
            [uv.find_uv_bin(), *arguments],
            env={**settings, **kept, "UV_PYTHON_PREFERENCE": "managed", "UV_NO_PROGRESS": "1", "NO_COLOR": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    except OSError as error:
        raise LayerError(
            f"uv, which knows the Pythons for the nodes, can't be run ({error.strerror or error}).",
            where="python",
            todo="Install it again: pip install --force-reinstall uv",
        ) from error


def _finish(
    process: subprocess.Popen[bytes], doing: str, environ: Mapping[str, str], look: Callable[[], None] = lambda: None
) -> bytes:
    """Wait for uv, calling `look` now and then; what it printed."""
    with process:
        try:
            while True:
                try:
                    answer, words = process.communicate(timeout=_TICK)
                    break
                except subprocess.TimeoutExpired:
                    look()
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        output = hosts_alone(scrub(words.decode(errors="replace"), environ)).strip()
        cause = _CAUSE.sub("", output.splitlines()[-1]).rstrip(".") if output else "it said nothing"
        raise LayerError(
            f"uv could not {doing}: {cause}.",
            where="python",
            todo="See that its settings are right (UV_PYTHON_INSTALL_MIRROR, UV_PYTHON_DOWNLOADS_JSON_URL, "
            "UV_PYTHON_DOWNLOADS), and that it is new: pip install --upgrade uv",
            details={"output": output},
        )
    return answer


def _sweep(folder: Path) -> None:
    """Remove what nobody used for long, and what killed processes left."""
    with suppress(OSError):
        for entry in list(os.scandir(folder)):
            downloading = entry.name.startswith(_DOWNLOADING)
            with suppress(OSError):
                used = os.stat(entry.path if downloading else Path(entry.path, "record.json")).st_mtime
                if time.time() - used > (_ABANDONED if downloading else KEEP_SECONDS):
                    shutil.rmtree(entry.path, ignore_errors=True)


def _authorities() -> bytes:
    """The certificate authorities that the client trusts, as one PEM file; empty when none can be read."""
    paths = ssl.get_default_verify_paths()
    bundle = certificate_bundle(paths.openssl_cafile, paths.openssl_capath, os.environ)
    if bundle:
        return bundle
    known = ssl.create_default_context().get_ca_certs(binary_form=True)  # Windows has them in no file
    return "".join(sorted(map(ssl.DER_cert_to_PEM_cert, known))).encode()
