"""A conda prefix on nodes like it, with conda packages that these alone have, from a channel that wants a token."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import dask
import msgspec
import pytest

from likewise import sync
from likewise.cli.answer import describe
from likewise.conda_offers import candidates
from likewise.errors import FetchError, PlanError, UsageError
from likewise.layers.conda import layer_of_archive
from likewise.model.plan import Action, Plan
from likewise.node.verify import verify_prefix
from likewise.prepared import Prepared
from likewise.sync import PlanOptions
from support.canaries import canary, words_beneath
from support.conda_channel import CondaPrefix
from support.conda_package import PLACEHOLDER, SUBDIR, Package, write_channel
from support.conda_server import ChannelServer, serve_channel
from support.masking import masked
from support.prefixes import UV, clean_environ, run
from support.users import likewise_wheel

pytest.importorskip("rattler")
pytestmark = pytest.mark.registry

TOKEN = canary("of_extras")


def python_package(name: str, version: str, files: dict[str, str], *depends: str, **more: str) -> Package:
    """A distribution for any platform."""
    info = f"site-packages/{name}-{version}.dist-info"
    metadata = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    points = (f"{name} = {name}:main",)
    if f"site-packages/{name}/__init__.py" in files:
        metadata[f"{info}/entry_points.txt"] = f"[console_scripts]\n{name} = {name}:main\n"
    return Package(
        name,
        version,
        {**files, **metadata},
        noarch="python",
        subdir="noarch",
        depends=("python", *depends),
        entry_points=points,
        **more,  # type: ignore[arg-type]
    )


def packages() -> list[Package]:
    """``gear`` needs ``gearlib``, which has a file that the prefix has, too, and variables; ``sample`` is there by pip;
    ``heavy`` needs another geodata than is installed."""
    module = "def main():\n    print('gear turns')\n"
    return [
        python_package("gear", "1.0", {"site-packages/gear/__init__.py": module}, "gearlib >=2", "numpy"),
        Package(
            "gearlib",
            "2.0",
            {
                "share/gear/teeth.txt": f"{PLACEHOLDER}/share/gear\n",
                "share/geodata/base.txt": "of gearlib\n",
                "etc/conda/activate.d/gearlib.sh": 'export R_SEARCHES="$R_SEARCHES:${CONDA_PREFIX}/share/gear"\n'
                'if [ -e "$CONDA_PREFIX/share/proj/proj.db" ]; then export GEAR_SEES=proj; fi\n',
                "bin/.gearlib-post-link.sh": "true\n",
            },
            depends=("geodata-base",),
        ),
        python_package(
            "sample", "9.0", {"site-packages/sample/__init__.py": "WORD = 'conda'\n", "share/sample/x.txt": "x\n"}
        ),
        Package("heavy", "1.0", {"share/heavy.txt": "heavy\n"}, depends=("geodata >=10",)),
        Package("driven", "1.0", {"share/driven.txt": "driven\n"}, depends=("__cuda >=12",)),
        Package("geodata", "10.1", {"share/proj/proj.db": "new\n"}),
    ]


class Launched(msgspec.Struct, frozen=True):
    """A plan, and what was made of it on a node of this machine."""

    user: CondaPrefix
    prepared: Prepared
    plain: Plan
    server: ChannelServer
    folder: Path

    @property
    def prefix(self) -> Path:
        """Where the node has it."""
        return self.folder / "node" / "prefixes" / self.prepared.manifest.id[:16]

    def argv(self, *argv: str) -> list[str]:
        """A command of the node that runs its Python."""
        return [*self.prepared.launch(self.folder / "node").argv(), *argv]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("conda-extras")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[ChannelServer]:
    """A channel that wants a token, which the user's ``.condarc`` has."""
    with serve_channel(write_channel(folder / "more", packages()), token=TOKEN) as server:
        (folder / "home").mkdir()
        (folder / "home" / ".condarc").write_text(f"channels:\n  - {server.url}\n")
        yield server


@pytest.fixture
def user_home(folder: Path, server: ChannelServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's home, working directory and cache are where the launch had them."""
    own(folder, monkeypatch)
    return folder / "home"


def own(folder: Path, patch: pytest.MonkeyPatch) -> None:
    (folder / "work").mkdir(exist_ok=True)
    patch.setenv("HOME", str(folder / "home"))
    patch.setenv("LIKEWISE_CACHE", str(folder / "client"))
    patch.chdir(folder / "work")


def extras(server: ChannelServer) -> PlanOptions:
    """What the cluster alone is to have."""
    return PlanOptions(conda_extras=(f"{server.plain_url}::gear", "sample", "geodata"))


@pytest.fixture(scope="module")
def launched(conda_prefix: CondaPrefix, server: ChannelServer, folder: Path) -> Iterator[Launched]:
    """Prepared by the user of a conda prefix, and laid out."""
    with pytest.MonkeyPatch.context() as patch, dask.config.set({"likewise.streaming": False}):
        own(folder, patch)
        python = str(conda_prefix.python)
        with pytest.MonkeyPatch.context() as other:
            other.setenv("LIKEWISE_CACHE", str(folder / "other"))
            plain = sync.prepare(python=python)
            plain.close()
        prepared = sync.prepare(extras(server), python=python)
        made = Launched(conda_prefix, prepared, plain.plan, server, folder)
        done = subprocess.run(made.argv("-c", ""), env=clean_environ(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        yield made
        prepared.close()


def test_the_plan_has_what_is_added_and_all_that_was_there(launched: Launched) -> None:
    """Each with its reason. What is installed is decided about as without it, and is in the same kit."""
    plan = launched.prepared.plan
    assert {one.name: (one.version, one.reason, one.action, one.new) for one in plan.conda} == {
        "gear": ("1.0", "asked for on the cluster alone", Action.FETCH, True),
        "gearlib": ("2.0", "required by gear", Action.FETCH, True),
        "sample": ("9.0", "asked for on the cluster alone", Action.FETCH, True),
    }
    assert plan.decisions == launched.plain.decisions
    assert plan.kit == launched.plain.kit
    lines = [click.unstyle(line) for line in describe(launched.prepared.snapshot, plan, verbose=False)]
    assert "3 added" in lines[0] and "3 conda packages to fetch" in lines[1]
    assert any(line.split()[:3] == ["added", "gearlib", "2.0"] and "required by gear" in line for line in lines)


@pytest.mark.root
def test_nodes_have_it_beside_what_the_prefix_has(launched: Launched) -> None:
    """Imported, run, and found where the prefix is, without the original and the channel; all else is as it was."""
    code = """
import json, os, subprocess, sys
import gear, greeter, numpy, sample
def read(path):
    return open(f"{sys.prefix}/share/{path}").read()
print(json.dumps({
    "prefix": sys.prefix, "gear": gear.__file__,
    "said": subprocess.run([f"{sys.prefix}/bin/gear"], capture_output=True, text=True, check=True).stdout.strip(),
    "teeth": read("gear/teeth.txt").strip(), "base": read("geodata/base.txt"), "x": read("sample/x.txt"),
    "words": [sample.WORD, greeter.WORD],
    "variables": [os.environ.get(name) for name in ("R_HOME", "R_SEARCHES", "GEAR_SEES", "PROJ_DATA")],
}))
"""
    hide = [launched.user.folder, launched.server.folder, launched.folder / "client" / "work"]
    done = masked(launched.argv("-c", code), hide, check=True)
    seen, prefix = json.loads(done.stdout), str(launched.prefix)
    assert seen["prefix"] == prefix and seen["gear"].startswith(prefix)
    assert (seen["said"], seen["teeth"], seen["x"]) == ("gear turns", f"{prefix}/share/gear", "x\n")
    assert (seen["base"], seen["words"]) == ("base\n", ["sample", "good evening"])
    searches = f"{prefix}/lib/R/library:{prefix}/share/gear"
    assert seen["variables"] == [f"{prefix}/lib/R", searches, "proj", f"{prefix}/share/proj"]


def test_every_layer_that_was_there_is_the_same(launched: Launched) -> None:
    """The prefix's own are untouched; those that come are the archives', but for files that have no room."""
    prepared = launched.prepared
    refs = {ref.name: ref for ref in prepared.manifest.layers}
    own = {one.layer or next(iter(one.distributions), "cpython"): one.content for one in prepared.snapshot.conda}
    changed = [name for name, digest in own.items() if digest and name in refs and refs[name].digest != digest]
    assert changed == []
    assert {"gear", "conda:gearlib", "conda:sample"} <= refs.keys() - own.keys()
    archive = next(launched.server.folder.glob("noarch/gear-*.conda"))
    assert refs["gear"].digest == layer_of_archive(archive).digest
    assert refs["sample"].version != "9.0" and refs["conda:sample"].files == 1


def test_what_stays_is_named(launched: Launched) -> None:
    """A distribution that pip has put there, a path that is taken, a link script that nobody runs."""
    problems = {(one.code, one.subject): one.message for one in launched.prepared.problems}
    assert "pip has put sample" in problems["distribution-stays", "sample"]
    assert "share/geodata/base.txt" in problems["path-taken", "gearlib"]
    assert ("conda-link-script", "gearlib") in problems


def test_a_node_verifies_it(launched: Launched) -> None:
    """Every file is what the manifest says, and the client is what it was."""
    assert verify_prefix(str(launched.prefix), node="here").differences == ()


def test_nothing_has_drifted_and_a_second_launch_asks_nobody(launched: Launched, user_home: Path) -> None:
    """What was chosen is remembered, what was fetched is kept; the token is nowhere."""
    before = len(launched.server.asked)
    archives = launched.server.archives()
    assert sorted(name.split("-")[0] for name in archives) == ["gear", "gearlib", "sample"]
    assert launched.prepared.drift() == ()
    with dask.config.set({"likewise.streaming": False}):
        again = sync.prepare(extras(launched.server), python=str(launched.user.python))
    again.close()
    assert again.manifest.id == launched.prepared.manifest.id
    assert ("plan-remembered", "channels") in {(one.code, one.subject) for one in again.problems}
    assert len(launched.server.asked) == before
    assert TOKEN not in words_beneath(launched.folder / "client", launched.folder / "node")
    assert TOKEN not in repr((launched.prepared, again))


def test_a_plan_of_it_can_be_carried_out(launched: Launched, user_home: Path) -> None:
    """As any other that was looked at: what it brings is the same environment, all that the prefix has included."""
    with dask.config.set({"likewise.streaming": False}):
        again = sync.prepare(goal=launched.prepared.plan, python=str(launched.user.python))
    again.close()
    assert again.manifest.layers == launched.prepared.manifest.layers
    assert again.manifest.kit == launched.prepared.manifest.kit
    assert again.manifest.variables == launched.prepared.manifest.variables


def test_a_plan_without_it_can_be_carried_out(launched: Launched, user_home: Path) -> None:
    """Of a conda prefix, for nodes like it: they get its packages that are no distributions, too."""
    with dask.config.set({"likewise.streaming": False}):
        again = sync.prepare(goal=launched.plain, python=str(launched.user.python))
    again.close()
    names = {ref.name for ref in again.manifest.layers}
    assert names == {ref.name for ref in launched.prepared.manifest.layers} - {"gear", "conda:gearlib", "conda:sample"}
    assert "R_HOME" in again.manifest.variables


def test_nodes_could_fetch_it_by_themselves(launched: Launched, user_home: Path) -> None:
    """From a channel that wants nothing; nothing that is not the archive's very content, and nothing with a token."""
    prepared = launched.prepared
    client = msgspec.structs.replace(prepared.snapshot, conda=prepared.replica.conda)
    found = {one.name for one in candidates(prepared.manifest, client)}
    assert {"gear", "numpy", "r-base"} <= found
    assert not found & {"gearlib", "sample"}
    assert "gear-1.0-h0_0.conda" not in {one.file.filename for one in sync.find_packages(prepared)}


def test_a_conflict_with_the_prefix(launched: Launched, user_home: Path) -> None:
    """It is refused before anything is fetched, with the names and the solver's words; so is another version."""
    snapshot, url = launched.prepared.snapshot, launched.server.plain_url
    channels = [url, launched.user.channel.url]
    with pytest.raises(PlanError, match=r"heavy can't be had with geodata 9\.3, which is installed here") as caught:
        sync.plan(snapshot, conda_extras=["heavy"], channels=channels)
    assert "geodata >=10" in caught.value.what and caught.value.todo
    with pytest.raises(PlanError, match=r"geodata=10 can't be had, since geodata 9\.3 is installed"):
        sync.plan(snapshot, conda_extras=["geodata=10"])
    assert TOKEN not in f"{caught.value} {caught.value.details}"


def test_what_is_left_out_comes_where_it_is_needed(launched: Launched, user_home: Path) -> None:
    """As with all that is required: the plan says by whom."""
    found = sync.plan(launched.prepared.snapshot, conda_extras=extras(launched.server).conda_extras, ignore=["numpy"])
    numpy = found.get("numpy")
    assert numpy is not None and numpy.reason.startswith("not left out: required by gear")


def test_a_channel_that_is_gone(launched: Launched, user_home: Path) -> None:
    """What is remembered does; to ask anew is an error that names the channel, without the token."""
    how = {"conda_extras": extras(launched.server).conda_extras}
    launched.server.status = 500
    try:
        assert {one.name for one in sync.plan(launched.prepared.snapshot, **how).conda} == {"gear", "gearlib", "sample"}
        with pytest.raises(FetchError, match="can't be had") as caught:
            sync.plan(launched.prepared.snapshot, **how, refresh=True)
    finally:
        launched.server.status = 200
    assert TOKEN not in f"{caught.value} {caught.value.details}"


def test_a_channel_by_its_name(
    launched: Launched, user_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the user has configured where channels are, perhaps with a token, it is that one."""
    server = launched.server
    (tmp_path / ".condarc").write_text(f"channel_alias: {server.url.rpartition('/')[0]}\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    plan = sync.plan(launched.prepared.snapshot, conda_extras=[f"{server.folder.name}::gear"])
    assert {one.name for one in plan.conda} == {"gear", "gearlib"}
    assert plan.channels[-1] == server.plain_url and TOKEN not in repr(plan)


def test_what_the_nodes_have(launched: Launched, user_home: Path) -> None:
    """A driver that the client lacks, where the target says so."""
    snapshot, extra = launched.prepared.snapshot, f"{launched.server.plain_url}::driven"
    with pytest.raises(PlanError, match="__cuda"):
        sync.plan(snapshot, conda_extras=[extra])
    plan = sync.plan(snapshot, conda_extras=[extra], target=f"{SUBDIR}-cuda12.8")
    assert [one.name for one in plan.conda] == ["driven"]
    options, goal = PlanOptions(conda_extras=(extra,)), sync.target_named(f"{SUBDIR}-cuda12.8")
    with dask.config.set({"likewise.streaming": False}):
        prepared = sync.prepare(options, goal=goal, python=str(launched.user.python))
    prepared.close()
    assert "conda:driven" in {ref.name for ref in prepared.manifest.layers}


def test_strict_allows_nothing_that_replaces(launched: Launched, user_home: Path) -> None:
    """Of what comes with it nothing may be left out silently."""
    snapshot = msgspec.structs.replace(launched.prepared.snapshot, problems=())
    sync.plan(snapshot, conda_extras=["geodata"], strict=True)
    with pytest.raises(PlanError, match="would bring the distribution sample"):
        sync.plan(snapshot, conda_extras=extras(launched.server).conda_extras, strict=True)


def test_a_client_without_rattler(conda_prefix: CondaPrefix, tmp_path: Path) -> None:
    """It is told what to install; about what is there by its name, nobody has to be asked."""
    environ = clean_environ(LIKEWISE_CACHE=str(tmp_path / "cache"), HOME=str(tmp_path))
    argv = [str(conda_prefix.python), "-m", "likewise", "plan", "--conda-extra"]
    done = subprocess.run([*argv, "gear"], env=environ, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "py-rattler" in done.stderr and "pip install 'likewise[conda]'" in done.stderr
    done = subprocess.run([*argv, "numpy"], env=environ, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_venv_of_condas_python(conda_prefix: CondaPrefix, tmp_path: Path, user_home: Path) -> None:
    """It is no conda prefix, and the error says what it is."""
    run(conda_prefix.python, "-m", "venv", "--without-pip", tmp_path / "venv")
    python = tmp_path / "venv/bin/python"
    run(UV, "pip", "install", "--quiet", "--python", python, likewise_wheel())
    with pytest.raises(UsageError, match="the client is a venv, though its Python is conda's"):
        sync.prepare(PlanOptions(conda_extras=("geodata",)), python=str(python))
