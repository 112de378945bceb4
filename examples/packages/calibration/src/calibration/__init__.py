"""Sensor calibration. In the demo this package is installed from a commit of a git repository."""

from __future__ import annotations

from typing import TypeVar

Values = TypeVar("Values")

OFFSET, GAIN = 0.25, 1.01


def corrected(values: Values) -> Values:
    """What the sensor should have said."""
    return (values - OFFSET) / GAIN  # type: ignore[operator, no-any-return]
