"""The model's values: they can be written and read back, compared, and are refused when they are not what they say."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from likewise import events
from likewise.errors import LayerError, NodeError
from likewise.model import digest as digests
from likewise.model import keys
from likewise.model.digest import EMPTY, Digest, digest_bytes, digest_from_record, digest_to_record, is_digest
from likewise.model.editable import Editable
from likewise.model.layer import (
    FileEntry,
    LayerKind,
    LayerSource,
    SourceFile,
    check_entries,
    decode_listing,
    encode_listing,
    layer_digest,
    layer_source,
    path_problem,
)
from likewise.model.manifest import LayerRef, Manifest, decode_manifest, prefix_path, scheme_dirs
from likewise.model.plan import Action, Decision, Plan
from likewise.model.report import LaunchReport, Stage
from likewise.model.snapshot import (
    Distribution,
    Origin,
    OriginKind,
    Problem,
    Severity,
    Snapshot,
)
from likewise.model.target import Platform, Target
from likewise.model.verify import Difference, DifferenceKind, NodeReport, VerifyReport
from support.values import LINUX, TARGET, make_code, make_interpreter

ONE, TWO = digest_bytes(b"one"), digest_bytes(b"two")
PROBLEM = Problem(code="shadowed", subject="numpy", message="numpy is there twice.", severity=Severity.NOTE)
INTERPRETER = make_interpreter(prefix="/home/me/venv", base_prefix="/usr")
NUMPY = Distribution(
    name="numpy",
    version="2.1.0",
    origin=Origin(kind=OriginKind.VCS, url="https://example.org/numpy", commit="abc"),
    tags=("cp311-cp311-manylinux_2_17_x86_64",),
    requires=("x; extra == 'y'",),
    content=ONE,
)
CODE = make_code(path="/home/me", size=2, content=TWO)
SNAPSHOT = Snapshot(interpreter=INTERPRETER, distributions=(NUMPY,), code=(CODE,), problems=(PROBLEM,))
DECISION = Decision(name="numpy", version="2.1.0", action=Action.COPY, reason="same platform", critical=True)
PLAN = Plan(target=TARGET, decisions=(DECISION,), kit=("numpy",), problems=(PROBLEM,))
LAYER = LayerRef(kind=LayerKind.DISTRIBUTION, name="numpy", version="2.1.0", digest=ONE, files=3, size=30, bytecode=TWO)
PYTHON = LayerRef(kind=LayerKind.INTERPRETER, name="python", version="3.11.7", digest=TWO, files=4, size=12)
MANIFEST = Manifest(target=TARGET, python="python3.11", cache_tag="cpython-311", layers=(PYTHON, LAYER), kit=("numpy",))
DIFFERENCE = Difference(node="n0", kind=DifferenceKind.CHANGED, layer="numpy", subject="purelib/numpy/__init__.py")
NODE = NodeReport(
    node="n0",
    prefix="/cache/prefixes/0",
    executable="/cache/prefixes/0/bin/python",
    python="3.11.7",
    manifest=ONE,
    distributions={"numpy": "2.1.0"},
    files=3,
    size=30,
    seconds=0.5,
)
VALUES = [
    SNAPSHOT,
    PLAN,
    MANIFEST,
    LaunchReport(stages=(Stage(name="scan", seconds=0.5, summary="3 distributions", done={"hashed": 3}),)),
    VerifyReport(manifest=ONE, nodes=(NODE,), differences=(DIFFERENCE,)),
    Editable(name="mine", version="1", path="/home/me/mine", mapping={"mine": "/home/me/mine/src"}),
]


# ---- all of them


@pytest.mark.parametrize("value", VALUES, ids=lambda v: type(v).__name__)
@pytest.mark.parametrize("codec", [msgspec.json, msgspec.msgpack], ids=["json", "msgpack"])
def test_round_trip(value: msgspec.Struct, codec: Any) -> None:
    """Every value survives being written and read back, as JSON and as msgpack."""
    assert codec.decode(codec.encode(value), type=type(value)) == value


@pytest.mark.parametrize("value", VALUES, ids=lambda v: type(v).__name__)
def test_frozen(value: msgspec.Struct) -> None:
    """No field of a value can be changed."""
    field = value.__struct_fields__[0]
    with pytest.raises(AttributeError, match="immutable"):
        setattr(value, field, getattr(value, field))


def test_events_say_their_kind() -> None:
    """A progress event written as JSON names its own type, so that a renderer in another process can read it."""
    emitted = [
        events.StageStarted(stage="pack", total=3),
        events.StageAdvanced(stage="pack", amount=1, item="numpy"),
        events.StageFinished(stage="pack", seconds=0.1),
        events.Notice(message="Left out.", subject="pip"),
    ]
    known = events.StageStarted | events.StageAdvanced | events.StageFinished | events.Notice
    for event in emitted:
        assert msgspec.json.decode(msgspec.json.encode(event), type=known) == event
    events.Silent().report(emitted[0])


# ---- digests and keys


def test_digest_in_record_spelling() -> None:
    """A digest and its spelling in RECORD (URL-safe base64 without padding) are the same thing."""
    raw = hashlib.sha256(b"one").digest()
    field = "sha256=" + base64.urlsafe_b64encode(raw).decode().rstrip("=")
    assert digest_to_record(ONE) == field
    assert digest_from_record(field) == digest_from_record(field + "=") == ONE
    assert raw.hex() == ONE


@pytest.mark.parametrize(
    "field", ["", "sha256=", "md5=47DEQpj8", "sha256=47DEQpj8", "sha512=" + "A" * 86, "sha256=é", "x"]
)
def test_unusable_record_hashes(field: str) -> None:
    """Another algorithm, no hash, or a hash of the wrong length is no hash: the file is hashed from disk then."""
    assert digest_from_record(field) is None


@pytest.mark.parametrize("text", ["", "0" * 63, "0" * 65, "A" * 64, "g" * 64, "../" + "0" * 61, "٣" * 64])
def test_what_is_no_digest(text: str) -> None:
    """Only 64 lower-case hexadecimal digits may be used as the name of a file."""
    assert not is_digest(text)


def test_what_is_a_digest() -> None:
    """The digest of nothing and every other digest have the form of a digest."""
    assert digest_bytes(b"") == digests.EMPTY
    assert is_digest(EMPTY)
    assert is_digest(ONE)


def test_keys_differ_by_kind() -> None:
    """One digest has a different place in the store as a layer, manifest, kit, note and script."""
    made = [
        keys.layer_key(ONE),
        keys.manifest_key(ONE),
        keys.kit_key(ONE),
        keys.note_key("a", ONE),
        keys.note_key("b", ONE),
        keys.script_key(ONE),
    ]
    assert len(set(made)) == len(made)
    assert all(key.endswith(ONE) for key in made)


# ---- layers


def entry(path: str, content: bytes = b"x", **more: Any) -> FileEntry:
    return FileEntry(path=path, sha256=digest_bytes(content), size=len(content), **more)


def link(path: str, target: str) -> FileEntry:
    return FileEntry(path=path, sha256=EMPTY, size=0, link=target)


# A busy machine is no reason to fail.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

names = st.text(st.characters(exclude_characters="/\0\\:", exclude_categories=["Cs"]), min_size=1, max_size=8).filter(
    lambda name: name not in (".", "..")
)
entries = st.lists(
    st.builds(
        entry,
        st.tuples(st.sampled_from(["purelib", "scripts", "data"]), names, names).map("/".join),
        st.binary(max_size=8),
        executable=st.booleans(),
    ),
    max_size=6,
    unique_by=lambda e: e.path.casefold(),
).map(lambda found: sorted(found, key=lambda e: e.path))


@unhurried
@given(entries)
def test_listing_round_trip(found: list[FileEntry]) -> None:
    """Any listing, whatever characters its names have (newlines too), is read back as it was written."""
    assert decode_listing(encode_listing(found)) == tuple(found)


@unhurried
@given(entries, st.randoms())
def test_layer_does_not_depend_on_order(found: list[FileEntry], random: Any) -> None:
    """The order in which files are found does not change a layer's digest."""
    shuffled = random.sample(found, len(found))
    source = layer_source(LayerKind.CODE, "c", "", [SourceFile(entry=e) for e in shuffled])
    assert source.digest == layer_digest(found)
    assert isinstance(source, LayerSource)


@pytest.mark.parametrize(
    "changed",
    [
        entry("purelib/a.py", b"y"),
        entry("purelib/b.py"),
        entry("purelib/a.py", executable=True),
        entry("scripts/a.py"),
        link("purelib/a.py", "b.py"),
    ],
)
def test_layer_depends_on_everything(changed: FileEntry) -> None:
    """Another content, name, place, executable bit or link makes another layer."""
    assert layer_digest([changed]) != layer_digest([entry("purelib/a.py")])


GOOD = encode_listing([entry("purelib/a"), entry("purelib/b")])


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        GOOD[:-1],
        GOOD[:-40],
        GOOD + b"purelib/c",
        GOOD.replace(b"likewise-layer 1", b"likewise-layer 2"),
        GOOD.replace(b"\x001\x00", b"\x00-1\x00"),
        GOOD.replace(b"\x001\x00", "\x00²\x00".encode()),
        GOOD.replace(b"\x00-\x00", b"\x00?\x00"),
        GOOD.replace(b"purelib/b", b"purelib/0"),
        GOOD.replace(b"purelib/b", b"purelib/a"),
        GOOD.replace(b"purelib/b", b"purelib/\xff"),
        GOOD.replace(b"purelib/b", b"../../../b"),
    ],
)
def test_damaged_listing(damaged: bytes) -> None:
    """A listing that was cut, reordered or altered into something never written is refused."""
    with pytest.raises(LayerError) as caught:
        decode_listing(damaged, where="numpy")
    assert caught.value.where == "numpy"


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "C:/x",
        "C:\\x/y",
        "purelib",
        "purelib/",
        "purelib//a",
        "purelib/./a",
        "purelib/../../../../.ssh/id_rsa",
        "lib/a",
        "purelib/a\0b",
        "purelib/\udcff",
        "",
    ],
)
def test_paths_that_may_not_be_shipped(path: str) -> None:
    """A path that is absolute, escapes, has no scheme or can't be written is refused with a reason."""
    assert path_problem(path)
    with pytest.raises(LayerError) as caught:
        layer_source(LayerKind.DISTRIBUTION, "numpy", "2.1", [SourceFile(entry=entry(path))])
    assert caught.value.where == "numpy 2.1"
    assert list(caught.value.details["paths"]) == [path]


@pytest.mark.parametrize("path", ["purelib/a b/ü😀.py", "data/share/..x/a", "code/c/x:y", "purelib/a\nb"])
def test_odd_paths_that_may(path: str) -> None:
    """Spaces, emoji, colons and newlines in a name are no reason to refuse it."""
    assert path_problem(path) == ""


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        ((entry("purelib/A.py"), entry("purelib/a.py")), "collides"),
        ((entry("purelib/Straße"), entry("purelib/STRASSE")), "collides"),
        ((entry("purelib/a"), entry("purelib/a/b")), "beneath another file"),
        ((link("purelib/a", "b"), entry("purelib/a/b")), "beneath another file"),
    ],
)
def test_paths_that_collide(pair: tuple[FileEntry, ...], reason: str) -> None:
    """Two paths that are one where case is ignored, or a file beneath a file, are refused."""
    with pytest.raises(LayerError, match=reason):
        check_entries(pair, where="x")


@pytest.mark.parametrize(
    ("target", "fine"), [("b", True), ("../b", True), ("../../b", False), ("/b", False), ("x/../../../b", False)]
)
def test_links(target: str, fine: bool) -> None:
    """A relative link inside the scheme's directory is shipped; one that leaves it is refused."""
    if fine:
        check_entries([link("data/p/a", target)], where="x")
    else:
        with pytest.raises(LayerError, match="link"):
            check_entries([link("data/p/a", target)], where="x")


def test_every_problem_is_collected() -> None:
    """One error names all offending paths, the first five of them in its message."""
    with pytest.raises(LayerError, match="and 3 more") as caught:
        check_entries([entry(f"nowhere/{n}") for n in range(8)], where="x")
    assert len(caught.value.details["paths"]) == 8


# ---- manifest, plan, snapshot, verify


def test_manifest_is_found_by_its_id() -> None:
    """A manifest's id is the digest of its bytes, and those bytes give back the manifest."""
    assert digest_bytes(MANIFEST.encode()) == MANIFEST.id
    assert decode_manifest(MANIFEST.encode(), MANIFEST.id) == MANIFEST
    assert MANIFEST.size == 42


def test_manifest_with_another_id() -> None:
    """Bytes that are not the manifest that was asked for are refused, even if they are a manifest."""
    with pytest.raises(NodeError, match="does not match"):
        decode_manifest(MANIFEST.encode(), ONE)
    with pytest.raises(NodeError, match="does not match"):
        decode_manifest(MANIFEST.encode()[:-1], MANIFEST.id)


def test_manifest_of_another_version() -> None:
    """Bytes with the right digest that are no manifest (another version wrote them) say so."""
    data = b'{"format": 99}'
    with pytest.raises(NodeError, match="same version"):
        decode_manifest(data, digest_bytes(data))


def test_manifest_id_depends_on_every_field() -> None:
    """Changing any field of a manifest, or of one of its layers, changes the id."""
    other: dict[str, Any] = {
        "target": Target(platform=LINUX, python="3.11.8"),
        "python": "python3.12",
        "cache_tag": "cpython-312",
        "layers": (PYTHON,),
        "before": ("code-0",),
        "after": ("code-0",),
        "kit": (),
        "needs": {"GLIBC": "2.99"},
        "outline": ONE,
        "base": "data",
        "variables": {"GDAL_DATA": "@prefix@/share/gdal"},
        "format": 2,
    }
    assert set(MANIFEST.__struct_fields__) == set(other)
    ids = {msgspec.structs.replace(MANIFEST, **{name: value}).id for name, value in other.items()}
    without = msgspec.structs.replace(LAYER, bytecode=None)
    ids.add(msgspec.structs.replace(MANIFEST, layers=(PYTHON, without)).id)
    assert len({*ids, MANIFEST.id}) == len(other) + 2


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("purelib/numpy/__init__.py", "lib/python3.11/site-packages/numpy/__init__.py"),
        ("scripts/f2py", "bin/f2py"),
        ("data/share/man/x.1", "share/man/x.1"),
        ("headers/greenlet/greenlet.h", "include/site/python3.11/greenlet/greenlet.h"),
        ("code/code-0/mine.py", "code/code-0/mine.py"),
        ("interpreter/bin/python3.11", "interpreter/bin/python3.11"),
        ("native/libpq.so.5", "native/libpq.so.5"),
    ],
)
def test_where_a_layer_path_lies(path: str, expected: str) -> None:
    """Each scheme of a layer path has its place beneath a prefix."""
    assert prefix_path(path, "python3.11") == expected
    assert path.partition("/")[0] in scheme_dirs("python3.11")


def test_lookup_by_name() -> None:
    """A snapshot finds a distribution, and a plan a decision, by normalized name; None when there is none."""
    assert SNAPSHOT.get("numpy") is NUMPY
    assert SNAPSHOT.get("pandas") is None
    assert PLAN.get("numpy") is DECISION
    assert PLAN.get("pandas") is None


@pytest.mark.parametrize(
    ("version", "abiflags", "python"), [("3.11.7", "", "python3.11"), ("3.14.0rc1", "t", "python3.14t")]
)
def test_name_of_the_library_folder(version: str, abiflags: str, python: str) -> None:
    """The interpreter's library folder is named after its minor version, with a t when free-threaded."""
    assert msgspec.structs.replace(INTERPRETER, version=version, abiflags=abiflags).python == python


def test_verified_means_that_somebody_answered() -> None:
    """A verify report is ok when nodes answered and nothing differs; with no node at all it is not."""
    assert VerifyReport(manifest=ONE, nodes=(NODE,), differences=()).ok
    assert not VerifyReport(manifest=ONE, nodes=(NODE,), differences=(DIFFERENCE,)).ok
    assert not VerifyReport(manifest=ONE, nodes=(), differences=()).ok


def test_platform_for_people() -> None:
    """A platform prints as OS and architecture, with its C library where there is one."""
    assert str(LINUX) == "linux-x86_64 (glibc 2.36)"
    assert str(Platform(os="macos", arch="aarch64")) == "macos-aarch64"


def test_launch_report_adds_up() -> None:
    """The seconds of a launch are those of its stages."""
    stages = tuple(Stage(name=name, seconds=0.5, summary="") for name in "ab")
    assert LaunchReport(stages=stages).seconds == 1.0
    assert Digest(ONE) == ONE
