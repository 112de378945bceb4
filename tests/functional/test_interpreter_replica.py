"""The interpreter layer unpacked: everything works with the original masked, and nothing is taken from it."""

from __future__ import annotations

import json
import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from likewise.layers.interpreter import interpreter_source
from likewise.layers.loader import is_glibc
from likewise.model.layer import LayerSource
from likewise.model.snapshot import Interpreter, Severity
from likewise.scanner.probe import probe_python
from support.authority import Authority, make_authority, serve_once
from support.masking import masked
from support.prefixes import clean_environ, run
from support.replica import NoFacts, unpack

ABILITIES = Path(__file__).parent.parent / "support" / "abilities.py"
NEEDED = {"ssl", "sqlite3", "ctypes", "lzma", "zoneinfo", "ensurepip"}
SYSTEM = "/usr/bin/python3"


class Replica(msgspec.Struct):
    """One original and its replica."""

    original: Interpreter
    layer: LayerSource
    prefix: Path
    python: Path
    hide: list[str]
    authority: Authority

    def masked(self, *argv: str | Path) -> str:
        """What the replica prints when run with its original hidden."""
        hide = [*self.hide, *(["/etc/ssl"] if os.path.isdir("/etc/ssl") else [])]
        return masked([self.python, *argv], hide, env=self.environ(), check=True).stdout

    def environ(self) -> dict[str, str]:
        """The environment variables a node's launch script gives."""
        kept = {k: v for k, v in clean_environ().items() if "SSL" not in k and "CERT" not in k}
        return {**kept, "SSL_CERT_FILE": f"{self.prefix}/interpreter/ssl/cert.pem"}


def originals(interpreter: Interpreter, layer: LayerSource) -> list[str]:
    """Every folder and file of the original, and of the system's libraries that the layer has copies of."""
    base, python = interpreter.base_prefix, interpreter.python
    if base != "/usr":
        return [base]
    names = {f.entry.path.removeprefix("interpreter/lib/") for f in layer.files}
    arch = sysconfig.get_config_var("MULTIARCH") or f"{interpreter.platform.arch}-linux-gnu"
    libraries = [
        f"/usr/{d}/{name}" for d in (f"lib/{arch}", "lib64", "lib") for name in names if name.startswith("lib")
    ]
    paths = [f"/usr/lib/{python}", "/usr/lib/python3", "/usr/share/python-wheels", f"/etc/{python}", SYSTEM]
    return [p for p in [*paths, f"/usr/bin/{python}", *libraries] if os.path.lexists(p)]


def system_python_is_usable() -> bool:
    """Whether this machine has a system Python ≥ 3.10."""
    return os.path.exists(SYSTEM) and run(SYSTEM, "-c", "import sys; print(sys.version_info >= (3, 10))") == "True\n"


@pytest.fixture(scope="module", params=["own", "system"])
def replica(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    """The interpreter of this test run, and the system's, each unpacked from its layer."""
    if request.param == "system" and not system_python_is_usable():
        pytest.skip("no system Python ≥ 3.10")
    folder = tmp_path_factory.mktemp(request.param)
    authority = make_authority(folder)
    interpreter = probe_python(sys.executable if request.param == "own" else SYSTEM).interpreter
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(authority.bundle))
        layer, problems = interpreter_source(interpreter, facts=NoFacts(), work=folder / "work")
    assert all(problem.severity is Severity.NOTE for problem in problems)
    python = unpack([layer], folder / "prefix", interpreter.python)
    yield Replica(
        original=interpreter,
        layer=layer,
        prefix=folder / "prefix",
        python=python,
        hide=originals(interpreter, layer),
        authority=authority,
    )


@pytest.mark.root
def test_what_works_in_the_original_works_in_the_masked_replica(replica: Replica) -> None:
    """Each ability of the original is there when the original is not: ssl, sqlite3, ctypes, lzma, zoneinfo, spawn, …"""
    original = json.loads(run(replica.original.executable, "-I", "-B", ABILITIES, "abilities"))
    assert all(original[name] == "ok" for name in NEEDED)
    wanted = [name for name, answer in original.items() if answer == "ok"]
    assert json.loads(replica.masked("-I", ABILITIES, "abilities", *wanted)) == dict.fromkeys(wanted, "ok")


@pytest.mark.root
def test_a_venv_made_in_the_masked_replica_has_a_working_pip(replica: Replica, tmp_path: Path) -> None:
    """`python -m venv` works, and the pip in it is the one that the original would have installed."""
    wanted = run(replica.original.executable, "-I", "-c", "import ensurepip; print(ensurepip.version())").strip()
    replica.masked("-m", "venv", tmp_path / "new")
    shown = masked([tmp_path / "new/bin/pip", "--version"], replica.hide, env=replica.environ(), check=True).stdout
    assert shown.split()[:2] == ["pip", wanted]
    base = "import sys; print(sys.base_prefix, sys.prefix)"
    assert masked([tmp_path / "new/bin/python", "-c", base], replica.hide, check=True).stdout.split() == [
        f"{replica.prefix}/interpreter",
        str(tmp_path / "new"),
    ]


def files_outside(replica: Replica, mapped: list[str]) -> list[str]:
    """Mapped files that are neither the replica's nor the C library's (its locale and charset data included)."""
    return [
        path
        for path in mapped
        if not path.startswith(f"{replica.prefix}/")
        and not is_glibc(path)
        and not path.startswith("/usr/lib/locale/")
        and "/gconv/" not in path
    ]


@pytest.mark.root
def test_every_mapped_file_is_the_replicas_own_with_the_original_masked(replica: Replica) -> None:
    """With all extension modules loaded, only glibc comes from the machine."""
    mapped = json.loads(replica.masked("-I", ABILITIES, "files"))
    assert len([p for p in mapped if "/lib-dynload/" in p]) > 20
    assert files_outside(replica, mapped) == []


def test_every_mapped_file_is_the_replicas_own_with_the_original_in_place(replica: Replica) -> None:
    """The original's libraries lie where they always did, and none of them is loaded."""
    mapped = json.loads(run(replica.python, "-I", ABILITIES, "files"))
    assert any(path.startswith(f"{replica.prefix}/interpreter/lib/libcrypto") for path in mapped)
    assert files_outside(replica, mapped) == []


@pytest.mark.root
def test_certificates_are_verified_against_the_shipped_bundle(replica: Replica) -> None:
    """A server certified by an authority that the client trusts is accepted by the replica, any other refused."""
    code = "import ssl, socket, sys; s = socket.create_connection(('127.0.0.1', int(sys.argv[1])));"
    code += "ssl.create_default_context().wrap_socket(s, server_hostname='localhost'); print('verified')"
    with serve_once(replica.authority.chain) as port:
        assert replica.masked("-I", "-c", code, str(port)) == "verified\n"
    other = make_authority(replica.prefix.parent / "other")
    with serve_once(other.chain) as port:
        done = masked([replica.python, "-I", "-c", code, str(port)], replica.hide, env=replica.environ())
    assert "CERTIFICATE_VERIFY_FAILED" in done.stderr


def test_no_private_key_is_shipped(replica: Replica) -> None:
    """The client's bundle had a key beside its certificate; the layer has the certificate alone."""
    assert b"PRIVATE KEY" in replica.authority.bundle.read_bytes()
    shipped = (replica.prefix / "interpreter/ssl/cert.pem").read_bytes()
    assert b"PRIVATE" not in shipped
    assert replica.authority.certificate.strip() in shipped


@pytest.mark.root
def test_the_module_path_holds_nothing_of_the_machine(replica: Replica) -> None:
    """sys.path, site-packages folders, install schemes and build variables all lie in the replica."""
    code = (
        "import json, site, sys, sysconfig\n"
        "text = [v for v in sysconfig.get_config_vars().values() if isinstance(v, str)]\n"
        "print(json.dumps([sys.path, site.getsitepackages(), sysconfig.get_paths(), sysconfig.get_default_scheme(),"
        " text, [sys.prefix, sys.base_prefix, sys.exec_prefix, sys.executable], 'sitecustomize' in sys.modules]))\n"
    )
    path, sites, schemes, scheme, variables, roots, customized = json.loads(replica.masked("-s", "-c", code))
    here = str(replica.prefix)
    assert [p for p in [*path, *sites, *schemes.values(), *roots] if p and not p.startswith(here)] == []
    assert schemes["purelib"] == f"{here}/lib/{replica.original.python}/site-packages" == sites[0]
    assert (scheme, customized) in (("posix_prefix", False), ("venv", False))
    if replica.original.base_prefix != "/usr":
        assert [v for v in variables if replica.original.base_prefix in v] == []


@pytest.mark.parametrize("replica", ["own"], indirect=True)  # the system's is /usr, which is everybody's
def test_text_files_say_nothing_of_the_originals_place(replica: Replica) -> None:
    """No source, header or Makefile of the layer names the prefix of the original."""
    base = replica.original.base_prefix
    if base == "/usr":
        pytest.skip("these tests run on the system's Python themselves")
    naming = [
        str(path)
        for path in (replica.prefix / "interpreter").rglob("*")
        if path.suffix in (".py", ".h", ".txt", ".cfg", "") and path.is_file() and base.encode() in path.read_bytes()
        if path.parent.name != "bin"
    ]
    assert naming == []


def test_the_layer_is_trimmed(replica: Replica) -> None:
    """Test suites, static libraries, bytecode, installed packages and the machine's sitecustomize stay behind."""
    paths = {f.entry.path for f in replica.layer.files}
    left = (
        "/test/",
        "/tests/",
        "__pycache__",
        "site-packages",
        "dist-packages",
        "sitecustomize",
        "idlelib",
        "_testcapi",
    )
    assert [p for p in paths if p.endswith((".a", ".pyc", ".o")) or any(part in p for part in left)] == []
    assert replica.layer.size < 80e6
    assert f"interpreter/bin/{replica.original.python}" in paths
