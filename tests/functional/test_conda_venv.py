"""A venv that was made from a conda prefix's Python, and what nodes do about placeholders that don't fit."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import dask
import pytest

from likewise import sync
from likewise.errors import NodeError
from likewise.model.digest import digest_bytes
from likewise.model.layer import FileEntry, LayerKind
from likewise.model.manifest import ROOT_BASE, LayerRef
from likewise.node.generated import Place, layer_files
from support.conda_channel import CondaPrefix
from support.masking import masked
from support.prefixes import UV, clean_environ, run
from support.users import likewise_wheel

PLACEHOLDER = "/opt/placeholder"


@pytest.mark.root
@pytest.mark.registry
def test_a_venv_of_condas_python(conda_prefix: CondaPrefix, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has what its Python needs of conda, and nothing else: conda's distributions are not the venv's."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    run(conda_prefix.python, "-m", "venv", "--without-pip", tmp_path / "venv")
    python = tmp_path / "venv/bin/python"
    run(UV, "pip", "install", "--quiet", "--python", python, likewise_wheel())
    with dask.config.set({"likewise.streaming": False}):
        prepared = sync.prepare(python=str(python))
    try:
        names = {layer.name for layer in prepared.manifest.layers}
        assert {"conda:openssl", "conda:libffi", "cpython", "distributed", "likewise"} <= names
        assert not names & {"numpy", "sample", "conda:r-base", "conda:geodata"}
        assert prepared.manifest.base == ROOT_BASE and prepared.manifest.variables == {}
        command = prepared.launch(tmp_path / "node").argv()
        subprocess.run([*command, "-c", ""], env=clean_environ(), check=True, capture_output=True)
        code = "import distributed, json, ssl, sys; print(json.dumps([sys.prefix, sys.base_prefix, ssl.__file__]))"
        done = masked([*command, "-c", code], [conda_prefix.folder, tmp_path / "venv"], check=True)
        there, base, module = json.loads(done.stdout)
        assert there == base and module.startswith(f"{there}/lib/") and there.startswith(str(tmp_path / "node"))
    finally:
        prepared.close()


def entry(data: bytes, *, binary: bool) -> FileEntry:
    """A file that names its prefix."""
    return FileEntry(
        path="data/bin/tool",
        sha256=digest_bytes(data),
        size=len(data),
        executable=True,
        placeholder=PLACEHOLDER,
        binary=binary,
    )


def made(prefix: str, data: bytes, *, binary: bool, there: bytes | None = None) -> dict[str, bytes]:
    """What is generated for a layer with one such file."""
    one = entry(data, binary=binary)
    ref = LayerRef(
        kind=LayerKind.CONDA, name="conda:tool", version="1", digest=digest_bytes(b""), files=1, size=len(data)
    )
    place = Place(prefix=prefix, cache="/c", python="python3.11")
    own, scripts = layer_files(ref, [one], lambda path, size: data if there is None else there, place)
    assert scripts == []
    return {file.path: file.data for file in own}


def test_a_node_puts_its_prefix_in() -> None:
    """In text as it is, in a C string with padding; not before the content is there."""
    text, binary = f"#!{PLACEHOLDER}/bin/sh\n".encode(), f"\1{PLACEHOLDER}/lib\0\2".encode()
    assert made("/p", text, binary=False) == {"bin/tool": b"#!/p/bin/sh\n"}
    padding = b"\0" * (len(PLACEHOLDER) - len("/p"))
    assert made("/p", binary, binary=True) == {"bin/tool": b"\1/p/lib" + padding + b"\0\2"}
    assert made("/p", text, binary=False, there=b"") == {}


def test_a_node_says_that_its_path_is_too_long() -> None:
    """The layer is named, and what can be done."""
    with pytest.raises(NodeError, match="too long") as caught:
        made("/p" * 20, f"{PLACEHOLDER}\0".encode(), binary=True)
    assert caught.value.where == "conda:tool" and "cache" in caught.value.todo
