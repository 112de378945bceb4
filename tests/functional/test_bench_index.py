"""The package index on loopback that the bench serves: real installers install from it."""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.prefixes import UV, make_venv, run
from support.wheels import write_wheel

sys.path.append(str(Path(__file__).parents[2] / "bench"))

from simple_index import JSON_TYPE, serving


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An index with two small wheels; one requires the other."""
    folder = tmp_path_factory.mktemp("index")
    write_wheel(folder, {"first.py": b"import second\n"}, name="the-first", requires=("the.second>=2",))
    write_wheel(folder, {"second.py": b""}, name="the-second", version="2.5")
    with serving(folder) as address:
        yield address


@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_an_installer_resolves_and_installs(installer: str, index: str, tmp_path: Path) -> None:
    """uv (JSON) and pip find a wheel and what it requires, by normalized name, and check their digests."""
    python = make_venv(tmp_path / "venv")
    steered = {name: "" for name in os.environ if name.startswith(("UV_", "PIP_"))}
    own = {"UV_NO_CONFIG": "1", "PIP_CONFIG_FILE": os.devnull, "NO_PROXY": "127.0.0.1"}
    if installer == "uv":
        own |= {"UV_CACHE_DIR": str(tmp_path / "cache")}
        argv = [UV, "pip", "install", "--python", python, "--default-index", index]
    else:
        argv = [sys.executable, "-m", "pip", "--python", python, "install", "--no-cache-dir", "--index-url", index]
    run(*argv, "The_First", **{**{name: v for name, v in steered.items() if name.startswith("PIP")}, **own})
    assert run(python, "-c", "import first; print(first.second.__name__)") == "second\n"


def test_a_page_says_what_the_standards_ask_for(index: str) -> None:
    """The JSON page of PEP 691 has digest, size and the metadata's digest, and the metadata is served (PEP 658)."""
    request = urllib.request.Request(f"{index}the-first/", headers={"Accept": JSON_TYPE})
    with urllib.request.urlopen(request) as answer:
        assert answer.headers["Content-Type"] == JSON_TYPE
        (file,) = json.loads(answer.read())["files"]
    assert file["filename"] == "the_first-1.0-py3-none-any.whl"
    assert len(file["hashes"]["sha256"]) == len(file["core-metadata"]["sha256"]) == 64
    place = index.removesuffix("/simple/") + file["url"]
    with urllib.request.urlopen(f"{place}.metadata") as answer:
        assert b"Requires-Dist: the.second>=2" in answer.read()
    with urllib.request.urlopen(place) as answer:
        assert len(answer.read()) == file["size"]


@pytest.mark.parametrize("path", ["nothing/", "../../etc/passwd", "", "the-first/x"])
def test_what_is_not_there_is_not_found(path: str, index: str) -> None:
    """Nothing but the wheels of the folder is served."""
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(index + path)
