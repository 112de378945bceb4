"""Whatever was changed in a prefix is found and named with its layer."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import msgspec
import pytest

from likewise.errors import NodeError
from likewise.model.layer import LayerKind
from likewise.model.verify import DifferenceKind, NodeReport
from likewise.node.cache import NodeCache, open_cache
from likewise.node.materialise import materialise
from likewise.node.sources import DirectoryStore
from likewise.node.verify import installed, verify_prefix
from support.nodes import distribution, layer, manifest_of, put, real_kit, start

ONE = distribution(
    "one",
    {
        "purelib/one/__init__.py": b"def main(): print('one')\n",
        "purelib/one/link.py": "__init__.py",
        "purelib/one/data/x": b"x",
        "scripts/tool": (b"#!python\nprint('tool')\n", True),
    },
    entry_points="[console_scripts]\none = one:main\n",
)
BYTECODE = layer("one", {"purelib/one/__pycache__/__init__.cpython-311.pyc": b"pyc"}, kind=LayerKind.BYTECODE)
CODE = layer("code-1", {"code/code-1/mine.py": b"m\n"}, kind=LayerKind.CODE)
MANIFEST = manifest_of(ONE, CODE, bytecode={"one": BYTECODE}, after=("code-1",))
SITE = f"lib/{MANIFEST.python}/site-packages"


@pytest.fixture
def cache(tmp_path: Path) -> NodeCache:
    return open_cache(str(tmp_path / "cache"))


@pytest.fixture
def prefix(cache: NodeCache, tmp_path: Path) -> Path:
    put(tmp_path / "store", ONE, CODE, BYTECODE)
    return Path(materialise(cache, MANIFEST, [DirectoryStore(str(tmp_path / "store"))]))


def differences(prefix: Path) -> list[tuple[str, str, str]]:
    """What verify finds, without the interpreter, which these prefixes don't have."""
    found = verify_prefix(str(prefix), node="here").differences
    assert all(d.node == "here" for d in found)
    return [(d.kind.value, d.layer, d.subject) for d in found if d.subject != "python"]


def replace(path: Path, data: bytes) -> None:
    mode = path.stat().st_mode
    path.unlink()
    path.write_bytes(data)
    path.chmod(mode)


def test_untouched_prefix_is_sound(prefix: Path) -> None:
    """A prefix as it was made has no differences, and the report counts every file."""
    report = verify_prefix(str(prefix), node="here")
    assert differences(prefix) == []
    assert report.distributions == {"one": "1.0"} and report.manifest == MANIFEST.id
    assert report.files == sum(len(f) for _, _, f in os.walk(prefix))
    assert msgspec.json.decode(msgspec.json.encode(report), type=NodeReport) == report


@pytest.mark.parametrize(
    "path, layer_name",
    [
        (f"{SITE}/one/__init__.py", "one"),
        (f"{SITE}/one/__pycache__/__init__.cpython-311.pyc", "one"),
        (f"{SITE}/one-1.0.dist-info/METADATA", "one"),
        (f"{SITE}/one-1.0.dist-info/RECORD", "one"),
        ("bin/tool", "one"),
        ("bin/one", "one"),
        ("code/code-1/mine.py", "code-1"),
        ("pyvenv.cfg", "(prefix)"),
        ("launch", "(prefix)"),
        (f"{SITE}/likewise-code.pth", "(prefix)"),
    ],
)
def test_changed_content(prefix: Path, path: str, layer_name: str) -> None:
    """Other content is found, in files of layers, in bytecode, and in what was generated."""
    data = (prefix / path).read_bytes()
    replace(prefix / path, data[:-1] + b"!")
    assert ("changed", layer_name, path) in differences(prefix)


def test_change_through_a_hard_link(cache: NodeCache, prefix: Path) -> None:
    """Who writes into a file, and so into the cache's own copy, is found out as well."""
    path = prefix / SITE / "one/__init__.py"
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.write(b"DEF")
    path.chmod(0o444)
    assert differences(prefix) == [("changed", "one", f"{SITE}/one/__init__.py")]


def test_script_changed_in_cache_and_prefix(cache: NodeCache, prefix: Path) -> None:
    """What scripts are computed from is checked, too: changing both does not help."""
    for path in (prefix / "bin/tool", Path(cache.layer(ONE.digest), "scripts/tool")):
        replace(path, path.read_bytes().replace(b"print('tool')", b"print('evil')"))
    assert ("changed", "one", f"{cache.layer(ONE.digest)}/scripts/tool") in differences(prefix)


def test_executable_bit(prefix: Path) -> None:
    """The executable bit belongs to a file's identity."""
    (prefix / SITE / "one/data/x").chmod(0o555)
    assert differences(prefix) == [("changed", "one", f"{SITE}/one/data/x")]


def test_missing(prefix: Path) -> None:
    """A file that is gone is found."""
    (prefix / SITE / "one/data/x").unlink()
    assert differences(prefix) == [("missing", "one", f"{SITE}/one/data/x")]


@pytest.mark.parametrize(
    "path, owner",
    [
        (f"{SITE}/one/data/extra", "one"),
        (f"{SITE}/one/data/new/extra", "one"),
        (f"{SITE}/sitecustomize.py", "(prefix)"),
        ("interpreter/lib/evil.so", "(prefix)"),
        ("bin/extra", "(prefix)"),
        (f"{SITE}/one/__pycache__/data.cpython-311.pyc", "one"),
    ],
)
def test_extra(prefix: Path, path: str, owner: str) -> None:
    """A file that nobody owns is found, and named with the layer in whose folder it lies."""
    (prefix / path).parent.mkdir(exist_ok=True, parents=True)
    (prefix / path).write_bytes(b"")
    assert differences(prefix) == [("extra", owner, path)]


def test_link_instead_of_a_file(prefix: Path) -> None:
    """A link is not the file that it leads to, nor a link to something else the link that should be there."""
    path, link = prefix / SITE / "one/data/x", prefix / SITE / "one/link.py"
    shutil.copy(path, prefix.parent / "same")
    path.unlink()
    path.symlink_to(prefix.parent / "same")
    link.unlink()
    link.symlink_to("data/x")
    assert {(kind, where) for kind, _, where in differences(prefix)} == {
        ("changed", f"{SITE}/one/data/x"),
        ("changed", f"{SITE}/one/link.py"),
    }


def test_link_instead_of_a_folder(prefix: Path) -> None:
    """A folder that was replaced by a link to a copy of itself is found."""
    (prefix / SITE / "one").rename(prefix.parent / "moved")
    (prefix / SITE / "one").symlink_to(prefix.parent / "moved")
    found = {(kind, where) for kind, _, where in differences(prefix)}
    assert ("extra", f"{SITE}/one") in found and ("missing", f"{SITE}/one/__init__.py") in found


def test_special_file(prefix: Path) -> None:
    """A pipe in a file's place is reported and not waited for."""
    path = prefix / SITE / "one/data/x"
    path.unlink()
    os.mkfifo(path)
    assert differences(prefix) == [("changed", "one", f"{SITE}/one/data/x")]


@pytest.mark.parametrize("change", ["content", "missing"])
def test_listing(cache: NodeCache, prefix: Path, change: str) -> None:
    """A listing that was changed together with the file does not help: its digest stands in the manifest."""
    listing = Path(cache.listing(ONE.digest))
    if change == "content":
        replace(listing, listing.read_bytes().replace(b"one/data/x", b"one/data/y"))
        (prefix / SITE / "one/data/x").rename(prefix / SITE / "one/data/y")
    else:
        listing.unlink()
    assert differences(prefix)[0] == ("changed" if change == "content" else "missing", "one", str(listing))


def test_manifest(prefix: Path) -> None:
    """A manifest that is not the one that the prefix is named for is a difference of its own."""
    other = msgspec.structs.replace(MANIFEST, layers=MANIFEST.layers[:1])
    replace(prefix / "manifest.json", other.encode())
    found = verify_prefix(str(prefix)).differences
    assert any(d.kind is DifferenceKind.MANIFEST and d.expected == MANIFEST.id[:16] for d in found)


def test_no_prefix(tmp_path: Path) -> None:
    """A directory without a manifest is an error that says so."""
    with pytest.raises(NodeError, match="no prefix of likewise"):
        verify_prefix(str(tmp_path))


def test_versions_are_those_that_python_sees(tmp_path: Path) -> None:
    """Names are normalized; a distribution that Python does not see, or sees in another version, is a difference."""
    for name, version in (("Some.Thing_else", "2.0"), ("other", "3")):
        info = tmp_path / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    assert installed(str(tmp_path)) == {"other": "3", "some-thing-else": "2.0"}


def test_wrong_version(cache: NodeCache, tmp_path: Path) -> None:
    """What the manifest calls 1.0 and says of itself that it is 2.0 is reported."""
    wrong = distribution("wrong", {}, version="2.0")
    wrong = msgspec.structs.replace(wrong, version="1.0")
    put(tmp_path / "store", wrong)
    prefix = materialise(cache, manifest_of(wrong), [DirectoryStore(str(tmp_path / "store"))])
    found = [d for d in verify_prefix(prefix).differences if d.layer == "wrong"]
    assert [(d.kind, d.expected, d.actual) for d in found] == [(DifferenceKind.VERSION, "1.0", "2.0")]


def test_many_files_are_quick(cache: NodeCache, tmp_path: Path) -> None:
    """Verifying is a matter of reading: 5,000 files are done in seconds, by several threads as by one."""
    many = layer("many", {f"purelib/m/{n // 100}/f{n}.py": b"%d" % n * 100 for n in range(5000)})
    put(tmp_path / "store", many)
    prefix = materialise(cache, manifest_of(many), [DirectoryStore(str(tmp_path / "store"))])
    started = time.perf_counter()
    one, four = (verify_prefix(prefix, threads=n) for n in (1, 4))
    assert time.perf_counter() - started < 20
    assert one.differences == four.differences and one.files == four.files > 5000


def test_real_replica_verifies_itself(tmp_path: Path) -> None:
    """The command in a real replica prints a report: no differences, and then the one that was made."""
    kit = real_kit()
    more = distribution("more", {"purelib/more.py": b"x = 1\n"})
    launch = kit.launch(tmp_path / "cache", kit.with_layers(more))
    argv = ["-m", "likewise.node", "verify", "--node", "n1"]
    done = start(launch, *argv)
    assert done.returncode == 0, done.stderr
    report = msgspec.json.decode(done.stdout, type=NodeReport)
    assert report.differences == ()
    assert report.node == "n1" and report.python == kit.manifest.target.python
    assert {"more", "likewise", "msgspec"} <= set(report.distributions)
    victim = Path(report.prefix, "lib", kit.manifest.python, "site-packages/more.py")
    replace(victim, b"x = 2\n")
    report = msgspec.json.decode(start(launch, *argv).stdout, type=NodeReport)
    assert [(d.kind, d.layer) for d in report.differences] == [(DifferenceKind.CHANGED, "more")]
