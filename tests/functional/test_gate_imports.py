"""Imports in a prefix that still grows: they wait for what they need, for nothing else, and leave no trace."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from support.growing import eventually, finish
from support.growing_small import Grow, grow, small  # noqa: F401
from support.prefixes import run

pytestmark = pytest.mark.usefixtures("grow")

LOOK = """
import importlib, json, re, sys
found = {}
for name in sys.argv[1:]:
    module = importlib.import_module(name)
    spec = module.__spec__
    found[name] = [
        type(spec).__name__, sorted(vars(spec)), type(spec.loader).__name__, type(module.__loader__).__name__,
        spec.origin, spec.cached, spec.has_location, spec.parent, list(spec.submodule_search_locations or ()),
        module.__package__, getattr(module, "__file__", None), list(getattr(module, "__path__", ())),
        re.sub(" at 0x.*", "", repr(module)),
        sorted(vars(module)), spec.loader is module.__loader__,
    ]
print(json.dumps(found))
"""
NAMES = ("alpha", "beta", "gamma", "delta", "delta.deep", "shared", "shared.one", "shared.two", "tool_lib")


@pytest.mark.parametrize("name", ["alpha", "beta", "gamma", "shared.one", "shared.two", "delta.deep"])
def test_an_import_waits_for_its_layers(grow: Grow, name: str) -> None:  # noqa: F811
    """It says what it waits for, goes on when that has come, and gets what the original environment has."""
    growing = grow("alpha", "beta", "gamma", "delta", "ns-one", "ns-two")
    process = growing.start(f"import {name}, sys; print(sys.modules[{name!r}].__spec__.origin)")
    growing.wait_until_wanted({"shared": "ns-one", "delta": "delta"}.get(name.partition(".")[0], name))
    assert process.poll() is None
    growing.release()
    assert finish(process).startswith(str(growing.site))


def test_an_import_waits_for_nothing_else(grow: Grow) -> None:  # noqa: F811
    """What is needed comes first, and what nobody has asked for may come whenever it likes."""
    growing = grow("gamma", "ns-one", "tool", lazy=True)
    assert growing.run("import alpha; print(alpha.SUM)") == "3"
    assert sorted(growing.log("came")) == ["alpha", "beta"]


def test_modules_are_as_in_the_original(grow: Grow, small: Path) -> None:  # noqa: F811
    """Specs, loaders, files, paths, names: nothing tells a module that was waited for from any other."""
    growing = grow("alpha", "beta", "gamma", "delta", "ns-one", "ns-two", "tool")
    process = growing.start(LOOK, *NAMES)
    growing.wait_until_wanted("alpha")
    growing.release()
    original = run(small / "bin" / "python", "-c", LOOK, *NAMES).strip()
    assert json.loads(finish(process)) == json.loads(original.replace(str(small), str(growing.prefix)))


PROBE = """
import importlib.util, sys
print([importlib.util.find_spec(name) is not None for name in ("alpha", "gamma", "shared", "no_such_module")])
print("alpha" in sys.modules, importlib.util.find_spec("gamma").name)
sys.stdout.flush()
sys.stdin.read()
print(importlib.util.find_spec("gamma").origin, importlib.util.find_spec("shared").loader)
print(importlib.util.find_spec("alpha").submodule_search_locations)
"""


def test_a_look_whether_a_module_could_be_imported_does_not_wait(grow: Grow) -> None:  # noqa: F811
    """Nothing comes because of it, either. Whoever asks where the module is waits, and learns the truth."""
    growing = grow(lazy=True)
    first, _, rest = growing.run(PROBE).partition("\n")
    assert first == "[True, True, True, False]"
    waits, _, rest = rest.partition("\n")
    assert waits == "False gamma"
    assert str(growing.site / "gamma.py") in rest
    assert "NamespaceLoader" in rest or "None" in rest
    assert str([str(growing.site / "alpha")]) in rest
    assert set(growing.log("wanted")) == {"gamma", "ns-one", "ns-two", "alpha", "beta"}


def test_other_modules_do_not_wait(grow: Grow) -> None:  # noqa: F811
    """The standard library, and modules that nobody has, are found, or not, while nothing at all comes."""
    growing = grow(fill=False)
    code = "import json, email\ntry:\n    import no_such_module\nexcept ModuleNotFoundError as error:\n    print(error)"
    assert growing.run(code) == "No module named 'no_such_module'"


OTHERS = """
import importlib, importlib.util, importlib.metadata, importlib.resources, pkgutil, runpy, sys
print(importlib.metadata.version("alpha"), sorted(importlib.metadata.requires("alpha")))
spec = importlib.util.find_spec("gamma")
loader = importlib.util.LazyLoader(spec.loader)
spec.loader = loader
gamma = importlib.util.module_from_spec(spec)
sys.modules["gamma"] = gamma
loader.exec_module(gamma)
print(gamma.VALUE, type(gamma.__spec__.loader).__name__)
print(importlib.resources.files("alpha").joinpath("data.txt").read_text())
print(sorted(m.name for m in pkgutil.iter_modules(__import__("shared").__path__)))
print(importlib.reload(__import__("delta")).VALUE, runpy.run_module("tool_lib")["VALUE"])
print(pkgutil.get_data("alpha", "data.txt"))
import types
sys.modules["beta"] = types.ModuleType("beta")
print(importlib.reload(sys.modules["beta"]).__spec__.loader is sys.modules["beta"].__loader__)
print({"alpha", "gamma", "shared", "tool_lib"} - {m.name for m in pkgutil.iter_modules()})
"""


def test_other_ways_to_import(grow: Grow, small: Path) -> None:  # noqa: F811
    """Lazy loaders, resources, reload, runpy, pkgutil, metadata: the same as in the original environment."""
    growing = grow(lazy=True)
    assert growing.run(OTHERS) == run(small / "bin" / "python", "-c", OTHERS).strip()


def test_a_program_that_is_a_package(grow: Grow) -> None:  # noqa: F811
    """``python -m`` with a package that is not there yet."""
    growing = grow(lazy=True)
    assert growing.run("", "-m", "alpha") == "main 3"


def test_a_pth_file_that_imports(grow: Grow) -> None:  # noqa: F811
    """Python starts as soon as what a ``.pth`` file imports has come, and nobody complains."""
    growing = grow("gamma", fill=False)
    (growing.site / "hook.pth").write_text("import gamma; gamma.STARTED = True\n")
    growing.fill()
    process = growing.start("import gamma; print(gamma.STARTED)")
    growing.wait_until_wanted("gamma")
    growing.release()
    out, errors = process.communicate(timeout=60)
    assert (out, errors) == ("True\n", "")


THREADS = """
import importlib, sys, threading
names = ["alpha", "beta", "gamma", "delta", "shared.one", "shared.two", "tool_lib"] * 4
failed = []
def load(name):
    try:
        importlib.import_module(name)
    except BaseException as error:
        failed.append(repr(error))
threads = [threading.Thread(target=load, args=(name,)) for name in names]
for thread in threads:
    thread.start()
import decimal, xml.dom  # imports in other threads go on
print("started", flush=True)
for thread in threads:
    thread.join()
print(failed)
"""


@pytest.mark.parametrize("seed", range(3))
def test_threads(grow: Grow, seed: int) -> None:  # noqa: F811
    """Threads wait for one module and for different ones, in a circle, too; other imports go on meanwhile."""
    growing = grow("alpha", "beta", "gamma", "delta", "ns-one", "ns-two", "tool", seed=seed, delay=0.01)
    process = growing.start(THREADS)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    growing.release()
    assert finish(process) == "[]"


FAILS = """
import sys
def load(name):
    try:
        __import__(name)
    except ImportError as error:
        return type(error).__name__, error.name, str(error)
    return "fine"
print(load("gamma"))
print(load("alpha"))
"""


def test_a_layer_that_can_not_be_had(grow: Grow) -> None:  # noqa: F811
    """Its imports are errors that say which layer, why, and what to do; so are those of what requires it. Others work.

    It is no ModuleNotFoundError: a program that can do without a module that is not installed must not go on.
    """
    growing = grow(fill=False)
    growing.fail("beta", "No node has it. Start the cluster again.")
    growing.fill()
    gamma, alpha = growing.run(FAILS).splitlines()
    assert gamma == "fine"
    assert alpha == str(
        ("ImportError", "alpha", "alpha can't be imported: beta: No node has it. Start the cluster again.")
    )


def test_a_layer_that_can_be_had_later(grow: Grow) -> None:  # noqa: F811
    """What failed long ago is tried again when it is wanted, and the same process can import it then."""
    growing = grow(fill=False)
    growing.fail("beta", "No node has it.")
    growing.fill()
    code = f"{FAILS}\nimport os\nsys.stdout.flush()\nwhile not os.path.exists(sys.argv[1]): pass\nprint(load('alpha'))"
    process = growing.start(code, str(growing.plan / "go"))
    assert process.stdout is not None
    assert process.stdout.readline() == "fine\n"
    assert "No node has it" in process.stdout.readline()
    growing.fail("beta", "")
    failed = growing.growing / "failed" / growing.digest("beta")
    os.utime(failed, (1, 1))  # long ago
    (growing.plan / "go").touch()
    assert finish(process) == "fine"


def test_a_layer_that_does_not_come(grow: Grow) -> None:  # noqa: F811
    """An import gives up after ``LIKEWISE_GATE_TIMEOUT`` seconds, names the layers, and says what to do."""
    growing = grow("alpha", "beta")
    out = growing.run(FAILS, LIKEWISE_GATE_TIMEOUT="0.3")
    assert "alpha, beta did not arrive within 0.3 s. Look into this node's log" in out.splitlines()[1]


END = """
import sys
print(type(sys.meta_path[0]).__name__, flush=True)
sys.stdin.readline()
import alpha, gamma, shared.one
print([type(f).__name__ for f in sys.meta_path if type(f).__name__ == "Gate"], alpha.SUM)
"""


def test_the_gate_is_gone_when_all_is_there(grow: Grow) -> None:  # noqa: F811
    """A process that began while the prefix grew loses it with the next import, a later one never has it."""
    growing = grow("alpha")
    argv = [growing.python, "-c", END]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdin is not None
    assert process.stdout.readline() == "Gate\n"
    growing.release()
    eventually(lambda: not growing.growing.exists())
    process.stdin.write("\n")
    assert finish(process) == "[] 3"
    assert growing.run("import sys; print(type(sys.meta_path[0]).__name__, 'likewise' in sys.modules)") == "type False"


def test_the_gate_loads_next_to_nothing(grow: Grow) -> None:  # noqa: F811
    """Every Python of the prefix starts with it: beyond likewise itself it needs only what Python has loaded anyway."""
    growing = grow(fill=False)
    show = "import sys; print(*sorted(sys.modules))"
    with_gate = set(growing.run(show).split())
    (growing.site / "000-likewise-gate.pth").write_text("import likewise.node\n")
    assert with_gate - set(growing.run(show).split()) <= {"likewise.node.gate", "errno"}
