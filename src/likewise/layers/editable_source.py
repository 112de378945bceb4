"""What an editable can import from its tree: compared with its wheel, and shipped as it is when there is no wheel."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from likewise.layers.source_tree import SourceTree, TreeFile
from likewise.model.digest import digest_bytes
from likewise.model.editable import Editable
from likewise.model.identity import GENERATED_METADATA
from likewise.model.layer import FileEntry, LayerKind, LayerSource, SourceFile, layer_source
from likewise.model.snapshot import Problem, Severity

_COMPILED = (".so", ".pyd", ".pyx", ".c", ".cc", ".cpp", ".cxx", ".rs", ".f", ".f90", ".f77", ".cu")
_BUILDS_BINARIES = re.compile(
    r"ext_modules|Extension\(|scikit[-_]build|scikit_build_core|mesonpy|meson-python|maturin|setuptools[-_]rust"
)
_BUILD_SCRIPTS = frozenset({"setup.py", "conftest.py", "noxfile.py"})


class Imports:
    """Where files are found by imports, with their real paths resolved once."""

    def __init__(self, editable: Editable) -> None:
        self._mapping = [(os.path.realpath(path), name.replace(".", "/")) for name, path in editable.mapping.items()]
        self._roots = [os.path.realpath(root) for root in editable.roots]
        self._own = tuple(name.replace(".", "/") for name in editable.imports)

    def find(self, path: str) -> tuple[str, bool] | None:
        """Path of the file `path` (absolute, real) as imports see it, and whether it is in one of the editable's own
        import packages; None when it can't be imported."""
        for real, name in self._mapping:
            if path == real:
                return name + os.path.splitext(real)[1], True
            if path.startswith(real + os.sep):
                return f"{name}/{_relative(path, real)}", True
        for root in self._roots:
            if path.startswith(root + os.sep):
                relative = _relative(path, root)
                return relative, any(relative.startswith((own + "/", own + ".")) for own in self._own)
        return None


def package_folders(editable: Editable) -> list[str]:
    """The directories (real) of its import packages."""
    found = [os.path.realpath(path) for path in editable.mapping.values()]
    found += [os.path.realpath(os.path.join(r, *n.split("."))) for r in editable.roots for n in editable.imports]
    return [path for path in dict.fromkeys(found) if os.path.isdir(path)]


def missing_from_wheel(editable: Editable, tree: SourceTree, layer: LayerSource) -> list[Problem]:
    """Name the Python files that the editable can import here and that its wheel lacks."""
    there = {f.entry.path.removeprefix("purelib/") for f in layer.files if f.entry.path.startswith("purelib/")}
    built = {_stem(path) for path in there if path.endswith(".so")}
    own: list[str] = []
    around: Counter[str] = Counter()
    for path, _, belongs in _importable(editable, tree):
        if not path.endswith((".py", ".so")) or path in there or (path.endswith(".so") and _stem(path) in built):
            continue
        if belongs:
            own.append(path)
        elif path not in _BUILD_SCRIPTS and all(part.isidentifier() for part in path[:-3].split("/")):
            around[path.split("/")[0]] += 1
    problems = []
    if own:
        message = f"{editable.name} can import {_listed(own)} here, but its wheel does not have it, nor will the nodes."
        problems.append(
            Problem(
                code="missing-from-wheel",
                subject=editable.name,
                message=f"{message} Add it to the package's build configuration.",
            )
        )
    if around:
        problems.append(
            Problem(
                code="beside-the-package",
                subject=editable.name,
                message=f"Importable here because {editable.name} is editable, but not part of its wheel: "
                f"{_listed(list(around))}.",
                severity=Severity.NOTE,
            )
        )
    return problems


def is_pure(editable: Editable, tree: SourceTree) -> bool:
    """Whether the sources can be imported as they are: nothing is compiled on the way into a wheel."""
    if _BUILDS_BINARIES.search(tree.build_text) or not _tags_are_pure(editable):
        return False
    return not any(belongs and path.endswith(_COMPILED) for path, _, belongs in _importable(editable, tree))


def source_layer(editable: Editable, tree: SourceTree) -> LayerSource | None:
    """The editable's import packages and its installed metadata as a layer; None without Python files."""
    files = [
        SourceFile(
            entry=FileEntry(path=f"purelib/{path}", sha256=file.sha256, size=file.size, executable=file.executable),
            path=os.path.join(tree.base, file.path),
        )
        for path, file, belongs in _importable(editable, tree)
        if belongs
    ]
    if not any(f.entry.path.endswith(".py") for f in files):
        return None
    return layer_source(LayerKind.DISTRIBUTION, editable.name, editable.version, [*files, *_metadata(editable)])


def _importable(editable: Editable, tree: SourceTree) -> Iterator[tuple[str, TreeFile, bool]]:
    imports = Imports(editable)
    for file in tree.files:
        found = imports.find(os.path.join(tree.base, file.path))
        if found:
            yield found[0], file, found[1]


def _metadata(editable: Editable) -> Iterator[SourceFile]:
    """The files of the installed dist-info that say what the distribution is; an egg-info's under their new names."""
    folder = Path(editable.metadata_path)
    target = f"purelib/{re.sub(r'[-.]+', '_', editable.name)}-{editable.version}.dist-info"
    wanted = {"PKG-INFO": "METADATA", "entry_points.txt": "entry_points.txt", "top_level.txt": "top_level.txt"}
    if folder.suffix == ".dist-info":
        target = f"purelib/{folder.name}"
        paths = [p for p in folder.rglob("*") if p.is_file() and p.name not in GENERATED_METADATA]
        wanted = {p.relative_to(folder).as_posix(): p.relative_to(folder).as_posix() for p in paths}
    for name, new_name in wanted.items():
        try:
            content = (folder / name).read_bytes()
        except OSError:
            continue
        entry = FileEntry(path=f"{target}/{new_name}", sha256=digest_bytes(content), size=len(content))
        yield SourceFile(entry=entry, data=content)


def _tags_are_pure(editable: Editable) -> bool:
    try:
        text = Path(editable.metadata_path, "WHEEL").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    tags = re.findall(r"^Tag: *(\S+)", text, re.MULTILINE)
    return all(tag.endswith("-none-any") for tag in tags)


def _relative(path: str, folder: str) -> str:
    return path[len(folder) + 1 :].replace(os.sep, "/")


def _stem(path: str) -> str:
    folder, _, name = path.rpartition("/")
    return f"{folder}/{name.partition('.')[0]}"


def _listed(names: Iterable[str], most: int = 10) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
