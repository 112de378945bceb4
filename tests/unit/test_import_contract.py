"""Who may import whom. The table below is the architecture; this test keeps it true."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import likewise

SOURCE = Path(likewise.__file__).parent
VALUES = {"model", "errors", "events"}
JOINED = {"settings", "stages", "planner", "layers", "store", *VALUES}
ALLOWED = {
    "errors": set(),
    "events": set(),
    "model": {"model", "errors"},
    # The stages know the values and themselves, never each other.
    **{stage: {stage, *VALUES} for stage in ("scanner", "layers", "store", "node")},
    "planner": {"planner", "versions", *VALUES},
    "resolution": {"resolution", "planner", *VALUES},
    "formats": {"formats", "versions", *VALUES},
    "indexes": {"indexes", *VALUES},
    # Between nodes.
    "transport": {"transport", "node", "layers", *VALUES},
    # The edge, and the one place that joins the stages.
    "settings": {*VALUES},
    "stages": {*VALUES},
    "arguments": {*VALUES},
    "versions": {*VALUES},
    "forms": {"layers", "store", *VALUES},
    "threads": set(),
    "packing": {"forms", "layers", "store", "threads", *VALUES},
    "supply": {"forms", "packing", "settings", "stages", "store", *VALUES},
    "compiling": {"forms", *JOINED},
    "nodes_python": JOINED,
    "elsewhere": {"nodes_python", "indexes", "scanner", "versions", *JOINED},
    "conda_elsewhere": {"elsewhere", "nodes_python", "indexes", "resolution", "scanner", *JOINED},
    "conda_meta": {"indexes", "layers", *VALUES},
    "resolving": {
        "compiling",
        "conda_elsewhere",
        "conda_meta",
        "elsewhere",
        "nodes_python",
        "planning",
        "scanner",
        *JOINED,
    },
    "prepared": {"resolving", "packing", "supply", "forms", "node", *JOINED},
    "publishing": {"prepared", "resolving", "compiling", "packing", "supply", "forms", "node", *JOINED},
    "conda_planning": {"formats", "indexes", "resolution", *JOINED},
    "conda_extras": {"asking", "conda_planning", "formats", "indexes", *JOINED},
    "asking": {"indexes", "resolution", *JOINED},
    "planning": {
        "asking",
        "conda_extras",
        "conda_planning",
        "elsewhere",
        "versions",
        "formats",
        "indexes",
        "nodes_python",
        "scanner",
        *JOINED,
    },
    "offers": {"indexes", "resolution", *JOINED},
    "conda_offers": {"indexes", *VALUES},
    "sync": {
        "conda_offers",
        "offers",
        "planning",
        "formats",
        "arguments",
        "publishing",
        "compiling",
        "prepared",
        "forms",
        "resolving",
        "settings",
        "stages",
        "planner",
        "store",
        *VALUES,
    },
    "deploy": {"", "sync", "settings", "store", "node", *VALUES},
    "console": {"console", *VALUES},
    "cluster": {
        "cluster",
        "arguments",
        "transport",
        "sync",
        "settings",
        "stages",
        "node",
        "store",
        "threads",
        "console",
        *VALUES,
    },
    "cli": {"cli", "cluster", "deploy", "sync", "formats", "settings", "console", "", *VALUES},
    "__main__": {"cli"},
}
"""Part of likewise → the parts it may import; "" is the package itself."""

ON_NODES = ("errors", "events", "model", "node")
"""These run on a node's first Python, where the kit has little more than the standard library."""
ON_NODES_THIRD_PARTY = {"msgspec", "backports", "compression"}
HEAVY = {"dask", "distributed", "tornado", "rich", "uv", "click", "cryptography", "packaging"}
HEAVY |= {"platformdirs", "pathspec"}


def part_of(module: str) -> str:
    """``likewise.scanner.files`` → ``scanner``; ``likewise`` → ""."""
    return module.split(".")[1] if "." in module else ""


def imports_of(source: str, module: str, *, package: bool = False) -> Iterator[str]:
    """The absolute names of all modules that `source` imports, at whatever depth it does so."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")
            base = base[: len(base) - node.level + package] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            # `from likewise import scanner` names a part; `from likewise.scanner import files` is one that is named.
            yield from (f"{origin}.{alias.name}" for alias in node.names) if origin == "likewise" else [origin]


def modules(*parts: str) -> Iterator[tuple[str, Path]]:
    """Every module of likewise (or of some parts) with its file."""
    for path in sorted(SOURCE.rglob("*.py")):
        names = list(path.relative_to(SOURCE.parent).with_suffix("").parts)
        name = ".".join(names[:-1] if names[-1] == "__init__" else names)
        if not parts or part_of(name) in parts:
            yield name, path


def imported_parts(names: Iterator[str]) -> set[str]:
    """The parts of likewise among imported modules; a name that is no part comes from the package itself."""
    known = {part_of(name) for name, _ in modules()}
    own = {part_of(name) for name in names if name.split(".")[0] == "likewise"}
    return {part if part in known else "" for part in own}


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("import likewise.scanner.files", "likewise.scanner.files"),
        ("from likewise.scanner import files", "likewise.scanner"),
        ("from likewise import scanner", "likewise.scanner"),
        ("from ..scanner.files import x", "likewise.scanner.files"),
        ("from .. import scanner", "likewise.scanner"),
        ("from . import unpack", "likewise.node"),
        ("def f():\n    from likewise.scanner import files", "likewise.scanner"),
        ("if TYPE_CHECKING:\n    import likewise.scanner", "likewise.scanner"),
    ],
)
def test_no_import_goes_unseen(statement: str, found: str) -> None:
    """Every form of import is seen: absolute, relative, inside a function, for type checkers only."""
    assert list(imports_of(statement, "likewise.node.cache")) == [found]


def test_parts_import_only_what_they_may() -> None:
    """No module imports a part of likewise that the table does not grant to its own part."""
    wrong = []
    for name, path in modules():
        if name == "likewise":
            continue  # lazy, see below
        package = path.name == "__init__.py"
        for part in imported_parts(imports_of(path.read_text("utf-8"), name, package=package)) - ALLOWED[part_of(name)]:
            wrong.append(f"{name} imports likewise.{part}")
    assert wrong == []


def test_node_side_imports_little() -> None:
    """What runs on a node's first Python imports the standard library, msgspec and zstd, and nothing else."""
    fine = {*sys.stdlib_module_names, *ON_NODES_THIRD_PARTY, "likewise"}
    wrong = {
        f"{name} imports {found}"
        for name, path in modules(*ON_NODES)
        for found in imports_of(path.read_text("utf-8"), name)
        if found.split(".")[0] not in fine
    }
    assert wrong == set()


def loaded_by(statement: str) -> set[str]:
    """The names of the modules that a fresh interpreter loads for `statement` alone."""
    show = "print(*sorted(set(sys.modules) - before))"
    script = f"import sys; before = set(sys.modules)\n{statement}\n{show}"
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_node_side_loads_little() -> None:
    """Importing all of the node side loads none of the client's heavy dependencies, and no asyncio."""
    names = [name for name, _ in modules(*ON_NODES) if not name.endswith(".__main__")]
    assert "likewise.node" in names
    loaded = {name.split(".")[0] for name in loaded_by("\n".join(f"import {name}" for name in names))}
    assert loaded & {*HEAVY, "asyncio"} == set()


def test_importing_likewise_loads_nothing() -> None:
    """``import likewise`` loads no other module of ours and no dependency."""
    loaded = loaded_by("import likewise")
    assert {name for name in loaded if name.split(".")[0] not in sys.stdlib_module_names} == {"likewise"}


def test_public_names() -> None:
    """Every public name resolves, `dir` shows exactly them, and any other name is an AttributeError."""
    assert dir(likewise) == sorted(likewise.__all__)
    for name in likewise.__all__:
        assert getattr(likewise, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        likewise.nothing  # noqa: B018
