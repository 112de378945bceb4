"""The outline of a real prefix: made once, kept in the store, part of every shipment; nothing of it when it is off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from likewise.model.digest import EMPTY, digest_bytes
from likewise.model.identity import is_generated
from likewise.model.keys import layer_key
from likewise.model.manifest import Manifest, decode_manifest
from likewise.model.outline import OUTLINE_PATH, Outline, check, closure, decode_outline, tops
from support.layers import read_archive
from support.users import common_cache, make_user_venv, run_script
from support.wheels import site_packages, write_wheel

pytestmark = pytest.mark.registry

SCRIPT = """
import json
from pathlib import Path
import dask
import loose
from likewise.deploy import bootstrap_files, command_prefix
from likewise.model.keys import layer_key
from likewise.store.folder import LEASES
from likewise.store.lease import read_leases
from likewise.sync import prepare

def look(prepared):
    stages = {stage.name: stage.done for stage in prepared.report.stages}
    return {"manifest": prepared.manifest.encode().decode(), "kit": prepared.kit_id, "stages": stages,
            "store": str(prepared.store.root), "argv": prepared.launch(Path("/cache")).argv()}

def main():
    seen = {"on": look(first := prepare()), "again": look(again := prepare())}
    key = layer_key(first.manifest.outline)
    seen["leased"] = key in read_leases(first.store._folder.held(LEASES))
    first.store.remove(key)
    first.close(), again.close()
    seen["lost"] = look(lost := prepare())
    lost.remember(["sys", "bulk", "tiny"])
    lost.close()
    seen["remembered"] = look(prepare())
    with bootstrap_files() as files:
        seen["bundle"] = sorted(files.files)
        seen["prefix"] = command_prefix(store="/shared", files=files)
    with dask.config.set({"likewise.streaming": False}):
        seen["off"] = look(prepare())
        with bootstrap_files() as files:
            seen["bundle off"] = sorted(files.files)
            seen["prefix off"] = command_prefix(store="/shared", files=files)
    print(json.dumps(seen))

if __name__ == "__main__":
    main()
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prefix with two wheels of our own, and a script beside a loose module that uses one of them."""
    folder = tmp_path_factory.mktemp("outline")
    tiny = write_wheel(
        folder, {"tiny.py": b"import bulk\n", "tiny.pth": b"extra\n", "extra/inner.py": b""}, name="tiny"
    )
    bulk = write_wheel(folder, {"bulk/__init__.py": b"", "bulk/data.bin": bytes(5000)}, name="bulk")
    (folder / "work").mkdir()
    (folder / "work" / "loose.py").write_text("def f():\n    import tiny\n")
    (folder / "work" / "script.py").write_text(SCRIPT)
    return make_user_venv(folder / "venv", tiny, bulk)


@pytest.fixture(scope="module")
def seen(python: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the script saw."""
    script = python.parents[2] / "work" / "script.py"
    return run_script(python, script, cache=common_cache(tmp_path_factory), DASK_LIKEWISE__STREAMING="true")


def manifest(seen: dict[str, Any], when: str) -> Manifest:
    """The manifest that was made."""
    data = seen[when]["manifest"].encode()
    return decode_manifest(data, digest_bytes(data))


def outline_of(seen: dict[str, Any], when: str) -> Outline:
    """The outline in the store."""
    digest = manifest(seen, when).outline
    assert digest is not None
    _, contents = read_archive(Path(seen[when]["store"], layer_key(digest)).read_bytes())
    assert contents.keys() == {OUTLINE_PATH}
    return decode_outline(contents[OUTLINE_PATH])


def options(seen: dict[str, Any], when: str) -> tuple[bool, list[str]]:
    """Whether the command prefix says that processes start early, and which layers come first."""
    argv = seen[when] if isinstance(seen[when], list) else seen[when]["argv"]
    first = argv[argv.index("--first") + 1].split(",") if "--first" in argv else []
    return "--stream" in argv, first


def test_it_is_what_is_on_the_disk(seen: dict[str, Any], python: Path) -> None:
    """It fits the manifest, and has the content of each dist-info and .pth file of the prefix, but what installers
    write."""
    outline = outline_of(seen, "on")
    check(outline, manifest(seen, "on"))
    site = site_packages(python)
    content = {path: data for layer in outline.layers for path, data in layer.files.items()}
    there = [*site.glob("*.dist-info/**/*"), *site.glob("*.pth")]
    expected = {f"purelib/{p.relative_to(site)}": p.read_bytes() for p in there if p.is_file()}
    made = {path for path in expected if is_generated(path, ())}
    assert content == {path: data for path, data in expected.items() if path not in made}
    assert "purelib/tiny.pth" in content and len(made) > 10


def test_requirements_and_names(seen: dict[str, Any]) -> None:
    """Distributed requires dask; the folder that a .pth file names is on the path."""
    outline = outline_of(seen, "on")
    layers = {layer.name: layer for layer in outline.layers}
    assert {"dask", "tornado", "msgpack"} <= set(layers["distributed"].requires)
    assert {"toolz", "locket"} <= set(closure(outline)["distributed"])
    assert tops(layers["tiny"].entries(), layers["tiny"].files) == {"tiny", "extra", "inner"}
    assert tops(layers["code-0"].entries()) == {"script", "loose"}


def test_an_unchanged_environment_makes_nothing(seen: dict[str, Any]) -> None:
    """The second launch finds it, and the manifest is the same; what was lost is made again, the same."""
    assert seen["on"]["stages"]["outline"] == {"outlines": 1}
    assert seen["again"]["stages"]["outline"] == {"outlines": 0}
    assert seen["again"]["stages"]["pack"]["packed"] == 0
    assert seen["lost"]["stages"]["outline"] == {"outlines": 1}
    assert seen["lost"]["stages"]["pack"]["packed"] == 1
    assert seen["on"]["manifest"] == seen["again"]["manifest"] == seen["lost"]["manifest"]
    assert seen["leased"]


def test_what_comes_first(seen: dict[str, Any]) -> None:
    """First guessed from the script, then remembered; the environment's id does not depend on it."""
    stream, guessed = options(seen, "on")
    assert stream
    assert guessed == ["code-0", "tiny"]  # dask and likewise are in the kit
    assert options(seen, "remembered")[1][:2] == ["bulk", "tiny"]
    assert seen["remembered"]["manifest"] == seen["on"]["manifest"]


def test_the_kit_knows_nothing_of_it(seen: dict[str, Any]) -> None:
    """Nodes that have unpacked the kit go on using it, on or off."""
    assert seen["off"]["kit"] == seen["on"]["kit"]


def test_a_bundle_has_it(seen: dict[str, Any]) -> None:
    """All layers of the manifest are in it, with bytecode and outline; its command prefix says that it is used."""
    keys = {layer_key(digest) for digest in manifest(seen, "on").digests()}
    assert {name for name in seen["bundle"] if name.startswith("layers/")} == keys
    assert options(seen, "prefix")[0] and options(seen, "prefix")[1][:2] == ["bulk", "tiny"]


def test_switched_off_there_is_nothing_of_it(seen: dict[str, Any]) -> None:
    """No outline is made or shipped, nothing is guessed, and the nodes are told nothing."""
    plain = manifest(seen, "off")
    assert plain.outline is None and "outline" not in seen["off"]["stages"]
    assert plain == msgspec.structs.replace(manifest(seen, "on"), outline=None)
    assert options(seen, "off") == options(seen, "prefix off") == (False, [])
    gone = layer_key(manifest(seen, "on").outline or EMPTY)
    assert set(seen["bundle"]) - set(seen["bundle off"]) >= {gone}
    assert gone not in seen["bundle off"]
