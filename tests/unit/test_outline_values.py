"""The outline: what it holds of a layer, which damage is refused, which names wait for which layers."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from likewise.errors import LayerError, NodeError
from likewise.layers.outline import build_outline, outline_source
from likewise.model.digest import EMPTY, digest_bytes
from likewise.model.layer import FileEntry, LayerKind, SourceFile, layer_source
from likewise.model.manifest import Manifest
from likewise.model.outline import (
    MOST_DATA,
    OUTLINE_PATH,
    Outline,
    OutlinedLayer,
    check,
    closure,
    decode_outline,
    outlined,
    pth_folders,
    pth_words,
    tops,
)
from support.nodes import distribution, layer, manifest_of

PYTHON = layer("cpython", {"interpreter/bin/python3.11": (b"elf", True)}, kind=LayerKind.INTERPRETER)
NUMPY = distribution(
    "numpy",
    {
        "purelib/numpy/__init__.py": b"import x",
        "purelib/numpy-1.0.dist-info/licenses/LICENSE": b"free",
        "purelib/numpy-1.0.dist-info/LINK": "METADATA",
        "purelib/numpy.pth": b"# a comment\nnumpy/vendored\nimport numpy\n",
        "purelib/numpy/inner.pth": b"not read by Python",
    },
)
PANDAS = distribution("pandas", {"purelib/pandas.py": b""})
CODE = layer("code-0", {"code/code-0/mine.py": b""}, kind=LayerKind.CODE)
LAYERS = (PYTHON, NUMPY, PANDAS, CODE)
MANIFEST = manifest_of(*LAYERS)
OUTLINE = build_outline(LAYERS, {"pandas": ("numpy", "not-here", "pandas"), "code-0": (), "cpython": ("numpy",)})


def test_what_it_holds() -> None:
    """Every layer but the interpreter, with the content of its metadata and of what Python reads when it starts."""
    assert [each.name for each in OUTLINE.layers] == ["numpy", "pandas", "code-0"]
    info = "purelib/numpy-1.0.dist-info"
    assert OUTLINE.layers[0].files.keys() == {f"{info}/METADATA", f"{info}/licenses/LICENSE", "purelib/numpy.pth"}
    assert OUTLINE.layers[0].files[f"{info}/licenses/LICENSE"] == b"free"
    assert [each.requires for each in OUTLINE.layers] == [(), ("numpy",), ()]


def test_the_layer_it_travels_in() -> None:
    """It is the only file of a layer of its own, and comes back from there as it was."""
    source = outline_source(OUTLINE)
    (file,) = source.files
    assert (source.kind, file.entry.path) == (LayerKind.OUTLINE, OUTLINE_PATH)
    assert file.data is not None and decode_outline(file.data) == OUTLINE


def test_the_same_environment_has_the_same_outline() -> None:
    """In whatever order the files and requirements are found."""
    shuffled = msgspec.structs.replace(NUMPY, files=tuple(reversed(NUMPY.files)))
    again = layer_source(shuffled.kind, shuffled.name, shuffled.version, shuffled.files)
    assert build_outline((PYTHON, again, PANDAS, CODE), {"pandas": ["pandas", "numpy"]}).encode() == OUTLINE.encode()


def test_a_file_that_changed_is_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """What is read for the outline must be what its layer says; the file is named."""
    (tmp_path / "METADATA").write_bytes(b"other")
    changed = [
        SourceFile(entry=f.entry, path=str(tmp_path / "METADATA")) if f.entry.path.endswith("METADATA") else f
        for f in PANDAS.files
    ]
    with pytest.raises(LayerError, match="METADATA changed"):
        build_outline([msgspec.structs.replace(PANDAS, files=tuple(changed))], {})
    (tmp_path / "METADATA").unlink()
    with pytest.raises(LayerError, match="No such file"):
        build_outline([msgspec.structs.replace(PANDAS, files=tuple(changed))], {})


def test_a_sound_outline_gives_the_files_of_every_layer() -> None:
    """They are the layer's entries, in the outline's order."""
    assert check(OUTLINE, MANIFEST) == tuple(tuple(f.entry for f in source.files) for source in LAYERS[1:])


def change(number: int, **fields: object) -> Outline:
    """`OUTLINE` with other fields in one layer."""
    layers = list(OUTLINE.layers)
    layers[number] = msgspec.structs.replace(layers[number], **fields)
    return msgspec.structs.replace(OUTLINE, layers=tuple(layers))


def evil() -> tuple[Outline, Manifest]:
    """A listing with a path that escapes; its digest is right and stands in the manifest."""
    listing = OUTLINE.layers[2].listing.replace(b"code/code-0/mine.py", b"code/../../mine.py")
    refs = list(MANIFEST.layers)
    refs[3] = msgspec.structs.replace(refs[3], digest=digest_bytes(listing))
    manifest = msgspec.structs.replace(MANIFEST, layers=tuple(refs))
    return change(2, listing=listing, digest=digest_bytes(listing)), manifest


FILES = OUTLINE.layers[0].files
WRONG: dict[str, Callable[[], Outline]] = {
    "another listing": lambda: change(0, listing=OUTLINE.layers[1].listing),
    "is not that of the manifest": lambda: change(0, digest=EMPTY),
    "not that of the manifest": lambda: change(0, name="numpy2"),
    "that of the manifest": lambda: Outline(layers=OUTLINE.layers[:2]),
    "of the manifest": lambda: Outline(layers=OUTLINE.layers[::-1]),
    "other files of numpy": lambda: change(0, files={}),
    "other files": lambda: change(0, files={**FILES, "purelib/more.pth": b"import evil"}),
    "another purelib/numpy.pth": lambda: change(0, files={**FILES, "purelib/numpy.pth": b"import evil"}),
    "requires what the manifest lacks": lambda: change(1, requires=("numpy", "evil")),
}


@pytest.mark.parametrize("said", WRONG)
def test_what_is_not_as_its_digest_says_is_refused(said: str) -> None:
    """A listing, a file, a name, the number or the order of layers, a requirement: nothing can be exchanged."""
    with pytest.raises(NodeError, match=said):
        check(WRONG[said](), MANIFEST)


def test_an_escaping_path_is_refused() -> None:
    """Also when every digest is right."""
    with pytest.raises(NodeError, match=r"may not be used.*escapes"):
        check(*evil())


@pytest.mark.parametrize("data", [b"", b"\xc1", OUTLINE.encode()[:-3], b"\x80"])
def test_what_is_no_outline_is_refused(data: bytes) -> None:
    """Bytes that are nothing, or cut off."""
    with pytest.raises(NodeError, match="can't be read"):
        decode_outline(data)


def test_a_newer_format_is_refused() -> None:
    """Instead of being read as what it is not."""
    with pytest.raises(NodeError, match="has format 9"):
        decode_outline(msgspec.structs.replace(OUTLINE, format=9).encode())


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("purelib/a-1.dist-info/METADATA", True),
        ("purelib/a-1.dist-info/licenses/a/b", True),
        ("purelib/a.egg-info/PKG-INFO", True),
        ("purelib/a-1.egg-info", True),
        ("purelib/a.pth", True),
        ("purelib/a/b.pth", False),
        ("purelib/a/_vendor/b-1.dist-info/METADATA", False),
        ("purelib/a.py", False),
        ("scripts/a", False),
        ("data/bin/a", False),
        ("data/share/a/kernel.json", True),
        ("data/etc/a.conf", True),
        ("code/code-0/a.pth", False),
    ],
)
def test_what_belongs_to_it(path: str, expected: bool) -> None:
    """What Python and packaging tools look for in the site directory, and what others find by its path."""
    entry = FileEntry(path=path, sha256=EMPTY, size=0)
    assert outlined([entry]) == [entry] * expected


def test_much_data_follows() -> None:
    """With more than `MOST_DATA` bytes outside the site directory, a layer has none of them in the outline."""
    few = [FileEntry(path=f"data/share/{n}", sha256=EMPTY, size=MOST_DATA // 2) for n in range(2)]
    one_more = FileEntry(path="data/share/more", sha256=EMPTY, size=1)
    link = FileEntry(path="data/share/link", sha256=EMPTY, size=0, link="0")
    metadata = FileEntry(path="purelib/a-1.dist-info/METADATA", sha256=EMPTY, size=0)
    assert outlined([*few, link, metadata]) == [metadata, *few]
    assert outlined([*few, one_more, metadata]) == [metadata]


def test_words_of_pth_files_that_python_runs() -> None:
    """Those of lines that begin with an import; other lines are folders or comments, other files are not read."""
    files = {"purelib/a.pth": b"import os, a_b; a_b.c()\nfolder\n# import d\nimport\te", "data/x.pth": b"import f"}
    assert pth_words(files) == {"import", "os", "a_b", "c", "e"}


def test_import_names() -> None:
    """Modules, extension modules, packages and namespace packages; nothing that can't be imported."""
    files: dict[str, bytes] = dict.fromkeys(
        [
            "purelib/module.py",
            "purelib/old.pyc",
            "purelib/plain.so",
            "purelib/fast.cpython-311-x86_64-linux-gnu.so",
            "purelib/stable.abi3.so",
            "purelib/package/__init__.py",
            "purelib/space/data.txt",
            "purelib/with-dash/x.py",
            "purelib/__pycache__/module.cpython-311.pyc",
            "purelib/package.libs/libz.so",
            "purelib/libz.so.1",
            "purelib/README.txt",
            "purelib/two.dots.py",
            "purelib/package-1.dist-info/METADATA",
            "code/code-0/mine.py",
            "code/code-0/folder/x.py",
            "data/share/doc.py",
            "scripts/tool.py",
            "native/libq.so",
        ],
        b"",
    )
    found = tops([f.entry for f in layer("x", files).files])
    assert found == {"module", "old", "plain", "fast", "stable", "package", "space", "with-dash", "mine", "folder"}


def test_folders_that_a_pth_file_names_count() -> None:
    """Their modules are at the top, too (pywin32, eggs); lines that are code, comments or lead outside are not."""
    pth = b"sub\r\n./deep/er\n# sub2\nimport sub3\n../out\n/abs\n\n"
    source = layer("x", {"purelib/x.pth": pth, "purelib/sub/one.py": b"", "purelib/deep/er/two/__init__.py": b""})
    assert pth_folders({"purelib/x.pth": pth}) == {"sub", "deep/er"}
    assert tops([f.entry for f in source.files], {"purelib/x.pth": pth}) == {"sub", "one", "deep", "two"}


def known(name: str, *requires: str) -> OutlinedLayer:
    """A layer that requires others."""
    return OutlinedLayer(name=name, digest=EMPTY, listing=b"", files={}, requires=requires)


def test_closure() -> None:
    """Each layer first, then what it requires, nearest first; circles end."""
    graph = Outline(layers=(known("a", "b", "c"), known("b", "d"), known("c", "a"), known("d", "d")))
    assert closure(graph) == {"a": ("a", "b", "c", "d"), "b": ("b", "d"), "c": ("c", "a", "b", "d"), "d": ("d",)}


def test_all_digests_of_a_manifest() -> None:
    """Layers, bytecode and the outline, each once."""
    code = layer("numpy", {"purelib/numpy/__pycache__/x.cpython-311.pyc": b""}, kind=LayerKind.BYTECODE)
    plain = manifest_of(PYTHON, NUMPY, PANDAS, bytecode={"numpy": code, "pandas": code})
    assert plain.outline is None
    assert plain.digests() == (PYTHON.digest, NUMPY.digest, PANDAS.digest, code.digest)
    source = outline_source(OUTLINE)
    streaming = msgspec.structs.replace(plain, outline=source.digest)
    assert streaming.digests() == (*plain.digests(), source.digest)
    assert streaming.id != plain.id
