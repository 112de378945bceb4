"""Credentials never leave the client: planted everywhere, they are found in nothing that likewise writes or starts."""

from __future__ import annotations

import json
import shutil
import subprocess
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
    words_beneath,
    words_in,
    words_said,
)
from support.prefixes import clean_environ

pytestmark = pytest.mark.registry

PREPARE = """
import json, sys
from pathlib import Path
import from_archive, from_path_token, from_vcs, loose, loose_package, mine, stubborn
import msgspec
from likewise.sync import prepare

class Printer:
    def report(self, event):
        print(msgspec.json.encode(event).decode(), file=sys.stderr)

prepared = prepare(reporter=Printer())
values = [prepared.snapshot, prepared.plan, prepared.manifest, prepared.problems, prepared.report]
print(repr(prepared))
print(msgspec.json.encode(values).decode())
print(json.dumps(prepared.launch(Path("cache")).argv()))
prepared.close()
"""

CLUSTER = """
import json, os
import dask, psutil
import from_archive, from_path_token, from_vcs, loose, loose_package, mine, stubborn
from likewise import Cluster

def told():
    return dict(os.environ), dask.config.config, open("/proc/self/cmdline").read()

def words():
    modules = from_archive, from_path_token, from_vcs, loose, loose_package, mine, stubborn
    return [module.WORD for module in modules]

if __name__ == "__main__":
    with Cluster(n_workers=2, threads_per_worker=1) as cluster, cluster.get_client() as client:
        processes = psutil.Process().children(recursive=True)
        print(json.dumps({
            "processes": [[process.cmdline(), process.environ()] for process in processes],
            "told": [client.run_on_scheduler(told), *client.run(told).values()],
            "words": client.submit(words).result(),
            "logs": repr([client.get_scheduler_logs(), client.get_worker_logs(), cluster.get_logs()]),
            "cluster": repr([cluster, cluster.environment, cluster.verify()]),
        }))
"""

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

TRAVELS = {"from_vcs", "from_archive", "from_path_token", "loose", "package", "data", "mine", "stubborn"}
"""What has to be in the layers."""


@dataclass(frozen=True)
class Machine:
    """A user's machine full of credentials, with folders that likewise may write to."""

    planted: Planted
    cache: Path
    tmp: Path

    def run(self, *argv: str | Path) -> str:
        """Run the user's Python; everything it said."""
        own = {"LIKEWISE_CACHE": str(self.cache), "TMPDIR": str(self.tmp)}
        done = subprocess.run(
            [str(self.planted.python), *map(str, argv)],
            cwd=self.planted.project,
            env=clean_environ(**self.planted.environ, **own),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
        return done.stdout + done.stderr

    def script(self, text: str) -> str:
        """Run `text` as the user's script, with a credential among its arguments; everything it said."""
        self.planted.script.write_text(text)
        return self.run(self.planted.script, "--token", canary("argument"))

    def written(self) -> dict[str, set[str]]:
        """Planted words in all that was written, and where."""
        return words_beneath(self.cache, self.tmp, self.planted.home, self.planted.project, without=self.planted.own)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    folder = tmp_path_factory.mktemp("machine")
    for name in ("cache", "tmp"):
        (folder / name).mkdir()
    return Machine(planted=plant(folder / "user"), cache=folder / "cache", tmp=folder / "tmp")


def test_search_finds_what_is_planted(machine: Machine) -> None:
    """The search that the other tests rely on finds every file that was planted, and nothing else on a new machine."""
    found = words_beneath(machine.planted.folder)
    assert {Path(path) for word in found for path in found[word]} <= machine.planted.own
    assert len(credentials(found)) > 45


@pytest.mark.parametrize("arguments", [["scan"], ["scan", "--json"], ["plan", "-v"], ["plan", "--json"], ["doctor"]])
def test_command_line_says_none(machine: Machine, arguments: list[str]) -> None:
    """What the commands print and keep may name private places, but without their credentials."""
    said = machine.run("-m", "likewise", *arguments)
    assert credentials(words_said(said)) == set()
    assert credentials(machine.written()) == set()


def test_prepared_environment_has_none(machine: Machine) -> None:
    """Layers, manifest, kit, facts, built wheels, progress and values hold the code that travels and no credential."""
    said = machine.script(PREPARE)
    written = machine.written()
    assert "stubborn does not build" in said
    assert "mine does not build" not in said
    assert credentials(words_said(said)) == set()
    assert {word: written[word] for word in written if not word.startswith(CARGO)} == {}
    assert {word.removeprefix(f"{CARGO}_") for word in written} == TRAVELS


def test_nodes_are_told_none(machine: Machine) -> None:
    """Command lines, variables, configuration, logs and folders of scheduler and workers have no credential."""
    said = machine.script(CLUSTER)
    answer = json.loads(next(line for line in said.splitlines() if line.startswith("{")))
    assert len(answer["processes"]) >= 3
    assert len(answer["told"]) == 3
    assert {word.removeprefix(f"{CARGO}_") for word in answer["words"]} == TRAVELS - {"data"}
    assert credentials(words_said(said)) == set()
    assert credentials(machine.written()) == set()


def test_failed_build_tells_none(machine: Machine, tmp_path: Path) -> None:
    """A build that fails shows its back end's words without the credentials among them, as text and as JSON."""
    tree, site = tmp_path / "broken", machine.planted.site
    plant_tree(tree, "broken", fails=True)
    (tree / "broken" / "speedup.c").write_text("int main;")  # so that the tree can't be shipped as it is
    before = set(site.iterdir())
    direct_url: dict[str, object] = {"url": tree.as_uri(), "dir_info": {"editable": True}}
    install(site, "broken", {"broken.pth": f"{tree}\n"}, direct_url=direct_url)
    try:
        said = machine.run("-c", FAILING, tree)
    finally:
        for path in set(site.iterdir()) - before:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert "cannot reach" in said
    assert credentials(words_said(said)) == set()
    assert credentials(machine.written()) == set()


@pytest.mark.parametrize("wrap", [str, lambda word: json.dumps({"a": word})])
def test_search_sees_base64(wrap: object) -> None:
    """Words inside base64, as Dask writes the configuration into a variable, are found."""
    import base64

    text = base64.urlsafe_b64encode(wrap(canary("hidden") + " and some more").encode()).decode()  # type: ignore[operator]
    assert words_in(text.encode()) == set()
    assert credentials(words_said(f"VARIABLE={text}")) == {"_hidden"}
