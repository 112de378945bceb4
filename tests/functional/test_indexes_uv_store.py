"""Credentials that ``uv auth login`` keeps: as uv itself writes and uses them, and as uv alone can read them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from likewise.indexes import Indexes, find_indexes
from likewise.indexes.fetch import fetch
from likewise.indexes.secret import Credential
from likewise.indexes.uv_store import UvStore, read_uv_store
from likewise.model.plan import LockedFile
from likewise.model.snapshot import Problem
from support.canaries import canary, words_said
from support.indexes import Offered, offer, serve_index
from support.prefixes import UV, clean_environ


def found(home: Path, **environ: str) -> Indexes:
    """The indexes of a user with this home and these variables, who has nothing else."""
    return find_indexes(
        environ={"XDG_CONFIG_DIRS": str(home / "none"), **environ}, home=home, folder=home, machine=home / "machine"
    )


def log_in(home: Path, service: str, password: str, *more: str) -> None:
    """Have uv keep it."""
    subprocess.run(
        [UV, "auth", "login", service, *more, "--password" if more else "--token", "-"],
        input=password, text=True, capture_output=True, check=True, env=clean_environ(HOME=str(home)),
    )  # fmt: skip


def write(home: Path, *entries: dict[str, str]) -> Path:
    """uv's file, by hand."""
    path = home / ".local" / "share" / "uv" / "credentials" / "credentials.toml"
    path.parent.mkdir(parents=True)
    lines = [["[[credential]]", *(f"{key} = {json.dumps(value)}" for key, value in one.items())] for one in entries]
    path.write_text("\n".join(line for one in lines for line in one) + "\n")
    return path


def compiled(indexes: Indexes, folder: Path) -> str:
    """What uv finds with these indexes, and says."""
    environ, arguments = indexes.for_uv()
    done = subprocess.run(
        [UV, "pip", "compile", "-", "--no-config", "--cache-dir", folder / "cache", "--python", sys.executable,
         *arguments],
        input="sample", text=True, capture_output=True, cwd=folder,
        env={**clean_environ(HOME=str(folder / "elsewhere")), **environ, "UV_HTTP_RETRIES": "0"},
    )  # fmt: skip
    return done.stdout + done.stderr


def read(home: Path, system: str = "linux", **environ: str) -> tuple[UvStore, list[Problem]]:
    """What uv has kept there, and what is wrong with it."""
    problems: list[Problem] = []
    return read_uv_store(environ, home, home, system, problems), problems


@pytest.mark.parametrize("way", ["password", "token", "bearer"])
def test_what_uv_keeps_opens_the_index(tmp_path: Path, way: str) -> None:
    """For uv and for fetching, and nothing of it is shown. uv's commands make no bearer token, but it knows them."""
    wheel = offer(tmp_path / "wheels", "sample", "1.0")
    word = canary("uv_store_and_long_enough_to_be_seen_as_base64")
    guards = {
        "password": {"user": "me@firm", "password": word},
        "token": {"user": "__token__", "password": word},
        "bearer": {"bearer": word},
    }
    with serve_index(wheel.parent, **guards[way]) as index:
        if way == "bearer":
            write(tmp_path, {"service": index.root, "scheme": "bearer", "token": word})
        else:
            log_in(tmp_path, index.root, word, *(["--username", "me@firm"] if way == "password" else []))
        indexes = found(tmp_path, UV_DEFAULT_INDEX=index.url)
        said = compiled(indexes, tmp_path)
        assert "sample==1.0" in said
        file = LockedFile(
            filename=wheel.name, url=f"{index.files_url}{wheel.name}", sha256=Offered(wheel).sha256, index="x"
        )
        assert not indexes.open_to_all(file)
        assert fetch(file, tmp_path / "into", indexes=indexes).read_bytes() == wheel.read_bytes()
        assert words_said(f"{said} {indexes!r} {indexes.problems}") == set()
        assert words_said(indexes.conceal(f"{word} and {index.asked[-1].authorization}")) == set()
    assert words_said(repr(read(tmp_path))) == set()


def test_a_host_that_only_a_page_names(tmp_path: Path) -> None:
    """What is kept for the host of the files opens that host, although no index is there."""
    wheel = offer(tmp_path / "wheels", "sample", "1.0")
    with (
        serve_index(wheel.parent, host="localhost", user="me", password="secret") as files,
        serve_index(wheel.parent, files_at=files.files_url) as index,
    ):
        log_in(tmp_path, files.root, "secret", "--username", "me")
        indexes = found(tmp_path, UV_DEFAULT_INDEX=index.url)
        file = LockedFile(
            filename=wheel.name, url=f"{files.files_url}{wheel.name}", sha256=Offered(wheel).sha256, index="x"
        )
        assert fetch(file, tmp_path / "into", indexes=indexes).is_file()
        assert not any(one.authorization for one in index.asked)


def revealed(given: Credential | None) -> tuple[str, str] | None:
    """User and password."""
    return (given.user.reveal(), given.password.reveal() if given.password else "") if given else None


def test_the_nearest_service_counts(tmp_path: Path) -> None:
    """Of several the one with the longest path, of the same scheme, host and port; of one user, where one is known."""
    at = "https://packages.example"
    write(
        tmp_path,
        {"service": "packages.example", "username": "all", "password": "1"},
        {"service": f"{at}/team/", "username": "team", "password": "2"},
        {"service": f"{at}/team", "username": "guest", "password": "3"},
        {"service": f"{at}:444/", "username": "port", "password": "4"},
    )
    store, problems = read(tmp_path)
    asked = {
        f"{at}/simple": ("all", "1"),
        f"{at}/team": ("team", "2"),
        f"{at}/team/simple/x": ("team", "2"),
        f"{at}/teams": ("all", "1"),
        f"{at}:444/x": ("port", "4"),
        "http://packages.example/simple": None,
        "https://other.example/team": None,
    }
    assert {url: revealed(store.get(url)) for url in asked} == asked
    assert revealed(store.get(f"{at}/team/x", "guest")) == ("guest", "3")
    assert store.get(f"{at}/team/x", "nobody") is None
    assert problems == []


def test_netrc_comes_first(tmp_path: Path) -> None:
    """As uv has it: the URL, netrc, what it has kept, keyring."""
    write(tmp_path, {"service": "https://a.example", "username": "kept", "password": "x"})
    url = "https://a.example/simple"
    assert found(tmp_path, UV_DEFAULT_INDEX=url).authorization(url) == "Basic a2VwdDp4"
    (tmp_path / ".netrc").write_text("machine a.example login netrc password x\n")
    assert found(tmp_path, UV_DEFAULT_INDEX=url).authorization(url) == "Basic bmV0cmM6eA=="
    given = "https://url:x@a.example/simple"
    assert found(tmp_path, UV_DEFAULT_INDEX=given).authorization(url) == "Basic dXJsOng="


@pytest.mark.parametrize(
    ("system", "environ", "place"),
    [
        ("linux", {"XDG_DATA_HOME": "{home}/data"}, "data/uv/credentials"),
        ("darwin", {}, ".local/share/uv/credentials"),
        ("darwin", {}, "Library/Application Support/uv/credentials"),
        ("win32", {"APPDATA": "{home}/Roaming"}, "Roaming/uv/data/credentials"),
        ("linux", {"UV_CREDENTIALS_DIR": "own"}, "own"),
    ],
)
def test_places(tmp_path: Path, system: str, environ: dict[str, str], place: str) -> None:
    """Where uv keeps it on each system, and where it was told to."""
    file = tmp_path / place / "credentials.toml"
    file.parent.mkdir(parents=True)
    file.write_text('[[credential]]\nservice = "https://a.example"\nusername = "me"\npassword = "x"\n')
    store, _ = read(tmp_path, system, **{key: value.format(home=tmp_path) for key, value in environ.items()})
    assert revealed(store.get("https://a.example/simple")) == ("me", "x")
    assert store.folder == file.parent


@pytest.mark.parametrize("text", ["[[credential]", "credential = 1", '[[credential]]\nusername = "me"', "[" * 5000])
def test_a_damaged_file_is_told_without_its_words(tmp_path: Path, text: str) -> None:
    """There is no credential then, and a problem says why."""
    path = write(tmp_path)
    path.write_text(f"{text}\n# {canary('damaged')}")
    store, (problem,) = read(tmp_path)
    assert store == UvStore()
    assert str(path) in problem.message and words_said(problem.message) == set()
