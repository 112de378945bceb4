"""Whatever a node can't do ends with one line that says what, where and what to do, and exit code 15."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from likewise.layers.kit import write_kit
from likewise.model.digest import digest_bytes
from likewise.model.keys import layer_key, manifest_key
from likewise.model.layer import LayerKind
from likewise.node.command import Launch
from support.nodes import SHELLS, archive, distribution, few_tools, layer, manifest_of, real_kit, start
from support.prefixes import clean_environ

NOBODY = 65534


def refusal(launch: Launch, *, lines: int = 1, shell: str = "dash", env: dict[str, str] | None = None) -> str:
    """What a start that must fail says, in so many lines."""
    done = start(launch, "-c", "print('ran')", shell=SHELLS[shell], env=env)
    assert done.returncode == 15, done.stderr
    assert done.stdout == ""
    said = done.stderr.splitlines()
    assert len(said) == lines, done.stderr
    assert said[-1].startswith("likewise: ") and said[-1].endswith(".")
    return said[-1]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a tmpfs with some options."""
    place = tmp_path / "mounted"
    place.mkdir()

    def mount(options: str) -> Path:
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "likewise-test", place], check=True)
        return place

    yield mount
    subprocess.run(["umount", "-l", place], check=False)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"manifest": "../../../etc"}, "'../../../etc' is not a digest"),
        ({"kit_id": "A" * 64}, "is not a digest"),
        ({"kit_sha256": "0" * 63}, "is not a digest"),
        ({"cache": ""}, "--cache is missing"),
        ({"cache": "/tmp/a:b"}, "contains a colon"),
        ({"cache": "/tmp/a\nb"}, "line break"),
    ],
)
@pytest.mark.parametrize("shell", SHELLS)
def test_nonsense_is_refused(change: dict[str, str], said: str, shell: str) -> None:
    """Ids that are no digests and folders that no search path can hold are refused before anything is touched."""
    launch = msgspec.structs.replace(real_kit().launch(Path("/nowhere")), **change)
    done = start(launch, "-c", "", shell=SHELLS[shell])
    assert done.returncode == 15 and said in done.stderr


def test_unknown_option() -> None:
    """A bootstrap script that is older than who calls it says so."""
    argv = [*real_kit().launch(Path("/nowhere")).argv()[:-1], "--new", "x", "--"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 15 and "unknown option --new" in done.stderr


def test_relative_cache(tmp_path: Path) -> None:
    """A relative folder for the cache is taken from the working directory."""
    done = start(real_kit().launch(Path("here")), "-c", "import sys; print(sys.prefix)", cwd=tmp_path)
    assert done.stdout.startswith(f"{tmp_path}/here/prefixes/"), done.stderr


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("what", ["", "prefixes", "kits", "tmp", "leases"])
def test_links_are_refused(tmp_path: Path, what: str, shell: str) -> None:
    """A link in the place of the cache, or of one of its folders, is not followed."""
    cache = tmp_path / "cache"
    (tmp_path / "elsewhere").mkdir()
    if what:
        cache.mkdir()
    (cache / what if what else cache).symlink_to(tmp_path / "elsewhere")
    assert "not a directory of its own" in refusal(real_kit().launch(cache), shell=shell)
    assert os.listdir(tmp_path / "elsewhere") == []


@pytest.mark.root
@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("what", ["", "prefixes", "prefixes/{id}", "kits/{kit}"])
def test_other_users_folders_are_refused(tmp_path: Path, what: str, shell: str) -> None:
    """A cache, or a prefix or kit in it, that another user made is not used, even if it looks complete."""
    cache = tmp_path / "cache"
    launch = real_kit().launch(cache)
    planted = cache / what.format(id=launch.manifest[:16], kit=launch.kit_id[:16])
    planted.mkdir(parents=True, exist_ok=True)
    for name in ("launch", "python"):
        (planted / name).write_text("#!/bin/sh\necho ran\n")
        (planted / name).chmod(0o755)
    os.chown(planted, NOBODY, NOBODY)
    assert "belongs to another user" in refusal(launch, shell=shell)


@pytest.mark.root
def test_world_writable_cache_is_refused(tmp_path: Path) -> None:
    """Where everybody may write, anybody may have put something already."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o777)
    assert "written by everybody" in refusal(real_kit().launch(tmp_path / "cache"))


def test_missing_kit(tmp_path: Path) -> None:
    """A kit that is not there, or not readable, is named."""
    assert "/gone can't be read" in refusal(real_kit().launch(tmp_path / "cache", kit="/gone"))


@pytest.mark.parametrize("compressed", [False, True])
def test_truncated_kit_without_a_checksum_program(tmp_path: Path, compressed: bool) -> None:
    """Even where no sha256 can be computed a truncated kit is noticed, and the next start with a whole one works."""
    kit = real_kit()
    whole = tmp_path / "kit"
    with whole.open("wb") as out:
        write_kit(kit.manifest, {s.digest: s for s in kit.layers}, out, level=int(compressed))
    (tmp_path / "cut").write_bytes(whole.read_bytes()[:-300_000])
    launch = kit.launch(tmp_path / "cache", kit=str(tmp_path / "cut"))
    done = start(launch, "-c", "", shell=["/bin/sh"], env={"PATH": str(few_tools(tmp_path / "tools"))})
    assert done.returncode == 15 and "can't be unpacked" in done.stderr.splitlines()[-1]
    assert os.listdir(tmp_path / "cache/kits") == os.listdir(tmp_path / "cache/tmp") == []
    assert start(kit.launch(tmp_path / "cache"), "-c", "").returncode == 0


def test_python_that_does_not_run(tmp_path: Path) -> None:
    """An interpreter for another kind of machine is told apart from everything else, and not kept."""
    python = manifest_of().python
    foreign = layer("python", {f"interpreter/bin/{python}": (b"\x7fELF foreign", True)}, kind=LayerKind.INTERPRETER)
    manifest = manifest_of(foreign)
    with (tmp_path / "kit").open("wb") as out:
        sha256 = write_kit(manifest, {foreign.digest: foreign}, out)
    launch = real_kit().launch(
        tmp_path / "cache", kit=str(tmp_path / "kit"), kit_id=manifest.id, kit_sha256=sha256
    )  # fmt: skip
    done = start(launch, "-c", "")
    assert done.returncode == 15
    assert "The Python of the client does not run on this machine" in done.stderr.splitlines()[-1]
    assert os.listdir(tmp_path / "cache/kits") == []


def test_missing_manifest(tmp_path: Path) -> None:
    """A manifest that the store does not have is named with the store."""
    said = refusal(msgspec.structs.replace(real_kit().launch(tmp_path / "cache"), manifest=digest_bytes(b"other")))
    assert "not in the store" in said and str(real_kit().store) in said


def test_missing_store(tmp_path: Path) -> None:
    """So is a store that this machine does not see."""
    said = refusal(real_kit().launch(tmp_path / "cache", store=tmp_path / "nowhere"))
    assert f"not in the store {tmp_path}/nowhere" in said


@pytest.mark.parametrize("shell", SHELLS)
def test_cleaned_up_kit(tmp_path: Path, shell: str) -> None:
    """Where something has removed the kit's interpreter, and the prefix, the kit is unpacked again."""
    launch = real_kit().launch(tmp_path / "cache")
    assert start(launch, "-c", "").returncode == 0
    kit = tmp_path / "cache/kits" / launch.kit_id[:16]
    (kit / (kit / "python").read_text().strip()).unlink()
    (tmp_path / "cache/prefixes" / launch.manifest[:16] / "launch").unlink()
    done = start(launch, "-c", "print('ran')", shell=SHELLS[shell])
    assert done.stdout == "ran\n", done.stderr
    assert os.listdir(tmp_path / "cache/tmp") == []


@pytest.mark.parametrize("damage", ["truncated", "other content", "empty"])
def test_damaged_layer_is_named_and_fetched_again(tmp_path: Path, damage: str) -> None:
    """A damaged archive is refused by its layer's name and removed; with a new copy the next start works."""
    kit = real_kit()
    broken = distribution("broken", {"purelib/broken.py": b"x = 1\n" * 1000})
    manifest = kit.with_layers(broken)
    path = kit.store / layer_key(broken.digest)
    whole = path.read_bytes()
    other = archive(distribution("broken", {"purelib/broken.py": b"x = 2\n" * 1000}))
    path.write_bytes({"truncated": whole[:-7], "other content": other, "empty": b""}[damage])
    launch = kit.launch(tmp_path / "cache", manifest)
    said = refusal(launch)
    assert said.startswith("likewise: broken: ") and "sound copy" in said
    assert not path.exists()
    path.write_bytes(archive(broken))
    assert start(launch, "-c", "import broken; assert broken.x == 1").returncode == 0


def test_damaged_manifest_is_replaced(tmp_path: Path) -> None:
    """A damaged manifest is refused and removed, so that the client writes it anew."""
    kit = real_kit()
    manifest = kit.with_layers(distribution("any", {"purelib/any.py": b""}))
    path = kit.store / manifest_key(manifest.id)
    path.write_bytes(path.read_bytes()[:-2])
    assert "does not match its id" in refusal(kit.launch(tmp_path / "cache", manifest))
    assert not path.exists()


@pytest.mark.root
@pytest.mark.parametrize("size", ["1m", "20m"])
def test_disk_full_while_the_kit_is_unpacked(mount: Callable[[str], Path], size: str) -> None:
    """A node without space for the kit says where, and keeps nothing of it."""
    place = mount(f"size={size}")
    done = start(real_kit().launch(place / "cache"), "-c", "")
    assert done.returncode == 15
    said = done.stderr.splitlines()[-1]
    assert said.startswith(f"likewise: The kit can't be unpacked into {place}/cache") and "Free some space" in said
    assert os.listdir(place / "cache/tmp") == os.listdir(place / "cache/kits") == []


@pytest.mark.root
def test_disk_full_while_layers_are_unpacked(mount: Callable[[str], Path]) -> None:
    """A node with space for the kit alone says what it needs; with more space the next start works."""
    place = mount("size=120m")
    kit = real_kit()
    big = distribution("big", {"purelib/big.bin": os.urandom(60_000_000)})
    launch = kit.launch(place / "cache", kit.with_layers(big))
    assert "disk is too small" in refusal(launch)
    subprocess.run(["mount", "-o", "remount,size=300m", place], check=True)
    assert start(launch, "-c", "").returncode == 0


@pytest.mark.root
def test_noexec(mount: Callable[[str], Path]) -> None:
    """A place from which nothing can be executed is named as that."""
    place = mount("noexec")
    assert "mounted with noexec" in refusal(real_kit().launch(place / "cache"))
    assert os.listdir(place / "cache/kits") == []


@pytest.mark.root
def test_read_only_place(mount: Callable[[str], Path]) -> None:
    """A place that can't be written is named."""
    place = mount("ro")
    done = start(real_kit().launch(place / "cache"), "-c", "")
    assert done.returncode == 15 and f"{place}/cache, can't be made" in done.stderr.splitlines()[-1]


@pytest.mark.root
def test_warm_start_on_a_full_disk(mount: Callable[[str], Path]) -> None:
    """What is there already starts though nothing more can be written but a folder."""
    place = mount("size=300m")
    launch = real_kit().launch(place / "cache")
    assert start(launch, "-c", "").returncode == 0
    with (place / "ballast").open("wb", buffering=0) as ballast, pytest.raises(OSError):
        while True:  # without a buffer nothing is left to be written when it is closed
            ballast.write(b"\0" * 65536)
    done = start(launch, "-c", "print('ran')")
    assert done.returncode in (0, 15)
    assert done.stdout == "ran\n" or done.stderr.splitlines()[-1].startswith("likewise: ")


@pytest.mark.root
def test_another_user_can_start() -> None:
    """Somebody who is not root starts a node of their own, from the kit's file to the running Python."""
    # Not beneath tmp_path: pytest closes the folder of all its runs to others whenever one of them begins.
    with tempfile.TemporaryDirectory(prefix="likewise-nobody-") as folder:
        os.chown(folder, NOBODY, NOBODY)
        _start_as_nobody(Path(folder))


def _start_as_nobody(home: Path) -> None:
    kit = real_kit()
    subprocess.run(["chmod", "-R", "a+rX", kit.store], check=True)
    for folder in kit.store.parents:
        folder.chmod(folder.stat().st_mode | 0o011)
    script = home / "bootstrap.sh"
    script.write_bytes(Path(kit.launch(home).script).read_bytes())
    script.chmod(0o755)
    launch = kit.launch(home / "cache", script=str(script))
    argv = [*launch.argv(), "-c", "import os, sys, msgspec; print(os.getuid(), sys.prefix)"]
    for _ in ("cold", "warm"):
        done = subprocess.run(
            argv, user=NOBODY, group=NOBODY, extra_groups=[], env=clean_environ(HOME=str(home)), cwd=home,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{NOBODY} {home}/cache/prefixes/{launch.manifest[:16]}\n"
