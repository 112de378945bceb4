"""Prefixes in which something went wrong, as a whole launch sees them: what is lost is said, all else is there."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from likewise.errors import LayerError, PlanError
from likewise.layers.conda import layer_of_archive
from likewise.layers.loose import write_loose
from likewise.model.layer import LayerSource
from likewise.model.manifest import PREFIX_MARK
from likewise.model.plan import Plan
from likewise.model.snapshot import OriginKind, Severity
from likewise.planner.options import PlanOptions
from likewise.planner.plans import make_plan
from likewise.scanner import Scanned, scan_prefix
from likewise.scanner.conda_files import CondaFound, conda_files
from likewise.scanner.conda_records import read_records
from likewise.scanner.facts import Facts
from likewise.scanner.probe import probe_python
from support.conda_channel import CondaChannel, install
from support.conda_package import PLACEHOLDER, SUBDIR, Item, Package, script, write_channel
from support.conda_python import SITE
from support.prefixes import UV, run
from support.users import likewise_wheel
from support.wheels import write_wheel

pytestmark = pytest.mark.registry


def python_files(name: str, version: str, **modules: str) -> dict[str, str]:
    """What a conda package has of a distribution, for any platform."""
    info = f"site-packages/{name}-{version}.dist-info"
    files = {f"site-packages/{module}.py": text for module, text in modules.items()}
    rows = [f"{path.removeprefix('site-packages/')},," for path in files]
    rows += [f"{name}-{version}.dist-info/{one},," for one in ("METADATA", "INSTALLER", "RECORD")]
    return {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/INSTALLER": "conda\n",
        f"{info}/RECORD": "\n".join([*rows, ""]),
    }


PAIR = Package(
    "pair",
    "1.0",
    {
        **python_files("alpha", "1.0", alpha="WORD = 'alpha 1'\n"),
        **python_files("beta", "1.0", beta="WORD = 'beta 1'\n", beta_old="OLD = True\n"),
        "python-scripts/pair": script(f"#!{PLACEHOLDER}/bin/python\nimport alpha, beta\n"),
        "share/pair/data.txt": f"{PLACEHOLDER}/share/pair\n",
    },
    noarch="python",
    subdir="noarch",
    build="pyh_0",
    depends=("python",),
)


@pytest.fixture(scope="module")
def channel(conda_channel: CondaChannel, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The common channel, and one with a package of two distributions."""
    return [conda_channel.folder, write_channel(tmp_path_factory.mktemp("channel") / "more", [PAIR])]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package cache."""
    return tmp_path_factory.mktemp("packages")


@pytest.fixture
def prefix(tmp_path: Path, channel: list[Path], packages: Path) -> Path:
    """A prefix that a cluster could be started from; files may be written anew, and not in place."""
    prefix = install(tmp_path / "prefix", ["distributed", "pair", "oldform"], channel, packages)
    run(UV, "pip", "install", "--quiet", "--python", prefix / "bin/python", likewise_wheel())
    return prefix


def scan(prefix: Path) -> Scanned:
    """What is there, as somebody sees it who works in an empty folder."""
    work = prefix.parent / "work"
    work.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(work)
        return scan_prefix(probe_python(prefix / "bin/python"), facts_dir=prefix.parent / "facts")


def plan(prefix: Path, **options: object) -> Plan:
    """What would happen to it."""
    return make_plan(scan(prefix).snapshot, None, PlanOptions(**options))  # type: ignore[arg-type]


def every_layer(scanned: Scanned) -> list[LayerSource]:
    """All that would be shipped."""
    base = [scanned.base] if scanned.base else []
    return [*base, *scanned.conda, *scanned.sources.values()]


def check_layers(scanned: Scanned, folder: Path) -> None:
    """Each file belongs to one layer, and each layer can be laid out as what it is called."""
    layers = every_layer(scanned)
    paths = [file.entry.path for layer in layers for file in layer.files]
    assert len(paths) == len(set(paths))
    for number, layer in enumerate(layers):
        write_loose(layer, folder / str(number), folder / f"{number}.listing")


def truncate(path: Path) -> None:
    """Leave half of a file, as a full disk does."""
    text = path.read_bytes()
    path.unlink()
    path.write_bytes(text[: len(text) // 2])


def record_of(prefix: Path, name: str) -> Path:
    """The record of a package."""
    (found,) = (path for path in (prefix / "conda-meta").glob("*.json") if path.name.rsplit("-", 2)[0] == name)
    return found


# ---- records


def test_a_damaged_record_of_what_nodes_need_stops_the_launch(prefix: Path) -> None:
    """Without OpenSSL's files no node would get as far as saying what it lacks. The record is named."""
    record = record_of(prefix, "openssl")
    truncate(record)
    with pytest.raises(PlanError, match=record.name) as caught:
        plan(prefix)
    assert "Reinstall" in caught.value.todo


def test_a_damaged_record_of_python_itself(prefix: Path) -> None:
    """Which files the interpreter has is not known."""
    record = record_of(prefix, "python")
    truncate(record)
    with pytest.raises(PlanError, match=record.name):
        plan(prefix)


def test_a_damaged_record_of_something_else_is_told(prefix: Path) -> None:
    """The rest is shipped; somebody who wants to be told of everything is refused."""
    truncate(record_of(prefix, "oldform"))
    problems = [one for one in plan(prefix).problems if one.code == "conda-record-damaged"]
    assert [(one.subject, one.severity) for one in problems] == [("oldform-0.9-h0_0.json", Severity.ERROR)]
    with pytest.raises(PlanError, match="oldform"):
        plan(prefix, fail_on="any")


def test_a_package_whose_files_are_gone(prefix: Path, tmp_path: Path) -> None:
    """Somebody has removed all of it, but for conda's record: it is named, and nothing else is lost."""
    for path in json.loads(record_of(prefix, "pair").read_text())["files"]:
        (prefix / path).unlink()
    scanned = scan(prefix)
    package = next(one for one in scanned.snapshot.conda if one.name == "pair")
    assert (package.files, package.content, package.layer) == (0, None, "")
    assert {(one.code, one.severity) for one in scanned.snapshot.problems if one.subject == "pair"} == {
        ("conda-missing-files", Severity.WARNING)
    }
    assert scanned.snapshot.get("distributed") is not None and scanned.snapshot.get("alpha") is None
    check_layers(scanned, tmp_path)


# ---- pip


def test_pip_over_half_a_package(prefix: Path, tmp_path: Path) -> None:
    """Of two distributions that a package brought, pip has put another version of one: each comes from who has it."""
    wheel = write_wheel(tmp_path, {"beta.py": b"WORD = 'beta 2'\n"}, name="beta", version="2.0")
    run(UV, "pip", "install", "--quiet", "--python", prefix / "bin/python", wheel)
    scanned = scan(prefix)
    alpha, beta = scanned.snapshot.get("alpha"), scanned.snapshot.get("beta")
    assert alpha is not None and beta is not None
    assert (alpha.version, alpha.origin.kind, beta.version) == ("1.0", OriginKind.CONDA, "2.0")
    assert beta.origin.kind is not OriginKind.CONDA
    own = {file.entry.path for file in scanned.sources["alpha"].files}
    assert {"purelib/alpha.py", "data/bin/pair", "data/share/pair/data.txt"} <= own
    assert "purelib/beta.py" in {file.entry.path for file in scanned.sources["beta"].files}
    check_layers(scanned, tmp_path)


def test_pip_that_was_stopped_half_way(prefix: Path, tmp_path: Path) -> None:
    """Both versions' metadata are there and a file is the new one: the disk decides, and it is told."""
    site = prefix / SITE
    info = site / "beta-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: beta\nVersion: 2.0\n")
    (site / "beta.py").unlink()
    (site / "beta.py").write_text("WORD = 'beta 2'\n")
    scanned = scan(prefix)
    assert any(one.subject == "beta" for one in scanned.snapshot.problems)
    check_layers(scanned, tmp_path)
    text = [path.read_text() for path in tmp_path.glob("*/purelib/beta.py")]
    assert text == ["WORD = 'beta 2'\n"]


# ---- a prefix that has two paths


def test_a_prefix_that_was_installed_by_way_of_a_link(tmp_path: Path, channel: list[Path], packages: Path) -> None:
    """As in a home that lies elsewhere: what files and variables say of it is the nodes' prefix, by either path."""
    active = f"export NAMED_HOME={PLACEHOLDER}/share/named NAMED_BIN=$CONDA_PREFIX/bin\n"
    package = Package("named", "1.0", {"etc/conda/activate.d/named.sh": active, "share/named/a.txt": PLACEHOLDER})
    more = write_channel(tmp_path / "more", [package])
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    install(tmp_path / "link/prefix", ["python", "named"], [*channel, more], packages)
    for path in (tmp_path / "link/prefix", tmp_path / "real/prefix"):
        scanned = scan(path)
        (layer,) = (one for one in scanned.conda if one.name == "conda:named")
        assert layer.digest == layer_of_archive(next((more / SUBDIR).glob("named-*"))).digest
        named = {name: value for name, value in scanned.variables.items() if name.startswith("NAMED")}
        assert named == {"NAMED_HOME": f"{PREFIX_MARK}/share/named", "NAMED_BIN": f"{PREFIX_MARK}/bin"}
        assert "prefix-in-file" not in {one.code for one in scanned.snapshot.problems}


# ---- several distributions in one package


def without_records(name: str, *distributions: str, egg: bool) -> Package:
    """A package of distributions that don't say which files are theirs, as dist-info or as egg-info."""
    files: dict[str, str | Item] = {f"share/{name}.conf": f"home={PLACEHOLDER}/share\n"}
    for one in distributions:
        files.update(python_files(one, "1.0", **{one: "WORD = 1\n"}))
        files.pop(f"site-packages/{one}-1.0.dist-info/RECORD")
        if egg:
            files.pop(f"site-packages/{one}-1.0.dist-info/INSTALLER")
            metadata = files.pop(f"site-packages/{one}-1.0.dist-info/METADATA")
            files[f"site-packages/{one}-1.0.egg-info/PKG-INFO"] = metadata
    return Package(name, "1.0", files, noarch="python", subdir="noarch", build="pyh_0", depends=("python",))


@pytest.mark.parametrize("egg", [False, True], ids=["dist-info", "egg-info"])
def test_two_distributions_that_don_t_say_what_is_theirs(
    tmp_path: Path, channel: list[Path], packages: Path, egg: bool
) -> None:
    """The first has the package's files, with their placeholders; the other has its metadata, and both are there."""
    package = without_records("eggs" if egg else "infos", "gamma", "delta", egg=egg)
    more = write_channel(tmp_path / "more", [package])
    prefix = install(tmp_path / "prefix", ["python", package.name], [*channel, more], packages)
    scanned = scan(prefix)
    first, second = scanned.sources["delta"], scanned.sources["gamma"]
    files = {file.entry.path: file.entry for file in first.files}
    assert {"purelib/gamma.py", "purelib/delta.py", f"data/share/{package.name}.conf"} <= files.keys()
    assert files[f"data/share/{package.name}.conf"].placeholder == PLACEHOLDER
    kind = "egg" if egg else "dist"
    assert {file.entry.path.split("/")[1] for file in second.files} == {f"gamma-1.0.{kind}-info"}
    check_layers(scanned, tmp_path)
    (found,) = (one for one in scanned.snapshot.conda if one.name == package.name)
    assert (found.distributions, found.modified, found.missing) == (("delta", "gamma"), (), ())


# ---- a prefix that conda is at work in


def test_a_prefix_that_is_being_changed(tmp_path: Path, packages: Path) -> None:
    """While conda exchanges a package again and again, scans come through; what they find is packed as it is called,
    or not at all. When conda is done a scan finds what is there: the files' sizes and times are the same, but nothing
    is remembered wrongly.
    """
    tools = [
        Package("tool", version, {f"share/tool/{n}.txt": f"{version} {n} of {PLACEHOLDER}\n" for n in range(40)})
        for version in ("1.0", "2.0")
    ]
    channel = write_channel(tmp_path / "channel", tools)
    prefix, states = tmp_path / "prefix", []
    for tool in tools:
        install(prefix, [f"tool =={tool.version}"], [channel], packages)
        states.append(shutil.copytree(prefix, tmp_path / tool.version, symlinks=True))
    refused: list[bool] = []
    with exchanging(prefix, states) as exchanges:
        while len(exchanges) < 12 or len(refused) < 12:
            refused.append(not can_be_packed(look(prefix), tmp_path / str(len(refused))))
    found = look(prefix)
    assert [one.version for one in found.packages] == ["2.0"]
    archive = layer_of_archive(channel / SUBDIR / f"{tools[1].stem}.conda")
    assert [layer.digest for layer in found.others] == [archive.digest]
    assert (found.packages[0].modified, found.packages[0].missing) == ((), ())
    assert can_be_packed(found, tmp_path / "last")


@contextmanager
def exchanging(prefix: Path, states: Sequence[Path]) -> Iterator[list[Path]]:
    """A thread that makes `prefix` each of these, one after the other; gives those that it was so far."""
    done: list[Path] = []
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            for state in states:
                exchange(prefix, state)
                done.append(state)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield done
    finally:
        over.set()
        thread.join()


def exchange(prefix: Path, state: Path) -> None:
    """As conda does it: the old files go, then their record; the new files come, and then theirs."""
    for path in [*(prefix / "share/tool").glob("*"), *(prefix / "conda-meta").glob("*.json")]:
        path.unlink()
    for path in [*(state / "share/tool").glob("*"), *(state / "conda-meta").glob("*.json")]:
        shutil.copy2(path, prefix / path.relative_to(state))


def look(prefix: Path) -> CondaFound:
    """A scan of a prefix without Python; what is found out is kept for the next one."""
    folder = prefix.parent / "facts"
    known, before = Facts(folder, "files"), Facts(folder, "before")
    found = conda_files(
        read_records(str(prefix), folder),
        prefix=str(prefix),
        python="python3.11",
        implementation="cpython",
        installed=(),
        sources={},
        facts=known,
        facts_before=before,
    )
    known.save()
    before.save()
    return found


def can_be_packed(found: CondaFound, folder: Path) -> bool:
    """Whether all its layers can be laid out; each file is hashed on the way, and has to be what the scan said."""
    try:
        for layer in found.others:
            write_loose(layer, folder, folder.with_suffix(".listing"))
    except LayerError:
        return False
    return True
