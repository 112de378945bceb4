"""The files of a prefix that no layer holds, because they say where the prefix lies. Every function is pure.

Materialising writes them and verifying computes them again, so both must come to the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Sequence

import msgspec

from likewise.errors import NodeError
from likewise.model.conda_identity import ENTRY_LINE
from likewise.model.digest import Digest, digest_to_record
from likewise.model.identity import PLACEHOLDER
from likewise.model.layer import FileEntry, LayerKind
from likewise.model.manifest import ROOT_BASE, LayerRef, Manifest, prefix_path, scheme_dirs
from likewise.model.placeholders import SHEBANG_LIMIT, with_prefix
from likewise.node.launch import launch_script, quote

CODE_PTH = "likewise-code.pth"
MISSED_PTH = "likewise-missed.pth"
GATE_PTH = "000-likewise-gate.pth"
"""Read before every other ``.pth`` file (`site` sorts them): those of distributions may import what is not there."""

_SCRIPT = """\
import sys
from {module} import {top}
if __name__ == "__main__":
    sys.exit({attribute}())
"""
_STUB = """\
#!/bin/sh
# Written by likewise. It stands here until the layer that has this script is laid out.
{python} -I -B -c 'from likewise.node.gate import main; main()' wait {path} || exit
exec {script} "$@"
"""
_RESUME = """\
#!/bin/sh
# Written by likewise. Goes on filling this prefix, in the background, unless somebody does.
exec {python} -I -S -B -X utf8 -c 'import importlib, sys
sys.path.insert(0, sys.argv.pop(1)); importlib.import_module("likewise.node.__main__").main()' {site} fill {options}
"""
_ENTRY_POINT = re.compile(r"(?P<module>\w+(?:\.\w+)*)\s*:\s*(?P<attribute>\w+(?:\.\w+)*)\s*(?:\[.*\])?")
_QUOTED = re.compile('[,"\n\r]')
_ENCODED = 44  # letters of 33 bytes in base64
_METADATA = re.compile(r"purelib/([^/]+\.(?:dist|egg)-info)/")


class Generated(msgspec.Struct, frozen=True, kw_only=True):
    """A file to write; `path` is relative to the prefix. A symbolic link when `link` is not empty."""

    path: str
    data: bytes = b""
    executable: bool = False
    link: str = ""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a prefix lies.

    Attributes
    ----------
    prefix, cache : str
        Absolute.
    python : str
        ``python3.11``.
    interpreter : str
        What runs the scripts; the prefix's own Python when empty.
    """

    prefix: str
    cache: str
    python: str
    interpreter: str = ""

    @property
    def executable(self) -> str:
        """What runs the scripts."""
        return self.interpreter or f"{self.prefix}/bin/python"


def environment_files(manifest: Manifest, place: Place) -> list[Generated]:
    """What belongs to the prefix as a whole."""
    python = manifest.python
    files = [
        Generated(path="manifest.json", data=manifest.encode()),
        Generated(path="launch", data=launch_script(manifest, place.prefix, place.cache), executable=True),
    ]
    if manifest.base != ROOT_BASE:
        files += _venv_files(manifest, place)
    site = scheme_dirs(python)["purelib"]
    if any(ref.name == "likewise" for ref in manifest.layers):
        note = b"import likewise.node.missed; likewise.node.missed.install()\n"
        files.append(Generated(path=f"{site}/{MISSED_PTH}", data=note))
    if manifest.after:
        up = "../" * (site.count("/") + 1)
        lines = "".join(f"{up}code/{name}\n" for name in manifest.after)
        files.append(Generated(path=f"{site}/{CODE_PTH}", data=lines.encode()))
    return files


def _venv_files(manifest: Manifest, place: Place) -> list[Generated]:
    """What makes the prefix a venv, whose base is the interpreter's layer."""
    python = manifest.python
    config = {
        "home": f"{place.prefix}/{manifest.base}/bin",
        "include-system-site-packages": "false",
        "version": manifest.target.python,
    }
    return [
        Generated(path="pyvenv.cfg", data="".join(f"{k} = {v}\n" for k, v in config.items()).encode()),
        Generated(path=f"bin/{python}", link=f"../{manifest.base}/bin/{python}"),
        Generated(path="bin/python3", link=python),
        Generated(path="bin/python", link=python),
    ]


def rewritten(entries: Iterable[FileEntry]) -> frozenset[str]:
    """Layer paths of the files that a prefix may have in another form than their layer."""
    return frozenset(e.path for e in entries if e.placeholder or e.path.startswith("scripts/"))


def layer_files(
    ref: LayerRef, entries: Sequence[FileEntry], read: Callable[[str, int], bytes], place: Place
) -> tuple[list[Generated], list[Generated]]:
    """What is generated for one layer of a manifest.

    Parameters
    ----------
    ref : LayerRef
    entries : sequence of FileEntry
    read : callable
        The first bytes of a file of the layer: its path, and how many at most (all when negative).
    place : Place

    Returns
    -------
    own : list of Generated
        The layer's files that name the prefix, and scripts that get its interpreter line, instead of their content; its
        ``INSTALLER`` and its ``RECORD``.
    scripts : list of Generated
        Made from its entry points. Where two layers have one of the same name, or a layer has a file in its place, it
        is not written: see `entry_scripts`.
    """
    own = [
        _script(e, read(e.path, -1), place)
        for e in entries
        if e.path.startswith("scripts/") and e.executable and read(e.path, len(PLACEHOLDER)).startswith(b"#!python")
    ]
    for entry in entries:
        data = read(entry.path, -1) if entry.placeholder else b""
        if entry.placeholder and len(data) == entry.size:  # else it is not there yet
            own.append(_relocated(entry, data, ref, place))
    if ref.kind is not LayerKind.DISTRIBUTION:
        return own, []
    scripts: list[Generated] = []
    paths = {e.path for e in entries}
    programs = {prefix_path(path, place.python) for path in paths if path.startswith(("scripts/", "data/bin/"))}
    for metadata in _metadata(entries):
        if f"purelib/{metadata}/entry_points.txt" in paths:
            text = read(f"purelib/{metadata}/entry_points.txt", -1).decode("utf-8", "replace")
            scripts += [script for script in entry_scripts(text, place) if script.path not in programs]
        if metadata.endswith(".dist-info"):
            installer = Generated(path=f"{_site(place)}/{metadata}/INSTALLER", data=b"likewise\n")
            record = _record(metadata, entries, [*own, installer, *scripts], place)
            own += [installer, record]
    return own, scripts


def _script(entry: FileEntry, data: bytes, place: Place) -> Generated:
    """A Python script of a layer, with the interpreter's line."""
    conda = data.startswith(ENTRY_LINE) and not place.interpreter
    line = _conda_shebang(place) if conda else shebang(place.executable)
    path = prefix_path(entry.path, place.python)
    return Generated(path=path, data=line + data.partition(b"\n")[2], executable=entry.executable)


def _conda_shebang(place: Place) -> bytes:
    """What conda's installers write in place of `shebang`: the versioned name, and long paths as in other scripts."""
    line = f"#!/-/bin/{place.python.removesuffix('t')}\n"
    return with_prefix(line.encode(), "/-", place.prefix, binary=False)


def _relocated(entry: FileEntry, data: bytes, ref: LayerRef, place: Place) -> Generated:
    """A file that names its prefix, as it is in this one."""
    try:
        made = with_prefix(data, entry.placeholder, place.prefix, binary=entry.binary)
    except ValueError as error:
        raise NodeError(
            f"{entry.path} can't be made for the prefix {place.prefix}, whose path is too long ({error}).",
            where=ref.name,
            todo="Choose a cache folder with a shorter path: node_cache, or --cache.",
        ) from None
    return Generated(path=prefix_path(entry.path, place.python), data=made, executable=entry.executable)


def entry_scripts(text: str, place: Place) -> list[Generated]:
    """The scripts for an ``entry_points.txt`` (the *entry points specification*): console and GUI are one on Linux."""
    scripts: dict[str, Generated] = {}
    section = ""
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith("["):
            section = line.strip("[] \t")
        elif section in ("console_scripts", "gui_scripts") and "=" in line and line[0] not in "#;":
            name, _, value = (part.strip() for part in line.partition("="))
            match = _ENTRY_POINT.fullmatch(value)
            for each in _names(name, place.python) if match else ():
                assert match is not None
                body = _SCRIPT.format(
                    module=match["module"], top=match["attribute"].partition(".")[0], attribute=match["attribute"]
                )
                data = shebang(place.executable) + body.encode()
                scripts.setdefault(each, Generated(path=f"bin/{each}", data=data, executable=True))
    return list(scripts.values())


def gate_file(place: Place) -> Generated:
    """What has every Python of a growing prefix wait for what it imports."""
    line = b"import likewise.node.gate; likewise.node.gate.install()\n"
    return Generated(path=f"{_site(place)}/{GATE_PTH}", data=line)


def stub(path: str, place: Place) -> Generated:
    """What stands in a growing prefix for a layer's own script at `path`: it waits, and becomes the script."""
    text = _STUB.format(python=quote(place.executable), path=quote(path), script=quote(f"{place.prefix}/{path}"))
    return Generated(path=path, data=text.encode(), executable=True)


def resume_script(place: Place, options: Sequence[str]) -> bytes:
    """The script that starts a filler; `options` are those of ``likewise.node fill``.

    It needs neither the kit nor what the prefix does not have yet: ``-S`` leaves the gate out.
    """
    words = " ".join(map(quote, options))
    return _RESUME.format(
        python=quote(place.executable), site=quote(f"{place.prefix}/{_site(place)}"), options=words
    ).encode()


def _names(name: str, python: str) -> Iterable[str]:
    """File names for an entry point; pip and easy_install have versioned ones too, as their installers write them."""
    if not name or "/" in name or "\0" in name or name in (".", "..") or re.fullmatch(r"python[\d.]*t?", name):
        return ()
    version = python.removeprefix("python").removesuffix("t")
    if name == "pip":
        return (name, f"pip{version.partition('.')[0]}", f"pip{version}")
    return (name, f"{name}-{version}") if name == "easy_install" else (name,)


def shebang(executable: str) -> bytes:
    """The line, or lines, that make a file a script of this interpreter.

    A path that is too long for the kernel, contains a space, or is a bare name that is to be found on the ``PATH``, is
    started by ``/bin/sh``: for sh the second line is an exec, for Python lines two and three are a string (distlib's
    way, which pip follows).

    Raises
    ------
    NodeError
        When the path contains a backslash or a line break, which neither form can hold.
    """
    if "\\" in executable or "\n" in executable:
        raise NodeError("A script can't name an interpreter with such a path.", where=executable)
    line = f"#!{executable}\n".encode()
    if executable.startswith("/") and len(line) <= SHEBANG_LIMIT + 1 and not any(c.isspace() for c in executable):
        return line
    return b"#!/bin/sh\n'''exec' " + quote(executable).encode() + b" \"$0\" \"$@\"\n' '''\n"


def _metadata(entries: Sequence[FileEntry]) -> list[str]:
    """Names of the layer's own dist-info and egg-info folders (not those of vendored distributions)."""
    found = {match[1] for e in entries if "-info/" in e.path and (match := _METADATA.match(e.path))}
    return sorted(found)


def _site(place: Place) -> str:
    return scheme_dirs(place.python)["purelib"]


def _record(metadata: str, entries: Sequence[FileEntry], generated: Sequence[Generated], place: Place) -> Generated:
    """`RECORD` (the *recording installed projects* specification): paths relative to the site directory."""
    site = f"{_site(place)}/"
    paths = [prefix_path(e.path, place.python) for e in entries] + [file.path for file in generated]
    hashes = _hashes(entries) + [f"{digest_to_record(digest_of(file))},{len(file.data)}" for file in generated]
    rows = dict(sorted(dict(zip(paths, hashes, strict=True)).items()))  # what is generated stands for the layer's own
    start, up = len(site), "../" * site.count("/")
    shown = [path[start:] if path.startswith(site) else up + path for path in rows] + [f"{metadata}/RECORD"]
    if _QUOTED.search("".join(shown)):
        shown = [_csv(path) for path in shown]
    lines = [f"{path},{rest}\n" for path, rest in zip(shown, [*rows.values(), ","], strict=True)]
    return Generated(path=f"{site}{metadata}/RECORD", data="".join(lines).encode())


def _hashes(entries: Sequence[FileEntry]) -> list[str]:
    """The fields of each file behind its path; all at once, as there are ten thousands of them.

    With a byte more, each hash has a length that base64 needs no padding for.
    """
    digests = base64.urlsafe_b64encode(bytes.fromhex("".join([f"{e.sha256}00" for e in entries]))).decode()
    starts = range(0, len(digests), _ENCODED)
    return [
        "," if e.link else f"sha256={digests[start : start + _ENCODED - 1]},{e.size}"
        for e, start in zip(entries, starts, strict=True)
    ]


def _csv(field: str) -> str:
    return '"' + field.replace('"', '""') + '"' if _QUOTED.search(field) else field


def digest_of(file: Generated) -> Digest:
    """sha256 of a generated file's content."""
    return Digest(hashlib.sha256(file.data).hexdigest())
