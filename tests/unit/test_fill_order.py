"""In which order the layers of a growing prefix are laid out."""

from __future__ import annotations

from likewise.node.order import Order

CLOSURES = {"a": ("a", "b", "c"), "b": ("b", "c"), "d": ("d", "a", "b", "c")}


def all_of(order: Order) -> str:
    taken = []
    while (key := order.take()) is not None:
        taken.append(key)
    assert not order
    return "".join(taken)


def test_without_a_wish() -> None:
    """Nothing wished for: the order that was given, each once."""
    order = Order("xaybx", CLOSURES)
    assert len(order) == 4 and not order.is_urgent()
    assert all_of(order) == "xayb"


def test_first_ones_with_what_they_require() -> None:
    """What comes first brings what it requires along, and is not urgent: nobody waits for it yet."""
    order = Order("xyzabc", CLOSURES, ["z", "a"])
    assert not order.is_urgent()
    assert [order.take() for _ in range(4)] == list("zabc")
    assert all_of(order) == "xy"


def test_last_wish_comes_first() -> None:
    """Of what is asked for the last comes first, in the order in which it was asked for, with what it requires."""
    order = Order("xyzabcd", CLOSURES, ["z"])
    order.want(["y"])
    order.want(["x", "b"])
    assert order.is_urgent()
    assert [order.take() for _ in range(4)] == ["x", "b", "c", "y"]
    assert not order.is_urgent()
    assert all_of(order) == "zad"


def test_asked_again() -> None:
    """What is asked for again moves to the front once more, and what is done does not come back."""
    order = Order("xyz", {})
    order.want(["x"])
    order.want(["z", "nobody knows it"])
    order.want(["x"])
    assert order.take() == "x"
    order.want(["x"])
    assert all_of(order) == "zy"


def test_once_more() -> None:
    """What failed comes back only when it is said, and can be wished for then."""
    order = Order("xy", {})
    assert order.take() == "x"
    order.again("x")
    order.want(["x"])
    assert order.is_urgent() and all_of(order) == "xy"


def test_put_off() -> None:
    """What is to be put off is passed over while nobody asks for it, and comes when somebody does."""
    order = Order("abcde", {"d": ("d", "c")}, first=["b", "e"])
    assert [order.take("abc".__contains__) for _ in range(3)] == ["e", "d", None]
    assert len(order) == 3
    order.want(["c"])
    assert [order.take("abc".__contains__) for _ in range(2)] == ["c", None]
    assert [order.take("a".__contains__), order.take(), order.take()] == ["b", "a", None]
