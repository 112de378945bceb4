"""A loose module: it lies beside the script, belongs to no distribution, and is needed on every node."""

from __future__ import annotations

import pandas as pd


def dropped(values: pd.Series, *, limit: float = 60.0) -> pd.Series:
    """`values` without what no thermometer in the open air can have measured."""
    return values[values.abs() <= limit]
