"""Credentials never leave the client: planted everywhere, they are found in nothing that likewise writes or starts."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.canaries import (
    CARGO,
    Planted,
    canary,
    credentials,
    install,
    plant,
    plant_tree,
    url,
    words_beneath,
    words_in,
)
from support.prefixes import clean_environ

pytestmark = pytest.mark.registry

SCRIPT = '''
import json, sys
import from_archive, from_path_token, from_vcs, loose, loose_package, mine
import msgspec
from likewise.sync import prepare

class Printer:
    """Says everything that happens."""
    def report(self, event):
        print(msgspec.json.encode(event).decode(), file=sys.stderr)

prepared = prepare(reporter=Printer())
values = [prepared.snapshot, prepared.plan, prepared.manifest, prepared.problems, prepared.report]
print(repr(prepared))
print(msgspec.json.encode(values).decode())
print(json.dumps(prepared.launch(__import__("pathlib").Path("cache")).argv()))
prepared.close()
'''

FAILING = """
import json, traceback
from likewise.errors import BuildError
from likewise.sync import prepare
try:
    prepare()
except BuildError as error:
    print(repr(error), json.dumps(error.as_dict()))
    traceback.print_exc()
else:
    raise SystemExit("it was built")
"""

TRAVELS = {
    "_loose", "_package", "_data", "_mine", "_from_vcs", "_from_archive", "_from_path_token",
}  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """A user's machine full of credentials, with folders that likewise may write to."""

    planted: Planted
    cache: Path
    tmp: Path

    def run(self, *argv: str | Path, **environ: str) -> str:
        """Run the user's Python; everything it said."""
        own = {"LIKEWISE_CACHE": str(self.cache), "TMPDIR": str(self.tmp)}
        done = subprocess.run(
            [str(self.planted.python), *map(str, argv)],
            cwd=self.planted.project,
            env=clean_environ(**self.planted.environ, **own, **environ),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        said = done.stdout + done.stderr
        assert done.returncode == 0, said[-6000:]
        return said

    def written(self) -> dict[str, set[str]]:
        """Planted words in all that was written, and where."""
        return words_beneath(self.cache, self.tmp, self.planted.home, self.planted.project, without=self.planted.own)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return plant(tmp_path_factory.mktemp("machine"), SCRIPT)


@pytest.fixture
def machine(planted: Planted, tmp_path: Path) -> Iterator[Machine]:
    for name in ("cache", "tmp"):
        (tmp_path / name).mkdir()
    yield Machine(planted=planted, cache=tmp_path / "cache", tmp=tmp_path / "tmp")
    for name in ("cache", "tmp"):
        shutil.rmtree(tmp_path / name)


def test_search_finds_what_is_planted(planted: Planted) -> None:
    """The search that the other tests rely on finds every file that was planted, and looks into archives."""
    found = words_beneath(planted.home, planted.project, planted.python.parents[1], planted.project.parent / "tree")
    assert {Path(path) for word in found if not word.startswith(CARGO) for path in found[word]} <= planted.own
    assert len(credentials(found)) > 35


@pytest.mark.parametrize("arguments", [["scan"], ["scan", "--json"], ["plan", "-v"], ["plan", "--json"], ["doctor"]])
def test_command_line_says_none(machine: Machine, arguments: list[str]) -> None:
    """What the commands print and keep names private places without their credentials."""
    said = machine.run("-m", "likewise", *arguments)
    assert credentials(words_in(said.encode())) == set()
    assert credentials(machine.written()) == set()


@pytest.mark.parametrize(
    ("environ", "summary"),
    [({}, "1 built"), ({"UV_FIND_LINKS": url("environ_UV_FIND_LINKS", host="127.0.0.1:9")}, "shipped as it is")],
    ids=["built", "not built"],
)
def test_prepared_environment_has_none(machine: Machine, environ: dict[str, str], summary: str) -> None:
    """Layers, manifest, kit, facts, built wheels, progress and values hold the code that travels and no credential.

    The same where a private index that does not answer keeps the editable from being built.
    """
    said = machine.run(machine.planted.script, "--token", canary("argument"), **environ)
    assert summary in said
    written = machine.written()
    assert credentials(words_in(said.encode())) == set()
    assert {word: written[word] for word in written if not word.startswith(CARGO)} == {}
    assert {word.removeprefix(CARGO) for word in written} == TRAVELS


def test_failed_build_tells_none(machine: Machine, tmp_path: Path) -> None:
    """A build that fails shows its back end's words without the credentials among them, as text and as JSON."""
    tree, site = tmp_path / "broken", machine.planted.site
    plant_tree(tree, "broken", fails=True)
    (tree / "broken" / "speedup.c").write_text("int main;")  # so that the tree can't be shipped as it is
    before = set(site.iterdir())
    install(
        site, "broken", {"broken.pth": f"{tree}\n"}, direct_url={"url": tree.as_uri(), "dir_info": {"editable": True}}
    )
    try:
        said = machine.run("-c", FAILING, tree)
    finally:
        for path in set(site.iterdir()) - before:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert "cannot reach" in said
    assert credentials(words_in(said.encode())) == set()
    assert credentials(machine.written()) == set()
