"""Every kind of interpreter is told for what it is, and its own site directories are scanned."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from likewise.errors import ScanError, UnsupportedError
from likewise.model.snapshot import OriginKind, PrefixKind, Severity
from likewise.scanner.probe import probe_python
from support.prefixes import UV, make_venv, run
from support.scanning import look, make_wheel, problems, python_like, shipped, site_of, versions

DEBIAN = "/usr/bin/python3"
needs_debian = pytest.mark.skipif(not Path("/usr/lib/python3/dist-packages").is_dir(), reason="needs Debian's Python")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tests run in an empty folder, so that no loose code is found by chance."""
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("maker", ["venv", "uv", "virtualenv"])
def test_each_maker_of_virtual_environments_is_a_venv(maker: str, tmp_path: Path) -> None:
    """venv, uv and virtualenv all make a prefix of kind venv with this Python as its base."""
    prefix = tmp_path / "made"
    if maker == "venv":
        run(sys.executable, "-m", "venv", "--without-pip", prefix)
    elif maker == "uv":
        run(UV, "venv", "--quiet", "--python", sys.executable, prefix)
    else:
        run(UV, "tool", "run", "--quiet", "--python", sys.executable, "virtualenv", "--no-seed", prefix)
    interpreter = look(prefix / "bin" / "python").snapshot.interpreter
    assert interpreter.kind is PrefixKind.VENV
    assert Path(interpreter.prefix) == prefix
    assert Path(interpreter.base_prefix).resolve() == Path(sys.base_prefix).resolve()
    assert interpreter.platform.libc in ("glibc", "musl")
    assert interpreter.platform.libc_version.count(".") == 1


def test_a_prefix_with_a_space_and_an_emoji_in_its_path(tmp_path: Path) -> None:
    """Such a prefix is scanned like any other."""
    wheel = make_wheel(tmp_path, "plain", "1.0", {"plain.py": ""})
    python = make_venv(tmp_path / "my envs \U0001f40d" / "venv", wheel)
    scanned = look(python)
    assert versions(scanned.snapshot) == {"plain": "1.0"}
    assert scanned.snapshot.interpreter.executable == str(python)
    assert shipped(scanned, "plain")["purelib/plain.py"] == str(site_of(python) / "plain.py")


@pytest.mark.parametrize(
    ("folder", "mark", "kind"),
    [
        ("pyenv/versions/3.x", "pyenv/shims", PrefixKind.PYENV),
        ("python/cpython-3.11.7-linux-x86_64-gnu", "python/.lock", PrefixKind.UV),
        ("miniforge/envs/x", "miniforge/envs/x/conda-meta", PrefixKind.CONDA),
        ("opt/python", "opt/lib", PrefixKind.OTHER),
    ],
)
def test_base_interpreters_are_told_apart(folder: str, mark: str, kind: PrefixKind, tmp_path: Path) -> None:
    """pyenv's, uv's and conda's Python are known by what their makers leave beside them, in itself and under a venv."""
    python = python_like(tmp_path / folder)
    (tmp_path / mark).mkdir(parents=True, exist_ok=True)
    own = look(python).snapshot.interpreter
    assert (own.kind, own.base_kind) == (kind, kind)
    run(python, "-m", "venv", "--without-pip", tmp_path / "venv")
    venv = look(tmp_path / "venv" / "bin" / "python").snapshot.interpreter
    assert (venv.kind, venv.base_kind) == (PrefixKind.VENV, kind)


def test_a_python_that_is_none_is_refused(tmp_path: Path) -> None:
    """What is missing, fails or says nothing is a ScanError that names the file."""
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\nexit 0\n")
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho no such luck >&2\nexit 3\n")
    for script in (silent, broken):
        script.chmod(0o755)
    with pytest.raises(ScanError, match="no such Python"):
        probe_python(tmp_path / "missing")
    with pytest.raises(ScanError) as caught:
        probe_python(broken)
    assert str(broken) in str(caught.value)
    assert "no such luck" in caught.value.details["output"]
    with pytest.raises(ScanError):
        probe_python(silent)


def test_talkative_startup_files_do_not_disturb_the_probe(tmp_path: Path) -> None:
    """What .pth code prints before the answer is no part of it."""
    python = make_venv(tmp_path / "venv")
    (site_of(python) / "noise.pth").write_text('import sys; print(\'{"executable": "me"}\')\n')
    assert probe_python(python).executable == str(python)


def test_an_old_python_is_refused_by_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python that says it is older than 3.10 is unsupported, and the error says which it is."""
    python = python_like(tmp_path / "old")
    library = next((tmp_path / "old" / "lib").iterdir())
    (library / "site-packages" / "old.pth").write_text(
        "import sys; from types import SimpleNamespace; V = type(sys.version_info); "
        "sys.version_info = (3, 9, 18, 'final', 0)\n"
    )
    with pytest.raises(UnsupportedError, match=r"Python 3\.9\.18 is too old"):
        probe_python(python)


@needs_debian
def test_debians_python_owns_its_distributions_through_dpkg() -> None:
    """Debian's distributions have origin system with their package's name, and the files that dpkg lists."""
    scanned = look(DEBIAN)
    snapshot = scanned.snapshot
    assert (snapshot.interpreter.kind, snapshot.interpreter.base_kind) == (PrefixKind.SYSTEM, PrefixKind.SYSTEM)
    psycopg2 = snapshot.get("psycopg2")
    assert psycopg2 is not None
    assert psycopg2.origin.kind is OriginKind.SYSTEM
    assert psycopg2.origin.path == "python3-psycopg2"
    assert psycopg2.imports == ("psycopg2",)
    files = shipped(scanned, "psycopg2")
    listed = set(Path("/var/lib/dpkg/info/python3-psycopg2.list").read_text().split())
    assert "purelib/psycopg2/__init__.py" in files
    assert set(files.values()) <= listed
    assert {p for p in listed if p.startswith("/usr/lib/python3/dist-packages/psycopg2/") and Path(p).is_file()} <= set(
        files.values()
    )


@needs_debian
def test_debians_python_with_a_user_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user site comes before dist-packages: what is installed there hides Debian's, and says so."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    wheel = make_wheel(tmp_path, "six", "99.0", {"six.py": "MINE = True\n"})
    user_site = Path(probe_python(DEBIAN).user_site)
    user_site.mkdir(parents=True)
    run(UV, "pip", "install", "--quiet", "--target", user_site, wheel)
    (user_site / "mine.py").write_text("x = 1\n")
    scanned = look(DEBIAN)
    assert versions(scanned.snapshot)["six"] == "99.0"
    assert shipped(scanned, "six")["purelib/six.py"] == str(user_site / "six.py")
    assert "99.0" in problems(scanned.snapshot, "shadowed-dist-info")[0].message
    assert "purelib/mine.py" in shipped(scanned, "site-packages")


@needs_debian
def test_what_debian_packages_ship_without_metadata_goes_along() -> None:
    """Modules of Debian packages that are no distribution (pkg_resources, _cffi_backend) are loose site-packages."""
    scanned = look(DEBIAN)
    owned = {path for source in scanned.sources.values() for path in (f.entry.path for f in source.files)}
    top = Path("/usr/lib/python3/dist-packages")
    modules = [p for p in top.iterdir() if p.suffix == ".so" or (p.is_dir() and (p / "__init__.py").exists())]
    assert modules
    for module in modules:
        name = f"purelib/{module.name}" + ("/__init__.py" if module.is_dir() else "")
        assert name in owned, f"{module} is importable and not shipped"


def test_a_venv_that_sees_the_system_site(tmp_path: Path) -> None:
    """With system site packages both are scanned, the venv's first."""
    base = python_like(tmp_path / "base")
    old = make_wheel(tmp_path, "layered", "1.0", {"layered.py": "v = 1\n"})
    new = make_wheel(tmp_path, "layered", "2.0", {"layered.py": "v = 2\n"})
    other = make_wheel(tmp_path, "beneath", "1.0", {"beneath.py": ""})
    run(UV, "pip", "install", "--quiet", "--target", site_of(base), old, other)
    run(base, "-m", "venv", "--without-pip", "--system-site-packages", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    run(UV, "pip", "install", "--quiet", "--python", python, new)
    scanned = look(python)
    assert versions(scanned.snapshot) == {"layered": "2.0", "beneath": "1.0"}
    assert shipped(scanned, "layered")["purelib/layered.py"] == str(site_of(python) / "layered.py")
    assert "site-packages" not in scanned.sources, "what an earlier site directory hides is not importable"
    shadowed = problems(scanned.snapshot, "shadowed-dist-info")
    assert [(p.subject, p.severity) for p in shadowed] == [("layered", Severity.NOTE)]
