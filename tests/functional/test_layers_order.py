"""Which layers come first: remembered in a real store, guessed from real files."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from likewise.layers.order import LIMIT, Order, Program, running_program
from likewise.model.layer import FileEntry, LayerKind, LayerSource, SourceFile, layer_source
from likewise.model.snapshot import Distribution, Origin, OriginKind, Snapshot
from likewise.scanner.files import hash_file
from likewise.store.local import LocalStore
from support.nodes import layer
from support.values import make_interpreter

PYTHON = "/venv/bin/python"


def snapshot(**imports: str) -> Snapshot:
    """Distributions and what is imported from each."""
    return Snapshot(
        interpreter=make_interpreter(),
        distributions=tuple(
            Distribution(name=name, version="1", origin=Origin(kind=OriginKind.INDEX), imports=tuple(tops.split()))
            for name, tops in imports.items()
        ),
        code=(),
    )


SNAPSHOT = snapshot(scipy="scipy", pyyaml="yaml _yaml", google_a="google", google_b="google", dropped="gone")
LAYERS = [layer(name, {f"purelib/{name}.py": b""}) for name in ("scipy", "pyyaml", "google_a", "google_b")]


def loose(folder: Path, **modules: str) -> LayerSource:
    """A layer of loose modules that lie in `folder`."""
    files = []
    for name, text in modules.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        relative = f"code/code-0/{path.relative_to(folder)}"
        entry = FileEntry(path=relative, sha256=hash_file(str(path)), size=path.stat().st_size)
        files.append(SourceFile(entry=entry, path=str(path)))
    return layer_source(LayerKind.CODE, "code-0", "", files)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """An empty store."""
    return LocalStore(tmp_path / "store")


def order(store: LocalStore, script: Path | None = None, *more: LayerSource, snapshot: Snapshot = SNAPSHOT) -> Order:
    """The order for a script."""
    program = Program(executable=PYTHON, script=str(script) if script else "")
    return Order(program, snapshot, [*LAYERS, *more], store)


def test_a_guess_names_layers(store: LocalStore, tmp_path: Path) -> None:
    """Of what the script and the loose modules import: their layers; of nothing else, be it the standard library."""
    code = loose(tmp_path / "code", mine="import yaml", pkg____init__="", unused="import google")
    script = tmp_path / "script.py"
    script.write_text("import os, gone, mine\nimport scipy as sp")
    assert order(store, script, code).first == ("code-0", "pyyaml", "scipy")


def test_what_is_required_comes_along(store: LocalStore, tmp_path: Path) -> None:
    """Who imports something waits for all that it requires, directly or not: these follow it, each once."""
    script = tmp_path / "script.py"
    script.write_text("import yaml, scipy")
    requires = {"pyyaml": ("google_a",), "google_a": ("google_b", "pyyaml", "dropped"), "scipy": ("google_b",)}
    program = Program(executable=PYTHON, script=str(script))
    assert Order(program, SNAPSHOT, LAYERS, store, requires=requires).first == (
        "pyyaml", "google_a", "google_b", "scipy",
    )  # fmt: skip


def test_what_dask_loads_comes_first(store: LocalStore, tmp_path: Path) -> None:
    """Of what its processes import where it is there: before anything of the program, which can't run until then."""
    script = tmp_path / "script.py"
    script.write_text("import yaml")
    more = snapshot(python_snappy="snappy", pyyaml="yaml", cramjam="cramjam", lz4="lz4")
    layers = [layer(name, {}) for name in ("pyyaml", "cramjam", "python_snappy", "lz4")]
    assert Order(Program(executable=PYTHON, script=str(script)), more, layers, store).first == (
        "lz4", "python_snappy", "pyyaml",
    )  # fmt: skip


def test_a_name_of_several_distributions(store: LocalStore, tmp_path: Path) -> None:
    """All that share a namespace are named."""
    script = tmp_path / "script.py"
    script.write_text("import google.a")
    assert order(store, script).first == ("google_a", "google_b")


def test_an_edited_script_is_read_again(store: LocalStore, tmp_path: Path) -> None:
    """So is an edited loose module; unchanged ones are not parsed twice."""
    script = tmp_path / "script.py"
    script.write_text("import mine")
    code = loose(tmp_path / "code", mine="import yaml")
    assert order(store, script, code).first == ("code-0", "pyyaml")
    (tmp_path / "code" / "mine.py").unlink()  # nobody looks at it now
    assert order(store, script, code).first == ("code-0", "pyyaml")
    assert order(store, script, loose(tmp_path / "code", mine="import scipy")).first == ("code-0", "scipy")
    script.write_text("import yaml, scipy")
    assert order(store, script, code).first == ("pyyaml", "scipy")


def test_a_script_that_is_gone_is_no_error(store: LocalStore, tmp_path: Path) -> None:
    """It was deleted after it had started."""
    assert order(store, tmp_path / "gone.py").first == ()


def test_what_was_loaded_is_remembered(tmp_path: Path) -> None:
    """Another process finds it; what was guessed and not loaded comes after it."""
    script = tmp_path / "script.py"
    script.write_text("import yaml, scipy")
    order(LocalStore(tmp_path / "store"), script).remember(["sys", "scipy", "os", "_yaml", "yaml"])
    (tmp_path / "other.py").write_text("import google")
    later = LocalStore(tmp_path / "store")
    assert order(later, script).first == ("scipy", "pyyaml")
    assert order(later, tmp_path / "other.py").first == ("scipy", "pyyaml", "google_a", "google_b")
    other = Program(executable="/elsewhere/bin/python", script=str(script))
    assert Order(other, SNAPSHOT, LAYERS, later).first == ("pyyaml", "scipy")


def test_what_is_there_from_the_beginning_needs_no_place(store: LocalStore) -> None:
    """Neither in what is guessed nor in what is remembered."""
    ours = Order(Program(executable=PYTHON, names=("yaml", "scipy")), SNAPSHOT, LAYERS, store, base=("pyyaml",))
    assert ours.first == ("scipy",)
    ours.remember(["yaml", "google"])
    assert order(store).first == ("google_a", "google_b")


def test_each_script_has_a_memory_of_its_own(store: LocalStore, tmp_path: Path) -> None:
    """A new one takes over what the last one had loaded."""
    one, two, new = (tmp_path / f"{name}.py" for name in ("one", "two", "new"))
    order(store, one).remember(["scipy"])
    order(store, two).remember(["yaml"])
    assert [order(store, script).first for script in (one, two, new)] == [("scipy",), ("pyyaml",), ("pyyaml",)]
    assert order(store).first == ("pyyaml",)


def test_nothing_loaded_is_nothing_learnt(store: LocalStore) -> None:
    """A worker that did nothing leaves what an earlier one remembered."""
    order(store).remember(["scipy"])
    order(store).remember(["sys", "os"])
    assert order(store).first == ("scipy",)


def test_what_left_the_environment_is_forgotten(store: LocalStore) -> None:
    """A layer that is remembered and is not there any more is not named."""
    order(store).remember(["yaml", "scipy"])
    assert Order(Program(executable=PYTHON), SNAPSHOT, LAYERS[1:], store).first == ("pyyaml",)


@pytest.mark.parametrize("damage", [b"", b"\xff", b"{}", b"[1, 2]", b'["\xff"]', b"[" * 9999, b'["scipy"', b'"scipy"'])
def test_damaged_notes_are_passed_over(store: LocalStore, tmp_path: Path, damage: bytes) -> None:
    """Whatever is in the files: then nothing is remembered, and the guess is made again."""
    script = tmp_path / "script.py"
    script.write_text("import yaml")
    order(store, script).remember(["scipy"])
    notes = [path for path in (tmp_path / "store" / "notes").rglob("*") if path.is_file()]
    assert len(notes) == 3
    for path in notes:
        path.write_bytes(damage)
    assert order(store, script).first == ("pyyaml",)


def test_a_store_that_takes_nothing_is_no_error(store: LocalStore, tmp_path: Path) -> None:
    """A guess is made and nothing remembered where the store can't be written."""
    script = tmp_path / "script.py"
    script.write_text("import yaml")
    (tmp_path / "store").mkdir(exist_ok=True)
    (tmp_path / "store" / "notes").write_text("in the way")
    ours = order(store, script)
    ours.remember(["scipy"])
    assert ours.first == ("pyyaml",)


def test_there_is_a_limit(store: LocalStore) -> None:
    """A command line has only so much room."""
    names = [f"d{n}" for n in range(LIMIT + 50)]
    wide, layers = snapshot(**{name: name for name in names}), [layer(name, {}) for name in names]
    ours = Order(Program(executable=PYTHON, names=tuple(names)), wide, layers, store)
    assert ours.first == tuple(names[:LIMIT])
    ours.remember(reversed(names))
    again = Order(Program(executable=PYTHON, names=tuple(names)), wide, layers, store)
    assert again.first == tuple(reversed(names))[:LIMIT]


def test_the_program_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A script is known by its file; a prompt by the modules that somebody imported there, or took something from."""
    main = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    exec("import os.path as p\nfrom json.decoder import JSONDecoder\nimport csv as _hidden\nx = 1", main.__dict__)
    assert running_program(PYTHON).names == ("posixpath", "json")
    main.__file__, main.__package__ = "script.py", "pkg"
    assert running_program(PYTHON) == Program(executable=PYTHON, script=os.path.abspath("script.py"), package="pkg")
