"""Weather stations. In the demo this package is installed editable: the nodes get a wheel built from its tree."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import pandas as pd


def altitudes() -> pd.Series:
    """Altitude of each station in metres, from the data file that comes with this package."""
    with files(__name__).joinpath("altitudes.csv").open() as file:
        return pd.read_csv(file, index_col="station")["altitude"]


def readings(station: str, *, hours: int = 24 * 365) -> pd.Series:
    """A made-up year of hourly temperatures in °C: the same for the same station, with some nonsense in it."""
    rng = np.random.default_rng(sum(station.encode()))
    hour = np.arange(hours)
    season = -9 * np.cos(2 * np.pi * hour / hours)
    day = -4 * np.cos(2 * np.pi * hour / 24)
    values = 11 - 0.0065 * altitudes()[station] + season + day + rng.normal(0, 1.5, hours)
    values[rng.integers(0, hours, 20)] = 999.0  # what a broken sensor says
    return pd.Series(values, index=pd.date_range("2025-01-01", periods=hours, freq="h"), name=station)
