"""What conda's configuration says of channels, and in which of its files."""

from __future__ import annotations

from pathlib import Path

import pytest

from likewise.indexes.conda_channels import find_channels
from likewise.indexes.conda_config import located, read_conda_config
from support.canaries import canary


@pytest.mark.parametrize(
    "place",
    [
        "home/.condarc",
        "home/.conda/condarc.d/own.yml",
        "home/.config/conda/condarc.d/own.yaml",
        "prefix/condarc",
        "prefix/condarc.d/own.yml",
        "base/.condarc",
    ],
)
def test_where_it_may_stand(tmp_path: Path, place: str) -> None:
    """Files of the user, of the active prefix, and of the installation that conda itself is started from."""
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).write_text("channel_alias: https://channels.example\n")
    environ = {"CONDA_PREFIX": str(tmp_path / "prefix"), "CONDA_EXE": str(tmp_path / "base" / "bin" / "conda")}
    assert read_conda_config(environ, tmp_path / "home", []).alias == "https://channels.example"


def test_a_name_that_means_several_channels(tmp_path: Path) -> None:
    """They are asked in this order, each where a channel of its name is, with the credentials that stand there."""
    token = canary("of_one_of_several")
    (tmp_path / ".condarc").write_text(
        "channel_alias: https://alias.example\n"
        "custom_multichannels:\n"
        f"  corp: [https://one.example/t/{token}/first, second, corp]\n"
        "  none: []\n"
    )
    config = read_conda_config({}, tmp_path, [])
    assert located("corp", config) == (f"https://one.example/t/{token}/first", "https://alias.example/second")
    assert located("none", config) == ("https://alias.example/none",)
    found = find_channels(["corp"], environ={}, home=tmp_path, python="")
    assert found.names == ("https://one.example/first", "https://alias.example/second")
    assert token not in repr(found)
    plain = find_channels(["https://one.example/first"], environ={}, home=tmp_path, python="")
    assert token in "".join(place for places in plain.reveal().values() for place in places)
