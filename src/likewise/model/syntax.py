"""Python source as a tree, also while other threads parse."""

from __future__ import annotations

import ast
import contextlib
import threading

_TRIES = 20
_ours = threading.RLock()  # reentrant, because garbage collection may run any code in the thread that parses


def parse(source: str) -> ast.Module:
    """`ast.parse`, which CPython 3.11 can't do in two threads at once.

    It counts the depth of the tree in a place that all threads share. Where garbage collection hands over to a thread
    that parses as well (Dask's callbacks do), the count of a faultless tree is wrong at its end: `SystemError`. The
    lock keeps our own threads apart; others' can only be tried again.

    Raises
    ------
    SyntaxError, ValueError
        When it is no Python source.
    """
    with _ours:
        for _ in range(_TRIES - 1):
            with contextlib.suppress(SystemError):
                return ast.parse(source)
        return ast.parse(source)
