"""What is shipped of distributions that pip and uv installed from good and from careless wheels: what the disk has."""

from __future__ import annotations

import compileall
import contextlib
import os
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from likewise.errors import ScanError
from likewise.layers.wheel import wheel_source
from likewise.model.layer import LayerKind, layer_source
from likewise.model.snapshot import Severity
from likewise.scanner.facts import Facts
from likewise.scanner.files import dist_files, list_files, record_digest, settle
from support.wheels import (  # noqa: F401
    Install,
    NoFacts,
    contents,
    files_of,
    install,
    layout_of,
    pip,
    record_hash,
    write_wheel,
)

DATA = "sample-1.0.data"


def digest_of(site: Path) -> str:
    """The identity of the installed sample."""
    return layer_source(LayerKind.DISTRIBUTION, "sample", "1.0", files_of(site).files).digest


def test_data_scripts_headers_and_entry_points(install: Install, tmp_path: Path) -> None:  # noqa: F811
    """Every scheme of a wheel comes along under its own path; what the installer added or rewrote does not."""
    wheel = write_wheel(
        tmp_path,
        {
            "sample/__init__.py": b"x = 1\n",
            "sample-1.0.dist-info/entry_points.txt": b"[console_scripts]\nsample-run = sample:main\n",
            f"{DATA}/data/share/sample/a.txt": b"a",
            f"{DATA}/data/bin/helper": b"#!/bin/sh\n",
            f"{DATA}/scripts/tool": b"#!python -E\nprint(1)\n",
            f"{DATA}/scripts/shell": b"#!/bin/sh\n",
            f"{DATA}/headers/sample.h": b"#define A\n",
            f"{DATA}/platlib/sample/native.txt": b"n",
        },
        executable=(f"{DATA}/scripts/tool", f"{DATA}/scripts/shell", f"{DATA}/data/bin/helper"),
    )
    site = install(wheel)
    assert (site.parents[2] / "bin/tool").read_bytes() != b"#!python\nprint(1)\n"
    files = files_of(site)
    found = contents(files)
    assert found.pop("purelib/sample-1.0.dist-info/entry_points.txt")
    assert found == {
        "purelib/sample/__init__.py": b"x = 1\n",
        "purelib/sample/native.txt": b"n",
        "data/share/sample/a.txt": b"a",
        "scripts/helper": b"#!/bin/sh\n",
        "scripts/shell": b"#!/bin/sh\n",
        "scripts/tool": b"#!python\nprint(1)\n",
        "headers/sample/sample.h": b"#define A\n",
    }
    assert {f.entry.path for f in files.files if f.entry.executable} == {
        "scripts/helper", "scripts/shell", "scripts/tool"
    }  # fmt: skip
    assert (files.modified, files.missing, files.unlisted, files.problems) == ((), (), (), ())
    assert digest_of(site) == wheel_source(wheel, unpack_to=tmp_path / "w").digest


def test_wrong_hash_missing_hash_and_unlisted_file(install: Install, tmp_path: Path) -> None:  # noqa: F811
    """The disk decides: all files are shipped as they are, and the one whose hash is wrong is named."""
    files = {f"sample/{name}.py": f"{name} = 1\n".encode() for name in ("__init__", "wrong", "bare", "unlisted")}
    record = {
        "sample/wrong.py": f"sample/wrong.py,{record_hash(b'another')},7",
        "sample/bare.py": "sample/bare.py,,",
        "sample/unlisted.py": None,
    }
    wheel = write_wheel(tmp_path, files, record=record)
    site = install(wheel)
    found = files_of(site)
    assert contents(found) == {f"purelib/{path}": data for path, data in files.items()}
    assert found.modified == ("purelib/sample/wrong.py",)
    assert found.missing == ()
    assert [p.severity for p in found.problems] == [Severity.NOTE] * len(found.unlisted)  # pip completes RECORD
    assert digest_of(site) == wheel_source(wheel, unpack_to=tmp_path / "w").digest


def test_a_package_of_bytecode_without_source(install: Install, tmp_path: Path) -> None:  # noqa: F811
    """A .pyc without source is the module, so it is content; bytecode with its source is not, listed or unlisted."""
    source = tmp_path / "hidden.py"
    source.write_text("answer = 42\n")
    compileall.compile_file(str(source), legacy=True, quiet=2)
    hidden = (tmp_path / "hidden.pyc").read_bytes()
    wheel = write_wheel(
        tmp_path,
        {
            "sample/__init__.py": b"from sample.hidden import answer\n",
            "sample/hidden.pyc": hidden,
            "sample/extra.pyc": hidden,
            "sample/__pycache__/__init__.cpython-39.pyc": b"stale",
        },
        record={"sample/extra.pyc": None},
    )
    site = install(wheel)
    subprocess.run([site.parents[2] / "bin/python", "-c", "import sample"], check=True)
    assert list((site / "sample/__pycache__").iterdir())
    assert contents(files_of(site)) == {
        "purelib/sample/__init__.py": b"from sample.hidden import answer\n",
        "purelib/sample/hidden.pyc": hidden,
        "purelib/sample/extra.pyc": hidden,
    }
    assert digest_of(site) == wheel_source(wheel, unpack_to=tmp_path / "w").digest


def test_odd_names(install: Install, tmp_path: Path) -> None:  # noqa: F811
    """Spaces, commas, quotes, emoji, dots and backslashes in file names change nothing."""
    names = ["a b.py", "a,b.py", 'a"b.py', "🐍.py", ".hidden", "..data", "a\\b.py", "é.py", "e\u0301.txt"]
    files = {f"sample/{name}": name.encode() for name in names}
    rows = {
        path: '"{}",{},{}'.format(path.replace('"', '""'), record_hash(data), len(data)) for path, data in files.items()
    }
    site = install(write_wheel(tmp_path, files, record=rows))
    found = files_of(site)
    assert contents(found) == {f"purelib/{path}": data for path, data in files.items()}
    assert (found.modified, found.missing, found.unlisted) == ((), (), ())


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A prefix with the sample, laid out as an installer does, to be made odd by the test."""
    site = tmp_path / "prefix/lib/python3.11/site-packages"
    (site / "sample").mkdir(parents=True)
    (site / "sample/__init__.py").write_text("x = 1\n")
    (site / "sample-1.0.dist-info").mkdir()
    write_record(site, "sample/__init__.py")
    return site


def write_record(site: Path, *rows: str) -> None:
    """The sample's RECORD: a path gets its true hash, anything with a comma is a line of its own."""
    lines = [row if "," in row else f"{row},{record_hash((site / row).read_bytes())}," for row in rows]
    record = site / "sample-1.0.dist-info/RECORD"
    record.write_text("\n".join([*lines, "sample-1.0.dist-info/RECORD,,", ""]), encoding="utf-8")


def test_a_wheel_whose_record_names_the_users_key(install: Install, tmp_path: Path) -> None:  # noqa: F811
    """Installers take over the line, or drop it; in no case is the key read or shipped."""
    row = "../../../../.ssh/id_rsa"
    wheel = write_wheel(tmp_path, {"sample.py": b"x = 1\n"}, record={row: f"{row},,"})
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/id_rsa").write_text("secret")
    site = install(wheel)
    assert (site / row).resolve() == (tmp_path / ".ssh/id_rsa").resolve()
    facts = NoFacts()
    found = files_of(site, facts=facts)
    assert contents(found) == {"purelib/sample.py": b"x = 1\n"}
    assert not [path for path in facts.read if "id_rsa" in path]
    taken_over = row in (site / "sample-1.0.dist-info/RECORD").read_text()
    assert [p.code for p in found.problems] == (["path-escapes"] if taken_over else [])


@pytest.mark.parametrize("depth", [4, 6])
def test_a_record_that_points_outside_the_prefix_is_refused(site: Path, depth: int) -> None:
    """The file is neither read nor shipped; the error names the distribution and the path; the rest is shipped."""
    secret = site.parents[depth - 1] / ".ssh/id_rsa"
    secret.parent.mkdir(exist_ok=True)
    secret.write_text("secret")
    row = "../" * depth + ".ssh/id_rsa"
    write_record(site, "sample/__init__.py", f"{row},,", f"{secret},,", f"sample/../{row},,")
    facts = NoFacts()
    found = files_of(site, facts=facts)
    assert list(contents(found)) == ["purelib/sample/__init__.py"]
    assert str(secret) not in facts.read
    assert [(p.code, p.subject, p.severity) for p in found.problems] == [
        ("path-escapes", "sample-1.0.dist-info", Severity.ERROR)
    ] * 3
    assert repr(row) in found.problems[0].message


def test_hidden_files_of_the_prefix_itself_are_refused(site: Path) -> None:
    """Where the prefix is somebody's home (``pip install --prefix ~``) they are keys and passwords."""
    (site.parents[2] / ".ssh").mkdir()
    for name in (".ssh/id_rsa", ".netrc"):
        (site.parents[2] / name).write_text("secret")
    write_record(site, "sample/__init__.py", "../../../.ssh/id_rsa,,", "../../../.netrc,,")
    facts = NoFacts()
    found = files_of(site, facts=facts)
    assert list(contents(found)) == ["purelib/sample/__init__.py"]
    assert [(p.code, p.severity) for p in found.problems] == [("private-path", Severity.ERROR)] * 2
    assert len(facts.read) == 1


def test_absolute_paths_within_the_prefix_are_files_like_others(site: Path) -> None:
    """Some installers write them."""
    (site.parents[2] / "share").mkdir()
    (site.parents[2] / "share/a.txt").write_text("a")
    write_record(site, "sample/__init__.py", f"{site.parents[2]}/share/a.txt,,", "./sample//__init__.py,,")
    found = files_of(site)
    assert list(contents(found)) == ["data/share/a.txt", "purelib/sample/__init__.py"]
    assert found.problems == ()


def test_missing_and_modified_files_are_named(site: Path) -> None:
    """A file that RECORD lists and that is gone, one with other content, a directory in the place of a file."""
    (site / "sample/changed.py").write_text("before")
    write_record(site, "sample/__init__.py", "sample/changed.py", "sample/gone.py,,", "gone/too.py,,", "sample,,")
    (site / "sample/changed.py").write_text("after!")
    found = files_of(site)
    assert found.modified == ("purelib/sample/changed.py",)
    assert found.missing == ("purelib/gone/too.py", "purelib/sample/gone.py")
    assert contents(found)["purelib/sample/changed.py"] == b"after!"


def test_bytecode_whose_source_is_gone_is_not_missing_or_shipped(site: Path) -> None:
    """pip lists what it compiled; in a __pycache__ it can't be imported without its source, and is nobody's loss."""
    (site / "sample/__pycache__").mkdir()
    (site / "sample/__pycache__/gone.cpython-311.pyc").write_bytes(b"x")
    write_record(
        site, "sample/__init__.py", "sample/gone.py,,", "sample/__pycache__/gone.cpython-311.pyc,,",
        "sample/__pycache__/__init__.cpython-311.pyc,,",
    )  # fmt: skip
    found = files_of(site)
    assert list(contents(found)) == ["purelib/sample/__init__.py"]
    assert found.missing == ("purelib/sample/gone.py",)


def test_a_file_listed_twice_with_two_hashes_is_not_modified(site: Path) -> None:
    """Two claims that disagree are no claim: the disk decides, and the file is shipped once."""
    write_record(site, "sample/__init__.py", f"sample/__init__.py,{record_hash(b'other')},5")
    found = files_of(site)
    assert list(contents(found)) == ["purelib/sample/__init__.py"]
    assert found.modified == ()


def test_what_an_earlier_scan_has_read_is_not_read_again(site: Path, tmp_path: Path) -> None:
    """Facts are asked first and told afterwards; a changed file is read."""
    os.utime(site / "sample/__init__.py", (1_700_000_000, 1_700_000_000))
    (site / "sample/second.py").write_text("2")
    write_record(site, "sample/__init__.py", "sample/second.py")
    facts = Facts(tmp_path / "facts", "prefix")
    facts._began += 10_000_000_000  # the files are older than this scan
    first = dist_files(site / "sample-1.0.dist-info", layout=layout_of(site), facts=facts)

    class Counting(NoFacts):
        digest = facts.digest  # type: ignore[assignment]

    again = Counting()
    assert files_of(site, facts=again) == first
    assert again.read == []
    (site / "sample/second.py").write_text("3")
    files_of(site, facts=again)
    assert again.read == [str(site / "sample/second.py")]


def test_a_name_that_is_not_unicode_is_refused_by_name(site: Path) -> None:
    """A listing is UTF-8, so such a file can't be shipped; an error says so and all others are."""
    (site / os.fsdecode(b"sample/caf\xe9.py")).write_text("x")
    found = files_of(site)
    assert list(contents(found)) == ["purelib/sample/__init__.py"]
    (problem,) = found.problems
    assert (problem.code, problem.severity) == ("bad-path", Severity.ERROR)
    assert "caf\\udce9.py" in problem.message


def test_a_record_that_is_not_unicode_or_not_csv(site: Path) -> None:
    """A file name of other bytes is refused alone; unmatched quotes make the whole RECORD worthless, with a warning."""
    record = site / "sample-1.0.dist-info/RECORD"
    (site / os.fsdecode(b"sample/caf\xe9.py")).write_text("x")
    record.write_bytes(b"sample/__init__.py,,\nsample/caf\xe9.py,,\n")
    found = files_of(site)
    assert list(contents(found)) == ["purelib/sample/__init__.py"]
    assert {p.code for p in found.problems} == {"bad-path"}
    record.write_text('"sample/__init__.py,,\n')
    (site / os.fsdecode(b"sample/caf\xe9.py")).unlink()
    found = files_of(site)
    assert list(contents(found)) == ["purelib/sample/__init__.py"]
    assert [(p.code, p.severity) for p in found.problems] == [("record-unreadable", Severity.WARNING)]


@contextlib.contextmanager
def without_privileges() -> Iterator[None]:
    """Root reads everything, so for a while be nobody."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_files_and_directories_without_permission_to_read(site: Path) -> None:
    """An error names each; the others are shipped."""
    (site / "sample/closed.py").write_text("x")
    (site / "sample/sub").mkdir()
    (site / "sample/sub/listed.py").write_text("x")
    (site / "sample/sub2").mkdir()
    write_record(site, "sample/__init__.py", "sample/closed.py", "sample/sub/listed.py")
    with tempfile.TemporaryDirectory() as open_to_all:
        moved = Path(shutil.copytree(site.parents[2], Path(open_to_all) / "prefix")) / "lib/python3.11/site-packages"
        Path(open_to_all).chmod(0o755)
        closed = [moved / "sample/closed.py", moved / "sample/sub", moved / "sample/sub2"]
        for path in closed:
            path.chmod(0)
        with without_privileges():
            found = files_of(moved)
            shipped = list(contents(found))
    assert shipped == ["purelib/sample/__init__.py"]
    assert {(p.code, p.severity) for p in found.problems} == {("unreadable-file", Severity.ERROR)}
    messages = " ".join(p.message for p in found.problems)
    assert all(str(path) in messages for path in closed)


def test_a_shortage_is_no_property_of_a_file(site: Path) -> None:
    """When no more files can be opened, the scan says so and ends, and leaves no file out."""
    write_record(site, "sample/__init__.py")
    listing = list_files(site / "sample-1.0.dist-info", layout=layout_of(site))
    opened: list[int] = []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                opened.append(os.dup(2))
        with pytest.raises(ScanError, match="can't be looked at now"):
            settle([listing], NoFacts())
    finally:
        for descriptor in opened:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_special_files_and_loops_are_passed_over(site: Path) -> None:
    """A named pipe and a link to itself stop nothing; both are named."""
    os.mkfifo(site / "sample/pipe")
    (site / "sample/loop").symlink_to("loop")
    found = files_of(site)
    assert list(contents(found)) == ["purelib/sample/__init__.py"]
    assert {(p.code, p.severity) for p in found.problems} == {
        ("special-file", Severity.WARNING), ("unreadable-file", Severity.ERROR)
    }  # fmt: skip


def test_links_that_mean_the_same_are_kept_and_others_copied(site: Path, tmp_path: Path) -> None:
    """Kept: relative, to files of the same distribution. Copied: absolute, to others' files, to outside."""
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "file.txt").write_text("outside")
    (outside / "deep/inner.txt").write_text("inner")
    (outside / "deep/loop").symlink_to("..")
    (site / "other.txt").write_text("other")
    (site / "sample/sub").mkdir()
    (site / "sample/sub/a.txt").write_text("a")
    links = {
        "kept": "sub/a.txt",
        "sub/up": "../__init__.py",
        "folder": "sub",
        "absolute": str(site / "sample/sub/a.txt"),
        "others": "../other.txt",
        "file": str(outside / "file.txt"),
        "tree": str(outside),
        "chain": "kept",
        "dangling": "nothing",
    }
    for name, target in links.items():
        (site / "sample" / name).symlink_to(target)
    write_record(
        site, "sample/__init__.py", "sample/sub/a.txt", *(f"sample/{name},," for name in links if name != "file")
    )
    found = files_of(site)
    kept = {f.entry.path: f.entry.link for f in found.files if f.entry.link}
    assert kept == {
        "purelib/sample/kept": "sub/a.txt",
        "purelib/sample/sub/up": "../__init__.py",
        "purelib/sample/folder": "sub",
        "purelib/sample/chain": "kept",
    }
    copied = {f.entry.path: Path(f.path).read_text() for f in found.files if not f.entry.link}
    assert copied == {
        "purelib/sample/__init__.py": "x = 1\n",
        "purelib/sample/sub/a.txt": "a",
        "purelib/sample/absolute": "a",
        "purelib/sample/others": "other",
        "purelib/sample/file": "outside",
        "purelib/sample/tree/file.txt": "outside",
        "purelib/sample/tree/deep/inner.txt": "inner",
    }
    assert found.missing == ("purelib/sample/dangling",)
    layer_source(LayerKind.DISTRIBUTION, "sample", "1.0", found.files)


def test_files_listed_by_a_path_through_a_linked_directory(site: Path, tmp_path: Path) -> None:
    """A directory moved elsewhere and linked back: its files are content where RECORD says they are."""
    (tmp_path / "moved").mkdir()
    (tmp_path / "moved/a.txt").write_text("a")
    (site / "sample/sub").symlink_to(tmp_path / "moved")
    write_record(site, "sample/__init__.py", "sample/sub/a.txt,,", "sample/sub,,")
    found = files_of(site)
    assert contents(found) == {"purelib/sample/__init__.py": b"x = 1\n", "purelib/sample/sub/a.txt": b"a"}


def test_the_claimed_digest_is_the_real_one_when_record_tells_the_truth(site: Path) -> None:
    """And another one when it doesn't: record_digest reads no content that has a hash."""
    assert record_digest(site / "sample-1.0.dist-info", layout=layout_of(site)) == digest_of(site)
    (site / "sample/__init__.py").write_text("y = 1\n")
    assert record_digest(site / "sample-1.0.dist-info", layout=layout_of(site)) != digest_of(site)


def test_progress_counts_every_byte_that_is_read(site: Path) -> None:
    """The last call says that all is done."""
    (site / "sample/big.bin").write_bytes(b"x" * (9 << 20))
    write_record(site, "sample/__init__.py", "sample/big.bin,,")
    told: list[tuple[int, int]] = []
    listing = list_files(site / "sample-1.0.dist-info", layout=layout_of(site))
    settle([listing], NoFacts(), progress=lambda done, total: told.append((done, total)), threads=2)
    total = (9 << 20) + len("x = 1\n")
    assert told[-1] == (total, total)
    assert sorted(told) == told


def test_an_interrupted_scan_reads_no_further(site: Path) -> None:
    """Ctrl-C, or an error in whoever listens, ends it with the batches at hand."""
    names = [f"sample/f{n}.py" for n in range(2000)]
    for name in names:
        (site / name).write_text(name)
    write_record(site, *(f"{name},," for name in names))
    listing = list_files(site / "sample-1.0.dist-info", layout=layout_of(site))
    facts = NoFacts()

    calls: list[int] = []

    def interrupt(done: int, total: int) -> None:
        calls.append(done)
        if len(calls) == 1:
            raise KeyboardInterrupt
        time.sleep(0.1)

    with pytest.raises(KeyboardInterrupt):
        settle([listing], facts, progress=interrupt, threads=2)
    assert 0 < len(facts.read) < 1000
