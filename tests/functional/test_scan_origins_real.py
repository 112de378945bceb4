"""Where installed distributions came from: real installs, and the lies that tools leave in direct_url.json."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from likewise.model.snapshot import OriginKind
from likewise.scanner.census import take_census
from likewise.scanner.probe import probe_python
from support.prefixes import UV, make_venv, run
from support.scanning import look, make_project, make_wheel, metadata, problems, python_like, site_of, write_files

GIT = ("git", "-c", "user.name=T", "-c", "user.email=t@t.invalid", "-c", "init.defaultBranch=main")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests run in an empty folder, so that no loose code is found by chance."""
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """A venv with flit_core, so that projects are built without a network."""
    return make_venv(tmp_path / "venv", "flit_core")


def project(folder: Path) -> Path:
    """A project that flit builds."""
    return make_project(
        folder,
        "origami",
        backend="flit_core.buildapi",
        requires="flit_core",
        files={"origami.py": '"""Folds."""\n'},
    )


def install(python: Path, *what: str | Path) -> None:
    run(UV, "pip", "install", "--quiet", "--no-build-isolation", "--python", python, *what)


@pytest.mark.registry
def test_an_index(python: Path) -> None:
    """No direct_url.json means an index; REQUESTED and INSTALLER are read."""
    found = look(python).snapshot.get("flit-core")
    assert found is not None
    assert found.origin.kind is OriginKind.INDEX
    assert (found.installer, found.requested) == ("uv", True)
    assert found.tags == ("py3-none-any",)


@pytest.mark.registry
def test_a_git_repository(python: Path, tmp_path: Path) -> None:
    """A git install has the commit, the revision asked for and the subdirectory."""
    repository = tmp_path / "repo"
    project(repository / "python")
    run(*GIT, "init", "--quiet", repository)
    run(*GIT, "-C", repository, "add", ".")
    run(*GIT, "-C", repository, "commit", "--quiet", "-m", "One.")
    run(*GIT, "-C", repository, "tag", "v1")
    commit = run("git", "-C", repository, "rev-parse", "HEAD").strip()
    install(python, f"git+file://{repository}@v1#subdirectory=python")
    found = look(python).snapshot.get("origami")
    assert found is not None
    assert found.origin.kind is OriginKind.VCS
    assert (found.origin.commit, found.origin.revision, found.origin.subdirectory) == (commit, "v1", "python")
    assert found.origin.url == f"file://{repository}"


@pytest.mark.registry
def test_an_archive_and_a_directory(python: Path, tmp_path: Path) -> None:
    """A wheel file is an archive, a source tree a directory, both with their path."""
    install(python, make_wheel(tmp_path, "boxed", "1.0", {"boxed.py": ""}), project(tmp_path / "tree"))
    snapshot = look(python).snapshot
    boxed, origami = snapshot.get("boxed"), snapshot.get("origami")
    assert boxed is not None
    assert origami is not None
    assert boxed.origin.kind is OriginKind.ARCHIVE
    assert boxed.origin.path == str(tmp_path / "boxed-1.0-py3-none-any.whl")
    assert origami.origin.kind is OriginKind.DIRECTORY
    assert origami.origin.path == str(tmp_path / "tree")
    assert origami.content is not None


def test_urls_lose_their_secrets(tmp_path: Path) -> None:
    """User info, query, fragment and path tokens of a direct_url.json are nowhere in the snapshot."""
    python = make_venv(tmp_path / "venv")
    for number, url in enumerate(
        [
            "https://user:sesame@host.invalid/a.whl?token=sesame#sha256=sesame",
            "https://host.invalid/t/sesame/channel/a.whl",
            "ssh://sesame@host.invalid/repo.git",
            "https://[sesame/a.whl",
        ]
    ):
        folder = f"secret{number}-1.0.dist-info"
        direct = {"url": url, "archive_info": {}}
        write_files(
            site_of(python),
            {
                f"{folder}/METADATA": metadata(f"secret{number}", "1.0"),
                f"{folder}/direct_url.json": json.dumps(direct),
            },
        )
    snapshot = look(python).snapshot
    assert len(snapshot.distributions) == 4
    assert b"sesame" not in msgspec.json.encode(snapshot)
    assert {d.origin.url for d in snapshot.distributions} == {
        "https://host.invalid/a.whl",
        "https://host.invalid/channel/a.whl",
        "ssh://host.invalid/repo.git",
        "",
    }


@pytest.mark.parametrize(
    "url",
    [
        "file:///home/conda/feedstock_root/build_artifacts/numpy_1700000000000/work",
        "file:///croot/numpy_1700000000000/work/dist/numpy-1.0-py3-none-any.whl",
        "file:///Users/runner/miniforge3/conda-bld/numpy_1700000000000/work",
        "file:///home/conda/feedstock_root/build_artifacts/bld/rattler-build_numpy_1700000000/work",
        "file:///tmp/build/80754af9/numpy_1700000000000/work",
    ],
)
def test_condas_own_direct_url_is_no_local_directory(url: str, tmp_path: Path) -> None:
    """The build directory that conda packages carry about is conda, whichever tool built them."""
    python = make_venv(tmp_path / "venv")
    write_files(
        site_of(python),
        {
            "numpy-1.0.dist-info/METADATA": metadata("numpy", "1.0"),
            "numpy-1.0.dist-info/direct_url.json": json.dumps({"url": url, "dir_info": {}}),
        },
    )
    found = look(python).snapshot.get("numpy")
    assert found is not None
    assert found.origin.kind is OriginKind.CONDA
    assert found.origin.path == ""


def test_a_conda_record_tells_channel_and_build_string(tmp_path: Path) -> None:
    """What conda-meta lists has origin conda with its URL (channel, subdir, build string), without the token in it."""
    prefix = tmp_path / "conda"
    python = python_like(prefix)
    site = site_of(python)
    write_files(
        site,
        {
            "tool-1.0.dist-info/METADATA": metadata("tool", "1.0"),
            "tool-1.0.dist-info/INSTALLER": "conda\n",
            "tool.py": "",
        },
    )
    relative = site.relative_to(prefix)
    record = {
        "name": "tool",
        "version": "1.0",
        "build": "py311h64a7726_0",
        "url": "https://conda.invalid/t/sesame/forge/linux-64/tool-1.0-py311h64a7726_0.conda",
        "files": [f"{relative}/tool.py", f"{relative}/tool-1.0.dist-info/METADATA"],
    }
    write_files(prefix, {"conda-meta/tool-1.0-py311h64a7726_0.json": json.dumps(record)})
    scanned = look(python)
    found = scanned.snapshot.get("tool")
    assert found is not None
    assert found.origin.kind is OriginKind.CONDA
    assert found.origin.url == "https://conda.invalid/forge/linux-64/tool-1.0-py311h64a7726_0.conda"
    assert found.origin.revision == "py311h64a7726_0"
    assert found.imports == ("tool",)


def test_poetrys_artifacts_come_from_the_index(tmp_path: Path) -> None:
    """A direct_url.json into poetry's cache is about the index that poetry downloaded from."""
    python = make_venv(tmp_path / "venv")
    url = "file:///home/me/.cache/pypoetry/artifacts/0a/1b/2c/3d4e/dep-1.0-py3-none-any.whl"
    write_files(
        site_of(python),
        {
            "dep-1.0.dist-info/METADATA": metadata("dep", "1.0"),
            "dep-1.0.dist-info/direct_url.json": json.dumps({"url": url, "archive_info": {}}),
        },
    )
    found = look(python).snapshot.get("dep")
    assert found is not None
    assert found.origin.kind is OriginKind.INDEX
    assert found.origin.path == found.origin.url == ""


def test_a_damaged_direct_url_is_noted(tmp_path: Path) -> None:
    """direct_url.json that is no JSON leaves the distribution listed, with a note."""
    python = make_venv(tmp_path / "venv")
    write_files(
        site_of(python),
        {"dep-1.0.dist-info/METADATA": metadata("dep", "1.0"), "dep-1.0.dist-info/direct_url.json": "{"},
    )
    snapshot = look(python).snapshot
    assert snapshot.get("dep") is not None
    assert problems(snapshot, "bad-direct-url")[0].subject == "dep"
    assert [one.name for one in take_census(probe_python(python)).installed] == ["dep"]
