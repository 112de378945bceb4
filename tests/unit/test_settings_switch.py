"""The switch of streaming, as people write switches."""

from __future__ import annotations

import dask
import pytest

from likewise.errors import UsageError
from likewise.settings import resolve_settings


@pytest.mark.parametrize(
    ("written", "meant"),
    [(True, True), (False, False), (1, True), (0, False), ("yes", True), ("Off", False), ("TRUE", True), ("0", False)],
)
def test_a_switch_as_people_write_it(written: object, meant: bool) -> None:
    """YAML gives truth values; an environment variable gives numbers and words."""
    with dask.config.set({"likewise.streaming": written}):
        assert resolve_settings().streaming is meant


@pytest.mark.parametrize("written", ["perhaps", 2, [True]])
def test_what_is_no_switch_is_refused(written: object) -> None:
    """It is not taken for true; the setting is named."""
    with dask.config.set({"likewise.streaming": written}), pytest.raises(UsageError, match=r"likewise\.streaming is"):
        resolve_settings()


def test_it_is_on_unless_an_environment_variable_says_otherwise() -> None:
    """The variable is spelled as Dask spells them."""
    assert resolve_settings().streaming
    with dask.config.set(dask.config.collect(paths=[], env={"DASK_LIKEWISE__STREAMING": "false"})):
        assert not resolve_settings().streaming
