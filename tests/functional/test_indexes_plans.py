"""Plans made with real indexes: nothing secret in them, and a true reason where an index could not answer."""

from __future__ import annotations

import contextlib
import json
import pickle
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec
import pytest

from likewise.errors import BuildError, PlanError
from likewise.indexes import Indexes, find_indexes
from likewise.indexes.fetch import fetch
from likewise.indexes.plans import concealing, examine, settle
from likewise.model.plan import Plan
from likewise.planner.elsewhere import plan_elsewhere
from likewise.planner.options import PlanOptions
from likewise.resolution.uv import UvResolver
from support.canaries import canary, uv_credentials, words_beneath, words_said
from support.indexes import IndexServer, dead_url, offer, serve_index
from support.keyrings import keyring_environ, make_keyring
from support.plans import LINUX, LINUX_TAG, installed, snapshot_of
from support.prefixes import clean_environ
from support.processes import watched
from support.wheels import site_packages

SOON = 0.5
TESTS = Path(__file__).parents[1]


def found(folder: Path, **environ: str) -> Indexes:
    """The indexes of a user with these variables, who has nothing else."""
    return find_indexes(
        environ={"XDG_CONFIG_DIRS": str(folder / "none"), **environ},
        home=folder,
        folder=folder,
        machine=folder / "machine",
    )


def planned(folder: Path, indexes: Indexes) -> Plan:
    """The plan for a Mac that has one compiled distribution."""
    environ, arguments = indexes.for_uv()
    environ |= {"UV_CACHE_DIR": str(folder / "cache"), "UV_HTTP_RETRIES": "0"}
    resolver = UvResolver(work=folder / "work", environ=environ, arguments=arguments)
    snapshot = snapshot_of(installed("sample", "1.2.3"))
    with concealing(indexes):
        return settle(plan_elsewhere(snapshot, LINUX, PlanOptions(), resolver, here=True), indexes)


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """A folder with the wheel that the nodes need."""
    return offer(tmp_path / "wheels", "sample", "1.2.3", tag=LINUX_TAG).parent


def test_a_plan_has_no_token(tmp_path: Path, wheels: Path) -> None:
    """Neither that of a path nor that of a query; its files can be fetched with what this process knows."""
    token = {"path_token": canary("path"), "query_token": canary("query")}
    with serve_index(wheels, **token) as index:
        indexes = found(tmp_path, UV_INDEX=f"firm={index.url}")
        plan = planned(tmp_path, indexes)
        assert words_said(msgspec.json.encode(plan).decode()) == set()
        decision = plan.get("sample")
        assert decision and decision.file and decision.file.index == "firm"
        path = fetch(decision.file, tmp_path / "into", indexes=indexes)
        assert path.read_bytes() == next(wheels.iterdir()).read_bytes()


def test_an_error_has_no_token(tmp_path: Path) -> None:
    """uv repeats URLs in what it says."""
    with serve_index(tmp_path, path_token=canary("path"), fault="not-json") as index:
        indexes = found(tmp_path, UV_DEFAULT_INDEX=index.url)
        with pytest.raises(PlanError) as error:
            planned(tmp_path, indexes)
    said = f"{''.join(traceback.format_exception(error.value))} {error.value.as_dict()} {pickle.dumps(error.value)!r}"
    assert words_said(said) == set()
    assert f"127.0.0.1:{index.port}/…" in str(error.value)


def test_an_error_has_no_token_of_a_query(tmp_path: Path) -> None:
    """The index's own: as it stands in the URL, as it is meant, and beside what is no text."""
    token = f"{canary('query')}/a+b"
    with serve_index(tmp_path, fault="not-json") as index:
        query = f"authenticated=true&key={quote(token, safe='')}&{canary('bare')}"
        indexes = found(tmp_path, UV_DEFAULT_INDEX=f"{index.url}?{query}")
        with pytest.raises(PlanError) as error:
            planned(tmp_path, indexes)
        assert all(urlsplit(one.path).query == query for one in index.asked) and index.asked
    said = f"{''.join(traceback.format_exception(error.value))} {error.value.as_dict()} {pickle.dumps(error.value)!r}"
    assert words_said(said) == set()
    with pytest.raises(BuildError) as other, concealing(indexes):
        details = {"url": f"{index.url}?{query}", "as_meant": [token], "whole": True}
        raise BuildError(f"at {index.url}?{query}", details=details)
    assert other.value.what == f"at {index.url}?***"
    assert other.value.details == {"url": f"{index.url}?***", "as_meant": ["***"], "whole": True}


def test_other_errors_keep_their_kind(tmp_path: Path) -> None:
    """Only words are taken out."""
    word = canary("password")
    indexes = found(tmp_path, UV_DEFAULT_INDEX=f"https://me:{word}@a.example/simple")
    with pytest.raises(BuildError) as error, concealing(indexes):
        raise BuildError(f"a {word}", where=f"b {word}", todo=f"c {word}", details={"output": [f"d {word}", 7]})
    assert error.value.as_dict() == {
        "error": "build",
        "what": "a ***",
        "where": "b ***",
        "todo": "c ***",
        "details": {"output": ["d ***", 7]},
    }


@pytest.mark.parametrize(
    ("manner", "words"),
    [
        ({"fault": "status", "status": 403}, "it refuses access (403)"),
        ({"fault": "html"}, "perhaps one for signing in"),
    ],
)
def test_an_index_that_does_not_answer_is_named(
    tmp_path: Path, wheels: Path, manner: dict[str, Any], words: str
) -> None:
    """To uv it is as if nobody had the distribution."""
    with serve_index(wheels, **manner) as index:
        plan = planned(tmp_path, found(tmp_path, UV_INDEX=f"firm={index.url}"))
        (problem,) = [problem for problem in plan.problems if problem.code == "index-failed"]
    assert problem.subject == "firm" and words in problem.message and index.url in problem.message


def test_indexes_that_answer_are_not_blamed(tmp_path: Path) -> None:
    """One that doesn't have it, and one that has another version of it."""
    offer(tmp_path / "wheels", "sample", "3.0.0", tag=LINUX_TAG)
    with serve_index(tmp_path / "nothing") as first, serve_index(tmp_path / "wheels") as second:
        indexes = found(tmp_path, UV_INDEX=first.url, UV_DEFAULT_INDEX=second.url)
        plan = planned(tmp_path, indexes)
        assert {problem.code for problem in plan.problems} == {"not-on-target"}
        assert first.asked_for("sample") and second.asked_for("sample")


@pytest.mark.parametrize(
    ("manner", "words"),
    [
        ({"user": "me", "password": "secret"}, "wants a credential (401); looked for one in: "),
        ({"fault": "status", "status": 500}, "answers 500"),
        ({"fault": "hang"}, "does not answer within 0.5 s"),
        ({"fault": "not-json"}, "JSON that is no page"),
    ],
)
def test_what_is_wrong_with_an_index(tmp_path: Path, wheels: Path, manner: dict[str, Any], words: str) -> None:
    """In a few words, soon; a later index is not asked."""
    with serve_index(wheels, **manner) as index, serve_index(wheels) as later:
        indexes = found(tmp_path, UV_INDEX=f"firm={index.url}", UV_DEFAULT_INDEX=later.url)
        started = time.monotonic()
        (problem,) = examine(indexes, "sample", timeout=SOON)
        assert time.monotonic() - started < 10 * SOON
        assert words in problem.message
        assert not later.asked


def test_an_index_that_is_down(tmp_path: Path) -> None:
    """That is said."""
    (problem,) = examine(found(tmp_path, UV_INDEX=f"firm={dead_url()}"), "sample", timeout=SOON)
    assert "can't be reached" in problem.message


FETCH = """
import msgspec, sys, traceback
from likewise import elsewhere
from likewise.model.plan import Plan
from likewise.settings import resolve_settings
from likewise.stages import Stages
from support.plans import snapshot_of
from support.values import make_interpreter

class Printer:
    def report(self, event):
        print(msgspec.json.encode(event).decode())

plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
client = msgspec.structs.replace(snapshot_of(), interpreter=make_interpreter(executable=sys.executable))
wheels = elsewhere.fetch(plan, client, settings=resolve_settings(), stages=Stages(Printer()), leave=True)
print(wheels)
print("layers:", *sorted(wheels.layers), "offers:", *(offer.file.filename for offer in wheels.offers))
"""


@pytest.mark.registry
@pytest.mark.parametrize("guard", ["right", "wrong"])
def test_canaries_of_a_plan(tmp_path: Path, guard: str) -> None:
    """``likewise plan`` with credentials from everywhere, and fetching what it says: nothing that is said, written or
    run has one, and nodes are offered none of it."""
    home, project = tmp_path / "home", tmp_path / "project"
    names = ("store", "url", "variable", "netrc", "path", "query", "requirements", "keyring")
    words = {name: canary(f"in_{name}_and_long_enough_to_be_seen_as_base64") for name in names}
    folders = {name: offer(tmp_path / name, f"u{name}", "1.2.3", tag=LINUX_TAG).parent for name in names}
    with contextlib.ExitStack() as stack:
        at = {}
        for host, name in enumerate(names, 1):
            asked = {"path": {"path_token": words[name]}, "query": {"query_token": words[name], "metadata": True}}
            guarded = asked.get(name, {"user": "me", "password": words[name] if guard == "right" else "another"})
            at[name] = stack.enter_context(serve_index(folders[name], host=f"127.0.0.{host}", **guarded))
        own = planted(home, project, at, words)
        for path, text in own.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        environ = {
            **{name: text for name, text in clean_environ().items() if not name.startswith(("PIP_", "UV_", "XDG_"))},
            "HOME": str(home),
            "LIKEWISE_CACHE": str(tmp_path / "cache"),
            "UV_CACHE_DIR": str(tmp_path / "uv"),
            "UV_HTTP_RETRIES": "0",
            "UV_INDEX": f"firm={at['variable'].url} {at['path'].url} {at['store'].url} {at['keyring'].url}",
            "UV_INDEX_FIRM_USERNAME": "me",
            "UV_INDEX_FIRM_PASSWORD": words["variable"],
            "PYTHONPATH": f"{site_packages(make_keyring(tmp_path))}:{TESTS}",
            **keyring_environ(tmp_path, at["keyring"].url, words["keyring"]),
        }
        command = [sys.executable, "-m", "likewise", "plan", "--from", "requirements.txt", "--client", "osx-arm64"]
        command += ["--python", "3.11.7", "--target", "linux-64", "-v", "--json"]
        how: dict[str, Any] = {"cwd": project, "env": environ, "capture_output": True, "text": True}
        with watched() as commands:
            done = subprocess.run(command, **how)
            fetched = subprocess.run([sys.executable, "-c", FETCH], input=done.stdout, **how)
    assert any("pip compile" in one for one in commands) and any("keyring" in one for one in commands)
    assert words_said(" ".join([*commands, done.stdout, done.stderr, fetched.stdout, fetched.stderr])) == set()
    said = words_beneath(tmp_path, without=frozenset([*own, tmp_path / "asked"]))  # the user's own keyring wrote that
    # uv keeps the pages of an index, with the addresses that are on them, in a cache of its own.
    tokens = {words["path"], words["query"]}
    assert {word for word, paths in said.items() if any("/uv/" not in path for path in paths)} == set()
    assert set(said) <= tokens
    if guard == "right":
        files = {d["name"]: d["file"]["index"] for d in json.loads(done.stdout)["decisions"] if d["file"]}
        assert len(files) == len(names) and files["uvariable"] == "firm", done.stdout + done.stderr
        assert f"layers: {' '.join(sorted(f'u{name}' for name in names))} offers:\n" in fetched.stdout, fetched.stderr
    else:
        assert done.returncode and "credential" in done.stdout + done.stderr


def planted(home: Path, project: Path, at: Mapping[str, IndexServer], words: Mapping[str, str]) -> dict[Path, str]:
    """The files of a user who has credentials for these indexes."""
    url, requirements = (at[name].url.replace("://", f"://me:{words[name]}@", 1) for name in ("url", "requirements"))
    return {
        home / ".netrc": f"machine 127.0.0.4 login me password {words['netrc']}\n",
        home / ".local/share/uv/credentials/credentials.toml": uv_credentials(at["store"].root, words["store"]),
        home / ".config" / "uv" / "uv.toml": f'[[index]]\nurl = "{url}"\n',
        home / ".config" / "pip" / "pip.conf": (f"[global]\nextra-index-url = {at['netrc'].url} {at['query'].url}\n"),
        project / "requirements.txt": "\n".join(
            [f"--extra-index-url {requirements}", *(f"u{name}==1.2.3" for name in words)]
        ),
    }
