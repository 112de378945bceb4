"""Which layers have to be there before modules of another may run."""

from __future__ import annotations

from likewise.model.layer import LayerKind, LayerSource
from likewise.model.snapshot import Distribution, Origin, OriginKind, Snapshot
from likewise.planner.requirements import layer_requirements
from support.nodes import layer
from support.values import TARGET, make_interpreter

PYTHON = layer("cpython", {"interpreter/bin/python3.11": b""}, kind=LayerKind.INTERPRETER)
CODE = layer("code-0", {"code/code-0/mine.py": b"import a"}, kind=LayerKind.CODE)
NATIVE = layer("native", {"native/libq.so.1": b""}, kind=LayerKind.NATIVE)


def dist(name: str, *requires: str, extras: tuple[str, ...] = ()) -> Distribution:
    """An installed distribution."""
    origin = Origin(kind=OriginKind.INDEX)
    return Distribution(name=name, version="1.0", origin=origin, requires=requires, provides_extras=extras)


def code_of(*distributions: Distribution, **files: dict[str, bytes]) -> list[LayerSource]:
    """Their layers: one module each, unless `files` says otherwise."""
    return [layer(d.name, files.get(d.name.replace("-", "_"), {f"purelib/{d.name}.py": b"1"})) for d in distributions]


def requires(*distributions: Distribution, layers: list[LayerSource] | None = None) -> dict[str, tuple[str, ...]]:
    """What each layer requires."""
    snapshot = Snapshot(interpreter=make_interpreter(), distributions=distributions, code=())
    return layer_requirements(snapshot, TARGET, layers if layers is not None else code_of(*distributions))


def test_requirements_as_they_apply_to_the_target() -> None:
    """Markers are evaluated; names are compared in their normal form; what is not shipped is left out."""
    found = requires(
        dist("a", "B.c>1", "win; sys_platform == 'win32'", "missing", "not a requirement at all", "a[x]"),
        dist("b-c"),
        dist("win"),
    )
    assert found == {"a": ("b-c",), "b-c": (), "win": ()}


def test_an_extra_counts_when_somebody_asks_for_it() -> None:
    """Then what it requires has to be there; extras that nobody asks for would make half of the world wait."""
    plain = dist("a", "fast; extra == 'speed'", "docs; extra == 'docs'", extras=("speed", "docs"))
    rest = (dist("fast"), dist("docs"))
    assert requires(plain, *rest)["a"] == ()
    assert requires(plain, *rest, dist("user", "a[speed]")) == {
        "a": ("fast",), "fast": (), "docs": (), "user": ("a",),
    }  # fmt: skip


def test_libraries_that_nobody_imports_count_with_every_extra() -> None:
    """A distribution without a line of code can only be found by its path, so an import does not wait for it."""
    tensor = dist("tensor", "nv-blas; extra == 'cuda'", "plots; extra == 'cuda'", extras=("cuda",))
    rest = (dist("nv-blas"), dist("plots"))
    blas = {"purelib/nv/__init__.py": b"", "purelib/nv/lib/libblas.so.12": b"elf"}
    layers = code_of(tensor, *rest, nv_blas=blas)
    assert requires(tensor, *rest, layers=layers)["tensor"] == ("nv-blas",)


def test_all_require_the_native_layer() -> None:
    """Libraries from outside the prefix are there before anything that may load them; loose code requires no more."""
    one = dist("a", "b")
    layers = [PYTHON, *code_of(one, dist("b")), CODE]
    assert requires(one, dist("b"), layers=layers) == {"a": ("b",), "b": (), "code-0": ()}
    found = requires(one, dist("b"), layers=[*layers, NATIVE])
    assert found == {"a": ("b", "native"), "b": ("native",), "code-0": ("native",), "native": ()}
