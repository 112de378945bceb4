"""Prefixes as conda, micromamba and pixi leave them, and clients that lack py-rattler."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from likewise.formats.conda_values import channels_of
from likewise.model.snapshot import OriginKind, PrefixKind, Snapshot
from likewise.scanner import scan_prefix
from likewise.scanner.probe import probe_python
from support.conda_channel import SPECS, CondaChannel, CondaPrefix, install, install_pips
from support.prefixes import clean_environ, make_venv, run

pytestmark = pytest.mark.registry

CHANNEL = "https://conda.invalid/forge"


@pytest.fixture
def prefix(tmp_path: Path, conda_channel: CondaChannel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prefix with Python, a package for any platform and one that is no distribution."""
    packages = tmp_path_factory.getbasetemp() / "conda-tools-packages"
    return install(tmp_path / "prefix", ["python", "greeter", "geodata"], [conda_channel.folder], packages)


def rewrite(prefix: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Write every record of the prefix anew."""
    for path in (prefix / "conda-meta").glob("*.json"):
        record = json.loads(path.read_text())
        record["url"] = f"{CHANNEL}/{record['subdir']}/{record['fn']}"
        path.unlink()
        path.write_text(json.dumps(change(record)))


def scan(prefix: Path, folder: Path | None = None) -> Snapshot:
    """What is there; `folder` is for what the scan wants to keep."""
    folder = folder or prefix.parent
    with pytest.MonkeyPatch.context() as patch:
        (folder / "work").mkdir(exist_ok=True)
        patch.chdir(folder / "work")
        return scan_prefix(probe_python(prefix / "bin/python"), facts_dir=folder / "facts").snapshot


def contents(snapshot: Snapshot) -> dict[str, object]:
    """What the packages are, by name."""
    return {one.name: (one.version, one.build, one.content, one.distributions) for one in snapshot.conda}


def of_conda(record: dict[str, Any]) -> dict[str, Any]:
    """conda: the channel has the subdir behind it, the specs stand in the history, bytecode is in the list, and what
    is for any Python is described as it lies in the package."""
    site = "lib/python3.11/site-packages/"
    pyc = f"{site}__pycache__/greeter.cpython-311.pyc"
    paths = record["paths_data"]["paths"]
    if record["name"] == "greeter":
        for path in paths:
            if path["path_type"] != "unix_python_entry_point":
                path["_path"] = path["_path"].replace(site, "site-packages/").replace("bin/", "python-scripts/")
        assert {path["_path"].partition("/")[0] for path in paths} == {"site-packages", "python-scripts", "bin"}
        record["files"].append(pyc)
        paths.append({"_path": pyc, "path_type": "pyc_file"})
    del record["requested_specs"]
    return {
        **record,
        "channel": f"{CHANNEL}/{record['subdir']}",
        "requested_spec": "python" if record["name"] == "python" else "None",
        "auth": None,
        "link": {"source": "/opt/conda/pkgs/x", "type": 1},
        "package_tarball_full_path": "/opt/conda/pkgs/x.conda",
    }


def of_micromamba(record: dict[str, Any]) -> dict[str, Any]:
    """micromamba: names of keys that others don't have, no list of specs, hashes of what names the prefix alone."""
    for path in record["paths_data"]["paths"]:
        path.pop("size_in_bytes", None)
        if path.get("sha256_in_prefix") is None:
            path["sha256_in_prefix"] = path.get("sha256", "")
    del record["requested_specs"]
    return {
        **record,
        "channel": f"{CHANNEL}/{record['subdir']}",
        "requested_spec": "",
        "build_string": record["build"],
        "track_features": "",
        "noarch": record.get("noarch") or None,
    }


def of_pixi(record: dict[str, Any]) -> dict[str, Any]:
    """pixi: rattler's records, with a channel that ends in a slash and a spec in the old form besides."""
    return {**record, "channel": f"{CHANNEL}/", "requested_spec": "python >=3" if record["name"] == "python" else None}


@pytest.mark.parametrize("tool", [of_conda, of_micromamba, of_pixi])
@pytest.mark.parametrize("history", [True, False])
def test_records_of_every_tool(prefix: Path, tool: Callable[[dict[str, Any]], dict[str, Any]], history: bool) -> None:
    """The same packages, layers, channels and wishes are found, with a history and without one."""
    before = contents(scan(prefix))
    rewrite(prefix, tool)
    place = prefix / "conda-meta"
    if history:
        text = '==> 2026-01-01 00:00:00 <==\n# cmd: create\n# update specs: ["python", "geodata"]\n'
        (place / "history").write_text(text)
    else:
        (place / "history").unlink(missing_ok=True)
    if tool is of_pixi:  # what pixi keeps beside the records
        (place / "pixi").write_text('{"manifest_path": "/w/pixi.toml", "environment_name": "default"}')
        (place / ".pixi-environment-fingerprint").write_text("f00d")
        (place / "pixi_env_prefix").write_text(str(prefix))
    found = scan(prefix)
    assert found.interpreter.kind is PrefixKind.CONDA
    assert contents(found) == before
    assert channels_of(found.conda) == (CHANNEL,)
    requested = {one.name: one.requested for one in found.conda}
    assert bool(requested["geodata"]) is (history or tool is of_pixi)
    assert {one.code for one in found.problems} <= {"conda-link-script"}
    assert not any(one.missing or one.modified for one in found.conda)


# ---- rattler-build itself, the one such program that the package index has


RATTLER_BUILD = """
import json, sys
from rattler_build import Stage0Recipe, VariantConfig
from rattler_build.debug import DebugSession

channel, output, *specs = sys.argv[1:]
recipe = {"package": {"name": "mine", "version": "1"}, "requirements": {"host": specs}}
(variant,) = Stage0Recipe.from_yaml(json.dumps(recipe)).render(VariantConfig())
print(DebugSession.create(variant, output_dir=output, channels=[channel]).host_prefix)
"""


@pytest.fixture(scope="module")
def of_rattler_build(conda_channel: CondaChannel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prefix that it has made of the tests' channel, as the one in which something is built, and pip's on top."""
    folder = tmp_path_factory.mktemp("rattler-build")
    python = make_venv(folder / "venv", "py-rattler-build==0.73.*")
    places = {
        "HOME": str(folder),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "RATTLER_CACHE_DIR": str(folder / "rattler"),
    }
    said = run(python, "-c", RATTLER_BUILD, conda_channel.url, folder / "made", *SPECS, cwd=folder, **places)
    prefix = Path(said.splitlines()[-1])
    install_pips(prefix, folder / "wheels")
    return prefix


def test_a_prefix_of_rattler_build(of_rattler_build: Path, conda_prefix: CondaPrefix, tmp_path: Path) -> None:
    """It is the very one that py-rattler makes, although its path is as long as a placeholder: layers, channels, pip's
    packages on top and over conda's. Nobody's wishes are noted in it."""
    history = of_rattler_build / "conda-meta" / "history"
    assert len(str(of_rattler_build)) > 200 and history.read_text() == ""
    expected, found = scan(conda_prefix.folder, tmp_path), scan(of_rattler_build, tmp_path)
    assert found.interpreter.kind is PrefixKind.CONDA
    assert contents(found) == contents(expected)
    assert {one.name: one.replaced for one in found.conda if one.replaced} == {"greeter": "uv"}
    assert channels_of(found.conda) == channels_of(expected.conda)
    assert described(found) == described(expected)
    assert not any(one.requested or one.missing or one.modified for one in found.conda)
    assert [one.code for one in found.problems] == [one.code for one in expected.problems]


def described(snapshot: Snapshot) -> dict[str, tuple[str, OriginKind]]:
    """The distributions, by name."""
    return {one.name: (one.version, one.origin.kind) for one in snapshot.distributions}


# ---- without py-rattler


def command(conda_prefix: CondaPrefix, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """likewise of the prefix itself, which has no extra of likewise's."""
    environ = clean_environ(LIKEWISE_CACHE=str(folder / "cache"), HOME=str(folder), PIP_CONFIG_FILE="/dev/null")
    argv = [conda_prefix.python, "-m", "likewise", *words]
    return subprocess.run(argv, cwd=folder, env=environ, capture_output=True, text=True, check=False)


def test_without_py_rattler_a_prefix_is_scanned_and_planned(conda_prefix: CondaPrefix, tmp_path: Path) -> None:
    """Nothing of it is needed for nodes of the same platform."""
    done = subprocess.run([conda_prefix.python, "-c", "import rattler"], capture_output=True, check=False)
    assert b"No module named 'rattler'" in done.stderr
    scanned = command(conda_prefix, tmp_path, "scan", "--json")
    assert scanned.returncode == 0, scanned.stderr
    assert {"python", "openssl", "r-base"} <= {one["name"] for one in json.loads(scanned.stdout)["conda"]}
    planned = command(conda_prefix, tmp_path, "plan", "--json")
    assert planned.returncode == 0, planned.stderr


def test_without_py_rattler_another_platform_is_refused(conda_prefix: CondaPrefix, tmp_path: Path) -> None:
    """The error says what to install; before any channel is asked."""
    done = command(conda_prefix, tmp_path, "plan", "--target", "linux-aarch64", "--json")
    assert done.returncode == 18, done.stderr
    said = json.loads(done.stdout)
    assert said["error"] == "unsupported" and "likewise[conda]" in said["todo"]
