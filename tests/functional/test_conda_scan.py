"""What a scan makes of conda's records and files: right ones, damaged ones, and what people and pip did to them."""

from __future__ import annotations

import json
import os
from dataclasses import replace as replaced
from pathlib import Path

import msgspec
import pytest

from likewise.conda_elsewhere import activated
from likewise.conda_planning import plan_packages
from likewise.errors import LayerError
from likewise.layers.conda import layer_of_archive
from likewise.layers.loose import write_loose
from likewise.model.conda_identity import ENTRY_LINE, entry_script
from likewise.model.digest import digest_bytes
from likewise.model.layer import LayerKind, LayerSource
from likewise.model.placeholders import with_prefix
from likewise.model.snapshot import OriginKind, PrefixKind, Severity, Snapshot, described_interpreter
from likewise.model.target import Platform
from likewise.planner.options import PlanOptions
from likewise.planner.targets import parse_target
from likewise.scanner import Scanned, scan_prefix
from likewise.scanner.conda_activate import activation
from likewise.scanner.conda_files import CondaFound, conda_files
from likewise.scanner.conda_records import Records, read_records
from likewise.scanner.conda_unowned import unowned_files, unowned_problem
from likewise.scanner.conda_virtual import virtual_packages
from likewise.scanner.facts import Facts
from likewise.scanner.probe import probe_python
from likewise.settings import resolve_settings
from support.conda_channel import CondaPrefix, install
from support.conda_package import PLACEHOLDER, SUBDIR, Item, Package, script, write_channel

TOOL = Package(
    "tool",
    "1.0",
    {
        "bin/tool": script(f"#!{PLACEHOLDER}/bin/sh\necho {PLACEHOLDER}\n"),
        "bin/alias": Item(link="tool"),
        "bin/snake": script(f"#!{PLACEHOLDER}/bin/python3 -s\nprint()\n"),
        "lib/tool.dat": b"\0" + f"{PLACEHOLDER}/lib:{PLACEHOLDER}/share".encode() + b"\0\1\2",
        "share/tool/E/one": "one\n",
        "share/tool/e/one": "another\n",
        "share/tool/plain.txt": "plain\n",
    },
    depends=("base >=1",),
)
BASE = Package("base", "1.2", {"share/base.txt": "base\n", "bin/.base-post-link.sh": script("true\n")})


@pytest.fixture
def channel(tmp_path: Path) -> Path:
    """A channel with a program and what it needs."""
    write_channel(tmp_path / "channel", [TOOL, BASE], forms={"base": ".tar.bz2"})
    return tmp_path / "channel"


@pytest.fixture
def prefix(tmp_path: Path, channel: Path) -> Path:
    """A prefix with both; nothing else uses its package cache."""
    return install(tmp_path / "prefix", ["tool"], [channel], tmp_path / "cache")


def look(prefix: Path, facts: Path | None = None) -> CondaFound:
    """A scan of a prefix without Python."""
    folder = facts or prefix.parent / "facts"
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


def layers(found: CondaFound) -> dict[str, LayerSource]:
    """The layers by name."""
    return {layer.name: layer for layer in found.others}


def codes(found: CondaFound | Records) -> set[str]:
    """What is wrong."""
    return {problem.code for problem in found.problems}


def replace(path: Path, data: bytes) -> None:
    """Write a file anew: the package cache has another link to the old one."""
    mode = path.stat().st_mode
    path.unlink()
    path.write_bytes(data)
    path.chmod(mode)


def record_of(prefix: Path, name: str) -> Path:
    """The record of a package."""
    return next((prefix / "conda-meta").glob(f"{name}-*.json"))


def nothing_is_young(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written just now may be remembered as well."""
    monkeypatch.setattr("likewise.scanner.stats.RACY_NS", -(10**18))
    monkeypatch.setattr("likewise.scanner.facts.RACY_NS", -(10**18))


def test_packages_are_described(prefix: Path) -> None:
    """Everything that a record says that others need; the one that was asked for is known."""
    base, tool = look(prefix).packages
    assert (str(tool), tool.requires, tool.requested) == ("tool-1.0-h0_0", ("base >=1",), ("tool",))
    assert (base.requested, base.noarch, base.distributions, base.layer) == ((), "", (), "conda:base")
    assert (tool.files, tool.modified, tool.missing, tool.replaced) == (7, (), (), "")
    assert tool.url.startswith("file:") and len(tool.sha256) == 64


@pytest.mark.parametrize("depth", [0, 30])
def test_layers_are_those_of_the_archives(tmp_path: Path, channel: Path, depth: int) -> None:
    """Placeholders, links and modes: the prefix has the archive's layer, where its path is long as well."""
    prefix = install(tmp_path / ("deep" * depth) / "prefix", ["tool"], [channel], tmp_path / "cache")
    found = layers(look(prefix, tmp_path / "facts"))
    for archive in channel.glob("*/*-*-h0_0.*"):
        original = layer_of_archive(archive, tmp_path / archive.name)
        assert found[original.name].digest == original.digest
        for number, source in enumerate((found[original.name], original)):  # each can be packed
            target = tmp_path / f"{original.name}-{number}"
            write_loose(source, target, target.with_suffix(".listing"))
    assert PLACEHOLDER in (tmp_path / "conda:tool-0/data/bin/tool").read_text()


def test_what_is_known_is_not_read_again(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second scan reads no record, and hashes no file."""
    nothing_is_young(monkeypatch)
    first = look(prefix)
    read: list[str] = []
    monkeypatch.setattr("likewise.scanner.conda_records._read", lambda path, _: read.append(path))
    monkeypatch.setattr("likewise.scanner.files.hash_file", read.append)
    assert look(prefix).packages == first.packages
    assert read == []


def test_changed_files_are_shipped_as_they_are(prefix: Path) -> None:
    """They are named; where they still name the prefix, the nodes' copies name theirs."""
    tool, data = prefix / "bin/tool", prefix / "lib/tool.dat"
    replace(prefix / "share/tool/plain.txt", b"changed\n")
    replace(tool, tool.read_bytes() + b"echo more\n")
    replace(data, data.read_bytes() + b"more")
    found = look(prefix)
    package = next(one for one in found.packages if one.name == "tool")
    assert package.modified == ("bin/tool", "lib/tool.dat", "share/tool/plain.txt")
    assert codes(found) == {"conda-modified-files", "conda-link-script"}
    made = prefix.parent / "loose"
    layer = layers(found)["conda:tool"]
    write_loose(layer, made, prefix.parent / "listing")
    assert (made / "data/share/tool/plain.txt").read_bytes() == b"changed\n"
    for file in layer.files:
        if file.entry.placeholder:
            content = (made / file.entry.path).read_bytes()
            assert PLACEHOLDER.encode() in content and os.fsencode(prefix) not in content
            there = (prefix / file.entry.path.removeprefix("data/")).read_bytes()
            assert with_prefix(content, PLACEHOLDER, str(prefix), binary=file.entry.binary) == there


def test_files_that_are_gone_are_named(prefix: Path) -> None:
    """The nodes won't have them either; all else is there."""
    (prefix / "share/tool/plain.txt").unlink()
    found = look(prefix)
    package = next(one for one in found.packages if one.name == "tool")
    assert package.missing == ("share/tool/plain.txt",)
    assert "conda-missing-files" in codes(found)
    assert len(layers(found)["conda:tool"].files) == 6


@pytest.mark.parametrize("how", ["truncated", "escapes", "no-object", "not-utf8"])
def test_a_damaged_record_is_named_and_the_others_count(prefix: Path, how: str) -> None:
    """Whatever is in it: nothing outside the prefix is read, and nothing else is lost."""
    path = record_of(prefix, "tool")
    text = path.read_text()
    path.write_bytes(
        {
            "truncated": text[: len(text) // 2].encode(),
            "escapes": text.replace("share/tool/plain.txt", "../../.ssh/id_rsa").encode(),
            "no-object": b"[" * 100_000,
            "not-utf8": b'{"name": "\xff"}',
        }[how]
    )
    found = look(prefix)
    assert "conda-record-damaged" in codes(found)
    assert [one.name for one in found.packages] == ["base"]
    problem = next(one for one in found.problems if one.code == "conda-record-damaged")
    assert path.name in problem.message and problem.severity is Severity.ERROR


def test_a_hidden_file_at_the_root_of_the_prefix(tmp_path: Path) -> None:
    """The prefix may be a home: the file is left out and named, all else of its package is there, and so it is where
    the layer is made of the archive.
    """
    package = Package("hidden", "1.0", {".nonadmin": "secret\n", "share/a.txt": "a\n", "share/.b": "b\n"})
    channel = write_channel(tmp_path / "channel", [package])
    found = look(install(tmp_path / "prefix", ["hidden"], [channel], tmp_path / "cache"))
    layer = layers(found)["conda:hidden"]
    assert [file.entry.path for file in layer.files] == ["data/share/.b", "data/share/a.txt"]
    (archive,) = channel.glob("*/hidden-*")
    assert layer.digest == layer_of_archive(archive).digest
    (problem,) = found.problems
    assert (problem.code, problem.severity) == ("conda-hidden-files", Severity.NOTE)
    assert ".nonadmin" in problem.message and "hidden-1.0" in problem.message
    assert (found.packages[0].modified, found.packages[0].missing) == ((), ())


def test_folders_that_are_empty_are_named(prefix: Path) -> None:
    """Layers have files alone. One that other files lie in is there anyhow, and one that is gone nobody misses."""
    path = record_of(prefix, "tool")
    record = json.loads(path.read_text())
    folders = ("var/empty/tool", "share/tool", "var/gone")
    record["paths_data"]["paths"] += [{"_path": each, "path_type": "directory"} for each in folders]
    path.write_text(json.dumps(record))
    (prefix / "var/empty/tool").mkdir(parents=True)
    found = look(prefix)
    (problem,) = (one for one in found.problems if one.code == "conda-empty-folders")
    assert (problem.subject, problem.severity) == ("tool", Severity.NOTE)
    assert "1 of its folders" in problem.message and "var/empty/tool" in problem.message
    (tool,) = (one for one in found.packages if one.name == "tool")
    assert (tool.files, tool.modified, tool.missing) == (7, (), ())


def test_two_records_for_one_name(prefix: Path) -> None:
    """The one whose files are there counts, whichever comes first; the other one is named."""
    record = json.loads(record_of(prefix, "tool").read_text())
    for version in ("0.9", "1.1"):
        record["version"] = version
        for path in record["paths_data"]["paths"]:
            path["_path"] = f"gone/{version}/{path['_path']}"
        (prefix / f"conda-meta/tool-{version}-h0_0.json").write_text(json.dumps({**record, "files": []}))
    found = look(prefix)
    assert [(one.name, one.version) for one in found.packages] == [("base", "1.2"), ("tool", "1.0")]
    assert "conda-record-twice" in codes(found)
    assert found.packages[1].missing == ()


def test_two_packages_that_claim_one_path(prefix: Path) -> None:
    """The disk decides whose it is: the layers don't contradict each other."""
    path = record_of(prefix, "base")
    record = json.loads(path.read_text())
    claim = {"_path": "share/tool/plain.txt", "path_type": "hardlink", "sha256": "0" * 64, "size_in_bytes": 3}
    record["paths_data"]["paths"].append(claim)
    path.write_text(json.dumps(record))
    paths = {name: [f.entry.path for f in layer.files] for name, layer in layers(look(prefix)).items()}
    assert "data/share/tool/plain.txt" in paths["conda:tool"]
    assert "data/share/tool/plain.txt" not in paths["conda:base"]


TORCH = Package(
    "torch",
    "2.0",
    {
        "lib/libtorch.so": b"library",
        "include/torch/a.h": "int a;\n",
        "lib/python3.11/site-packages/torch/lib/libtorch.so": Item(link="../../../../libtorch.so"),
        "lib/python3.11/site-packages/torch/include": Item(link="../../../../include/torch"),
    },
)


def test_links_from_modules_to_libraries(tmp_path: Path) -> None:
    """They stay links, to files and folders; the layer is the archive's."""
    write_channel(tmp_path / "channel", [TORCH])
    found = look(install(tmp_path / "prefix", ["torch"], [tmp_path / "channel"], tmp_path / "cache"))
    links = {file.entry.path: file.entry.link for file in layers(found)["conda:torch"].files if file.entry.link}
    assert links == {
        "purelib/torch/include": "../../../../include/torch",
        "purelib/torch/lib/libtorch.so": "../../../../libtorch.so",
    }
    (archive,) = (tmp_path / "channel").glob("*/torch-*")
    assert layers(found)["conda:torch"].digest == layer_of_archive(archive).digest
    assert (codes(found), found.packages[0].modified, found.packages[0].missing) == (set(), (), ())


def test_links_that_leave_the_prefix(prefix: Path, tmp_path: Path) -> None:
    """A file is taken, a folder is not and is named: nothing on a node points out of its prefix."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/plain.txt").write_text("plain\n")
    for path, target in (("share/tool/plain.txt", "../../../elsewhere/plain.txt"), ("bin/alias", "../../elsewhere")):
        (prefix / path).unlink()
        (prefix / path).symlink_to(target)
    found = look(prefix)
    entries = {file.entry.path: file.entry for file in layers(found)["conda:tool"].files}
    assert entries["data/share/tool/plain.txt"].link == ""
    assert "data/bin/alias" not in entries
    (problem,) = [one for one in found.problems if one.code == "conda-link-outside"]
    assert (problem.subject, problem.severity) == ("bin/alias", Severity.WARNING)
    assert "tool-1.0-h0_0" in problem.message and "../../elsewhere" in problem.message


@pytest.mark.parametrize("where", ["prefix/pkgs", "cache/pkgs"])
def test_links_into_the_package_cache(prefix: Path, where: str) -> None:
    """Conda's ``always_softlink``: whether the cache is the prefix's own or another one, nodes have none, and get the
    files themselves; what is a link in the package is that link.
    """
    before = layers(look(prefix))["conda:tool"]
    for path in ("bin/alias", "share/tool/plain.txt", "share/tool/E/one"):
        cached = prefix.parent / where / "tool-1.0-h0_0" / path
        cached.parent.mkdir(parents=True, exist_ok=True)
        if not os.path.lexists(cached):
            (prefix / path).rename(cached)
        (prefix / path).unlink(missing_ok=True)
        (prefix / path).symlink_to(os.path.relpath(cached, (prefix / path).parent) if "E" in path else cached)
    found = look(prefix)
    (tool,) = (one for one in found.packages if one.name == "tool")
    assert (tool.modified, tool.missing) == ((), ())
    assert layers(found)["conda:tool"].digest == before.digest


def test_a_file_that_was_replaced_by_a_link_is_told(prefix: Path) -> None:
    """Nodes have the link; it is not what conda installed."""
    (prefix / "share/tool/plain.txt").unlink()
    (prefix / "share/tool/plain.txt").symlink_to("E/one")
    found = look(prefix)
    (tool,) = (one for one in found.packages if one.name == "tool")
    assert tool.modified == ("share/tool/plain.txt",)
    links = {file.entry.path: file.entry.link for file in layers(found)["conda:tool"].files}
    assert links["data/share/tool/plain.txt"] == "E/one"


def claim(prefix: Path, name: str, *paths: str) -> None:
    """Have the record of a package say that its installer made these scripts."""
    path = record_of(prefix, name)
    record = json.loads(path.read_text())
    record["paths_data"]["paths"] += [{"_path": each, "path_type": "unix_python_entry_point"} for each in paths]
    path.write_text(json.dumps(record))


def test_scripts_of_entry_points_are_shipped_as_they_are(prefix: Path) -> None:
    """Those that an installer wrote are known, and one that was changed keeps its change, with the node's Python."""
    line = f"#!{prefix}/bin/python3.11\n".encode()
    body = entry_script("pkg", "main").removeprefix(ENTRY_LINE)
    (prefix / "bin/run").write_bytes(line + body)
    (prefix / "bin/mine").write_bytes(line + body + b"print('mine')\n")
    claim(prefix, "tool", "bin/run", "bin/mine", "bin/gone")
    found = look(prefix)
    files = {file.entry.path: file for file in layers(found)["conda:tool"].files}
    assert files["scripts/run"].data == ENTRY_LINE + body
    assert files["scripts/mine"].data == b"#!python\n" + body + b"print('mine')\n"
    tool = next(one for one in found.packages if one.name == "tool")
    assert (tool.modified, tool.missing) == (("bin/mine",), ("bin/gone",))


def test_a_script_has_one_owner(prefix: Path) -> None:
    """Of two packages with an entry point of one name it is the first one's, and nobody's where another has a file."""
    (prefix / "bin/run").write_bytes(b"#!/p/bin/python3.11\n" + entry_script("pkg", "main").removeprefix(ENTRY_LINE))
    claim(prefix, "base", "bin/run", "bin/tool")
    claim(prefix, "tool", "bin/run")
    paths = {name: [f.entry.path for f in layer.files] for name, layer in layers(look(prefix)).items()}
    assert [path for path in paths["conda:base"] if path.endswith(("run", "tool"))] == ["scripts/run"]
    assert [path for path in paths["conda:tool"] if path.endswith(("run", "bin/tool"))] == ["data/bin/tool"]


@pytest.mark.parametrize("channel_said", ["<unknown>", "", None])
def test_an_unknown_channel_is_a_note(prefix: Path, channel_said: str | None) -> None:
    """The package is copied all the same."""
    path = record_of(prefix, "tool")
    path.write_text(json.dumps({**json.loads(path.read_text()), "channel": channel_said, "url": ""}))
    found = look(prefix)
    note = next(one for one in found.problems if one.code == "conda-channel-unknown")
    assert (note.subject, note.severity) == ("tool", Severity.NOTE)
    assert "conda:tool" in layers(found)
    assert next(one for one in found.packages if one.name == "tool").channel == ""


def test_an_unknown_channel_is_not_asked(
    prefix: Path, channel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nodes of another platform get the package from the channels that are known, and nobody else hears of it."""
    other = {"linux-64": "linux-aarch64"}.get(SUBDIR, "linux-64")
    write_channel(channel, [TOOL, BASE, *(replaced(one, subdir=other) for one in (TOOL, BASE))])
    path = record_of(prefix, "tool")
    path.write_text(json.dumps({**json.loads(path.read_text()), "channel": "<unknown>", "url": ""}))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LIKEWISE_CACHE", str(tmp_path / "client"))
    interpreter = described_interpreter(parse_target(SUBDIR, python="3.11.0"), base_kind=PrefixKind.CONDA)
    snapshot = Snapshot(interpreter=interpreter, distributions=(), code=(), conda=look(prefix).packages)
    target = parse_target(other, python="3.11.0")
    plan, where = plan_packages(snapshot, target, PlanOptions(), settings=resolve_settings())
    assert where.names == (channel.as_uri(),)
    assert {one.name: one.version for one in plan.decisions} == {"tool": "1.0", "base": "1.2"}


def test_no_credential_of_a_channel_is_kept(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens and passwords are gone when a record was read, and from what is remembered of it."""
    path = record_of(prefix, "tool")
    record = json.loads(path.read_text())
    record["url"] = "https://user:p4ss@conda.invalid/t/t0k3n/forge/linux-64/tool-1.0-h0_0.conda?key=t0k3n"
    record["channel"] = "https://user:p4ss@conda.invalid/t/t0k3n/forge"
    record["requested_specs"] = ["https://conda.invalid/t/t0k3n/forge::tool >=1"]
    path.write_text(json.dumps(record))
    nothing_is_young(monkeypatch)
    found = look(prefix)
    shown = msgspec.json.encode([found.packages, found.problems])
    kept = b"".join(file.read_bytes() for file in (prefix.parent / "facts").iterdir())
    assert b"conda.invalid" in kept
    for secret in (b"p4ss", b"t0k3n"):
        assert secret not in shown + kept
    assert next(one for one in found.packages if one.name == "tool").channel == "https://conda.invalid/forge"


def test_a_prefix_that_is_being_changed(prefix: Path) -> None:
    """What changes between the scan and packing is an error that names the file, not another content."""
    layer = layers(look(prefix))["conda:tool"]
    replace(prefix / "bin/tool", b"#!/bin/sh\necho other\n")
    with pytest.raises(LayerError, match="changed while it was being packed") as caught:
        write_loose(layer, prefix.parent / "loose", prefix.parent / "listing")
    assert caught.value.details["file"] == "data/bin/tool"


def test_a_record_that_vanishes_is_no_problem(prefix: Path) -> None:
    """conda removes a package while its records are read: a name is there, and no file."""
    (prefix / "conda-meta/gone-1.0-0.json").symlink_to("nowhere")
    assert codes(read_records(str(prefix))) == set()


def test_requested_specs_of_conda_are_in_its_history(prefix: Path) -> None:
    """conda and mamba write them there and not into every record; what was removed does not count."""
    for name in ("tool", "base"):
        path = record_of(prefix, name)
        path.write_text(json.dumps({**json.loads(path.read_text()), "requested_specs": [], "requested_spec": "None"}))
    (prefix / "conda-meta/history").write_text(
        "==> 2026-01-01 00:00:00 <==\n# cmd: conda create -n x tool base\n# conda version: 25.1.0\n"
        "# update specs: ['tool=1', \"base[version='>=1,<3']\", 'other']\n"
        "==> 2026-01-02 00:00:00 <==\n# remove specs: ['other', 'base']\n"
    )
    packages = {one.name: one.requested for one in look(prefix).packages}
    assert packages == {"tool": ("tool=1",), "base": ()}


@pytest.mark.parametrize(
    ("said", "specs"),
    [
        (r'["tool[version=\"=1.0\",build=\"h0*\"]"]', ('tool[version="=1.0",build="h0*"]',)),
        (r'["tool=1", "base[version=\">=1,<3\"]"]', ("tool=1",)),
        ("['tool=1', \"base[version='>=1,<3']\"]", ("tool=1",)),
        ("tool=1,base", ("tool=1",)),
        (r'["tool[version=\"=1.0\",build=\"h0*', ()),
        ("['=>', 'tool']", ("tool",)),
        ("[[1], {}, 'tool']", ("tool",)),
        ("[]", ()),
    ],
)
def test_each_program_writes_its_history_in_its_own_way(prefix: Path, said: str, specs: tuple[str, ...]) -> None:
    """mamba as JSON, conda as Python would; what can be no match spec does not count."""
    path = record_of(prefix, "tool")
    path.write_text(json.dumps({**json.loads(path.read_text()), "requested_specs": [], "requested_spec": "None"}))
    (prefix / "conda-meta/history").write_text(f"==> 2026-01-01 00:00:00 <==\n# update specs: {said}\n")
    assert {one.name: one.requested for one in look(prefix).packages}["tool"] == specs


def test_what_nobody_owns_is_told(prefix: Path) -> None:
    """R installs its packages without conda; bytecode, and what lies at the root, is nobody's business."""
    for path in ("lib/R/library/mine/DESCRIPTION", "lib/__pycache__/x.pyc", "pkgs/a/b", "var/log", ".hidden/x", "TAG"):
        (prefix / path).parent.mkdir(parents=True, exist_ok=True)
        (prefix / path).write_text("")
    found = list(unowned_files(str(prefix), "python3.11", look(prefix).owned))
    assert found == ["lib/R/library/mine/DESCRIPTION"]
    (problem,) = unowned_problem(str(prefix), found)
    assert "lib/R/library/mine" in problem.message
    assert list(unowned_problem(str(prefix), [])) == []


def test_virtual_packages() -> None:
    """Those of a Linux machine; variables of conda's go before what is found."""
    machine = Platform(os="linux", arch="x86_64", libc="glibc", libc_version="2.36")
    found = virtual_packages(machine, {"CONDA_OVERRIDE_CUDA": "12.4", "CONDA_OVERRIDE_GLIBC": "2.17"})
    assert {"__archspec=1=x86_64", "__cuda=12.4=0", "__glibc=2.17=0", "__unix=0=0"} < set(found)
    assert any(one.startswith("__linux=") for one in found)


def test_variables_that_set_a_virtual_package() -> None:
    """A processor's name is the build, as conda has it; an empty value takes the package away; others set nothing."""
    machine = Platform(os="linux", arch="x86_64", libc="glibc", libc_version="2.36")
    said = {"ARCHSPEC": "x86_64_v3", "LINUX": "", "CHANNELS_ENABLED": "false"}
    found = virtual_packages(machine, {f"CONDA_OVERRIDE_{name}": value for name, value in said.items()})
    assert found == ("__archspec=1=x86_64_v3", "__glibc=2.36=0", "__unix=0=0")
    assert not any("archspec" in one for one in virtual_packages(machine, {"CONDA_OVERRIDE_ARCHSPEC": ""}))


def test_pip_over_conda_is_seen_for_what_it_is(conda_prefix: CondaPrefix, tmp_path: Path) -> None:
    """pip's distribution is what is shipped; conda's package has what pip left of it, and says so."""
    scanned = scan(conda_prefix, tmp_path)
    greeter = scanned.snapshot.get("greeter")
    assert greeter is not None
    assert (greeter.version, greeter.origin.kind is OriginKind.CONDA) == ("2.0", False)
    package = next(one for one in scanned.snapshot.conda if one.name == "greeter")
    assert (package.version, package.replaced, package.distributions) == ("1.0", "uv", ("greeter",))
    found = {problem.code for problem in scanned.snapshot.problems}
    assert "conda-replaced" in found and "conda-unowned-files" not in found
    left = {layer.name: [file.entry.path for file in layer.files] for layer in scanned.conda}["conda:greeter"]
    assert left == ["data/bin/greet-loudly"]


def test_every_package_and_distribution_has_one_layer(conda_prefix: CondaPrefix, tmp_path: Path) -> None:
    """Distributions of conda's have all files of their packages; nothing is modified, Python is the interpreter."""
    scanned = scan(conda_prefix, tmp_path)
    conda = {one.name: one for one in scanned.snapshot.conda}
    assert scanned.base is not None and scanned.base.kind is LayerKind.INTERPRETER
    numpy = scanned.snapshot.get("numpy")
    assert numpy is not None and numpy.content == conda["numpy"].content and numpy.origin.kind is OriginKind.CONDA
    assert (numpy.modified, conda["numpy"].modified) == ((), ())
    assert [layer.name for layer in scanned.conda] == sorted(one.layer for one in conda.values() if one.layer)
    assert scanned.variables["CONDA_PREFIX"] == "@prefix@"
    assert scanned.snapshot.virtual_packages


def scan(user: CondaPrefix, tmp_path: Path) -> Scanned:
    """A scan of the user's prefix, from a folder without anything."""
    (tmp_path / "empty").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path / "empty")
        return scan_prefix(probe_python(user.python), facts_dir=tmp_path / "facts")


# ---- activation


def activate(folder: Path, scripts: dict[str, str], *, owned: bool = True) -> tuple[dict[str, str], list[str]]:
    """What these scripts set, and what is said of them."""
    place = folder / "etc/conda/activate.d"
    place.mkdir(parents=True)
    for name, text in scripts.items():
        (place / name).write_text(text)
    paths = {str(place / name) for name in scripts} if owned else set()
    variables, problems = activation(str(folder), paths)
    return variables, [problem.message for problem in problems]


@pytest.fixture(params=["bash", "sh"])
def shell(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either of the shells that read the scripts."""
    if request.param == "sh":
        exists = os.path.exists
        monkeypatch.setattr(os.path, "exists", lambda path: not str(path).endswith("bin/bash") and exists(path))


def test_activation_knows_nothing_of_the_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts don't see this process's variables."""
    monkeypatch.setenv("AWS_SESSION", "c4nary")
    text = 'export SEEN="x${AWS_SESSION}" ONE="$CONDA_PREFIX/share" TWO=2\nunset PATH\n'
    variables, said = activate(tmp_path, {"a.sh": 'export PATH="$CONDA_PREFIX/extra:$PATH"\n', "b.sh": text})
    assert variables == {"CONDA_PREFIX": "@prefix@", "ONE": "@prefix@/share", "SEEN": "x", "TWO": "2"}
    assert said == []


def test_what_is_kept_back_of_activation_is_named(tmp_path: Path) -> None:
    """By the reason, with names alone: what looks like a secret, what nodes set, what is nothing for them."""
    text = """
export API_KEY=s3cret DB_PASSWORD=s3cret PATH="$CONDA_PREFIX/extra:$PATH" CACHE="$HOME/cache" TWO=2
export LINES_OF="one
s3cret"
"""
    variables, said = activate(tmp_path, {"a.sh": text})
    assert variables == {"CONDA_PREFIX": "@prefix@", "TWO": "2"}
    named = {message.partition(":")[0]: message for message in said}
    assert sorted(named) == [
        f"Activating sets {names}, not sent to the nodes"
        for names in ("API_KEY, DB_PASSWORD", "CACHE", "LINES_OF", "PATH")
    ]
    assert "s3cret" not in "".join(said)
    assert all("`environ`" in message for message in said)


@pytest.mark.usefixtures("shell")
@pytest.mark.parametrize(
    "end", ["exit 3", "exit", "set -e\nfalse", "set -u\necho $NOT_SET", "kill -KILL $$", "exec true"]
)
def test_what_was_set_before_a_script_ends_the_shell_is_kept(tmp_path: Path, end: str) -> None:
    """The script is named, and those that are not run any more."""
    scripts = {
        "a.sh": "LOCAL=1\nexport ONE=1\n",
        "b.sh": f'export TWO="$LOCAL$CONDA_PREFIX"\n{end}\nexport LATE=1\n',
        "c.sh": "export THREE=3\n",
        "d.sh": "export FOUR=4\n",
    }
    variables, said = activate(tmp_path, scripts)
    gone = end.startswith(("kill", "exec"))  # then nobody can ask the shell any more
    own = {} if gone else {"TWO": "1@prefix@"}
    assert variables == {"CONDA_PREFIX": "@prefix@", "ONE": "1", **own}
    (message,) = said
    assert message.startswith("etc/conda/activate.d/b.sh ends the shell: ")
    assert "c.sh, d.sh" in message and "a.sh" not in message


@pytest.mark.usefixtures("shell")
def test_a_script_that_fails_is_no_end(tmp_path: Path) -> None:
    """Nor one that replaces the shell's traps, or ends a shell of its own."""
    scripts = {
        "a.sh": "trap 'true' EXIT\nexport ONE=1\nfalse\n",
        "b.sh": "(exit 3)\nx=$(exit 4)\nexport TWO=2\nreturn 5\n",
        "c.sh": "export THREE=3\n",
    }
    variables, said = activate(tmp_path, scripts)
    assert variables == {"CONDA_PREFIX": "@prefix@", "ONE": "1", "TWO": "2", "THREE": "3"}
    assert said == []


def test_a_script_that_never_ends_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while the others' variables are taken without it; one that stays behind holds nobody up."""
    monkeypatch.setattr("likewise.scanner.conda_activate.TIMEOUT", 2.0)
    scripts = {"a.sh": "export ONE=1\nsleep 60 &\n", "b.sh": "export TWO=2\nwait\n", "c.sh": "export THREE=3\n"}
    variables, said = activate(tmp_path, scripts)
    assert variables == {"CONDA_PREFIX": "@prefix@", "ONE": "1"}
    assert len(said) == 1 and "b.sh does not end within 2 s" in said[0] and "c.sh" in said[0]


def test_variables_that_follow_a_link_are_named(tmp_path: Path) -> None:
    """For nodes of another platform the prefix is one of links, into folders of this machine."""
    text = 'export REAL="$(readlink -f "$CONDA_PREFIX/share/x")" MINE="$CONDA_PREFIX/share"\nexit\n'
    package = Package("follows", "1.0", {"share/x": "x\n", "etc/conda/activate.d/follows.sh": text})
    write_channel(tmp_path / "channel", [package])
    (archive,) = (tmp_path / "channel").glob("*/follows-*")
    layer = layer_of_archive(archive, tmp_path / "work" / "unpacked")
    variables, problems = activated([layer], tmp_path / "work")
    assert variables == {"CONDA_PREFIX": "@prefix@", "MINE": "@prefix@/share"}
    ended, followed = (problem.message for problem in problems)
    assert "follows.sh ends the shell" in ended
    assert followed.startswith("Activating sets REAL, not sent to the nodes: it names a folder of this machine")


def test_scripts_of_the_user_are_not_run(tmp_path: Path) -> None:
    """People keep keys in them; a note says that they are left out, and a conda environment's own variables too."""
    (tmp_path / "conda-meta").mkdir()
    (tmp_path / "conda-meta/state").write_text('{"env_vars": {"API_KEY": "s3cret"}}')
    marker = tmp_path / "was-run"
    variables, said = activate(tmp_path, {"mine.sh": f"touch {marker}\n"}, owned=False)
    assert variables == {"CONDA_PREFIX": "@prefix@"} and not marker.exists()
    assert len(said) == 2 and "API_KEY" in said[1] and "s3cret" not in "".join(said)


def test_digests_are_those_of_the_packages_files(prefix: Path) -> None:
    """A layer's entries say what the archive's ``paths.json`` says, not what lies in the prefix."""
    entry = next(f.entry for f in layers(look(prefix))["conda:tool"].files if f.entry.path == "data/bin/tool")
    assert entry.sha256 == digest_bytes(TOOL.items()["bin/tool"].data)
    assert (entry.placeholder, entry.binary, entry.executable) == (PLACEHOLDER, False, True)


# ---- files that name the prefix in other ways


def on_node(layer: LayerSource, work: Path, prefix: Path) -> dict[str, bytes]:
    """What a node with a prefix there would have of a layer, by path in the prefix."""
    write_loose(layer, work, work.with_suffix(".listing"))
    return {
        file.entry.path.removeprefix("data/"): with_prefix(
            (work / file.entry.path).read_bytes(), file.entry.placeholder or "\n", str(prefix), binary=file.entry.binary
        )
        for file in layer.files
        if not file.entry.link
    }


def test_files_that_name_the_very_prefix(tmp_path: Path) -> None:
    """What a package itself says of the prefix, or of what has a longer name, is not what its installer has put there:
    the layer is the archive's, and a node has, byte for byte, what the installer would write there.
    """
    own = tmp_path / "env"
    package = Package(
        "self",
        "1.0",
        {
            "bin/config": script(f"#!/usr/bin/env bash\nprefix={PLACEHOLDER}\nlog={own}-logs/x\nold={own}\n"),
            "lib/names.dat": b"\0\1" + f"{PLACEHOLDER}/bin:{own}-site/bin".encode() + b"\0\2",
            "lib/unended.dat": b"\0\1" + f"{PLACEHOLDER}/lib".encode(),
        },
    )
    channel = write_channel(tmp_path / "channel", [package])
    for prefix in (own, tmp_path / "other"):
        install(prefix, ["self"], [channel], tmp_path / "cache")
    found = look(own)
    layer = layers(found)["conda:self"]
    (archive,) = channel.glob("*/self-*")
    assert layer.digest == layer_of_archive(archive).digest
    assert (codes(found), found.packages[0].modified) == (set(), ())
    for path, data in on_node(layer, tmp_path / "loose", tmp_path / "other").items():
        assert data == (tmp_path / "other" / path).read_bytes(), path


def test_a_prefix_that_is_called_by_another_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was installed by way of a link, and its Python is started without, or the other way round: files name the
    one, and what names it is known again, when the files are not read any more, too.
    """
    nothing_is_young(monkeypatch)
    channel = write_channel(tmp_path / "channel", [TOOL, BASE])
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (archive,) = channel.glob("*/tool-*")
    original = layer_of_archive(archive).digest
    for number, (one, other) in enumerate([("link", "real"), ("real", "link")]):
        install(tmp_path / one / str(number), ["tool"], [channel], tmp_path / "cache")
        for _ in range(2):
            found = look(tmp_path / other / str(number), tmp_path / f"facts-{number}")
            layer = layers(found)["conda:tool"]
            assert layer.digest == original
            assert codes(found) == {"conda-link-script"}
            assert all(one in file.prefix for file in layer.files if file.entry.placeholder)


def test_what_names_the_prefix_by_another_path(prefix: Path) -> None:
    """A link is one within the prefix, and the interpreter of a script that was changed is the nodes' own."""
    other = prefix.with_name("other")
    other.symlink_to(prefix)
    (prefix / "bin/alias").unlink()
    (prefix / "bin/alias").symlink_to(prefix / "bin/tool")
    (prefix / "bin/mine").write_text(f"#!{prefix}/bin/python3.11\nprint('mine')\n")
    claim(prefix, "tool", "bin/mine")
    files = {file.entry.path: file for file in layers(look(other))["conda:tool"].files}
    assert files["data/bin/alias"].entry.link == "tool"
    assert files["scripts/mine"].data == b"#!python\nprint('mine')\n"


def test_a_prefix_that_was_moved(prefix: Path) -> None:
    """Its files name a place that is gone: nobody can tell, so each is named, and shipped as it is."""
    moved = prefix.rename(prefix.with_name("moved"))
    found = look(moved)
    told = {one.subject for one in found.problems if one.code == "prefix-in-file"}
    assert told == {"bin/tool", "bin/snake", "lib/tool.dat"}
    assert not any(file.entry.placeholder for file in layers(found)["conda:tool"].files)


def test_a_changed_file_that_has_a_longer_name_in_it(prefix: Path) -> None:
    """The path of something else stays what it is."""
    tool = prefix / "bin/tool"
    replace(tool, tool.read_bytes() + f"echo {prefix}-logs {prefix}/lib\n".encode())
    made = on_node(layers(look(prefix))["conda:tool"], prefix.parent / "loose", Path("/node"))
    assert made["bin/tool"].endswith(f"echo {prefix}-logs /node/lib\n".encode())


def test_a_record_that_has_no_digest_of_what_is_in_the_prefix(prefix: Path) -> None:
    """What the package has tells whether a file was changed."""
    path = record_of(prefix, "tool")
    record = json.loads(path.read_text())
    for one in record["paths_data"]["paths"]:
        one.pop("sha256_in_prefix", None)
    path.write_text(json.dumps(record))
    assert [one.modified for one in look(prefix).packages] == [(), ()]
    for name in ("bin/tool", "lib/tool.dat", "share/tool/plain.txt"):
        replace(prefix / name, (prefix / name).read_bytes() + b"more")
    (tool,) = (one for one in look(prefix).packages if one.name == "tool")
    assert tool.modified == ("bin/tool", "lib/tool.dat", "share/tool/plain.txt")
