"""Files that say what is installed: what is read from each format, what is refused, and what never comes through."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from likewise.errors import UsageError
from likewise.formats.listing import UNKNOWN_VERSION, applies
from likewise.formats.read import Reading, agrees, best_wheel, full_python, pins_for, read, read_listing
from likewise.formats.saved import is_here
from likewise.model.markers import marker_environment
from likewise.model.plan import LockedFile
from likewise.model.snapshot import Distribution, Origin, OriginKind, Snapshot
from likewise.model.target import Platform, Target
from likewise.planner.tags import target_tags
from support.listings import COMMIT, PYLOCK, SHA, UV_LOCK, inspected
from support.values import TARGET, make_interpreter

MAC = Platform(os="macos", arch="aarch64")
NODES = Target(platform=Platform(os="linux", arch="x86_64", libc="glibc", libc_version="2.28"), python="3.11.7")


def read_text(tmp_path: Path, text: str | bytes, **how: Any) -> Reading:
    """What is read from a file with this content."""
    path = tmp_path / "file"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read(path, machine=TARGET, **how)


def versions(reading: Reading) -> dict[str, str]:
    """Name → version of all distributions."""
    return {d.name: d.version for d in reading.snapshot.distributions}


# ---- pip freeze and requirements


@pytest.mark.parametrize(
    ("line", "name", "version", "origin"),
    [
        ("PyYAML==6.0.2", "pyyaml", "6.0.2", Origin(kind=OriginKind.INDEX)),
        ("zope.interface === 1.0-legacy", "zope-interface", "1.0-legacy", Origin(kind=OriginKind.INDEX)),
        ("six==1.17.0  # via dateutil", "six", "1.17.0", Origin(kind=OriginKind.INDEX)),
        ("dask[array]==2024.8.0", "dask", "2024.8.0", Origin(kind=OriginKind.INDEX)),
        ("torch==2.4.1+cu118", "torch", "2.4.1+cu118", Origin(kind=OriginKind.INDEX)),
        (
            f"idna @ git+https://me:secret@example.org/a/idna.git@{COMMIT}#subdirectory=x/y",
            "idna",
            UNKNOWN_VERSION,
            Origin(kind=OriginKind.VCS, url="https://example.org/a/idna.git", commit=COMMIT, subdirectory="x/y"),
        ),
        (
            "sample @ https://tok:secret@files.example.org/sample-1.5-py3-none-any.whl?token=secret",
            "sample",
            "1.5",
            Origin(kind=OriginKind.ARCHIVE, url="https://files.example.org/sample-1.5-py3-none-any.whl"),
        ),
        (
            "sample @ file:///home/me/sample",
            "sample",
            UNKNOWN_VERSION,
            Origin(kind=OriginKind.DIRECTORY, url="file:///home/me/sample", path="/home/me/sample"),
        ),
        (
            "https://files.example.org/my_sample-1.5.tar.gz",
            "my-sample",
            "1.5",
            Origin(kind=OriginKind.ARCHIVE, url="https://files.example.org/my_sample-1.5.tar.gz"),
        ),
        ("-e /home/me/mine", "mine", UNKNOWN_VERSION, Origin(kind=OriginKind.EDITABLE, path="/home/me/mine")),
        (
            "# Editable install with no version control (Mine==1.2)\n-e /home/me/folder",
            "mine",
            "1.2",
            Origin(kind=OriginKind.EDITABLE, path="/home/me/folder"),
        ),
        (
            f"-e git+ssh://git@example.org/a/mine@{COMMIT}#egg=Mine_x",
            "mine-x",
            UNKNOWN_VERSION,
            Origin(kind=OriginKind.EDITABLE, url="ssh://example.org/a/mine", commit=COMMIT),
        ),
    ],
)
def test_a_line_of_pip_freeze(tmp_path: Path, line: str, name: str, version: str, origin: Origin) -> None:
    """Each form that pip writes gives name, version and origin; no credential is left."""
    (found,) = read_text(tmp_path, f"{line}\n").snapshot.distributions
    assert (found.name, found.version, found.origin) == (name, version, origin)
    assert b"secret" not in msgspec.json.encode(found)


def test_hashes_of_a_requirements_file_are_kept(tmp_path: Path) -> None:
    """Continued lines with several hashes: all of them count, for the version that the line names."""
    text = f"six==1.17.0 \\\n  --hash=sha256:{SHA} \\\n  --hash=sha256:{'cd' * 32}\n"
    text = f"--index-url https://me:secret@example.org/simple\n{text}"
    reading = read_text(tmp_path, text)
    assert versions(reading) == {"six": "1.17.0"}
    pins = pins_for(reading.listing, reading.snapshot, NODES, target_tags(NODES))
    assert pins.hashes == {"six": ("1.17.0", frozenset({SHA, "cd" * 32}))}


def test_markers_say_where_a_line_counts(tmp_path: Path) -> None:
    """What only the client has is in the snapshot alone; what only the nodes have is a requirement for them alone."""
    text = "appnope==0.1.4 ; sys_platform == 'darwin'\nuvloop==0.21.0 ; sys_platform == 'linux'\nsix==1.17.0\n"
    reading = read_text(tmp_path, text, client=MAC)
    assert versions(reading) == {"appnope": "0.1.4", "six": "1.17.0"}
    assert pins_for(reading.listing, reading.snapshot, NODES, target_tags(NODES)).extras == ("uvloop==0.21.0",)


def test_no_marker_asks_the_running_interpreter(tmp_path: Path) -> None:
    """Every variable of PEP 508 is the client's, also those of another system and Python."""
    text = (
        "a==1 ; os_name == 'nt' and platform_system == 'Windows' and platform_machine == 'AMD64'\n"
        "b==1 ; python_full_version == '3.10.4' and python_version == '3.10' and implementation_version == '3.10.4'\n"
        "c==1 ; os_name == 'posix' or sys_platform == 'linux' or python_version != '3.10'\n"
    )
    reading = read_text(tmp_path, text, client=Platform(os="windows", arch="x86_64"), python="3.10.4")
    assert versions(reading) == {"a": "1", "b": "1"}


def test_the_head_of_a_compiled_file_says_what_for(tmp_path: Path) -> None:
    """uv and pip-tools write the command into the file, so neither --client nor --python is needed."""
    uv = "#    uv pip compile --python-platform x86_64-pc-windows-msvc --python-version 3.10 in\nsix==1.17.0\n"
    interpreter = read_text(tmp_path, uv).snapshot.interpreter
    assert (interpreter.platform, interpreter.version) == (Platform(os="windows", arch="x86_64"), "3.10.0")
    tools = (
        "#\n# This file is autogenerated by pip-compile with Python 3.12\n# by the following command:\n#\nsix==1.17.0\n"
    )
    interpreter = read_text(tmp_path, tools).snapshot.interpreter
    assert (interpreter.platform, interpreter.version) == (TARGET.platform, "3.12.0")


def test_notes_between_requirements_are_told_and_passed_over(tmp_path: Path) -> None:
    """A line that is no requirement is a problem with its text, not the end."""
    reading = read_text(tmp_path, "What I have:\r\npip freeze\r\n\r\nsix==1.17.0\r\n")
    assert versions(reading) == {"six": "1.17.0"}
    problems = reading.snapshot.problems
    assert [(p.code, p.subject) for p in problems] == [("not-understood", "line 1"), ("not-understood", "line 2")]
    assert "pip freeze" in problems[1].message


@pytest.mark.parametrize(
    "line",
    [
        "https://me:secret@example.org/simple/six",
        "six @ https://me:secret@example.org/six 1.tar.gz",
        "-e git+https://me:secret@example.org",
        "-e git+https://example.org/mine?token=secret",
        "-r https://me:secret@example.org/more.txt",
    ],
)
def test_no_credential_of_a_line_is_told(tmp_path: Path, line: str) -> None:
    """Neither a problem nor a name nor an error repeats what may be one."""
    try:
        told = repr(read_text(tmp_path, f"{line}\nnumpy==2.4.0\n").snapshot)
    except UsageError as error:
        told = repr(error.as_dict())
    assert "secret" not in told


@pytest.mark.parametrize("digest", ["sha512:" + "ab" * 64, "sha256:cut"])
def test_hashes_that_are_not_compared_are_told(tmp_path: Path, digest: str) -> None:
    """Nobody has to believe that a file is held to a hash that is not understood."""
    reading = read_text(tmp_path, f"numpy==2.4.0\nsix==1.17.0 --hash={digest}\n")
    assert [(p.code, p.subject) for p in reading.snapshot.problems] == [("hash-unknown", "line 2")]


def test_what_conda_leaves_without_a_version_is_named(tmp_path: Path) -> None:
    """`pip freeze` in a conda prefix names build folders; such a distribution is an error-level problem."""
    text = "numpy @ file:///home/conda/feedstock_root/build_artifacts/numpy_1/work\nsix==1.17.0\n"
    reading = read_text(tmp_path, text)
    assert versions(reading) == {"six": "1.17.0"}
    assert [(p.subject, p.severity.value) for p in reading.snapshot.problems] == [("numpy", "error")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_that_shells_write(tmp_path: Path, encoding: str) -> None:
    """UTF-8 with and without a mark, and what PowerShell writes."""
    assert versions(read_text(tmp_path, "six==1.17.0\r\n".encode(encoding))) == {"six": "1.17.0"}


# ---- pip inspect


def test_pip_inspect(tmp_path: Path) -> None:
    """Metadata, origin, installer and the environment come through; credentials don't."""
    reading = read_text(
        tmp_path,
        inspected(
            {
                "metadata": {
                    "name": "My_Sample",
                    "version": "1.0",
                    "requires_dist": ["six (>=1.5)", "x @ https://me:secret@example.org/x-1.tar.gz ; extra == 'x'"],
                    "provides_extra": ["x"],
                },
                "direct_url": {
                    "url": "https://me:secret@example.org/a.git",
                    "vcs_info": {"vcs": "git", "commit_id": COMMIT},
                },
                "installer": "pip",
                "requested": True,
            },
            {"metadata": {"name": "nameless"}, "metadata_location": "/site/nameless"},
            python_full_version="3.12.1",
            sys_platform="darwin",
            platform_machine="arm64",
        ),
    )
    interpreter, (found,) = reading.snapshot.interpreter, reading.snapshot.distributions
    assert (interpreter.version, interpreter.platform, interpreter.python) == ("3.12.1", MAC, "python3.12")
    assert (found.name, found.requested, found.installer, found.provides_extras) == ("my-sample", True, "pip", ("x",))
    assert found.origin == Origin(kind=OriginKind.VCS, url="https://example.org/a.git", commit=COMMIT)
    assert found.requires == ("six (>=1.5)", "x @ https://example.org/x-1.tar.gz ; extra == 'x'")
    assert [p.subject for p in reading.snapshot.problems] == ["/site/nameless"]


# ---- uv.lock and pylock.toml


def test_uv_lock(tmp_path: Path) -> None:
    """The snapshot has what ``uv sync`` installs on the client: groups and extras, forks and markers as uv has them."""
    reading = read_text(tmp_path, UV_LOCK, client=MAC, python="3.11.7")
    assert versions(reading) == {"appnope": "0.1.4", "numpy": "2.4.0", "testing": "3.0", "web": "1.0"}
    assert b"secret" not in msgspec.json.encode(reading.snapshot)
    web = reading.snapshot.get("web")
    assert web is not None and web.tags == ("py3-none-any",)
    assert web.requires[:2] == (
        "appnope ; sys_platform == 'darwin'",
        "uvloop ; (sys_platform == 'linux' or sys_platform == 'cygwin') and extra == 'fast'",
    )
    testing = reading.snapshot.get("testing")
    assert testing is not None and testing.origin == Origin(
        kind=OriginKind.VCS, url="https://example.org/t.git", commit=COMMIT, revision="v3"
    )
    numpy = reading.snapshot.get("numpy")
    assert numpy is not None and numpy.tags == ()  # which of its wheels the client has is not said


def test_what_uv_lock_pins_for_the_nodes(tmp_path: Path) -> None:
    """The best wheel for the target with its hash, without credentials, and what only the target has."""
    reading = read_text(tmp_path, UV_LOCK, client=MAC, python="3.11.7")
    pins = pins_for(reading.listing, reading.snapshot, NODES, target_tags(NODES))
    assert {name: file.sha256[0] for name, file in pins.files.items()} == {
        "numpy": "2",
        "web": "4",
        "uvloop": "5",
        "docs-only": "6",
    }
    assert pins.files["numpy"].url.startswith("https://index.example/numpy-2.4.0-cp311")
    assert pins.files["numpy"].size == 6
    assert pins.extras == ("uvloop==0.21.0",)
    assert pins.hashes["numpy"] == ("2.4.0", frozenset(digit * 64 for digit in "123"))


def test_files_without_a_usable_url_or_hash_are_not_pinned(tmp_path: Path) -> None:
    """Their distributions are there all the same."""
    text = UV_LOCK.replace("https://index.example/web-", "https://[index.example/web-").replace("5" * 64, "5" * 63)
    reading = read_text(tmp_path, text, client=MAC, python="3.11.7")
    assert "web" in versions(reading)
    assert set(pins_for(reading.listing, reading.snapshot, NODES, target_tags(NODES)).files) == {"numpy", "docs-only"}


def test_forks_of_uv_lock(tmp_path: Path) -> None:
    """Another Python, another version."""
    assert versions(read_text(tmp_path, UV_LOCK, client=MAC, python="3.10.4"))["numpy"] == "2.2.6"


def test_pylock(tmp_path: Path) -> None:
    """Markers, default groups and extras as PEP 751 says; sources of each kind; nothing secret."""
    reading = read_text(tmp_path, PYLOCK, client=MAC, python="3.11.7")
    assert versions(reading) == {"appnope": "0.1.4", "mine": UNKNOWN_VERSION, "numpy": "2.4.0", "testing": "3.0"}
    kinds = {d.name: d.origin.kind for d in reading.snapshot.distributions}
    assert (kinds["mine"], kinds["testing"]) == (OriginKind.EDITABLE, OriginKind.VCS)
    pins = pins_for(reading.listing, reading.snapshot, NODES, target_tags(NODES))
    assert pins.files["numpy"].url == "https://index.example/x"
    assert pins.files["numpy"].filename == "numpy-2.4.0-cp311-cp311-manylinux_2_28_x86_64.whl"
    assert b"secret" not in msgspec.json.encode([reading.snapshot, pins.files])


@pytest.mark.parametrize(
    ("marker", "whether"),
    [
        ("'Dev_Tools' in dependency_groups", True),
        ("'dev-tools' not in dependency_groups", False),
        ("'docs' in dependency_groups or 'more' in extras", False),
        ('"docs" not  in dependency_groups and "more" not in extras', True),
        ("sys_platform == 'linux' and ('docs' in dependency_groups or 'more' not in extras)", True),
        ("sys_platform == 'darwin' and 'dev-tools' in dependency_groups", False),
        ("", True),
    ],
)
def test_markers_of_locks(marker: str, whether: bool) -> None:
    """PEP 751's variables: no extra is installed, groups are, by their normalized names."""
    assert applies(marker, marker_environment(TARGET), groups=frozenset({"dev.tools"})) is whether


def test_a_lock_that_is_not_for_the_nodes_is_not_used(tmp_path: Path) -> None:
    """It still says what the client has; a problem says why it pins nothing there."""
    reading = read_text(tmp_path, PYLOCK, client=MAC, python="3.11.7")
    windows = Target(platform=Platform(os="windows", arch="x86_64"), python="3.11.7")
    pins = pins_for(reading.listing, reading.snapshot, windows, target_tags(windows))
    assert not pins.files and not pins.hashes
    assert [p.code for p in pins.problems] == ["lock-elsewhere"]


@pytest.mark.parametrize(("installed", "whether"), [("2.4", True), ("2.4.1", False)])
def test_a_lock_belongs_to_what_it_describes(installed: str, whether: bool) -> None:
    """Versions are compared as PEP 440 has them; one that differs is enough, what is installed besides is not."""
    snapshot = Snapshot(
        interpreter=make_interpreter(),
        distributions=(
            Distribution(name="numpy", version=installed, origin=Origin(kind=OriginKind.INDEX)),
            Distribution(name="other", version="1", origin=Origin(kind=OriginKind.INDEX)),
        ),
        code=(),
    )
    assert agrees(read_listing(UV_LOCK), snapshot, TARGET) is whether


PROJECT = """
version = 1
[[package]]
name = "mine"
source = { editable = "." }
dependencies = [{ name = "numpy" }, { name = "ours", marker = "sys_platform == 'linux'" }]
[[package]]
name = "numpy"
version = "2.4.0"
source = { registry = "https://index.example/simple" }
[[package]]
name = "ours"
version = "1.0"
source = { git = "https://git.example.org/ours#abc" }
"""


@pytest.mark.parametrize(
    ("kind", "version", "whether"),
    [
        (OriginKind.INDEX, "2.4.0", True),
        (OriginKind.CONDA, "2.4.0", True),
        (OriginKind.CONDA, "1.26.4", False),
        (OriginKind.SYSTEM, "1.26.4", False),
        (OriginKind.EDITABLE, "2.5.0.dev1", True),
    ],
)
def test_a_lock_without_the_version_of_its_project(kind: OriginKind, version: str, whether: bool) -> None:
    """uv leaves out one that is computed. Of no editable another version is planned than the one that is here."""
    distributions = (
        Distribution(name="mine", version="0.3.dev5", origin=Origin(kind=OriginKind.EDITABLE)),
        Distribution(name="numpy", version=version, origin=Origin(kind=kind)),
    )
    snapshot = Snapshot(interpreter=make_interpreter(), distributions=distributions, code=())
    listing = read_listing(PROJECT)
    assert agrees(listing, snapshot, TARGET) is whether
    if whether:
        assert not pins_for(listing, snapshot, NODES, target_tags(NODES)).versions


def test_what_no_index_has_is_not_asked_for_on_one(tmp_path: Path) -> None:
    """Anybody could have put something else there under that name."""
    reading = read_text(tmp_path, PROJECT, client=MAC)
    pins = pins_for(reading.listing, reading.snapshot, NODES, target_tags(NODES))
    assert pins.extras == ()
    assert [(p.code, p.subject, p.severity.value) for p in pins.problems] == [("not-on-target", "ours", "error")]


def test_the_best_wheel() -> None:
    """The target's order of tags decides, then the highest build number; what doesn't fit is not taken."""
    names = [
        "a-1-py3-none-any.whl",
        "a-1-2-cp311-cp311-manylinux_2_17_x86_64.whl",
        "a-1-10-cp311-cp311-manylinux_2_17_x86_64.whl",
        "a-1-cp311-cp311-manylinux_2_40_x86_64.whl",
    ]
    wheels = [LockedFile(filename=name, url=f"https://index.example/{name}", sha256=SHA) for name in names]
    best = best_wheel(wheels, target_tags(NODES))
    assert best is not None and best.filename == names[2]
    assert best_wheel(wheels[3:], target_tags(NODES)) is None


# ---- saved snapshots


def saved(tmp_path: Path, **other: Any) -> Snapshot:
    """A snapshot whose prefix is in `tmp_path`."""
    python = tmp_path / "prefix" / "python"
    python.parent.mkdir(exist_ok=True)
    python.touch()
    found = Distribution(
        name="six",
        version="1.17.0",
        origin=Origin(kind=OriginKind.ARCHIVE, url="https://me:secret@example.org/six.whl"),
        requires=("x @ https://me:secret@example.org/x.whl",),
        metadata_path=str(tmp_path),
    )
    interpreter = make_interpreter(prefix=str(python.parent), executable=str(python))
    return Snapshot(**{"interpreter": interpreter, "distributions": (found,), "code": (), **other})


def test_a_saved_snapshot_comes_back(tmp_path: Path) -> None:
    """All of it but credentials; it is here as long as its prefix is."""
    snapshot = saved(tmp_path)
    reading = read_text(tmp_path, msgspec.json.encode(snapshot))
    assert reading.here and reading.listing is None
    assert reading.snapshot.interpreter == snapshot.interpreter
    assert [d.name for d in reading.snapshot.distributions] == ["six"]
    assert b"secret" not in msgspec.json.encode(reading.snapshot)
    (tmp_path / "prefix" / "python").unlink()
    assert not read_text(tmp_path, msgspec.json.encode(snapshot)).here


@pytest.mark.parametrize(
    "how", [{"client": MAC}, {"python": "3.12"}, {"python": "3.1"}, {"python": "3.11.70"}], ids=str
)
def test_a_saved_snapshot_knows_better(tmp_path: Path, how: dict[str, Any]) -> None:
    """--client and --python can't contradict it."""
    with pytest.raises(UsageError, match="This snapshot is of"):
        read_text(tmp_path, msgspec.json.encode(saved(tmp_path)), **how)


# ---- bad input


@pytest.mark.parametrize(
    ("interpreter", "names", "says"),
    [
        ({"version": "three"}, (), "'three' is no version"),
        ({"version": "3"}, (), "'3' is no version"),
        ({"platform": Platform(os="beos", arch="x86_64")}, (), "no platform"),
        ({"platform": Platform(os="linux", arch="x86_64", libc="glibc", libc_version="new")}, (), "no platform"),
        ({}, ("Six", "numpy", "six"), "'six' is in it twice"),
    ],
)
def test_a_saved_snapshot_that_no_scan_wrote(
    tmp_path: Path, interpreter: dict[str, Any], names: tuple[str, ...], says: str
) -> None:
    """It is refused where it is read, not wherever the value is used first."""
    index = Origin(kind=OriginKind.INDEX)
    snapshot = Snapshot(
        interpreter=make_interpreter(**interpreter),
        distributions=tuple(Distribution(name=name, version="1", origin=index) for name in names),
        code=(),
    )
    with pytest.raises(UsageError, match="can't be used") as caught:
        read_text(tmp_path, msgspec.json.encode(snapshot))
    assert says in caught.value.what


def test_a_saved_snapshot_of_folders_that_cant_be_looked_at() -> None:
    """They are not here, which is no error."""
    for prefix in ("/" + "long" * 2000, "/with\0zero"):
        interpreter = msgspec.structs.replace(make_interpreter(), prefix=prefix)
        assert not is_here(Snapshot(interpreter=interpreter, distributions=(), code=()))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b" \n\r\n", "empty"),
        (b"\xef\xbb\xbf", "empty"),
        (b"six==1.17.0\n# M\xfcller\n", "no UTF-8 text"),
        (b"\x00\x01\x02", "no text"),
        (b"<!DOCTYPE html><html>Sign in</html>", "HTML"),
        (b"name,version\nsix,1.17.0\n", "no requirement"),
        (b"six\nnumpy>=1.20\npandas==2.*\n", "six, numpy>=1.20, pandas==2.*"),
        (b"-r other.txt\nsix==1.17.0\n", "other.txt"),
        (b"six==1.17.0\nsix==1.16.0\n", "two versions of six"),
        (b"six==1.17.0 ; nonsense == 'x'\n", "no requirement"),
        (b'{"version": "1", "installed": [{"metadata": {"na', "damaged"),
        (b'{"version": "2", "installed": []}', "format 2"),
        (b'{"version": "1", "installed": {}}', "damaged"),
        (b'{"version": "1", "installed": [], "more": ' + b"[" * 100_000, "damaged"),
        (b'{"interpreter": {}, "distributions": [], "code": [], "format": 99}', "format 99"),
        (b'{"interpreter": {}, "distributions": [], "code": [], "format": 1}', "damaged"),
        (b'{"interpreter": {}, "distributions": []}', "damaged"),
        (b'{"format": 1, "interpreter": ' + b"[" * 100_000, "damaged"),
        (b"version = 99\n[[package]]\n", "version 99"),
        (b"version = 1\npackage = 1\nx = " + b"1" * 5000, "damaged"),
        (b"version = 1\nx = " + b"[" * 100_000, "damaged"),
        (UV_LOCK.encode()[:900], "damaged"),
        (b'version = 1\n[[package]]\nname = "a"\n', "no project"),
        (UV_LOCK.replace('name = "testing"\nversion', 'name = "other"\nversion').encode(), "testing"),
        (b'lock-version = "2.0"\npackages = []\n', "lock-version 2.0"),
        (PYLOCK.encode()[:300], "damaged"),
        (PYLOCK.replace("'more' in extras", "more extras").encode(), "more extras"),
        (PYLOCK.replace('">=3.10"', '">=3.12"').encode(), "Python >=3.12"),
        (UV_LOCK.replace('">=3.10"', '"<3.11"').encode(), "Python <3.11"),
        (PYLOCK.replace('">=3.10"', '"three"').encode(), "three"),
        (PYLOCK.replace("'darwin'", "'win32'").replace("'linux'", "'win32'").encode(), "sys_platform"),
        (b"# platform: osx-64\n@EXPLICIT\nhttps://conda.example/a.conda\n", "conda"),
        (b"version: 6\nenvironments:\n  default:\n", "pixi.lock"),
    ],
)
def test_bad_input_is_refused_with_its_place(tmp_path: Path, content: bytes, says: str) -> None:
    """Every one is a UsageError that names the file and says what is wrong and what to do."""
    with pytest.raises(UsageError) as caught:
        read_text(tmp_path, content)
    assert says in caught.value.what
    assert caught.value.where == str(tmp_path / "file")
    assert caught.value.todo


def test_no_file(tmp_path: Path) -> None:
    """A folder, and nothing."""
    with pytest.raises(UsageError, match="folder"):
        read(tmp_path, machine=TARGET)
    with pytest.raises(UsageError, match="can't be read"):
        read(tmp_path / "missing", machine=TARGET)


def test_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What can't be a list of distributions is not read to its end."""
    monkeypatch.setattr("likewise.formats.text.LIMIT", 2**20)
    with pytest.raises(UsageError, match="more than 1 MiB"):
        read_text(tmp_path, b"six==1.17.0\n" * 100_000)


def test_a_thousand_distributions(tmp_path: Path) -> None:
    """Nothing is lost, and the order is by name."""
    text = "".join(f"name-{number}=={number}.0\n" for number in range(1000))
    found = versions(read_text(tmp_path, text))
    assert found == {f"name-{number}": f"{number}.0" for number in range(1000)}
    assert list(found) == sorted(found)


@pytest.mark.parametrize(("given", "full"), [("3.11", "3.11.0"), ("3.11.7", "3.11.7"), ("3.14.0rc1", "3.14.0rc1")])
def test_python_versions(given: str, full: str) -> None:
    """Two parts are completed, as uv does."""
    assert full_python(given) == full


@pytest.mark.parametrize("given", ["3", "python3.11", "", "three"])
def test_no_python_version(given: str) -> None:
    """Anything else is refused."""
    with pytest.raises(UsageError, match="no version of Python"):
        full_python(given)
