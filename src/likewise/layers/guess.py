"""What a program will import, told from its source: a guess at what its nodes need first.

Nothing is executed, and nothing depends on the guess but the order in which layers are fetched. So whatever can't be
read, parsed or followed is passed over, and there is a limit to how much is read.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Iterator
from importlib.util import decode_source

from likewise.model.syntax import parse

MAX_SOURCE = 1 << 20
"""Bytes of the largest source that is parsed: larger ones are data."""
MAX_BYTES = 2 << 20
"""Bytes that are parsed in all; that takes about a second."""


def guess_imports(
    script: bytes, modules: Collection[str], read: Callable[[str], bytes], *, package: str = ""
) -> tuple[str, ...]:
    """The top-level names that a script imports, and the loose modules that it imports import, in the order in which
    Python would come across them.

    Imports within functions count where they stand; those under ``if TYPE_CHECKING`` come last and are not followed.

    Parameters
    ----------
    script : bytes
        Its source, in whatever encoding it declares.
    modules : collection of str
        Full names of the modules that are followed; those of packages end with ``.__init__``.
    read : callable
        The source of one of `modules`; OSError when there is none.
    package : str
        The package of the script, when it was started as a module.
    """
    found: dict[str, None] = {}
    late: dict[str, None] = {}
    seen: set[str] = set()
    left = MAX_BYTES - len(script)
    running = [_imports(script, package)]
    while running:
        name, is_late = next(running[-1], ("", False))
        if not name:
            running.pop()
            continue
        (late if is_late else found).setdefault(name.partition(".")[0])
        entered = [] if is_late else [key for key in _sources(name) if key in modules and key not in seen]
        for key in reversed(entered):  # the outermost package runs first
            seen.add(key)
            source = _read(read, key)
            left -= len(source)
            if left >= 0:
                running.append(_imports(source, key.rpartition(".")[0]))
    return tuple({**found, **late})


def _sources(name: str) -> Iterator[str]:
    """The names, as in `modules`, of all that an import of `name` may run, in this order."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        yield ".".join(parts[:end]) + ".__init__"
    yield name


def _read(read: Callable[[str], bytes], name: str) -> bytes:
    try:
        return read(name)
    except OSError:
        return b""


def _imports(source: bytes, package: str) -> Iterator[tuple[str, bool]]:
    """Full names of what `source` imports, as they stand in it, and whether only for type checkers.

    For ``from a import b`` both ``a`` and ``a.b``, which may be a module.
    """
    if len(source) > MAX_SOURCE:
        return
    try:
        tree = parse(decode_source(source))
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # MemoryError: nested too deeply for the parser
        return
    waiting: list[tuple[ast.AST, bool]] = [(tree, False)]
    while waiting:
        node, late = waiting.pop()
        if isinstance(node, ast.Import):
            yield from ((alias.name, late) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, package)
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)] if base else []
            yield from ((name, late) for name in names)
        else:
            waiting += reversed([(child, late or _for_checkers(node, child)) for child in _statements(node)])


def _base(node: ast.ImportFrom, package: str) -> str:
    """What a ``from … import`` imports from; "" when it leads out of the outermost package."""
    if not node.level:
        return node.module or ""
    above = package.split(".")[: max(0, package.count(".") + 2 - node.level)] if package else []
    return ".".join([*above, *([node.module] if node.module else [])]) if above else ""


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """What of `node` may contain import statements."""
    kinds = (ast.stmt, ast.excepthandler, ast.match_case)
    return (child for child in ast.iter_child_nodes(node) if isinstance(child, kinds))


def _for_checkers(node: ast.AST, child: ast.AST) -> bool:
    if not isinstance(node, ast.If) or child not in node.body:
        return False
    test = node.test
    name = test.attr if isinstance(test, ast.Attribute) else test.id if isinstance(test, ast.Name) else ""
    return name == "TYPE_CHECKING"
