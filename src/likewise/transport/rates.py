"""How quickly something comes, measured while it comes."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable

_SECONDS = 2.0
_MEMORY = 30.0  # busy seconds; what was before them counts less and less


class Meter:
    """Bytes per second of busy time, of late: time in which nothing is under way does not count.

    Parameters
    ----------
    enough : int
        Bytes before which nothing can be said; two busy seconds are enough, too.
    clock : callable
        Seconds, never going back.
    """

    def __init__(self, enough: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._enough, self._clock = enough, clock
        self._active: set[Hashable] = set()
        self._bytes, self._busy, self._since = 0.0, 0.0, 0.0

    def began(self, what: Hashable) -> None:
        """Something is under way."""
        if not self._active:
            self._since = self._clock()
        self._active.add(what)

    def waited(self) -> None:
        """Nobody was there to give it until now."""
        self._since = self._clock()

    def took(self, amount: int) -> None:
        """So many bytes came since the last call. Time that brought nothing counts as soon as something comes."""
        if self._active:
            now = self._clock()
            self._busy += now - self._since
            self._since = now
            self._bytes += amount
            if self._busy > _MEMORY:
                self._bytes *= _MEMORY / self._busy
                self._busy = _MEMORY

    def ended(self, what: Hashable) -> None:
        """It came, or it will not."""
        self._active.discard(what)

    @property
    def rate(self) -> float:
        """Bytes per second; 0.0 while it is not known."""
        known = self._bytes >= self._enough or (self._bytes and self._busy >= _SECONDS)
        return self._bytes / max(self._busy, 1e-6) if known else 0.0
