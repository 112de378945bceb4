"""What lies in the site directories and belongs to no distribution: loose modules, ``.pth`` files, and rubbish.

Modules and packages are shipped, in a layer named ``site-packages``. ``.pth`` files with code are not: whoever owns no
distribution and yet runs at every start was put there by the machine (a venv's ``_virtualenv.pth``, a proxy's, a
profiler's). Those with plain paths name directories of loose code.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence

import msgspec

from likewise.errors import ScanError
from likewise.model.digest import digest_bytes
from likewise.model.identity import bytecode_source
from likewise.model.layer import FileEntry, SourceFile, path_problem
from likewise.model.secrets import secret_file
from likewise.model.snapshot import Problem, Severity
from likewise.scanner.listing import Listing, add_file
from likewise.scanner.pth import Pth, read_pth

LAYER_NAME = "site-packages"

_METADATA = (".dist-info", ".egg-info", ".egg-link")
_MODULES = (".py", ".so", ".pyc", ".pyd")
_MACHINE_MODULES = frozenset({"sitecustomize.py", "usercustomize.py", "_virtualenv.py"})
"""Imported by Python at every start, or by the ``.pth`` that virtualenv and uv put into each venv."""


class Leftover(msgspec.Struct, frozen=True, kw_only=True):
    """What nobody owns.

    Attributes
    ----------
    modules : tuple of str
        Absolute paths of files and directories in site directories that can be imported.
    pths : tuple of Pth
        ``.pth`` files with plain paths.
    problems : tuple of Problem
    """

    modules: tuple[str, ...] = ()
    pths: tuple[Pth, ...] = ()
    problems: tuple[Problem, ...] = ()


def sort_leftover(paths: Iterable[str], sites: Sequence[str], sys_path: Collection[str]) -> Leftover:
    """Tell apart what `find_unlisted` left over.

    Parameters
    ----------
    paths : iterable of str
        Absolute, beneath `sites`.
    sites : sequence of str
        Site directories in ``sys.path`` order. A module that an earlier one hides can't be imported and is left out.
    sys_path : collection of str
        What a ``.pth`` file names counts where Python read it, which it does not in every directory.
    """
    paths = tuple(paths)
    problems: list[Problem] = []
    pths = [pth for path in paths if path.endswith(".pth") for pth in _pth(path, sys_path, problems)]
    named = {folder for pth in pths for folder in pth.folders}
    modules: list[str] = []
    shadow = _Shadow(sites)
    for path in paths:
        name = os.path.basename(path)
        if name.endswith(".pth"):
            continue
        if name.startswith("~"):
            problems.append(_note("pip-leftover", path, f"{path} is what pip left of an interrupted uninstall; it "
                                  "is not shipped and can be deleted."))  # fmt: skip
        elif name in _MACHINE_MODULES:
            problems.append(_note("machine-module", path, f"{path} belongs to no distribution but to this machine; it "
                                  "is not shipped."))  # fmt: skip
        elif any(folder == path or folder.startswith(path + os.sep) for folder in named) or (
            not name.endswith(_METADATA) and _is_module(path, sites) and not shadow.hides(path)
        ):
            modules.append(path)
    return Leftover(modules=tuple(modules), pths=tuple(pths), problems=tuple(problems))


def _pth(path: str, sys_path: Collection[str], problems: list[Problem]) -> Iterator[Pth]:
    try:
        pth = read_pth(path)
    except OSError as error:
        problems.append(Problem(code="unreadable-file", subject=path, severity=Severity.ERROR,
                                message=f"{path} can't be read ({error.strerror}); what it adds to sys.path is not "
                                "shipped."))  # fmt: skip
        return
    # What setuptools' easy_install writes around its paths is no code of anybody's.
    code = [line for line in pth.code if "sys.__plen" not in line]
    if code:
        problems.append(_note("machine-pth", path, f"{path} runs code at every start and belongs to no distribution; "
                              "it is not shipped."))  # fmt: skip
    folders = tuple(folder for folder in pth.folders if folder in sys_path)
    if folders:
        yield msgspec.structs.replace(pth, folders=folders)


def _is_module(path: str, sites: Sequence[str]) -> bool:
    """Whether `path` can be imported, or may be what something that can be imported needs."""
    folder, name = os.path.split(path)
    if folder not in sites:  # a single file in a namespace package
        return not name.startswith(".")
    stem = name.partition(".")[0]
    if os.path.isdir(path):
        return (name.isidentifier() or name.endswith(".libs")) and any(_files(path))
    return name.endswith(_MODULES) and stem.isidentifier()


def _files(folder: str) -> Iterator[str]:
    """Files beneath `folder`, links followed once; no bytecode that has its source, nothing hidden."""
    seen: set[str] = set()
    for current, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(current)
        if real in seen:  # a loop
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if f != "__pycache__" and not f.startswith("."))
        for name in sorted(names):
            path = os.path.join(current, name)
            if not name.startswith(".") and not os.path.exists(bytecode_source(path) or ""):
                yield path


class _Shadow:
    """Which top-level names the site directories before one provide as regular modules or packages."""

    def __init__(self, sites: Sequence[str]) -> None:
        self._sites = sites
        self._names: dict[str, frozenset[str]] = {}

    def hides(self, path: str) -> bool:
        """Whether a site directory before that of `path` has its top-level name."""
        site = next((s for s in self._sites if path.startswith(s + os.sep)), "")
        name = path[len(site) + 1 :].partition(os.sep)[0].partition(".")[0]
        return any(name in self._provided(earlier) for earlier in self._sites[: self._sites.index(site)])

    def _provided(self, site: str) -> frozenset[str]:
        if site not in self._names:
            found = set()
            for name in _listdir(site):
                if name.endswith(_MODULES) or os.path.exists(os.path.join(site, name, "__init__.py")):
                    found.add(name.partition(".")[0])
            self._names[site] = frozenset(found)
        return self._names[site]


def relative_pth(pth: Pth) -> SourceFile | None:
    """`pth` with the paths in its own site directory, which the nodes have too; None when it has none.

    An egg is one such, and whatever else is importable only because it was put on ``sys.path``.
    """
    site = os.path.dirname(pth.path)
    inside = [folder[len(site) + 1 :] for folder in pth.folders if folder.startswith(site + os.sep)]
    if not inside:
        return None
    data = "".join(f"{folder}\n" for folder in inside).encode("utf-8", "surrogateescape")
    entry = FileEntry(path=f"purelib/{pth.name}", sha256=digest_bytes(data), size=len(data))
    return SourceFile(entry=entry, data=data)


def list_leftover(modules: Iterable[str], listing: Listing, *, max_bytes: int) -> None:
    """Add the files of `modules` to `listing`, each under the path that it has in its site directory.

    Parameters
    ----------
    modules : iterable of str
    listing : Listing
    max_bytes : int

    Raises
    ------
    ScanError
        When they come to more than `max_bytes`; it names the biggest.
    """
    sizes: dict[str, int] = {}
    for module in modules:
        for path in _files(module) if os.path.isdir(module) else [module]:
            layer_path = "purelib/" + path[len(listing.site) + 1 :]
            if secret_file(os.path.basename(path)):
                listing.problem("secret-left-out", f"{path} looks like a secret; it stays here.", Severity.NOTE)
            elif reason := path_problem(layer_path):
                listing.problem("bad-path", f"The file name {path!r} {reason}; it is not shipped. Rename it.")
            else:
                add_file(listing, layer_path, path)
            if layer_path in listing.files:
                sizes[module] = sizes.get(module, 0) + listing.files[layer_path].stat.st_size
    if sum(sizes.values()) > max_bytes:
        biggest = sorted(sizes, key=lambda m: -sizes[m])[:5]
        raise ScanError(
            f"Files that no distribution owns come to {sum(sizes.values()):,} bytes, and the limit is {max_bytes:,}. "
            f"Biggest: {', '.join(f'{m} ({sizes[m]:,})' for m in biggest)}.",
            where=listing.site,
            todo="Remove what is not needed, or raise likewise.code.max-bytes in Dask's configuration.",
            details={"sizes": {m: sizes[m] for m in biggest}},
        )


def _listdir(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _note(code: str, path: str, message: str) -> Problem:
    return Problem(code=code, subject=os.path.basename(path), message=message, severity=Severity.NOTE)
