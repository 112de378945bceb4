"""A question that was answered is not asked again for some time: with real uv and an index that is then gone."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from likewise.errors import LikewiseError
from likewise.indexes import Indexes
from likewise.model.plan import Plan
from likewise.model.snapshot import Snapshot
from likewise.planner.options import PlanOptions
from likewise.planner.resolver import Lock, Question, Unsolvable
from likewise.planning import plan_for, plan_here
from likewise.resolution.remembered import Remembering
from likewise.settings import Settings
from likewise.store.local import LocalStore
from support.canaries import canary, words_beneath, words_said
from support.commands import likewise
from support.indexes import IndexServer, Manner, offer, serve_index
from support.plans import LINUX, LINUX_TAG, decided, installed, pure, said, snapshot_of
from support.values import LINUX as HERE
from support.values import make_code

MAC = snapshot_of(installed("fast", "1.2.3"), pure("plain", "1.0"))


class User:
    """Somebody with one index and nothing else, whose uv remembers nothing."""

    def __init__(self, folder: Path, index: IndexServer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.index, self.settings = folder, index, Settings(cache=folder / "cache")
        self._set = monkeypatch.setenv
        (folder / "project").mkdir()
        environ = {"HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "XDG_CONFIG_DIRS": str(folder / "none")}
        environ |= {"UV_HTTP_RETRIES": "0", "PIP_CONFIG_FILE": "/dev/null", "PIP_FIND_LINKS": ""}
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        self.has(index.url)

    def has(self, url: str) -> None:
        """The index is this one."""
        self._set("UV_DEFAULT_INDEX", url)

    def plan(self, snapshot: Snapshot = MAC, *, settings: Settings | None = None, **more: Any) -> Plan:
        """The plan for Linux, with an empty cache of uv's."""
        self._set("UV_CACHE_DIR", str(self.folder / "uv"))
        shutil.rmtree(self.folder / "uv", ignore_errors=True)
        options = PlanOptions(**more.pop("options", {}))
        how: dict[str, Any] = {"settings": settings or self.settings, "folder": self.folder / "project", **more}
        if snapshot.interpreter.platform == HERE:
            return plan_here(snapshot, options, **how)
        return plan_for(snapshot, LINUX, options, **how)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[IndexServer]:
    """An index with a few wheels for Linux."""
    folder = tmp_path / "offered"
    offer(folder, "fast", "1.2.3", tag=LINUX_TAG)
    offer(folder, "gpu", "1.0", tag=LINUX_TAG, requires=["plain"])
    with serve_index(folder) as server:
        yield server


@pytest.fixture
def user(tmp_path: Path, index: IndexServer, monkeypatch: pytest.MonkeyPatch) -> User:
    return User(tmp_path, index, monkeypatch)


def without_notes(plan: Plan) -> Any:
    """All of a plan but what it says of its memory."""
    return plan.decisions, plan.kit, [one for one in plan.problems if one.code != "plan-remembered"]


def test_a_second_plan_asks_nobody(user: User) -> None:
    """It is the same one, says when it was asked, and the index may be gone."""
    first = user.plan()
    assert said(first, "plan-remembered") == []
    user.index.stop()
    second = user.plan()
    assert without_notes(second) == without_notes(first)
    (note,) = said(second, "plan-remembered")
    assert " UTC, and what they said is remembered. --refresh " in note


def test_extras_on_the_same_platform_are_remembered(user: User) -> None:
    """A second launch with them needs no index, and no network but for wheels that it does not have."""
    snapshot = snapshot_of(pure("plain", "1.0"), platform=HERE)
    first = user.plan(snapshot, options={"extras": ("gpu",)})
    assert decided(first, "gpu").version == "1.0"
    user.index.stop()
    assert without_notes(user.plan(snapshot, options={"extras": ("gpu",)})) == without_notes(first)
    with pytest.raises(LikewiseError):
        user.plan(snapshot, options={"extras": ("gpu>=1",)})


def test_what_no_answer_depends_on_is_no_other_question(user: User) -> None:
    """Loose code that was edited, and a pure distribution more."""
    user.plan()
    user.index.stop()
    other = snapshot_of(installed("fast", "1.2.3"), pure("plain", "1.0"))
    edited = Snapshot(interpreter=other.interpreter, distributions=other.distributions, code=(make_code(files=7),))
    assert decided(user.plan(edited), "fast").version == "1.2.3"


@pytest.mark.parametrize(
    "change",
    [
        {"snapshot": snapshot_of(installed("fast", "1.2.4"), pure("plain", "1.0"))},
        {"options": {"levels": (("fast", "any"),), "extras": ("gpu",)}},
        {"exclude_newer": "2030-01-01"},
        {"refresh": True},
    ],
)
def test_another_question_is_asked(user: User, change: dict[str, Any]) -> None:
    """Other versions, other wishes, another day of the index, and the same one when the user says so."""
    user.plan()
    before = len(user.index.asked)
    again = user.plan(**change)
    assert len(user.index.asked) > before
    assert said(again, "plan-remembered") == []


def test_another_index_is_asked(user: User, tmp_path: Path) -> None:
    """What one has says nothing of another."""
    user.plan()
    offer(tmp_path / "other", "fast", "1.2.3", tag="cp311-cp311-manylinux_2_28_x86_64")
    with serve_index(tmp_path / "other") as other:
        user.has(other.url)
        file = decided(user.plan(), "fast").file
        assert file is not None and file.url.startswith(other.files_url)


def test_refreshing_replaces_what_is_remembered(user: User, tmp_path: Path) -> None:
    """A better wheel came; who asks anew gets it, and from then on everybody."""
    user.plan()
    better = offer(tmp_path / "offered", "fast", "1.2.3", tag="cp311-cp311-manylinux_2_28_x86_64").name
    files = [decided(user.plan(refresh=one), "fast").file for one in (False, True, False)]
    assert [file.filename == better for file in files if file] == [False, True, True]


def test_it_is_forgotten_in_time(user: User) -> None:
    """After `Settings.remember`; with 0 nothing is remembered at all."""
    soon = Settings(cache=user.folder / "cache", remember=timedelta(microseconds=1))
    never = Settings(cache=user.folder / "never", remember=timedelta())
    for settings in (soon, never):
        counts = [len(user.index.asked)]
        for _ in range(2):
            user.plan(settings=settings)
            counts.append(len(user.index.asked))
        assert counts[0] < counts[1] < counts[2]
    assert not list((user.folder / "never").rglob("answer/*/*"))
    assert list((user.folder / "cache").rglob("answer/*/*"))


def test_what_can_not_be_had_is_asked_for_again(user: User, tmp_path: Path) -> None:
    """Whoever just published it is not told of yesterday."""
    wanting = snapshot_of(installed("fast", "1.2.3"), installed("late", "3.0.0"))
    assert said(user.plan(wanting), "not-on-target")
    offer(tmp_path / "offered", "late", "3.0.0", tag=LINUX_TAG)
    plan = user.plan(wanting)
    assert (said(plan, "not-on-target"), decided(plan, "late").version) == ([], "3.0.0")


def test_a_new_plan_keeps_what_the_former_one_brought_in(user: User, tmp_path: Path) -> None:
    """Something was installed, and something newer published: nodes that have the older one go on with it."""
    snapshot = snapshot_of(pure("plain", "1.0"), platform=HERE)
    former = user.plan(snapshot, options={"extras": ("gpu",)})
    offer(tmp_path / "offered", "gpu", "2.0", tag=LINUX_TAG)
    more = snapshot_of(pure("more", "1.0"), pure("plain", "1.0"), platform=HERE)
    kept = user.plan(more, options={"extras": ("gpu",)}, former=former)
    new = user.plan(more, options={"extras": ("gpu",)})
    needed = user.plan(more, options={"extras": ("gpu>1",)}, former=former)
    assert [decided(plan, "gpu").version for plan in (former, kept, new, needed)] == ["1.0", "1.0", "2.0", "2.0"]


@pytest.mark.parametrize(
    ("manner", "words"),
    [
        ({"fault": "status", "status": 403}, "403"),
        ({"fault": "status", "status": 500}, "500"),
        ({"fault": "html"}, "signing in"),
        ({"user": "me", "password": "pass-word"}, "credential"),
    ],
)
def test_an_index_that_does_not_answer_is_named(user: User, tmp_path: Path, manner: dict[str, Any], words: str) -> None:
    """An extra can't be had, and why, in the index's own way; nothing of that is remembered."""
    snapshot = snapshot_of(pure("plain", "1.0"), platform=HERE)
    with serve_index(tmp_path / "offered", **manner) as index:
        user.has(index.url)
        with pytest.raises(LikewiseError, match=words):
            user.plan(snapshot, options={"extras": ("gpu",)})
        index.manner = Manner(folder=tmp_path / "offered")
        assert decided(user.plan(snapshot, options={"extras": ("gpu",)}), "gpu").version == "1.0"


def test_a_clock_that_was_wrong(tmp_path: Path) -> None:
    """An answer of the future is none."""
    store, asked = LocalStore(tmp_path), []

    class Oracle:
        def resolve(self, question: Question) -> Lock:
            asked.append(question)
            return Lock(packages=())

    def resolve(now: float) -> float | None:
        how: dict[str, Any] = {"notes": store, "about": "", "max_age": 10, "secrets": Indexes()}
        remembering = Remembering(Oracle, **how, clock=lambda: now)
        remembering.resolve(Question(target=LINUX, wanted=()))
        remembering.keep()
        return remembering.since

    assert [resolve(now) for now in (1000, 1005, 1010, 900, 905)] == [None, 1000, None, None, 900]
    assert len(asked) == 3


def test_a_fresh_question_is_asked_of_the_index(tmp_path: Path) -> None:
    """What somebody answered from memory does for no other than such a question; a fresh answer does for both."""
    asked: list[bool] = []

    class Oracle:
        def resolve(self, question: Question) -> Lock:
            asked.append(question.remembered)
            if question.remembered and "old" in question.further:
                raise Unsolvable("nothing is known of it")
            return Lock(packages=())

    def remembering() -> Remembering:
        return Remembering(Oracle, notes=LocalStore(tmp_path), about="", max_age=10, secrets=Indexes())

    old = Question(target=LINUX, wanted=(), further=("old",), remembered=True)
    one = remembering()
    for _ in range(2):
        with pytest.raises(Unsolvable):
            one.resolve(old)
    one.keep()
    two = remembering()
    with pytest.raises(Unsolvable):
        two.resolve(old)
    assert asked == [True]
    for _ in range(2):
        two.resolve(msgspec.structs.replace(old, remembered=False))
    two.keep()
    two.resolve(old)
    remembering().resolve(old)
    assert asked == [True, False]


def test_damage_is_no_answer(user: User) -> None:
    """What was remembered and is no longer to be read is asked again."""
    first = user.plan()
    notes = [path for path in (user.folder / "cache" / "store").rglob("answer/*/*") if path.is_file()]
    assert notes
    for note in notes:
        note.chmod(0o600)
        note.write_bytes(b'{"at": 1')
    before = len(user.index.asked)
    assert without_notes(user.plan()) == without_notes(first)
    assert len(user.index.asked) > before


def test_no_secret_is_remembered(user: User, tmp_path: Path) -> None:
    """Tokens in paths and queries, passwords: in no note, and what is remembered is all the same."""
    for manner in (
        {"path_token": canary("path"), "query_token": canary("query")},
        {"user": "me", "password": canary("password")},
    ):
        with serve_index(tmp_path / "offered", **manner) as private:
            user.has(private.url_with_credentials)
            first = user.plan()
        second = user.plan()
        assert said(second, "plan-remembered")
        assert without_notes(second) == without_notes(first)
        assert words_said(repr(second)) == set()
    assert [path for path in (user.folder / "cache").rglob("answer/*/*") if path.is_file()]
    assert words_beneath(user.folder / "cache") == {}


def test_the_command_says_so(user: User, tmp_path: Path) -> None:
    """``likewise plan`` and ``--refresh``, as processes."""
    (tmp_path / "freeze.txt").write_text("fast==1.2.3\n")
    how = ("--from", tmp_path / "freeze.txt", "--client", "osx-arm64", "--python", "3.11.7", "--target", "linux-64")

    def told(*more: str) -> subprocess.CompletedProcess[str]:
        environ = {"LIKEWISE_CACHE": str(tmp_path / "cache"), "UV_DEFAULT_INDEX": user.index.url}
        done = likewise("plan", *how, *more, cwd=tmp_path / "project", HOME=str(tmp_path), **environ)
        assert done.returncode == 0, done.stderr
        return done

    assert "remembered" not in told().stdout
    assert "what they said is remembered" in told().stdout
    codes = [problem["code"] for problem in json.loads(told("--json").stdout)["problems"]]
    assert "plan-remembered" in codes
    assert "remembered" not in told("--refresh").stdout
