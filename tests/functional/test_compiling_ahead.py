"""Bytecode that is begun before its client knows all that it needs, with real interpreters and a real store."""

from __future__ import annotations

import marshal
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from likewise.compiling import Compiling
from likewise.errors import LayerError
from likewise.events import Silent
from likewise.forms import Loose, Packed
from likewise.layers.bytecode import Compilation, compile_layers, remove_compiled
from likewise.layers.content import read_content
from likewise.model.digest import digest_bytes
from likewise.model.keys import layer_key
from likewise.model.layer import FileEntry, LayerKind, LayerSource, SourceFile, layer_source
from likewise.model.snapshot import Interpreter
from likewise.settings import Settings, resolve_settings
from likewise.stages import Stages
from likewise.store.local import LocalStore
from support.layers import make_source
from support.values import make_interpreter


def modules(folder: Path, name: str, count: int = 3, **more: bytes) -> LayerSource:
    """A layer of small modules."""
    files = {f"purelib/{name}_{number}.py": b"x = %d\n" % number for number in range(count)}
    return make_source(folder / name, {**files, **{f"purelib/{key}.py": data for key, data in more.items()}}, name=name)


def test_what_is_begun_joins_what_is_known_later(tmp_path: Path) -> None:
    """It is the bytecode that comes of everything at once, nothing is made twice, and all of it is told of at last."""
    one, two = modules(tmp_path, "one", both=b"x = 1\n"), modules(tmp_path, "two", 400, both=b"x = 1\n")
    at_once = compile_layers([one, two], python=sys.executable, work=tmp_path / "w")
    told: list[int] = []
    with Compilation(python=sys.executable, work=tmp_path / "w", jobs=2) as compilation:
        compilation.begin([one])
        compilation.begin([one, two])
        made = compilation.finish([one, two], told.append)
    assert {k: v.digest for k, v in made.layers.items()} == {k: v.digest for k, v in at_once.layers.items()}
    assert made.compiled == sum(told) == 3 + 400 + 1


def test_what_was_begun_for_a_layer_that_is_left_out_after_all_does_no_harm(tmp_path: Path) -> None:
    """Only layers that are asked for at the end are in the answer."""
    one, two = modules(tmp_path, "one"), modules(tmp_path, "two")
    with Compilation(python=sys.executable, work=tmp_path / "w") as compilation:
        compilation.begin([one])
        assert list(compilation.finish([two]).layers) == [two.digest]


def test_what_is_not_waited_for_ends(tmp_path: Path) -> None:
    """Leaving the block ends interpreters and threads, and nothing of what they made stays."""
    with Compilation(python=sys.executable, work=tmp_path / "w", jobs=2) as compilation:
        compilation.begin([modules(tmp_path, "one", 1000)])
        wait_for(lambda: bool(list((tmp_path / "w").glob("*/modules-*"))))
    assert list((tmp_path / "w").iterdir()) == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("likewise-compile")]


def installed(site: Path, count: int, *, folder: str = "package") -> LayerSource:
    """A layer of modules that lie in a site directory, with the bytecode that Python makes of them there."""
    (site / folder).mkdir(parents=True)
    files = []
    for number in range(count):
        name, data = f"{folder}/m{number}.py", b"x = %d\n" % number
        (site / name).write_bytes(data)
        entry = FileEntry(path=f"purelib/{name}", sha256=digest_bytes(data), size=len(data))
        files.append(SourceFile(entry=entry, path=str(site / name)))
    subprocess.run([sys.executable, "-m", "compileall", "-q", site], check=True)
    return layer_source(LayerKind.DISTRIBUTION, "installed", "1", files)


def made_so_far(compilation: Compilation) -> int:
    """For how many modules there is bytecode."""
    return len(compilation._compilers._compiled) if compilation._compilers else 0


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_python_has_in_a_site_directory_is_taken_before_anybody_says_what_is_needed(tmp_path: Path) -> None:
    """It is what would be taken later, and needs neither the sources' bytecode nor another look at them any more."""
    source = installed(tmp_path / "site", 70)
    later = compile_layers([source], python=sys.executable, work=tmp_path / "w")
    remove_compiled(later.layers.values(), work=tmp_path / "w")
    told: list[int] = []
    with Compilation(python=sys.executable, work=tmp_path / "w", jobs=2) as compilation:
        compilation.expect(str(tmp_path / "site"))
        wait_for(lambda: made_so_far(compilation) == 70)
        shutil.rmtree(tmp_path / "site" / "package" / "__pycache__")
        made = compilation.finish([source], told.append)
        assert made_so_far(compilation) == 70
    assert {k: v.digest for k, v in made.layers.items()} == {k: v.digest for k, v in later.layers.items()}
    assert (made.taken, made.compiled, sum(told)) == (70, 0, 70)


def test_what_was_expected_and_is_another_now_is_not_used(tmp_path: Path) -> None:
    """A module that was edited since gets bytecode of its own; others in the folder are not counted."""
    installed(tmp_path / "site", 5)
    work, place = tmp_path / "w", tmp_path / "site" / "package" / "m0.py"
    with Compilation(python=sys.executable, work=work) as compilation:
        compilation.expect(str(tmp_path / "site"))
        wait_for(lambda: made_so_far(compilation) == 5)
        place.write_bytes(b"x = 'new'\n")
        entry = FileEntry(path="purelib/package/m0.py", sha256=digest_bytes(b"x = 'new'\n"), size=10)
        file = SourceFile(entry=entry, path=str(place))
        made = compilation.finish([layer_source(LayerKind.DISTRIBUTION, "edited", "1", [file])])
        ((pyc,),) = (layer.files for layer in made.layers.values())
        code = b"".join(read_content(pyc, made.layers[next(iter(made.layers))]))
    assert (made.taken, made.compiled) == (0, 1)
    assert marshal.loads(code[16:]).co_consts[0] == "new"


def test_what_is_needed_does_not_wait_for_what_is_expected(tmp_path: Path) -> None:
    """A look that would take minutes ends when there is something to do, and at the end."""
    slow = tmp_path / "python"
    change = 'argv[-2] = argv[-2].replace("def find(", "def find(*a): time.sleep(0.3); return seek(*a)\\ndef seek(")'
    slow.write_text(
        f"#!{sys.executable}\nimport os, sys\nargv = sys.argv[1:]\n{change}\n"
        f"os.execv({sys.executable!r}, [{sys.executable!r}, *argv])\n"
    )
    slow.chmod(0o755)
    installed(tmp_path / "site", 400)
    source = modules(tmp_path, "one")
    for needed in ([source], []):
        with Compilation(python=str(slow), work=tmp_path / "w") as compilation:
            compilation.expect(str(tmp_path / "site"))
            wait_for(lambda: made_so_far(compilation) > 0)
            made = compilation.finish(needed)
            assert (len(made.layers), made.compiled) == (len(needed), 3 * len(needed))
            assert made_so_far(compilation) < 200
        remove_compiled(made.layers.values(), work=tmp_path / "w")
        assert list((tmp_path / "w").iterdir()) == []


def test_an_interpreter_that_crashes_while_it_looks_is_replaced(tmp_path: Path) -> None:
    """By one that goes on with what is needed; nothing that is needed is suspected for it."""
    python = tmp_path / "python"
    python.write_text(
        f"#!{sys.executable}\nimport os, re, sys\nargv = sys.argv[1:]\n"
        'argv[-2] = re.sub(r"def look\\(.*:\\n", "def look(root, out):\\n    os.abort()\\n", argv[-2])\n'
        f"os.execv({sys.executable!r}, [{sys.executable!r}, *argv])\n"
    )
    python.chmod(0o755)
    with Compilation(python=str(python), work=tmp_path / "w", jobs=1) as compilation:
        compilation.expect(str(tmp_path))
        wait_for(lambda: len(list((tmp_path / "w").glob("*/modules-*"))) == 2)
        made = compilation.finish([modules(tmp_path, "one", 60)])
    assert made.compiled == 60


def test_an_error_is_raised_by_who_waits(tmp_path: Path) -> None:
    """A source that vanished after it was listed does not disturb what is done meanwhile."""
    source = modules(tmp_path, "one")
    Path(source.files[1].path).unlink()
    with Compilation(python=sys.executable, work=tmp_path / "w") as compilation:
        compilation.begin([source])
        compilation.begin([modules(tmp_path, "two")])
        with pytest.raises(LayerError, match="No such file"):
            compilation.finish([source])
    assert list((tmp_path / "w").iterdir()) == []


@pytest.fixture
def here(tmp_path: Path) -> Settings:
    return msgspec.structs.replace(resolve_settings(), cache=tmp_path / "cache")


@pytest.fixture
def python() -> Interpreter:
    return make_interpreter(executable=sys.executable)


@pytest.mark.parametrize("form", ["packed", "loose"])
def test_what_the_store_has_is_not_made_again(tmp_path: Path, here: Settings, python: Interpreter, form: str) -> None:
    """In either form; what was removed from it is, and so is the bytecode of layers that share a file with it."""
    store = LocalStore(here.store)
    put = Packed(store, level=1).put if form == "packed" else Loose(store).put
    layers = [modules(tmp_path, name) for name in ("one", "two")]
    empty = make_source(tmp_path / "e", {"purelib/data.txt": b""}, name="empty")
    with Compiling(here, store) as compiling:
        compiling.begin(python, layers[:1])
        known, fresh = compiling.finish(python, [*layers, empty], Stages(Silent()))
        assert set(known) == {layer.digest for layer in layers}
        assert {layer.digest for layer in fresh} == set(known.values())
        for layer in fresh:
            put(layer, lambda size: None)
    with Compiling(here, store) as compiling:
        compiling.begin(python, layers)
        assert compiling.finish(python, [*layers, empty], Stages(Silent())) == (known, [])
    gone = known[layers[0].digest]
    assert store.remove(layer_key(gone)) if form == "packed" else store.loose.remove_layer(gone)
    with Compiling(here, store) as compiling:
        again, fresh = compiling.finish(python, layers, Stages(Silent()))
        assert (again, [layer.digest for layer in fresh]) == (known, [gone])


def test_what_disappears_while_the_rest_is_looked_at_is_made_again(
    tmp_path: Path, here: Settings, python: Interpreter
) -> None:
    """What was in the store at the beginning is asked for once more at the end."""
    store, layer = LocalStore(here.store), modules(tmp_path, "one")
    with Compiling(here, store) as compiling:
        known, (made,) = compiling.finish(python, [layer], Stages(Silent()))
        Packed(store, level=1).put(made, lambda size: None)
    with Compiling(here, store) as compiling:
        compiling.begin(python, [layer])
        store.remove(layer_key(made.digest))
        again, fresh = compiling.finish(python, [layer], Stages(Silent()))
    assert again == known
    assert [one.digest for one in fresh] == [made.digest]
