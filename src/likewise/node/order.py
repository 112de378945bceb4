"""In which order the layers of a growing prefix are laid out. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain


class Order:
    """What is left to do, and what comes next.

    Parameters
    ----------
    keys : iterable of str
        Everything that is to be done; without any wish in this order.
    closures : mapping
        Key → keys of all that it requires, itself among them. What is not in it requires nothing.
    first : sequence of str
        Keys that come first, in this order, each with what it requires.
    """

    def __init__(self, keys: Iterable[str], closures: Mapping[str, Sequence[str]], first: Sequence[str] = ()) -> None:
        self._closures = closures
        self._left = dict.fromkeys(keys)
        self._asked: deque[str] = deque()
        self._first = deque(self._closed(first))

    def __len__(self) -> int:
        return len(self._left)

    def want(self, keys: Sequence[str]) -> None:
        """These come before everything else, in this order, each with what it requires."""
        self._asked.extendleft(reversed(self._closed(keys)))

    def again(self, key: str) -> None:
        """This is to be done once more."""
        self._left.setdefault(key)

    def is_urgent(self) -> bool:
        """Whether somebody is waiting for what comes next."""
        return self._head(self._asked) is not None

    def take(self, put_off: Callable[[str], bool] = lambda key: False) -> str | None:
        """What is to be done next; it counts as done from now on. None when nothing is left.

        What nobody asked for is passed over while `put_off` says so.
        """
        key = self._head(self._asked)
        if key is None:
            self._head(self._first)
            unasked = chain((each for each in self._first if each in self._left), self._left)
            key = next((each for each in unasked if not put_off(each)), None)
        if key is not None:
            del self._left[key]
        return key

    def _head(self, queue: deque[str]) -> str | None:
        while queue and queue[0] not in self._left:
            queue.popleft()
        return queue[0] if queue else None

    def _closed(self, keys: Sequence[str]) -> list[str]:
        closed = (each for key in keys for each in self._closures.get(key, (key,)))
        return [key for key in dict.fromkeys(closed) if key in self._left]
