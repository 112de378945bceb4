"""How quickly something comes."""

from __future__ import annotations

from likewise.transport.rates import Meter


def test_only_busy_time_counts() -> None:
    """Time before the first, between two and after the last transfer says nothing of the rate."""
    now = [100.0]
    meter = Meter(1, lambda: now[0])
    meter.began("a")
    now[0] += 2
    meter.took(200)
    meter.ended("a")
    now[0] += 1000
    meter.began("b")
    now[0] += 1
    meter.took(100)
    meter.ended("b")
    assert meter.rate == 100.0


def test_transfers_at_the_same_time_share_it() -> None:
    """Two that run together are as quick as what they bring together."""
    now = [0.0]
    meter = Meter(1, lambda: now[0])
    meter.began("a")
    meter.began("b")
    now[0] += 4
    meter.took(400)
    meter.ended("a")
    now[0] += 1
    meter.took(600)
    meter.ended("b")
    assert meter.rate == 200.0


def test_what_was_long_ago_counts_for_little() -> None:
    """A line that becomes slow, or quick, is known as that within a minute or two of use, whatever it was for hours."""
    now = [0.0]
    meter = Meter(1, lambda: now[0])
    meter.began("a")
    for amount, seconds in ((1000, 10_000), (10, 120)):
        for _ in range(seconds):
            now[0] += 1
            meter.took(amount)
    assert 10 <= meter.rate < 40


def test_what_brought_nothing_says_nothing() -> None:
    """A failure that ran alone does not make those slow that follow."""
    now = [0.0]
    meter = Meter(1, lambda: now[0])
    meter.began("a")
    now[0] += 60
    meter.ended("a")
    meter.began("b")
    now[0] += 1
    meter.took(50)
    assert meter.rate == 50.0


def test_little_is_not_enough() -> None:
    """Before there are enough bytes, or two seconds of them, the rate is not known; waiting for somebody is no time."""
    now = [0.0]
    meter = Meter(1000, lambda: now[0])
    meter.began("a")
    now[0] += 30
    meter.waited()
    now[0] += 1
    meter.took(500)
    assert meter.rate == 0.0
    now[0] += 1
    meter.took(100)
    assert meter.rate == 300.0
