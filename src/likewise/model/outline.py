"""The outline of an environment: what a node has to know of layers that are not there yet.

A prefix that still grows looks whole to whoever reads metadata: every distribution's dist-info and every ``.pth`` file
is there from the beginning, and they lie in the outline; so does what programs find by its path, if it is little
(``etc/``, ``share/``). Its listings say which layer will bring what, and `requires`
what has to be there besides before a module of a layer may run.

The outline travels and is kept as a layer of its own with a single file. It is never laid into a prefix.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence, Set

import msgspec

from likewise.errors import LayerError, NodeError
from likewise.model.digest import Digest, digest_bytes
from likewise.model.layer import FileEntry, LayerKind, decode_listing
from likewise.model.manifest import Manifest

FORMAT = 2
OUTLINE_PATH = "outline/outline.msgpack"
"""The layer path of the encoded outline: the only file of its layer."""

MOST_DATA = 1 << 20
"""Bytes that a layer may have outside the site directory for the outline to have them; more (JupyterLab's pages) is
there when something of the layer is imported.
"""

_OUTLINED = re.compile(r"purelib/[^/]+(\.dist-info/.+|\.egg-info(/.+)?|\.pth)", re.DOTALL)
_WORD = re.compile(r"\w+")
_IMPORTS = ("import ", "import\t")  # how a line of a ``.pth`` file begins that is run
_EXTENSION = re.compile(r"(?P<name>[^.]+)\.((cpython-[^.]+|abi3)\.)?so")


class OutlinedLayer(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one layer without having it.

    Attributes
    ----------
    name : str
        As in the manifest.
    digest : Digest
    listing : bytes
        The layer's listing; its sha256 is `digest`.
    files : dict
        Layer path → content of every file that `outlined` gives.
    requires : tuple of str
        Names of layers of the same manifest without which modules of this one may not work.
    """

    name: str
    digest: Digest
    listing: bytes
    files: dict[str, bytes]
    requires: tuple[str, ...] = ()

    def entries(self) -> tuple[FileEntry, ...]:
        """The layer's files.

        Raises
        ------
        LayerError
            When the listing may not be used.
        """
        return decode_listing(self.listing, where=self.name)


class Outline(msgspec.Struct, frozen=True, kw_only=True):
    """Every layer of a manifest but the interpreter and bytecode, in its order."""

    layers: tuple[OutlinedLayer, ...]
    format: int = FORMAT

    def encode(self) -> bytes:
        """Canonical MessagePack."""
        return msgspec.msgpack.encode(self, order="deterministic")


def decode_outline(data: bytes) -> Outline:
    """Read an outline back. Whether it is that of a manifest says `check`.

    Raises
    ------
    NodeError
        When it can't be read.
    """
    try:
        outline = msgspec.msgpack.decode(data, type=Outline)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:  # ValueError: a text that is not UTF-8
        raise _damaged(f"can't be read ({error})") from error
    if outline.format != FORMAT:
        raise _damaged(f"has format {outline.format}, and format {FORMAT} is known here")
    return outline


def outlined(entries: Iterable[FileEntry]) -> list[FileEntry]:
    """Those files of a layer whose contents are part of the outline; no links.

    That is what Python and others look for without importing anything: dist-info and egg-info folders (and egg-info
    files) in the site directory, ``.pth`` files, which Python reads there when it starts, and what lies outside of it,
    in ``share/`` and ``etc/``, unless that is more than `MOST_DATA`.
    """
    files = [entry for entry in entries if not entry.link]
    data = [entry for entry in files if entry.path.startswith("data/") and not entry.path.startswith("data/bin/")]
    if sum(entry.size for entry in data) > MOST_DATA:
        data = []
    return [entry for entry in files if _is_telling(entry.path)] + data


def _is_telling(path: str) -> bool:
    telling = "-info" in path or path.endswith(".pth")  # that is quickly seen, and nearly always false
    return telling and _OUTLINED.fullmatch(path) is not None


def check(outline: Outline, manifest: Manifest) -> tuple[tuple[FileEntry, ...], ...]:
    """Make sure that `outline` describes `manifest`: each listing and each file is what its digest says.

    Returns
    -------
    tuple of tuple of FileEntry
        The files of each layer, in the order of `outline.layers`.

    Raises
    ------
    NodeError
        When anything is damaged, missing, or too much.
    """
    names = check_names(outline, manifest)
    return tuple(check_layer(layer, names) for layer in outline.layers)


def check_names(outline: Outline, manifest: Manifest) -> frozenset[str]:
    """The part of `check` that concerns which layers there are; their names.

    Raises
    ------
    NodeError
        See `check`.
    """
    refs = [ref for ref in manifest.layers if ref.kind is not LayerKind.INTERPRETER]
    if [(ref.name, ref.digest) for ref in refs] != [(layer.name, layer.digest) for layer in outline.layers]:
        raise _damaged("is not that of the manifest")
    return frozenset(ref.name for ref in refs)


def check_layer(layer: OutlinedLayer, names: Set[str]) -> tuple[FileEntry, ...]:
    """The part of `check` that concerns one layer of a manifest with the layers `names`; the layer's files.

    Raises
    ------
    NodeError
        See `check`.
    """
    if digest_bytes(layer.listing) != layer.digest:
        raise _damaged(f"has another listing of {layer.name} than the manifest")
    try:
        entries = layer.entries()
    except LayerError as error:
        raise _damaged(f"has a listing of {layer.name} that may not be used: {error.what}") from error
    wanted = {entry.path: entry for entry in outlined(entries)}
    if wanted.keys() != layer.files.keys():
        raise _damaged(f"has other files of {layer.name} than its listing")
    for path, content in layer.files.items():
        if digest_bytes(content) != wanted[path].sha256 or len(content) != wanted[path].size:
            raise _damaged(f"has another {path} than the listing of {layer.name}")
    if not set(layer.requires) <= names:
        raise _damaged(f"says that {layer.name} requires what the manifest lacks")
    return entries


def tops(entries: Iterable[FileEntry], files: Mapping[str, bytes] | None = None) -> set[str]:
    """The top-level names under which a layer's modules and packages are imported.

    Parameters
    ----------
    entries : iterable of FileEntry
        The layer's files.
    files : mapping, optional
        Contents of its ``.pth`` files by layer path: folders that they name are on ``sys.path``, too.

    Returns
    -------
    set of str
        Names of modules (Python files and extension modules; bytecode without source, too), and of folders, with or
        without an ``__init__.py``.
    """
    paths = [entry.path for entry in entries]
    roots = ["purelib/", *(f"purelib/{folder}/" for folder in pth_folders(files or {}))]
    roots += {"/".join(path.split("/", 2)[:2]) + "/" for path in paths if path.startswith("code/")}
    found = {path[len(root) :].partition("/")[:2] for root in roots for path in paths if path.startswith(root)}
    return {_top(first, bool(slash)) for first, slash in found} - {"", "__pycache__"}


def _top(first: str, is_folder: bool) -> str:
    """The name under which Python imports the file or folder `first` of a folder on ``sys.path``, or ""."""
    if is_folder:
        return "" if "." in first else first  # a dot is never part of a package's name: foo-1.0.dist-info, foo.libs
    stem, dot, suffix = first.rpartition(".")
    if suffix in ("py", "pyc") and dot and "." not in stem:
        return stem
    extension = _EXTENSION.fullmatch(first)
    return extension["name"] if extension else ""


def pth_folders(files: Mapping[str, bytes]) -> set[str]:
    """Folders beneath the site directory that ``.pth`` files put on ``sys.path`` (see the `site` module)."""
    named = {
        posixpath.normpath(line.strip())
        for line in _pth_lines(files)
        if line.strip() and not line.startswith(("#", *_IMPORTS))
    }
    return {folder for folder in named if folder != "." and not folder.startswith(("/", ".."))}


def pth_words(files: Mapping[str, bytes]) -> set[str]:
    """Every word in those lines of ``.pth`` files that are run whenever Python starts."""
    return {word for line in _pth_lines(files) if line.startswith(_IMPORTS) for word in _WORD.findall(line)}


def _pth_lines(files: Mapping[str, bytes]) -> list[str]:
    return [
        line
        for path, data in files.items()
        if path.startswith("purelib/") and path.endswith(".pth")
        for line in data.decode("utf-8", "replace").splitlines()
    ]


def closure(outline: Outline) -> dict[str, tuple[str, ...]]:
    """Layer name → itself first, then all that it requires, directly or not, nearest first."""
    requires = {layer.name: layer.requires for layer in outline.layers}
    return {name: closed(name, requires) for name in requires}


def closed(name: str, requires: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """A layer's name, then all that it requires by `requires`, directly or not, nearest first."""
    found = dict.fromkeys([name])
    queue = [name]
    for each in queue:
        new = [other for other in requires.get(each, ()) if other not in found]
        found.update(dict.fromkeys(new))
        queue += dict.fromkeys(new)
    return tuple(found)


def _damaged(what: str) -> NodeError:
    return NodeError(
        f"The outline {what}.",
        where="outline",
        todo="Start the cluster again; with a damaged copy, clear the node's cache first.",
    )
