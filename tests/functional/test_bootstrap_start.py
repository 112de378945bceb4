"""bootstrap.sh: from an empty cache to a running Python, with nothing but sh, tar, gzip, mkdir, mv and rm."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from likewise.layers.kit import write_kit
from likewise.model.digest import Digest
from likewise.model.layer import LayerKind
from likewise.node.cache import host_name
from support.masking import masked
from support.nodes import SHELLS, distribution, few_tools, layer, real_kit, start
from support.prefixes import clean_environ

WHERE = "import os, sys; print(sys.prefix, os.getcwd(), os.getpid(), sys.argv[1:], sep='\\n')"


@pytest.mark.parametrize("name", SHELLS)
def test_cold_and_warm(tmp_path: Path, name: str) -> None:
    """Every usual shell starts it, first from nothing and then from what is there, wherever the cache lies."""
    cache = tmp_path / 'a cache\'s 🚀 "folder" $HOME'
    launch = real_kit().launch(cache)
    for _ in range(2):
        done = start(launch, "-c", WHERE, "an arg", "$x", "", shell=SHELLS[name])
        assert done.returncode == 0, done.stderr
        prefix, cwd, pid, argv = done.stdout.splitlines()
        assert prefix == str(cache / "prefixes" / launch.manifest[:16])
        assert cwd == str(cache / "work" / f"{host_name()}.{pid}")
        assert argv == "['an arg', '$x', '']"
        assert done.stderr == ""


@pytest.mark.parametrize("compressed", [False, True])
def test_few_programs_are_needed(tmp_path: Path, compressed: bool) -> None:
    """On a machine that has neither Python nor curl, wget, xz, zstd, sha256sum, openssl nor flock it starts as well."""
    kit = real_kit()
    launch = kit.launch(tmp_path / "cache")
    if compressed:
        with (tmp_path / "kit.tar.gz").open("wb") as out:
            sha256 = write_kit(kit.manifest, {s.digest: s for s in kit.layers}, out, level=1)
        launch = kit.launch(tmp_path / "cache", kit=str(tmp_path / "kit.tar.gz"), kit_sha256=sha256)
    done = start(launch, "-c", WHERE, shell=["/bin/sh"], env={"PATH": str(few_tools(tmp_path / "tools"))})
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("program", ["sha256sum", "openssl"])
def test_kit_is_checked(tmp_path: Path, program: str) -> None:
    """Where the machine can compute a sha256 a kit with another one is refused, and nothing of it is kept."""
    cache = tmp_path / "cache"
    launch = real_kit().launch(cache, kit_sha256=Digest("0" * 64))
    done = start(launch, "-c", "", shell=["/bin/sh"], env={"PATH": str(few_tools(tmp_path / "tools", program))})
    assert done.returncode == 15
    assert done.stderr.startswith(f"likewise: The kit {launch.kit} is damaged") and len(done.stderr.splitlines()) == 1
    assert os.listdir(cache / "kits") == os.listdir(cache / "tmp") == []


@pytest.mark.root
def test_nothing_of_the_original_is_used(tmp_path: Path) -> None:
    """The replica starts, cold and warm, and imports extension modules, while the original prefix is hidden."""
    launch = real_kit().launch(tmp_path / "cache")
    code = "import ssl, sqlite3, ctypes, msgspec, sys; print([p for p in sys.path if not p.startswith(sys.prefix)])"
    hide = {sys.prefix, sys.base_prefix} - {"/usr"}
    for _ in range(2):
        done = masked([*launch.argv(), "-c", code], hide)
        assert done.returncode == 0, done.stderr
        assert done.stdout == "['']\n"


def test_entry_point_scripts_run(tmp_path: Path) -> None:
    """Scripts work wherever the prefix lies: plainly, with a path of more than 127 bytes, and with spaces in it."""
    kit = real_kit()
    tool = distribution(
        "tool",
        {
            "purelib/tool.py": b"import sys\ndef main():\n    print('tool', sys.argv[1:])\n    return 7\n",
            "scripts/plain": (b"#!python\nimport sys\nprint('plain', sys.prefix)\n", True),
        },
        entry_points="[console_scripts]\ntool = tool:main\n",
    )
    manifest = kit.with_layers(tool)
    for folder in ("cache", "x" * 120, "with space"):
        cache = tmp_path / folder
        assert start(kit.launch(cache, manifest), "-c", "").returncode == 0
        prefix = cache / "prefixes" / manifest.id[:16]
        done = subprocess.run([prefix / "bin/tool", "a b", "c"], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (7, "tool ['a b', 'c']\n"), done.stderr
        done = subprocess.run([prefix / "bin/plain"], capture_output=True, text=True, check=False)
        assert done.stdout == f"plain {prefix}\n" and done.stderr == ""


def test_code_roots_have_their_order(tmp_path: Path) -> None:
    """Loose code comes before the standard library or after site-packages, as it did on the client."""
    kit = real_kit()
    modules = {"first": ("mine", "this"), "second": ("mine",), "last": ("last", "pkg")}
    roots = [
        layer(root, {f"code/{root}/{name}.py": f"w = '{root}'\n".encode() for name in names}, kind=LayerKind.CODE)
        for root, names in modules.items()
    ]
    package = distribution("pkg", {"purelib/pkg.py": b"w = 'site-packages'\n"})
    manifest = kit.with_layers(package, *roots, before=("first", "second"), after=("last",))
    code = "import mine, this, last, pkg; print(mine.w, this.w, last.w, pkg.w)"
    done = start(kit.launch(tmp_path / "cache", manifest), "-c", code)
    assert done.stdout == "first first last site-packages\n", done.stderr


def test_prefix_does_not_change_by_running(tmp_path: Path) -> None:
    """Importing writes no bytecode into the prefix, nor does a child process."""
    kit = real_kit()
    plain = distribution("plain", {"purelib/plain.py": b"x = 1\n"})
    launch = kit.launch(tmp_path / "cache", kit.with_layers(plain))
    code = "import plain, subprocess, sys; subprocess.run([sys.executable, '-c', 'import plain, json'], check=True)"
    assert start(launch, "-c", code).returncode == 0
    prefix = tmp_path / "cache/prefixes" / launch.manifest[:16]
    assert not list(prefix.rglob("*plain*.pyc")) and not list(prefix.rglob("json/__pycache__"))


def test_process_is_the_same(tmp_path: Path) -> None:
    """The process that was started is the one that runs Python in the end, and its lease says so."""
    cache = tmp_path / "cache"
    kit = real_kit()
    code = "import sys; print(open('/proc/self/stat').read().split()[0], flush=True); sys.stdin.read()"
    for _ in ("cold", "warm"):
        argv = kit.launch(cache).argv()
        process = subprocess.Popen(
            [*argv, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=clean_environ(), text=True
        )
        assert process.stdout and process.stdin
        assert int(process.stdout.readline()) == process.pid
        lease = cache / "leases" / f"{host_name()}.{process.pid}"
        manifest, started, cluster = lease.read_text().split()
        assert (manifest, cluster) == (kit.manifest.id, "-")
        assert started == Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19]
        process.stdin.close()
        assert process.wait(20) == 0


def test_signals_are_as_they_should_be(tmp_path: Path) -> None:
    """Nothing of the shells and Pythons on the way remains: no ignored signal, and the caller's umask."""
    code = (
        "import os, signal; print([s.name for s in signal.valid_signals() if isinstance(s, signal.Signals)"
        " and signal.getsignal(s) is signal.SIG_IGN]); print(oct(os.umask(0)), sorted(os.listdir('/proc/self/fd')))"
    )
    launch = real_kit().launch(tmp_path / "cache")
    argv = [sys.executable, "-c", code]
    plain = subprocess.run(argv, env=clean_environ(), capture_output=True, text=True, umask=0o027, check=True).stdout
    for _ in ("cold", "warm"):
        assert start(launch, "-c", code, umask=0o027).stdout == plain


def test_many_starters_at_once(tmp_path: Path) -> None:
    """Many nodes that start at the same moment on an empty cache all run, and the kit is unpacked once."""
    kit = real_kit()
    manifest = kit.with_layers(*(distribution(f"m{n}", {f"purelib/m{n}.py": b"#" * n}) for n in range(20)))
    launch = kit.launch(tmp_path / "cache", manifest)
    running = [
        subprocess.Popen(
            [*launch.argv(), "-c", "import m19, sys; print(sys.prefix)"],
            env=clean_environ(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(5)
    ]  # fmt: skip
    for process in running:
        out, err = process.communicate(timeout=120)
        assert (process.returncode, err) == (0, "")
        assert out == f"{tmp_path}/cache/prefixes/{manifest.id[:16]}\n"
    assert os.listdir(tmp_path / "cache/tmp") == []


def test_starters_without_flock(tmp_path: Path) -> None:
    """Where the machine has no flock several may unpack the kit; who loses the race uses the winner's."""
    launch = real_kit().launch(tmp_path / "cache")
    env = {"PATH": str(few_tools(tmp_path / "tools"))}
    running = [
        subprocess.Popen(["/bin/sh", *launch.argv()[1:], "-c", ""], env=env, stderr=subprocess.PIPE) for _ in range(3)
    ]
    assert [(p.communicate(timeout=120)[1], p.returncode) for p in running] == [(b"", 0)] * 3
    assert os.listdir(tmp_path / "cache/tmp") == []


def test_killed_bootstrap(tmp_path: Path) -> None:
    """After kill -9 of the shell at whatever moment the next start works, and sweeps what was left."""
    launch = real_kit().launch(tmp_path / "cache")
    for number in range(8):
        process = subprocess.Popen(
            [*launch.argv(), "-c", ""], env=clean_environ(), stderr=subprocess.DEVNULL, start_new_session=True
        )
        time.sleep(0.02 + 0.08 * number)
        os.killpg(process.pid, 9)
        process.wait()
    done = start(launch, "-c", WHERE)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(tmp_path / "cache/prefixes" / launch.manifest[:16])  # so that the next start makes something
    (tmp_path / "cache/tmp/layer.0123456789abcdef.1.listing").touch()  # of somebody killed a moment later than any here
    assert start(launch, "-c", WHERE).returncode == 0
    assert os.listdir(tmp_path / "cache/tmp") == []


def test_terminated_bootstrap(tmp_path: Path) -> None:
    """A termination while the kit is unpacked ends the process and leaves nothing in the way."""
    launch = real_kit().launch(tmp_path / "cache")
    process = subprocess.Popen([*launch.argv(), "-c", ""], env=clean_environ(), stderr=subprocess.PIPE)
    while not list((tmp_path / "cache").glob("tmp/kit.*")):
        time.sleep(0.005)
    process.terminate()
    assert process.wait(20) != 0
    assert start(launch, "-c", "").returncode == 0


# ---- what must not leak in

HOSTILE = {
    "PYTHONPATH": "{evil}",
    "PYTHONHOME": "{evil}",
    "PYTHONSTARTUP": "{evil}/evil.py",
    "PYTHONUSERBASE": "{evil}",
    "PYTHONOPTIMIZE": "2",
    "PYTHONINSPECT": "1",
    "PYTHONWARNINGS": "error",
    "PYTHONBREAKPOINT": "evil.evil",
    "PYTHONMULTILINE": "first\nsecond 'quoted' \"more\"\nexport HOME=/evil\n",
    "PYTHON_GIL": "0",
    "VIRTUAL_ENV": "{evil}",
    "VIRTUAL_ENV_PROMPT": "evil",
    "CONDA_PREFIX": "{evil}",
    "CONDA_DEFAULT_ENV": "evil",
    "_CE_CONDA": "x",
    "__PYVENV_LAUNCHER__": "{evil}",
}
KEPT = {
    "HOME": "{evil}/home",
    "MULTILINE": "a\nPYTHONPATH=evil\nexport PYTHONHOME='evil'\ndeclare -x CONDA_PREFIX=\"x\"\n\\ $HOME `x` '\"",
    "likewise": "kept", "cache": "kept", "kit": "kept", "store": "kept", "IFS": "x", "line": "kept",
    "EMPTY": "", "GLOB": "/* *", "LD_LIBRARY_PATH": "/nowhere", "_lw_name": "kept", "CDPATH": "/", "ENV": "/nowhere",
    "NOT_PYTHON": "kept", "PYTHO": "kept",
}  # fmt: skip


@pytest.fixture
def evil(tmp_path: Path) -> Path:
    """A folder full of things that must not run."""
    path = tmp_path / "evil folder"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for folder in ("", "home", f"lib/{version}/site-packages", f"home/.local/lib/{version}/site-packages"):
        (path / folder).mkdir(parents=True, exist_ok=True)
        for name in ("evil.py", "sitecustomize.py", "usercustomize.py", "json.py"):
            (path / folder / name).write_text("raise SystemExit('evil ran')\n")
        (path / folder / "evil.pth").write_text("import evil\n")
    return path


@pytest.mark.parametrize("name", SHELLS)
def test_environment_does_not_leak(tmp_path: Path, evil: Path, name: str) -> None:
    """Nothing that steers the machine's own Pythons reaches ours, cold or warm; all other variables stay untouched."""
    hostile = {k: v.format(evil=evil) for k, v in HOSTILE.items()}
    kept = {k: v.replace("{evil}", str(evil)) for k, v in KEPT.items()}
    env = {**clean_environ(), **kept, **hostile}
    code = (
        "import os, sys, json, site;"
        "print(json.dumps([dict(os.environ), sys.path, sys.flags.optimize, site.ENABLE_USER_SITE]))"
    )
    launch = real_kit().launch(tmp_path / "cache")
    prefix = f"{tmp_path}/cache/prefixes/{launch.manifest[:16]}"
    for argv in (launch.argv()[1:], launch.argv()[1:], [f"{prefix}/launch"]):  # cold, warm, by itself
        argv = [*SHELLS[name], *argv, "-c", code]
        done = subprocess.run(argv, env=env, cwd=evil, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        seen, path, optimize, user_site = json.loads(done.stdout)
        left = [n for n in seen if n.startswith(("PYTHON", "VIRTUAL_ENV", "CONDA", "_CE", "__PYVENV"))]
        assert sorted(left) == ["PYTHONDONTWRITEBYTECODE", "PYTHONNOUSERSITE"]
        # a shell does not import IFS, and dash and busybox rewrite their own variables
        ours = {k: v for k, v in kept.items() if k not in ("IFS", "_lw_name")}
        assert {k: seen.get(k) for k in ours} == ours
        assert all(entry == "" or entry.startswith(f"{prefix}/") for entry in path)
        assert (optimize, user_site) == (0, False)
        assert seen["PATH"] == f"{prefix}/bin:{env['PATH']}"


def test_working_directory_does_not_leak(tmp_path: Path, evil: Path) -> None:
    """`python -m` puts the working directory on sys.path: it is an empty one of the process's own."""
    done = start(real_kit().launch(tmp_path / "cache"), "-m", "json.tool", "--help", cwd=evil)
    assert done.returncode == 0 and "usage" in done.stdout, done.stderr


def test_working_directory_is_new(tmp_path: Path) -> None:
    """What one process leaves in its working directory another never finds, even one with the same number."""
    launch = real_kit().launch(tmp_path / "cache")
    assert start(launch, "-c", "").returncode == 0
    script = tmp_path / "again.sh"
    script.write_text(
        'mkdir -p "$1/work/$2.$$" && echo "raise SystemExit(1)" > "$1/work/$2.$$/json.py"; shift 2; exec "$@"\n'
    )
    argv = ["sh", str(script), str(tmp_path / "cache"), host_name(), *launch.argv(), "-m", "json.tool", "--help"]
    done = subprocess.run(argv, env=clean_environ(), capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "usage" in done.stdout, done.stderr


@pytest.mark.root
def test_certificates(tmp_path: Path) -> None:
    """The machine's own certificates are used, its administrator's choice before them, and the client's without any."""
    launch = real_kit().launch(tmp_path / "cache")
    env = {k: v for k, v in clean_environ().items() if k != "SSL_CERT_FILE"}
    ask = ["-c", "import os; print(os.environ.get('SSL_CERT_FILE'))"]
    assert start(launch, *ask, env=env).stdout.startswith("/etc/")
    (tmp_path / "own.pem").touch()
    chosen = str(tmp_path / "own.pem")
    assert start(launch, *ask, env={**env, "SSL_CERT_FILE": chosen}).stdout == f"{chosen}\n"
    hide = [path for path in ("/etc/ssl", "/etc/pki") if os.path.isdir(path)]
    done = masked([*launch.argv(), *ask], hide, env={**env, "SSL_CERT_FILE": "/gone.pem"})
    assert done.stdout == f"{tmp_path}/cache/prefixes/{launch.manifest[:16]}/interpreter/ssl/cert.pem\n", done.stderr
