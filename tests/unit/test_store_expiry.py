"""The rule for what expires, what may be a key, and how failures of the disk are worded."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from likewise.errors import StoreError
from likewise.model.digest import digest_bytes
from likewise.model.keys import kit_key, layer_key, manifest_key, note_key, script_key
from likewise.store.failures import store_error
from likewise.store.values import Item, check_key, choose_expired

NOW = 1_000_000.0
HOUR = 3600.0


def item(key: str, *, hours_ago: float, size: int = 10) -> Item:
    return Item(key=f"layers/{key}", size=size, used=NOW - hours_ago * HOUR)


def choose(
    *items: Item, max_age: float = 24, max_size: int | None = None, grace: float = 0.1, leased: tuple[str, ...] = ()
) -> tuple[list[str], list[str], list[str]]:
    choice = choose_expired(
        items,
        now=NOW,
        max_age=max_age * HOUR,
        max_size=max_size,
        grace=grace * HOUR,
        leased={f"layers/{name}" for name in leased},
    )
    remove, spared, recent = (
        [i.key.partition("/")[2] for i in part] for part in (choice.remove, choice.leased, choice.recent)
    )
    return remove, spared, recent


def test_expires_by_age() -> None:
    """What was last used longer ago than the maximal age goes, oldest first; the rest stays."""
    items = (item("new", hours_ago=1), item("old", hours_ago=25), item("older", hours_ago=26))
    assert choose(*items) == (["older", "old"], [], [])


def test_age_is_inclusive() -> None:
    """Content goes at the very moment at which it reaches the maximal age."""
    assert choose(item("a", hours_ago=24)) == (["a"], [], [])
    assert choose(item("a", hours_ago=23.999)) == ([], [], [])


def test_size_limit_takes_least_recently_used() -> None:
    """Beyond the size limit the least recently used go, and no more than needed."""
    items = (item("c", hours_ago=1), item("a", hours_ago=3), item("b", hours_ago=2))
    assert choose(*items, max_size=30) == ([], [], [])
    assert choose(*items, max_size=29) == (["a"], [], [])
    assert choose(*items, max_size=10) == (["a", "b"], [], [])


def test_expired_content_counts_towards_the_size_limit() -> None:
    """What goes by age already makes room, so that nothing younger has to go for the limit."""
    assert choose(item("old", hours_ago=30), item("new", hours_ago=1), max_size=10) == (["old"], [], [])


def test_leased_content_stays() -> None:
    """Leased content neither expires nor makes room; the next least recently used goes instead."""
    items = (item("a", hours_ago=30), item("b", hours_ago=2), item("c", hours_ago=1))
    assert choose(*items, max_size=20, leased=("a",)) == (["b"], ["a"], [])


def test_recent_content_stays() -> None:
    """Content used within the grace time stays even beyond the size limit: somebody may be about to lease it."""
    assert choose(item("a", hours_ago=0.05), max_size=0) == ([], [], ["a"])


def test_clock_set_back() -> None:
    """A last use that lies in the future counts as just now: such content can still be removed by wish."""
    assert choose(item("a", hours_ago=-48)) == ([], [], [])
    assert choose(item("a", hours_ago=-48), max_age=0, grace=0) == (["a"], [], [])


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no reason to fail
@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(1, 40), st.booleans()), max_size=20),
    st.integers(0, 30),
    st.none() | st.integers(0, 300),
)
def test_whatever_is_chosen(rows: list[tuple[int, int, bool]], max_age: int, max_size: int | None) -> None:
    """Always: nothing leased or recent goes, and afterwards all that stays is wanted, leased or recent."""
    items = [Item(key=f"layers/{i}", size=size, used=NOW - age) for i, (age, size, _) in enumerate(rows)]
    leased = {f"layers/{i}" for i, row in enumerate(rows) if row[2]}
    choice = choose_expired(items, now=NOW, max_age=max_age, max_size=max_size, grace=5, leased=leased)
    assert not {i.key for i in choice.remove} & leased
    assert all(NOW - i.used >= 5 for i in choice.remove)
    kept = [i for i in items if i not in choice.remove]
    free = [i for i in kept if i.key not in leased and NOW - i.used >= 5]
    assert all(NOW - i.used < max_age for i in free)
    if max_size is not None and sum(i.size for i in kept) > max_size:
        assert not free


def test_keys_of_the_model_are_keys() -> None:
    """Every key that the model makes is one that a store takes."""
    digest = digest_bytes(b"x")
    for key in (
        layer_key(digest),
        manifest_key(digest),
        kit_key(digest),
        script_key(digest),
        note_key("bytecode-cpython-311-a70d0d0a", digest),
    ):
        assert check_key(key) == key


@pytest.mark.parametrize(
    "key",
    ["", "layers", "layers/", "/layers/a", "layers/../lock", "layers/.hidden", "layers//a", "tmp/a", "leases/a", "lock",
     "layers/a\n", "layers/a\nkits/b", "layers/a b", "layers\\a/b", "../a"],
)  # fmt: skip
def test_other_keys_are_refused(key: str) -> None:
    """A key can't leave the store, name the store's own files, or break the lines of a lease."""
    with pytest.raises(StoreError, match="key"):
        check_key(key)


@pytest.mark.parametrize(
    ("number", "what"),
    [
        (errno.ENOSPC, "full"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "may not be written"),
        (errno.EPERM, "may not be written"),
        (errno.ENOTDIR, "taken by a file"),
        (errno.EIO, os.strerror(errno.EIO)),
    ],
)
def test_failures_say_what_where_and_what_to_do(number: int, what: str) -> None:
    """Every failure of the disk names the place, the reason and a way out, and keeps the symbolic error number."""
    error = store_error(OSError(number, os.strerror(number)), Path("some/store"))
    assert what in error.what
    assert error.where == str(Path("some/store"))
    assert "LIKEWISE_CACHE" in error.todo
    assert error.details == {"errno": errno.errorcode[number]}
