"""Editable installs: which distributions are, where their source tree is, and what they make importable.

Build back ends agree on ``direct_url.json`` (PEP 610, 660) and on nothing else. What they put into the site directory
is a ``.pth`` file with plain paths (hatchling, flit, poetry, uv, maturin, setuptools for ``src`` layouts), or one that
imports a hook: setuptools' ``__editable___*_finder.py``, the ``editables`` library, scikit-build-core, meson-python.
Hooks are read, never run.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable, Iterator

from likewise.model.editable import Editable
from likewise.model.origins import local_path
from likewise.model.record import parse_record
from likewise.model.syntax import parse
from likewise.scanner.distributions import Installed
from likewise.scanner.metadata import decode
from likewise.scanner.pth import Pth, read_pth

PROJECT_FILES = ("pyproject.toml", "setup.py", "setup.cfg")
# Beside the packages of a flat layout; nobody means them when they install the project.
_NOT_PACKAGES = frozenset(
    {"setup", "conftest", "noxfile", "tasks", "fabfile", "build", "dist", "docs", "doc", "test", "tests", "examples",
     "example", "benchmarks", "scripts", "tools"}
)  # fmt: skip


def editable_of(installed: Installed) -> Editable | None:
    """`installed` as an editable; None when it is an ordinary install.

    Besides what `direct_url.json` and egg-links say, a distribution whose `RECORD` lists nothing but its metadata and
    ``.pth`` files with paths (old poetry, ``pip install -e`` before PEP 610) is one too.
    """
    direct = installed.direct
    if installed.link:
        return _editable(installed, project_folder(installed.link), [Pth(path="", folders=(installed.link,))])
    declared = direct is not None and direct.dir_info is not None and direct.dir_info.editable
    if not declared and not installed.has_record:
        return None
    names = _record_names(installed)
    pths = list(_pths(installed.site, names))
    if declared and direct is not None:
        path = os.path.join(local_path(direct.url), direct.subdirectory or "")
        return _editable(installed, os.path.normpath(path), pths)
    if not pths or any(not n.endswith(".pth") for n in names):
        return None
    outside = [f for pth in pths for f in pth.folders if not f.startswith(installed.site + os.sep)]
    return _editable(installed, project_folder(outside[0]), pths) if outside else None


def project_folder(folder: str) -> str:
    """The root of the project that `folder` is the import root of: itself, or the folder above a ``src`` folder."""
    for candidate in (folder, os.path.dirname(folder)):
        if any(os.path.exists(os.path.join(candidate, name)) for name in PROJECT_FILES):
            return candidate
    return folder


def _record_names(installed: Installed) -> list[str]:
    """What `RECORD` lists beside the metadata folder, generated files aside."""
    try:
        with open(os.path.join(installed.folder, "RECORD"), "rb") as file:
            data = file.read()
        # Most have none, and parsing every RECORD would take longer than all the rest.
        claims = parse_record(data.decode("utf-8", "surrogateescape")) if b".pth" in data else []
    except (OSError, ValueError):
        return []
    base = os.path.basename(installed.folder) + "/"
    return [c[0] for c in claims if not c[0].startswith((base, "../")) and "__pycache__" not in c[0]]


def _pths(site: str, names: Iterable[str]) -> Iterator[Pth]:
    for name in names:
        if name.endswith(".pth"):
            try:
                yield read_pth(os.path.normpath(os.path.join(site, name)))
            except OSError:
                continue  # without it the editable has no import root; the build still knows the source tree


def _editable(installed: Installed, path: str, pths: list[Pth]) -> Editable:
    mapping: dict[str, str] = {}
    named: set[str] = set()
    for pth in pths:
        for module in pth.imported:
            provided, names = _read_hook(os.path.join(installed.site, module + ".py"))
            mapping.update(provided)
            named.update(names)
    roots = tuple(dict.fromkeys(f for pth in pths for f in pth.folders))
    imports = {*installed.top_level, *mapping, *named} or _importable(roots, path, installed.name)
    return Editable(
        name=installed.name,
        version=installed.version,
        path=path,
        roots=roots,
        imports=tuple(sorted(imports)),
        mapping=mapping,
        metadata_path=installed.folder,
    )


def _read_hook(path: str) -> tuple[dict[str, str], set[str]]:
    try:
        with open(path, "rb") as file:
            return parse_hook(decode(file.read()))
    except OSError:
        return {}, set()


def parse_hook(source: str) -> tuple[dict[str, str], set[str]]:
    """What the import hook with this source provides, told from its literals.

    Returns
    -------
    mapping : dict
        Import name -> absolute path of its directory or module file.
    names : set of str
        Import names whose place the source does not tell.
    """
    mapping: dict[str, str] = {}
    names: set[str] = set()
    try:
        tree = parse(source)
    except (SyntaxError, ValueError):
        return mapping, names
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign):  # setuptools: MAPPING = {...}, NAMESPACES = {...: [...]}
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(t, ast.Name) and t.id in ("MAPPING", "NAMESPACES") for t in targets):
                mapping.update(_paths(_literal(node.value)))
        elif isinstance(node, ast.Call):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            values = [_literal(argument) for argument in node.args]
            if called == "map_module" and len(values) == 2:  # editables: F.map_module("name", "/path/__init__.py")
                mapping.update(_paths({values[0]: values[1]}))
            elif called in ("install", "MesonpyMetaFinder") and values:  # scikit-build-core, meson-python
                mapping.update(_paths(values[0]))
                names.update(n for value in values[1:2] if isinstance(value, set) for n in value if isinstance(n, str))
    return mapping, names


def _literal(node: ast.expr | None) -> object:
    try:
        return ast.literal_eval(node) if node is not None else None
    except (ValueError, TypeError, SyntaxError):
        return None


def _paths(value: object) -> Iterator[tuple[str, str]]:
    """Pairs of name and path in a dict of paths or lists of paths; a package's ``__init__.py`` means its folder."""
    for name, places in value.items() if isinstance(value, dict) else ():
        first = places[0] if isinstance(places, list) and places else places
        if isinstance(name, str) and isinstance(first, str) and os.path.isabs(first):
            folder, file = os.path.split(first)
            yield name, folder if file == "__init__.py" else first


def _importable(roots: Iterable[str], path: str, name: str) -> set[str]:
    """Import names directly in `roots`. In a flat layout, the package with the distribution's name if there is one."""
    found: set[str] = set()
    own = name.replace("-", "_")
    for root in roots:
        here = set(_modules(root))
        if root == path:
            here = {own} if own in here else here - _NOT_PACKAGES
        found |= here
    return found


def _modules(root: str) -> Iterator[str]:
    try:
        entries = list(os.scandir(root))
    except OSError:
        return
    for entry in entries:
        stem, suffix = os.path.splitext(entry.name)
        if suffix == ".py" and stem.isidentifier() and entry.is_file():
            yield stem
        elif entry.name.isidentifier() and os.path.exists(os.path.join(entry.path, "__init__.py")):
            yield entry.name
