"""What the layers of an environment put into a prefix, read from where the client has them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

from likewise.model.change import Contents, top_modules
from likewise.model.digest import Digest
from likewise.model.layer import LayerKind, LayerSource
from likewise.model.manifest import ROOT_BASE
from likewise.model.snapshot import Snapshot
from likewise.node.generated import Place, entry_scripts

_SECTION = re.compile(r"^\s*\[(.+?)\]", re.MULTILINE)
_SCRIPTS = frozenset({"console_scripts", "gui_scripts"})
_REQUIREMENT = re.compile(r"[A-Za-z0-9._-]+")


def contents_of(layers: Iterable[LayerSource], python: str) -> dict[Digest, Contents]:
    """The contents of each layer, by digest; the interpreter's are `standard_modules`.

    Parameters
    ----------
    layers : iterable of LayerSource
    python : str
        ``python3.11``.
    """
    found = {}
    for layer in layers:
        paths = () if layer.kind is LayerKind.INTERPRETER else tuple(file.entry.path for file in layer.files)
        text = _entry_points(layer)
        scripts = entry_scripts(text, Place(prefix="/", cache="/", python=python))
        found[layer.digest] = Contents(
            kind=layer.kind,
            name=layer.name,
            paths=(*paths, *(f"scripts/{script.path.removeprefix('bin/')}" for script in scripts)),
            groups=tuple(sorted(set(_SECTION.findall(text)) - _SCRIPTS)),
        )
    return found


def _entry_points(layer: LayerSource) -> str:
    for file in layer.files if layer.kind is LayerKind.DISTRIBUTION else ():
        if file.entry.path.endswith(".dist-info/entry_points.txt") and file.entry.path.count("/") == 2:
            return (Path(file.path).read_bytes() if file.data is None else file.data).decode("utf-8", "replace")
    return ""


def standard_modules(layers: Iterable[LayerSource], python: str) -> frozenset[str]:
    """Top-level modules of the standard library: those that Python knows of, and what else is in the interpreter."""
    libraries = tuple(f"{scheme}/lib/{python}/" for scheme in ("interpreter", ROOT_BASE))
    paths = [
        f"purelib/{file.entry.path.partition(f'/lib/{python}/')[2]}"
        for layer in layers
        if layer.kind is LayerKind.INTERPRETER
        for file in layer.files
        if file.entry.path.startswith(libraries)
    ]
    return top_modules(paths) | sys.stdlib_module_names


def tops_before(snapshot: Snapshot, contents: Iterable[Contents]) -> dict[str, frozenset[str]]:
    """Top-level modules by layer name: as the snapshot knows its distributions, and as `contents` have them."""
    tops = {d.name: frozenset(d.imports) for d in snapshot.distributions}
    for layer in contents:
        tops[layer.name] = tops.get(layer.name, frozenset()) | top_modules(layer.paths)
    return tops


def requirements(snapshot: Snapshot) -> dict[str, frozenset[str]]:
    """Normalized names of what each distribution requires, extras and markers left aside."""
    return {
        d.name: frozenset(
            re.sub(r"[-_.]+", "-", match[0]).lower() for r in d.requires if (match := _REQUIREMENT.match(r))
        )
        for d in snapshot.distributions
    }
