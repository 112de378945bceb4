"""A scan lists exactly what pip lists."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from likewise.scanner import scan_prefix
from likewise.scanner.distributions import find_installed
from likewise.scanner.probe import probe_python
from support.commands import likewise
from support.prefixes import UV, make_venv, run
from support.scanning import (
    look,
    make_project,
    make_wheel,
    metadata,
    pip_list,
    site_of,
    venv_with_pip,
    versions,
    write_files,
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests run in an empty folder, so that no loose code is found by chance."""
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)


@pytest.fixture(scope="module")
def lister(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A venv with a current pip, to list other prefixes with."""
    return venv_with_pip(tmp_path_factory.mktemp("lister"))


@pytest.mark.registry
def test_a_mixed_prefix(tmp_path: Path, lister: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wheels, an editable, egg-info, duplicates, shadowed and PYTHONPATH's: name for name, version for version."""
    python = make_venv(tmp_path / "venv", "flit_core", make_wheel(tmp_path, "Mixed.Case", "1.0+local.1", {"mc.py": ""}))
    tree = make_project(
        tmp_path / "tree", "ed-it", backend="flit_core.buildapi", requires="flit_core", files={"ed_it.py": '"""E."""'}
    )
    run(UV, "pip", "install", "--quiet", "--no-build-isolation", "--python", python, "-e", tree)
    write_files(
        site_of(python),
        {
            "dup-1.0.dist-info/METADATA": metadata("dup", "1.0"),
            "dup-2.0.dist-info/METADATA": metadata("dup", "2.0"),
            "egg-3.0.egg-info": metadata("egg", "3.0"),
            "nested-1.0-py3.11.egg-info/PKG-INFO": metadata("nested", "1.0"),
            "~gone-1.0.dist-info/METADATA": metadata("gone", "1.0"),
            "folded-1.0.dist-info/METADATA": "License: a\n \n  b\nName: folded\nVersion: 1.0\n\n",
        },
    )
    extra = tmp_path / "extra"
    run(UV, "pip", "install", "--quiet", "--target", extra, make_wheel(tmp_path, "dup", "9.0", {"dup.py": ""}))
    monkeypatch.setenv("PYTHONPATH", str(extra))
    listed = pip_list(lister, python, PYTHONPATH=str(extra))
    assert len(listed) == 7
    assert versions(look(python).snapshot) == listed


def test_debians_python(lister: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The same holds for Debian's Python, with its egg-info and its duplicates."""
    if not Path("/usr/lib/python3/dist-packages").is_dir():
        pytest.skip("needs Debian's Python")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert versions(look("/usr/bin/python3").snapshot) == pip_list(lister, "/usr/bin/python3", HOME=str(tmp_path))


@pytest.mark.w160
@pytest.mark.registry
def test_w160_through_the_command_line(w160_python: Path, lister: Path, tmp_path: Path) -> None:
    """``likewise scan --json`` of W160 lists what ``pip list`` does, and nothing is wrong with it."""
    done = likewise("scan", "--json", "--python", w160_python, cwd=tmp_path, LIKEWISE_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    snapshot = json.loads(done.stdout)
    listed = {canonicalize_name(d["name"]): d["version"] for d in snapshot["distributions"]}
    assert len(listed) == 160
    assert listed == pip_list(lister, w160_python)
    assert snapshot["problems"] == []
    assert snapshot["code"] == []
    assert all(d["content"] and not d["modified"] and not d["missing"] for d in snapshot["distributions"])


@pytest.mark.w160
@pytest.mark.registry
def test_a_warm_scan_of_w160_reads_nothing(w160_python: Path, tmp_path: Path) -> None:
    """A second scan gives the same snapshot from stat facts alone, with a fraction of the CPU time of the first."""
    time.sleep(2.5)  # files younger than that are not remembered
    probe = probe_python(w160_python)
    started = time.process_time()
    cold = scan_prefix(probe, facts_dir=tmp_path)
    between = time.process_time()
    warm = scan_prefix(probe, facts_dir=tmp_path)
    ended = time.process_time()
    assert warm.snapshot == cold.snapshot
    assert warm.sources == cold.sources
    assert ended - between < (between - started) / 3


@pytest.mark.w160
@pytest.mark.registry
def test_the_metadata_of_w160_is_read_quickly(w160_python: Path) -> None:
    """Finding 160 distributions takes less CPU time than importlib.metadata needs for the same."""
    site = str(site_of(w160_python))
    find_installed([site])
    started = time.process_time()
    installed, problems = find_installed([site])
    ours = time.process_time() - started
    assert (len(installed), problems) == (160, [])
    script = (
        "import importlib.metadata as m, sys, time; s = time.process_time();"
        "[(d.metadata['Name'], d.version, d.requires) for d in m.distributions(path=[sys.argv[1]])];"
        "print(time.process_time() - s)"
    )
    assert ours < float(run(w160_python, "-c", script, site)) / 2
