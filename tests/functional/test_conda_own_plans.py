"""What nodes like the client get of its conda prefix where something else is planned than a copy."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import dask
import pytest

from likewise import sync
from likewise.prepared import Prepared
from likewise.sync import PlanOptions
from support.conda_channel import CondaPrefix
from support.indexes import offer, serve_index

pytestmark = pytest.mark.registry


@pytest.fixture(autouse=True)
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user with an empty working directory."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("LIKEWISE_CACHE", str(tmp_path / "cache"))
    with dask.config.set({"likewise.streaming": False}):
        yield tmp_path


@pytest.fixture
def copied(conda_prefix: CondaPrefix, user: Path) -> Iterator[Prepared]:
    """A plain copy."""
    with closing(sync.prepare(python=str(conda_prefix.python))) as prepared:
        yield prepared


def test_a_plan_that_was_looked_at(copied: Prepared) -> None:
    """It means the same environment, with the packages that are no distributions and what activation sets."""
    with closing(sync.prepare(goal=copied.plan, python=copied.python)) as again:
        assert again.manifest.layers == copied.manifest.layers
        assert sorted(again.manifest.kit) == sorted(copied.manifest.kit)
        assert again.manifest.variables == copied.manifest.variables


def test_a_wheel_for_the_cluster_alone(copied: Prepared, user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes beside everything, and who depends on whom of conda's packages is known as without it."""
    for name, value in {"HOME": str(user), "PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": ""}.items():
        monkeypatch.setenv(name, value)
    offer(user / "wheels", "beside", "1.0")
    with serve_index(user / "wheels") as index:
        monkeypatch.setenv("UV_DEFAULT_INDEX", index.url)
        with closing(sync.prepare(PlanOptions(extras=("beside",)), python=copied.python)) as prepared:
            assert {ref.name for ref in prepared.manifest.layers} - {ref.name for ref in copied.manifest.layers} == {
                "beside"
            }
            assert prepared.replica.conda == copied.snapshot.conda
            assert prepared.replica.get("beside")
