"""Wheels of an index as layers: fetched once, kept, and the same as what an installer would have made of them."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from likewise.errors import LayerError
from likewise.layers.fetched import fetch_layers
from likewise.model.digest import digest_bytes
from likewise.model.layer import encode_listing, layer_source
from likewise.model.plan import LockedFile
from support.indexes import IndexServer, offer, offer_sdist, serve_index
from support.prefixes import UV, make_venv, run
from support.wheels import files_of, site_packages

MANYLINUX = "cp311-cp311-manylinux_2_17_aarch64"


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """A folder of an index."""
    return tmp_path / "wheels"


@pytest.fixture
def index(wheels: Path) -> Iterator[IndexServer]:
    """The index."""
    with serve_index(wheels) as server:
        yield server


def locked(path: Path, index: IndexServer, **other: str) -> LockedFile:
    """What a lock says of the file at `path`."""
    fields = {"filename": path.name, "url": index.files_url + path.name, "sha256": digest_bytes(path.read_bytes())}
    return LockedFile(**{**fields, **other})


def bring(file: LockedFile, into: Path) -> Path:
    """Fetch a file as it is."""
    path = into / file.filename
    with urllib.request.urlopen(file.url, timeout=10) as answer:
        path.write_bytes(answer.read())
    return path


def files_asked(index: IndexServer) -> int:
    """How many files the index was asked for."""
    return sum(one.path.startswith("/files/") for one in index.asked)


def left(work: Path) -> list[str]:
    """What lies in the work folder, but for empty folders."""
    return sorted(str(path.relative_to(work)) for path in work.rglob("*") if path.is_file())


def test_a_fetched_wheel_is_the_layer_of_the_installed_one(tmp_path: Path, wheels: Path, index: IndexServer) -> None:
    """Who installs the wheel and who fetches it have layers of the same digest."""
    content = {"sample/__init__.py": b"one = 1\n", "sample-1.0.data/scripts/tool": b"#!python\nprint(1)\n"}
    wheel = offer(wheels, "sample", "1.0", files=content)
    made = fetch_layers([locked(wheel, index)], fetch=bring, work=tmp_path / "work")
    python = make_venv(tmp_path / "venv")
    run(UV, "pip", "install", "-q", "--no-index", "--python", python, wheel)
    installed = files_of(site_packages(python))
    (layer,) = made.layers.values()
    assert layer.digest == layer_source(layer.kind, layer.name, layer.version, installed.files).digest
    assert encode_listing([file.entry for file in layer.files]).count(b"purelib/sample/") == 1
    assert (made.fetched, made.size) == (1, wheel.stat().st_size)


def test_a_wheel_is_fetched_once(tmp_path: Path, wheels: Path, index: IndexServer) -> None:
    """A second call, as another launch makes it, asks the index for nothing and gives the same layer."""
    files = [locked(offer(wheels, name, "1.0", tag=MANYLINUX), index) for name in ("one", "two")]
    first = fetch_layers(files, fetch=bring, work=tmp_path / "work")
    again = fetch_layers(files, fetch=bring, work=tmp_path / "work")
    assert files_asked(index) == 2
    assert (first.fetched, again.fetched, again.size) == (2, 0, 0)
    assert {layer.digest for layer in again.layers.values()} == {layer.digest for layer in first.layers.values()}


def test_a_damaged_copy_is_fetched_again(tmp_path: Path, wheels: Path, index: IndexServer) -> None:
    """What vanished from the kept files is found out before anybody needs it."""
    file = locked(offer(wheels, "one", "1.0"), index)
    (layer,) = fetch_layers([file], fetch=bring, work=tmp_path / "work").layers.values()
    (module,) = (Path(each.path) for each in layer.files if each.entry.path == "purelib/one.py")
    module.unlink()
    again = fetch_layers([file], fetch=bring, work=tmp_path / "work")
    assert again.fetched == 1
    assert all(Path(each.path).exists() for each in again.layers[file.sha256].files)


def test_two_names_of_one_wheel_are_one_download(tmp_path: Path, wheels: Path, index: IndexServer) -> None:
    """Files are told apart by content, not by name."""
    file = locked(offer(wheels, "one", "1.0"), index)
    made = fetch_layers([file, file], fetch=bring, work=tmp_path / "work")
    assert (len(made.layers), made.fetched) == (1, 1)


def test_a_wheel_that_is_another_is_refused(tmp_path: Path, wheels: Path, index: IndexServer) -> None:
    """A file whose metadata names another distribution than its name does is not used, and not kept."""
    wheel = offer(wheels, "evil", "1.0")
    renamed = wheel.rename(wheels / "good-1.0-py3-none-any.whl")
    with pytest.raises(LayerError, match=r"good-1\.0-py3-none-any\.whl says of itself that it is evil 1\.0"):
        fetch_layers([locked(renamed, index)], fetch=bring, work=tmp_path / "work")
    assert left(tmp_path / "work") == []


def test_an_sdist_is_refused_before_it_is_fetched(tmp_path: Path, wheels: Path, index: IndexServer) -> None:
    """Nothing is built for another platform, so an sdist is of no use."""
    sdist = offer_sdist(wheels, "source", "1.0")
    with pytest.raises(LayerError, match="is no wheel") as caught:
        fetch_layers([locked(sdist, index)], fetch=bring, work=tmp_path / "work")
    assert "package_sync_ignore" in str(caught.value)
    assert files_asked(index) == 0


def test_what_has_no_hash_is_refused(tmp_path: Path, wheels: Path, index: IndexServer) -> None:
    """Without a sha256 nobody could tell what arrived."""
    with pytest.raises(LayerError, match="no sha256"):
        fetch_layers([locked(offer(wheels, "one", "1.0"), index, sha256="")], fetch=bring, work=tmp_path / "work")


def test_all_that_can_not_be_had_is_named_at_once(tmp_path: Path, wheels: Path, index: IndexServer) -> None:
    """Two bad files are one error; the good one is kept for the next try."""
    good = offer(wheels, "good", "1.0")
    bad = [offer(wheels, name, "1.0") for name in ("first", "second")]
    for path in bad:
        path.write_bytes(f"this is no wheel: {path.name}".encode())
    with pytest.raises(LayerError) as caught:
        fetch_layers([locked(path, index) for path in (good, *bad)], fetch=bring, work=tmp_path / "work")
    assert "2 wheels" in str(caught.value)
    assert sorted(caught.value.details["failures"]) == [path.name for path in bad]
    assert fetch_layers([locked(good, index)], fetch=bring, work=tmp_path / "work").fetched == 0


def test_an_interrupted_fetch_leaves_nothing(tmp_path: Path, wheels: Path, index: IndexServer) -> None:
    """What ends in the middle is begun anew the next time."""
    file = locked(offer(wheels, "one", "1.0"), index)

    def cut(locked_file: LockedFile, into: Path) -> Path:
        bring(locked_file, into)
        raise LayerError("The connection was lost.")

    with pytest.raises(LayerError, match="The connection was lost"):
        fetch_layers([file], fetch=cut, work=tmp_path / "work")
    assert left(tmp_path / "work") == []
    assert fetch_layers([file], fetch=bring, work=tmp_path / "work").fetched == 1


def test_a_folder_that_can_not_be_written_is_said(tmp_path: Path, wheels: Path, index: IndexServer) -> None:
    """Where the work folder should be is a file: the error names it and what to do."""
    (tmp_path / "work").write_bytes(b"")
    with pytest.raises(LayerError) as caught:
        fetch_layers([locked(offer(wheels, "one", "1.0"), index)], fetch=bring, work=tmp_path / "work")
    assert str(tmp_path / "work") in str(caught.value)
    assert "writable" in str(caught.value)


def test_progress_says_what_came_from_where(tmp_path: Path, wheels: Path, index: IndexServer) -> None:
    """Each file is told of once, with whether it had to be fetched."""
    files = {name: locked(offer(wheels, name, "1.0"), index) for name in ("one", "two")}
    fetch_layers([files["one"]], fetch=bring, work=tmp_path / "work")
    told: dict[str, bool] = {}
    fetch_layers(
        files.values(),
        fetch=bring,
        work=tmp_path / "work",
        progress=lambda file, new: told.update({file.filename: new}),
    )
    assert told == {"one-1.0-py3-none-any.whl": False, "two-1.0-py3-none-any.whl": True}
