"""What activating packages for another platform sets: their scripts run in a folder where all their files are."""

from __future__ import annotations

from pathlib import Path

import pytest

from likewise.conda_elsewhere import activated
from likewise.errors import LayerError
from likewise.layers.conda import layer_of_archive
from likewise.model.layer import LayerSource
from likewise.model.manifest import PREFIX_MARK
from support.conda_package import PLACEHOLDER, Item, Package, write_package

SCRIPT = "etc/conda/activate.d/tool.sh"


def layer(folder: Path, name: str, files: dict[str, str | Item]) -> LayerSource:
    """The layer of a package with these files."""
    return layer_of_archive(write_package(Package(name, "1.0", files), folder), folder / name)


@pytest.mark.parametrize("link", ["../../../share/tool/activate.sh", "one.sh"])
def test_a_script_that_is_a_link(tmp_path: Path, link: str) -> None:
    """Where it leads, directly or over another link, is read as it is in the prefix."""
    tool = layer(
        tmp_path,
        "tool",
        {
            SCRIPT: Item(link=link),
            "etc/conda/activate.d/one.sh": Item(link="../../../share/tool/activate.sh"),
            "share/tool/activate.sh": f"export TOOL_HOME={PLACEHOLDER}/share/tool\n",
        },
    )
    variables, problems = activated([tool], tmp_path / "work")
    assert variables["TOOL_HOME"] == f"{PREFIX_MARK}/share/tool"
    assert not problems


def test_a_file_where_another_package_has_a_folder(tmp_path: Path) -> None:
    """They can't be in one prefix, and that is said."""
    layers = [layer(tmp_path, "one", {"etc/conda": "a file\n"}), layer(tmp_path, "two", {SCRIPT: "export A=1\n"})]
    with pytest.raises(LayerError, match="Two packages claim") as caught:
        activated(layers, tmp_path / "work")
    assert caught.value.where == SCRIPT
    assert not list((tmp_path / "work").iterdir())
