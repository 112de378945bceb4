"""Answers that were given before: for some time, the same question about the same indexes is not asked again.

A resolver takes seconds and wants a network. What it says of exact versions hardly changes from one launch to the next,
and where it does, that is a matter of hours.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import msgspec

from likewise.errors import StoreError
from likewise.model.digest import Digest, digest_bytes
from likewise.model.keys import note_key
from likewise.model.plan import LockedFile
from likewise.planner.resolver import Lock, Question, Resolver, Unsolvable

_RULES = 2
"""Of what is remembered; to be changed with what an answer means."""


class Notes(Protocol):
    """Small facts kept from run to run (`likewise.store.local.LocalStore`)."""

    def get_bytes(self, key: str) -> bytes | None:
        """What is kept at `key`, None when nothing is."""
        ...

    def put_bytes(self, key: str, data: bytes, *, replace: bool = False) -> None:
        """Keep `data`. May raise StoreError."""
        ...


class Concealed(Protocol):
    """What is known of the secrets of indexes (`likewise.indexes.values.Indexes`)."""

    def named(self, file: LockedFile) -> LockedFile:
        """`file` without a secret in its URL."""
        ...

    def conceal(self, text: str) -> str:
        """`text` without a secret."""
        ...


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What was answered at a time (seconds since the epoch): a lock, or why there is none."""

    at: float
    lock: Lock | None = None
    words: str = ""


class Remembering:
    """A `likewise.planner.resolver.Resolver` that asks another one only what is not remembered.

    Parameters
    ----------
    make : callable
        Makes the other one, when it is needed.
    notes : Notes
    about : str
        All but the question that answers depend on: indexes, limits, the resolver's version. No secret.
    max_age : float
        Seconds for which an answer is good. 0: everything is asked.
    secrets : Concealed
        What is kept goes through it.
    clock : callable, default time.time
        Seconds since the epoch.
    """

    def __init__(
        self,
        make: Callable[[], Resolver],
        *,
        notes: Notes,
        about: str,
        max_age: float,
        secrets: Concealed,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._make, self._notes, self._about, self._max_age = make, notes, about, max_age
        self._secrets, self._clock = secrets, clock
        self._resolver: Resolver | None = None
        self._known: dict[Digest, _Answer] = {}
        self._new: set[Digest] = set()

    @property
    def since(self) -> float | None:
        """When the oldest answer was given, in seconds since the epoch, if all were remembered; else None."""
        return None if self._new else min((one.at for one in self._known.values()), default=None)

    def resolve(self, question: Question) -> Lock:
        """See `likewise.planner.resolver.Resolver.resolve`.

        An answer to a fresh question does for the same one that takes what is remembered of the indexes; never the
        other way round.
        """
        keys = (self._key(msgspec.structs.replace(question, remembered=False)), self._key(question))
        found = ((key, self._known.get(key) or self._recall(key)) for key in keys)
        key, answer = next(((key, answer) for key, answer in found if answer), (keys[-1], None))
        if answer is None:
            answer = self._ask(question)
            self._new.add(key)
        self._known[key] = answer
        if answer.lock is None:
            raise Unsolvable(answer.words)
        return answer.lock

    def keep(self) -> None:
        """Remember what was asked now. Where it can't be written, it is asked again."""
        for key in self._new:
            data = msgspec.json.encode(self._without_secrets(self._known[key]))
            try:
                self._notes.put_bytes(note_key("answer", key), data, replace=True)
            except StoreError:
                return

    def _key(self, question: Question) -> Digest:
        return digest_bytes(msgspec.json.encode((_RULES, self._about, question)))

    def _ask(self, question: Question) -> _Answer:
        if self._resolver is None:
            self._resolver = self._make()
        now = self._clock()
        try:
            return _Answer(at=now, lock=self._resolver.resolve(question))
        except Unsolvable as error:
            return _Answer(at=now, words=str(error))

    def _recall(self, key: Digest) -> _Answer | None:
        try:
            data = self._notes.get_bytes(note_key("answer", key)) if self._max_age else None
            answer = msgspec.json.decode(data, type=_Answer) if data else None
        except (StoreError, msgspec.DecodeError):
            return None
        return answer if answer and 0 <= self._clock() - answer.at < self._max_age else None

    def _without_secrets(self, answer: _Answer) -> _Answer:
        if answer.lock is None:
            return msgspec.structs.replace(answer, words=self._secrets.conceal(answer.words))
        packages = tuple(
            msgspec.structs.replace(one, files=tuple(map(self._secrets.named, one.files)))
            for one in answer.lock.packages
        )
        return msgspec.structs.replace(answer, lock=msgspec.structs.replace(answer.lock, packages=packages))
