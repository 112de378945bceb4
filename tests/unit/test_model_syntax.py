"""Source that is parsed while others parse."""

from __future__ import annotations

import ast
import gc
import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from likewise.model.syntax import parse

LARGE = repr({f"name{i}": f"value{i}" for i in range(2000)})


@pytest.fixture
def collecting() -> Iterator[Callable[[Callable[[], object]], None]]:
    """Say what else happens at each garbage collection."""
    before = list(gc.callbacks)
    yield lambda action: gc.callbacks.append(lambda phase, info: action())
    gc.callbacks[:] = before


def test_somebody_else_who_parses_in_between_does_no_harm(collecting: Callable[[Callable[[], object]], None]) -> None:
    """A tree that others disturbed is made again."""
    others = iter(["1"] * 30)
    collecting(lambda: [ast.parse(other) for other in itertools.islice(others, 1)])
    assert ast.unparse(parse(LARGE)) == LARGE
    assert list(others) == []


def test_threads_that_parse_at_once_do_each_other_no_harm(collecting: Callable[[Callable[[], object]], None]) -> None:
    """Also where each garbage collection lets another thread run."""
    collecting(lambda: time.sleep(0.001))
    with ThreadPoolExecutor(4) as pool:
        trees = list(pool.map(parse, [LARGE] * 8))
    assert [ast.unparse(tree) for tree in trees] == [LARGE] * 8


def test_what_is_no_source_is_still_refused() -> None:
    """Errors of the text are not tried again and not hidden."""
    with pytest.raises(SyntaxError):
        parse("a b")
