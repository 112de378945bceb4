"""A node that starts Python before it has everything: the base, the filler, and what they come to in the end."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from likewise.model.layer import LayerKind
from likewise.model.outline import MOST_DATA
from likewise.model.verify import DifferenceKind
from likewise.node.cache import open_cache
from likewise.node.expiry import prune
from likewise.node.growing import key, wait_until_whole
from likewise.node.verify import verify_prefix
from support.nodes import distribution, layer, real_kit, start
from support.streams import Make, Stream, content, eventually, streams

STAY = "import sys; print('up', flush=True); sys.stdin.read()"

TRY_LARGE = """
import sys
print("up", flush=True)
for line in sys.stdin:
    try:
        import large
    except ImportError as error:
        print(error, flush=True)
    else:
        print("there", flush=True)
"""

RICH = distribution(
    "richone",
    {
        "purelib/richone/__init__.py": b"def main(): print('rich')\n",
        "purelib/richone/link.py": "__init__.py",
        "purelib/both.py": b"both\n",
        "purelib/richone.pth": b"richone_more\nimport sys\n",
        "purelib/richone_more/more.py": b"m = 1\n",
        "scripts/plain": (b"#!python\nimport richone\nprint('plain')\n", True),
        "scripts/other.sh": (b'#!/bin/sh\necho other "$@"\n', True),
        "scripts/clash": (b"#!/bin/sh\necho content\n", True),
        "scripts/notes": b"not executable",
        "data/share/one/icon": b"icon",
        "headers/one/one.h": b"h",
    },
    entry_points="[console_scripts]\nrich = richone:main\ntwice = richone:main\nclash = richone:main\n",
)
OTHER = distribution(
    "other",
    {"purelib/both.py": b"both\n", "purelib/other/x.py": b"x\n", "data/näme 🚀": b""},
    entry_points="[console_scripts]\ntwice = other:main\nnotes = other:main\n",
)
PYC = layer("richone", {"purelib/richone/__pycache__/__init__.cpython-311.pyc": b"pyc"}, kind=LayerKind.BYTECODE)
NATIVE = layer("native", {"native/libpq.so.5": b"elf"}, kind=LayerKind.NATIVE)
CODE = [layer(f"code-{n}", {f"code/code-{n}/mine{n}.py": b"m\n"}, kind=LayerKind.CODE) for n in (1, 2)]
LARGE = distribution("large", {"purelib/large.py": b"#" * 5_000_000})
SMALL = [distribution(f"small{n}", {f"purelib/small{n}.py": b"v = %d\n" % n}) for n in range(4)]


@pytest.fixture
def stream_of(tmp_path: Path) -> Iterator[Make]:
    with streams(tmp_path) as make:
        yield make


def grown(stream: Stream) -> bool:
    return (stream.prefix / "launch").exists() and not (stream.prefix / "growing").exists()


def leftovers(stream: Stream) -> list[str]:
    return os.listdir(stream.cache / "tmp")


def test_comes_to_the_same(stream_of: Make) -> None:
    """A prefix that grew has the same files, contents and modes as one that was made at once, and nothing else."""
    stream = stream_of(
        RICH, OTHER, LARGE, NATIVE, *CODE, bytecode={"richone": PYC}, before=("code-1",), after=("code-2",)
    )
    with stream.running(STAY) as process:
        assert process.stdout and process.stdout.readline() == "up\n", process.communicate()[1]
        eventually(lambda: grown(stream))
        eventually(lambda: not leftovers(stream))
        streamed = content(stream.prefix)
    report = verify_prefix(str(stream.prefix))
    assert not report.differences
    shutil.rmtree(stream.prefix)
    done = start(stream.launch(stream=False), "-c", "")
    assert done.returncode == 0, done.stderr
    at_once = content(stream.prefix)
    assert streamed.keys() == at_once.keys()
    assert {path for path in streamed if streamed[path] != at_once[path]} == set()
    assert verify_prefix(str(stream.prefix)).files == report.files


def test_python_starts_first(stream_of: Make) -> None:
    """Python runs while a layer is on its way: its metadata, its scripts and its folders are there, its modules not."""
    stream = stream_of(RICH, *CODE, *SMALL, requires={"richone": ["small1"]}, after=("code-2",))
    stream.hold(RICH, CODE[1])
    code = (
        "import importlib.metadata as m, os, sys\n"
        "d = m.distribution('richone')\n"
        "print(d.version, len(d.files), sorted(os.listdir(sys.prefix + '/bin')))\n"
        "print([p[len(sys.prefix):] for p in sys.path if p.endswith(('code-2', 'richone_more'))], flush=True)\n"
        "sys.stdin.read()"
    )
    with stream.running(code) as process:
        assert process.stdout
        first, second = process.stdout.readline(), process.stdout.readline()
        assert first.startswith("1.0 17 ['clash', 'notes', 'other.sh', 'plain', 'python',"), process.communicate()[1]
        assert "code/code-2" in second and "richone_more" in second
        eventually(lambda: all(map(stream.is_there, SMALL)))
        assert not stream.is_there(RICH)
        assert (stream.prefix / "share/one/icon").read_bytes() == b"icon"  # found by its path alone
        needs = dict(line.split("\t") for line in Path(stream.growing.place("map")).read_text().splitlines())
        wanted = f"{key(RICH.digest)} {key(SMALL[1].digest)}"
        assert needs["richone"] == needs["more"] == needs["bin/plain"] == wanted
        assert needs["mine2"] == key(CODE[1].digest) and "msgspec" not in needs and "likewise" not in needs
        stream.release(RICH, CODE[1])
        eventually(lambda: grown(stream))
    assert not verify_prefix(str(stream.prefix)).differences


HOOK = distribution("hook", {"purelib/hooked.py": b"print('hooked')\n", "purelib/hook.pth": b"import hooked\n"})


def test_what_python_imports_at_its_start(stream_of: Make) -> None:
    """A layer that every Python imports by a ``.pth`` file of its own is there from the beginning: nobody waits for it.

    Data that is much is not, and is waited for with the module.
    """
    much = distribution("much", {"purelib/much.py": b"", "data/share/much": b"#" * (MOST_DATA + 1)})
    stream = stream_of(HOOK, much)
    stream.hold(much)
    code = "import os, sys; path = sys.prefix + '/share/much'; print(os.path.exists(path), flush=True)\n"
    with stream.running(f"{code}import much; print(os.path.getsize(path))") as process:
        assert process.stdout
        assert [process.stdout.readline() for _ in range(2)] == ["hooked\n", "False\n"], process.communicate()[1]
        needs = [line.split("\t")[0] for line in Path(stream.growing.place("map")).read_text().splitlines()]
        assert needs == ["much"]
        stream.release(much)
        assert process.communicate(timeout=30)[0] == f"{MOST_DATA + 1}\n"
        eventually(lambda: grown(stream))
    assert not verify_prefix(str(stream.prefix)).differences


def test_imports_and_scripts_wait(stream_of: Make) -> None:
    """What a process imports, and a script that is started, waits for its layer, and works then as ever."""
    stream = stream_of(RICH, *SMALL)
    stream.hold(RICH)
    code = "import sys; print('up', flush=True); import richone, more; richone.main()"
    with stream.running(code) as process:
        assert process.stdout and process.stdout.readline() == "up\n", process.communicate()[1]
        script = subprocess.Popen([stream.prefix / "bin/other.sh", "a b"], stdout=subprocess.PIPE, text=True)
        eventually(lambda: all(map(stream.is_there, SMALL)))
        assert process.poll() is None and script.poll() is None
        stream.release(RICH)
        assert process.communicate(timeout=30)[0] == "rich\n"
        assert script.communicate(timeout=30)[0] == "other a b\n"


def test_killed_filler(stream_of: Make) -> None:
    """When the filler is killed its helpers end with it, and the next start has another one go on from there."""
    stream = stream_of(RICH, OTHER, LARGE, *SMALL)
    stream.hold(LARGE)
    with stream.running(STAY) as process:
        assert process.stdout and process.stdout.readline() == "up\n"
        eventually(lambda: stream.is_there(SMALL[0]) and stream.is_there(RICH))
        killed = eventually(stream.filler)
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: stream.filler() is None)
        assert not grown(stream)
        with stream.running(STAY) as second:
            assert second.stdout and second.stdout.readline() == "up\n"
            eventually(lambda: stream.filler() not in (None, killed))
            stream.release(LARGE)
            eventually(lambda: grown(stream))
    assert not verify_prefix(str(stream.prefix)).differences
    eventually(lambda: not leftovers(stream))  # what stood for what was missing is removed last


def test_import_brings_the_filler_back(stream_of: Make) -> None:
    """A process that waits for a layer when the filler is killed has another one started, and goes on when it comes."""
    stream = stream_of(RICH, *SMALL)
    stream.hold(RICH)
    with stream.running("print('up', flush=True); import richone; richone.main()") as process:
        assert process.stdout and process.stdout.readline() == "up\n"
        eventually(lambda: all(map(stream.is_there, SMALL)))
        killed = eventually(stream.filler)
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: stream.filler() not in (None, killed))
        stream.release(RICH)
        assert process.communicate(timeout=30) == ("rich\n", "")


def test_killed_in_the_middle_of_a_layer(stream_of: Make) -> None:
    """What was laid out by half, as links or as copies, is completed, and files that others hold stay as they are."""
    stream = stream_of(RICH)
    stream.hold(RICH)
    with stream.running(STAY) as process:
        assert process.stdout and process.stdout.readline() == "up\n"
        killed = eventually(stream.filler)
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: stream.filler() is None)
        site = next(stream.prefix.glob("lib/*/site-packages"))
        (site / "both.py").write_bytes(b"both\n")  # as a copy makes it, where there are no hard links
        (site / "both.py").chmod(0o444)
        before = (site / "both.py").stat().st_ino
        (stream.prefix / "growing/tmp/4711").write_bytes(b"by half")
        subprocess.run([stream.growing.place("fill")], check=True)
        stream.release(RICH)
        eventually(lambda: grown(stream))
        assert (site / "both.py").stat().st_ino == before
    assert not verify_prefix(str(stream.prefix)).differences


def test_layer_that_nobody_has(stream_of: Make) -> None:
    """A layer that can't be had says why, all others come, and as soon as it can be had it is tried again."""
    stream = stream_of(RICH, *SMALL)
    archive = stream.archive(RICH).read_bytes()
    stream.archive(RICH).unlink()
    with stream.running(STAY) as process:
        assert process.stdout and process.stdout.readline() == "up\n"
        eventually(lambda: stream.growing.failed())
        assert "No source has a sound copy of the layer" in stream.growing.reason(key(RICH.digest))
        eventually(lambda: all(map(stream.is_there, SMALL)))
        with stream.running(STAY, stream=False) as other:  # it waits for all, so it says what is missing
            (found,) = verify_prefix(str(stream.prefix)).differences
            _, said = other.communicate(timeout=60)
            assert other.returncode == 15 and "richone: " in said and len(said.splitlines()) == 1
        assert (found.kind, found.layer) == (DifferenceKind.MISSING, "richone")
        assert "No source has a sound copy" in found.actual
        cache = open_cache(str(stream.cache))
        assert prune(cache).prefixes == ()  # it does not hold the cache's lock any more
        stream.archive(RICH).write_bytes(archive)
        assert wait_until_whole(str(stream.prefix), stream.manifest) == {}
        assert grown(stream)
    assert not verify_prefix(str(stream.prefix)).differences


def test_import_of_what_nobody_has(stream_of: Make) -> None:
    """The import says which layer is missing, and why; what does not need it goes on, and scripts fail likewise."""
    stream = stream_of(RICH, *SMALL)
    stream.archive(RICH).unlink()
    code = (
        "import small0, small3\ntry:\n    import richone\nexcept ImportError as error:\n"
        "    print(error.name, str(error).replace(chr(10), ' '), flush=True)\nimport sys; sys.stdin.read()"
    )
    with stream.running(code) as process:
        assert process.stdout
        said = process.stdout.readline()
        assert said.startswith("richone ") and "No source has a sound copy of the layer" in said
        done = subprocess.run([stream.prefix / "bin/other.sh"], capture_output=True, text=True, check=False)
        assert done.returncode and done.stdout == "" and "No source has a sound copy" in done.stderr


@pytest.mark.root
def test_full_disk(stream_of: Make) -> None:
    """Who imports what there is no room for is told so, though the filler's log can't say it; later there is room."""
    stream = stream_of(LARGE)
    stream.hold(LARGE)
    stream.cache.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=500m,mode=700", "likewise-test", stream.cache], check=True)
    try:
        with stream.running(TRY_LARGE) as process:
            assert process.stdin and process.stdout and process.stdout.readline() == "up\n"
            pid = eventually(stream.filler)
            ballast = fill_up(stream.cache)
            stream.release(LARGE)
            assert "The node's disk is full" in ask(process)
            assert stream.filler() == pid
            ballast.unlink()
            eventually(lambda: ask(process) == "there\n")
        eventually(lambda: stream.filler() is None)
    finally:
        subprocess.run(["umount", "-l", stream.cache], check=True)


def fill_up(folder: Path) -> Path:
    """A file that has all that is left of the folder's disk."""
    path = folder / "ballast"
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass
    return path


def ask(process: subprocess.Popen[str]) -> str:
    """What the process says to a line."""
    assert process.stdin and process.stdout
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline()


def test_wanted_layers_pass_those_that_hang(stream_of: Make) -> None:
    """What is asked for is laid out although more layers than there are cores keep their readers waiting."""
    hang = [distribution(f"hang{n}", {f"purelib/hang{n}.py": b""}) for n in range(os.cpu_count() or 1)]
    stream = stream_of(*hang, LARGE)
    stream.hold(*hang)
    with stream.running(STAY) as process:
        assert process.stdout and process.stdout.readline() == "up\n"
        assert not stream.is_there(LARGE)
        eventually(lambda: stream.growing.want([key(LARGE.digest)]) or stream.is_there(LARGE))  # it may not listen yet
        assert not any(map(stream.is_there, hang))


def test_first_ones_first(stream_of: Make) -> None:
    """The layers that a start names come first, in that order, each with what it requires."""
    layers = [distribution(f"l{n}", {f"purelib/l{n}.py": b""}) for n in range(6)]
    stream = stream_of(*layers, requires={"l4": ["l5"]})
    one = {min(os.sched_getaffinity(0))}
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, one)  # with one helper the order can be seen
    try:
        stream.hold(layers[0])
        with stream.running(STAY, first=("l4", "no-such", "l2", "l0")) as process:
            assert process.stdout and process.stdout.readline() == "up\n"
            eventually(lambda: stream.is_there(layers[2]))
            assert [n for n in range(6) if stream.is_there(layers[n])] == [2, 4, 5]
            when = [(stream.prefix / "growing/there" / key(layers[n].digest)).stat().st_mtime_ns for n in (4, 5, 2)]
            assert when == sorted(when)
    finally:
        os.sched_setaffinity(0, before)


def test_many_starters(stream_of: Make) -> None:
    """Several that start at once share one base and one filler."""
    stream = stream_of(*SMALL)
    stream.hold(SMALL[0])
    with stream.running(STAY) as a, stream.running(STAY) as b, stream.running(STAY) as c:
        for process in (a, b, c):
            assert process.stdout and process.stdout.readline() == "up\n", process.communicate()[1]
        inode = stream.prefix.stat().st_ino
        eventually(stream.filler)
        time.sleep(1.5)  # a second filler would have given up by now
        assert filler_processes(stream) == {stream.filler()}
        stream.release(SMALL[0])
        eventually(lambda: grown(stream))
        assert stream.prefix.stat().st_ino == inode
    assert not verify_prefix(str(stream.prefix)).differences


def filler_processes(stream: Stream) -> set[int]:
    """Processes with the filler's log as their standard error, helpers left out."""
    log = stream.growing.place("log")
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.readlink(entry / "fd/2") == log:
                    found[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    return {pid for pid, parent in found.items() if parent not in found}


def test_nobody_uses_it(stream_of: Make) -> None:
    """When the last process of a prefix has ended the filler ends, and whoever wants all of it completes it later."""
    stream = stream_of(*SMALL)
    stream.hold(SMALL[0])
    with stream.running("") as process:
        assert process.wait(timeout=30) == 0
    eventually(lambda: stream.filler() is None)
    assert not grown(stream)
    with stream.running("print('all')", stream=False) as process:
        stream.release(SMALL[0])
        assert process.communicate(timeout=30) == ("all\n", "")
    assert grown(stream)


def test_unused_expires(stream_of: Make) -> None:
    """A prefix that nobody completed is removed like any other that nobody uses, its outline after it."""
    stream = stream_of(*SMALL)
    stream.hold(SMALL[0])
    with stream.running(STAY) as process:
        assert process.stdout and process.stdout.readline() == "up\n"
        week = time.time() + 8 * 86400
        outline = stream.manifest.outline
        assert outline
    cache = open_cache(str(stream.cache))
    assert prune(cache).prefixes == ()
    assert os.path.exists(cache.listing(outline))
    assert prune(cache, now=week).prefixes == (stream.manifest.id[:16],)
    assert prune(cache, now=week + 8 * 86400).prefixes == ()
    assert not os.path.exists(cache.listing(outline))


def test_without_outline(tmp_path: Path) -> None:
    """A manifest without an outline is laid out whole before Python starts, also when streaming is asked for."""
    manifest = real_kit().with_layers(*SMALL)
    code = "import os, sys; print(os.path.exists(sys.prefix + '/growing'))"
    done = start(real_kit().launch(tmp_path / "plain", manifest, stream=True, first=("small0",)), "-c", code)
    assert done.stdout == "False\n", done.stderr


def test_lost_outline(stream_of: Make) -> None:
    """Without the outline that the manifest names Python starts when everything is there, and it is said why."""
    stream = stream_of(*SMALL)
    assert stream.manifest.outline
    shutil.rmtree(stream.store / "layers" / stream.manifest.outline[:2])
    put_back = [s for s in SMALL if not stream.archive(s).exists()]
    assert not put_back
    done = start(stream.launch(), "-c", "import small0; print(small0.v)")
    assert done.stdout == "0\n" and "outline" in done.stderr and len(done.stderr.splitlines()) == 1


def test_damaged_kit(stream_of: Make) -> None:
    """Python starts from the kit's files as they are, and one that is not what its layer says is replaced soon."""
    stream = stream_of(*SMALL)
    assert start(real_kit().launch(stream.cache), "-c", "").returncode == 0
    (file,) = stream.cache.glob("kits/*/tree/purelib/msgspec/json.py")
    text = file.read_bytes()
    file.unlink()  # it has another name where the layer is
    file.write_bytes(text + b"WRONG = True\n")
    with stream.running(STAY) as process:
        assert process.stdout and process.stdout.readline() == "up\n"
        eventually(lambda: grown(stream))
        assert next(stream.prefix.glob("lib/*/site-packages/msgspec/json.py")).read_bytes() == text
    assert not verify_prefix(str(stream.prefix)).differences


def test_contradiction(stream_of: Make) -> None:
    """Two layers that want different contents in one place are a fault that is told, whichever of them comes first."""
    one, two = (distribution(n, {"purelib/same.py": n.encode(), "scripts/x": (n.encode(), True)}) for n in ("a1", "b2"))
    stream = stream_of(one, two)
    with stream.running(STAY) as process:
        assert process.stdout and process.stdout.readline() == "up\n"
        eventually(lambda: stream.growing.failed())
        (name,) = stream.growing.failed()
        assert "Two layers claim" in stream.growing.reason(name)
