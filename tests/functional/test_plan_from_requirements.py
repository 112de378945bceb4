"""A plan from a requirements file that names a private index, carried out: its credential is read there once more."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from likewise import elsewhere
from likewise.errors import FetchError
from likewise.events import Silent
from likewise.model.layer import LayerSource
from likewise.model.plan import Plan
from likewise.planner.options import PlanOptions
from likewise.planning import plan_towards, read_source
from likewise.settings import Settings
from likewise.stages import Stages
from support.canaries import canary, words_beneath, words_said
from support.indexes import IndexServer, dead_url, offer, serve_index
from support.plans import LINUX_TAG, snapshot_of
from support.values import make_interpreter


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who has configured nothing but an index that does not answer."""
    for name, value in {"HOME": str(tmp_path), "PIP_CONFIG_FILE": "/dev/null", "PIP_FIND_LINKS": ""}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("UV_DEFAULT_INDEX", dead_url())
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def private(tmp_path: Path) -> Iterator[IndexServer]:
    """A guarded index with one wheel."""
    offer(tmp_path / "wheels", "secretive", "1.0", tag=LINUX_TAG)
    with serve_index(tmp_path / "wheels", user="me", password=canary("password")) as index:
        yield index


def planned(tmp_path: Path, text: str) -> Plan:
    """The plan from ``requirements.txt`` with this text, as somebody gets it who has stored it."""
    Path("requirements.txt").write_text(text)
    reading = read_source(Path("requirements.txt"), client="osx-arm64", python="3.11.7")
    plan = plan_towards(reading, "linux-64", PlanOptions(), settings=Settings(cache=tmp_path / "cache"))
    stored = msgspec.json.encode(plan)
    assert words_said(stored.decode()) == set()
    return msgspec.json.decode(stored, type=Plan)


def carried_out(tmp_path: Path, plan: Plan) -> dict[str, LayerSource]:
    """What it fetches."""
    settings = Settings(cache=tmp_path / "cache")
    client = msgspec.structs.replace(snapshot_of(), interpreter=make_interpreter())
    return elsewhere.fetch(plan, client, settings=settings, stages=Stages(Silent())).layers


def test_the_credential_is_read_again(tmp_path: Path, private: IndexServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """From any folder; nothing that is kept has it."""
    plan = planned(tmp_path, f"--extra-index-url {private.url_with_credentials}\nsecretive==1.0\n")
    assert plan.requirements == str(tmp_path / "requirements.txt")
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path / "away")
    assert list(carried_out(tmp_path, plan)) == ["secretive"]
    own = frozenset({tmp_path / "requirements.txt"})
    assert words_beneath(tmp_path, without=own) == {}


def test_a_credential_in_a_variable(tmp_path: Path, private: IndexServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the file has from the environment is taken from there again."""
    monkeypatch.setenv("WORD", canary("password"))
    url = private.url_with_credentials.replace(canary("password"), "${WORD}")
    assert list(carried_out(tmp_path, planned(tmp_path, f"--index-url {url}\nsecretive==1.0\n"))) == ["secretive"]


def test_the_file_is_gone(tmp_path: Path, private: IndexServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names it and the index's host, and says what to set; with that it works."""
    plan = planned(tmp_path, f"--extra-index-url {private.url_with_credentials}\nsecretive==1.0\n")
    Path("requirements.txt").unlink()
    with pytest.raises(FetchError) as error:
        carried_out(tmp_path, plan)
    assert f"{tmp_path}/requirements.txt named indexes" in error.value.todo
    assert f"set UV_INDEX to its URL on 127.0.0.1:{private.port}, with the credential" in error.value.todo
    assert error.value.details["status"] == 401
    monkeypatch.setenv("UV_INDEX", private.url_with_credentials)
    assert list(carried_out(tmp_path, plan)) == ["secretive"]


def test_a_token_in_the_path(tmp_path: Path) -> None:
    """It is hidden in the plan, so without the file nobody knows the address."""
    offer(tmp_path / "wheels", "secretive", "1.0", tag=LINUX_TAG)
    with serve_index(tmp_path / "wheels", path_token=canary("path")) as index:
        plan = planned(tmp_path, f"--extra-index-url {index.url}\nsecretive==1.0\n")
        Path("requirements.txt").rename("other.txt")
        with pytest.raises(FetchError, match="set UV_INDEX to its URL on") as error:
            carried_out(tmp_path, plan)
        Path("other.txt").rename("requirements.txt")
        assert list(carried_out(tmp_path, plan)) == ["secretive"]
    assert words_said(str(error.value.as_dict())) == set()


def test_what_comes_through_a_pipe_names_indexes_for_the_plan(
    tmp_path: Path, private: IndexServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can be read once: the plan is made, a note says what it lacks, and with an index named it is carried out."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    text = f"--extra-index-url {private.url_with_credentials}\nsecretive==1.0\n"
    writer = threading.Thread(target=pipe.write_text, args=(text,))
    writer.start()
    reading = read_source(pipe, client="osx-arm64", python="3.11.7")
    writer.join()
    plan = plan_towards(reading, "linux-64", PlanOptions(), settings=Settings(cache=tmp_path / "cache"))
    assert plan.requirements == ""
    (note,) = [problem for problem in plan.problems if problem.code == "indexes-piped"]
    assert "UV_INDEX" in note.message
    assert words_said(f"{plan} {reading!r}") == set()
    with pytest.raises(FetchError, match="UV_INDEX"):
        carried_out(tmp_path, plan)
    monkeypatch.setenv("UV_INDEX", private.url_with_credentials)
    assert list(carried_out(tmp_path, plan)) == ["secretive"]
    assert words_beneath(tmp_path) == {}


def test_files_without_indexes_are_not_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever gets such a plan needs nothing but the plan."""
    offer(tmp_path / "wheels", "secretive", "1.0", tag=LINUX_TAG)
    with serve_index(tmp_path / "wheels") as index:
        monkeypatch.setenv("UV_DEFAULT_INDEX", index.url)
        plan = planned(tmp_path, "secretive==1.0\n")
        assert plan.requirements == ""
        assert list(carried_out(tmp_path, plan)) == ["secretive"]
