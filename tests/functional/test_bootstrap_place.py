"""``--cache auto``: a node finds a place for its cache that is usable and that nobody else can touch."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import likewise
from likewise.node.cache import host_name
from support.nodes import SHELLS, few_tools, real_kit, start
from support.people import ALICE, MALLORY, Ground, everything, ground
from support.prefixes import clean_environ

SCRIPT = str(Path(likewise.__file__).parent / "node/bootstrap.sh")
USER = os.geteuid()
WHERE = "import os, sys; print(os.geteuid(), sys.prefix)"


def choose(*options: str, shell: str = "dash", **environ: str) -> subprocess.CompletedProcess[str]:
    """Ask for the place of the cache."""
    argv = [*SHELLS[shell], SCRIPT, "--cache", "auto", "--command", "place", *options]
    env = {k: v for k, v in clean_environ().items() if k not in ("SLURM_TMPDIR", "TMPDIR", "HOME")}
    return subprocess.run(argv, env={**env, **environ}, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def _ground() -> Iterator[Ground]:
    with ground() as found:
        yield found


@pytest.fixture
def people(_ground: Ground) -> Ground:
    """Two users of this machine."""
    _ground.clear()
    return _ground


# ---- which place it is


@pytest.mark.parametrize("shell", SHELLS)
def test_place_is_made_and_found_again(tmp_path: Path, shell: str) -> None:
    """The folder bears the user's number, is for the user alone, and is the same the next time."""
    for _ in range(2):
        done = choose(shell=shell, TMPDIR=str(tmp_path))
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{tmp_path}/likewise-{USER}\n", "")
    found = (tmp_path / f"likewise-{USER}").stat()
    assert (found.st_mode & 0o7777, found.st_uid) == (0o700, USER)


@pytest.mark.parametrize("shell", SHELLS)
def test_order_of_places(tmp_path: Path, shell: str) -> None:
    """A job's own folder comes first, then TMPDIR; one that is not there is named, one that is no path is ignored."""
    for name in ("job", "own"):
        (tmp_path / name).mkdir()
    slurm, own = str(tmp_path / "job"), str(tmp_path / "own")
    assert choose(shell=shell, SLURM_TMPDIR=slurm, TMPDIR=own).stdout == f"{slurm}/likewise-{USER}\n"
    gone = choose(shell=shell, SLURM_TMPDIR="/gone", TMPDIR=own)
    assert gone.stdout == f"{own}/likewise-{USER}\n"
    assert gone.stderr == "likewise: /gone can't be entered: passed over as a place for the cache.\n"
    done = choose(shell=shell, SLURM_TMPDIR="relative", TMPDIR=own)
    assert (done.stdout, done.stderr) == (f"{own}/likewise-{USER}\n", "")


@pytest.mark.root
def test_home_is_the_last_resort(people: Ground) -> None:
    """Where nothing temporary can be written, the cache lies in the home, in folders made for the user alone, one for
    each machine that shares the home."""
    done = people.choose(ALICE, TMPDIR="")
    assert done.stdout == f"{people.home(ALICE)}/.cache/likewise/node/{host_name()}\n", done.stderr
    for name in (".cache", ".cache/likewise", ".cache/likewise/node", f".cache/likewise/node/{host_name()}"):
        assert (people.home(ALICE) / name).stat().st_mode & 0o7777 == 0o700


@pytest.mark.root
def test_home_may_keep_its_cache_elsewhere(people: Ground) -> None:
    """A ``~/.cache`` that its owner has linked to another disk is followed; it is the physical place that counts."""
    disk = people.root / "disk"
    disk.mkdir(mode=0o700)
    os.chown(disk, ALICE, ALICE)
    (people.home(ALICE) / ".cache").symlink_to(disk)
    done = people.choose(ALICE, TMPDIR="")
    assert done.stdout == f"{disk}/likewise/node/{host_name()}\n", done.stderr


def test_start_in_a_found_place(tmp_path: Path) -> None:
    """A node starts from nothing, and then from what is there, in the place that it has found."""
    launch = real_kit().launch(Path("auto"))
    env = clean_environ(TMPDIR=str(tmp_path))
    for _ in ("cold", "warm"):
        done = start(launch, "-c", WHERE, env=env)
        assert done.stdout == f"{USER} {tmp_path}/likewise-{USER}/prefixes/{launch.manifest[:16]}\n", done.stderr


def test_few_programs_are_needed(tmp_path: Path) -> None:
    """Besides the usual few programs only ls is needed to tell whose a place is, and its lack is said."""
    launch = real_kit().launch(Path("auto"))
    env = {"TMPDIR": str(tmp_path), "PATH": str(few_tools(tmp_path / "tools", "ls"))}
    assert start(launch, "-c", WHERE, shell=["/bin/sh"], env=env).stdout.startswith(f"{USER} {tmp_path}/")
    env["PATH"] = str(few_tools(tmp_path / "fewer"))
    done = start(launch, "-c", WHERE, shell=["/bin/sh"], env=env)
    assert done.returncode == 15 and done.stderr.startswith("likewise: There is no ls here")


# ---- what can be used


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a tmpfs with some options."""
    place = tmp_path / "mounted"
    place.mkdir()

    def mount(options: str) -> Path:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode=700,{options}", "likewise-test", place], check=True)
        return place

    yield mount
    subprocess.run(["umount", "-l", place], check=False)


@pytest.mark.root
@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    "options, why",
    [
        ("noexec", "nothing in {} can be executed: it seems to be mounted with noexec"),
        ("ro", "{} can't be made"),
        ("size=100m", "{} has not enough free space"),
        ("nr_inodes=1000", "{} has not enough free inodes"),
    ],
)
def test_unusable_places(mount: Callable[[str], Path], tmp_path: Path, shell: str, options: str, why: str) -> None:
    """A place from which nothing can be executed, or where too little can be written, gives way to the next."""
    place, other = mount(options), tmp_path / "other"
    other.mkdir()
    done = choose(shell=shell, SLURM_TMPDIR=str(place), TMPDIR=str(other))
    assert done.stdout == f"{other}/likewise-{USER}\n", done.stderr
    reason = why.format(place / f"likewise-{USER}")
    assert done.stderr == f"likewise: {reason}: passed over as a place for the cache.\n"


@pytest.mark.root
def test_needs_are_known(mount: Callable[[str], Path], tmp_path: Path) -> None:
    """What the caller knows to need decides, except about a place that holds a kit already."""
    place, other = mount("size=1g,nr_inodes=40000"), tmp_path / "other"
    other.mkdir()
    places = {"SLURM_TMPDIR": str(place), "TMPDIR": str(other)}
    assert choose("--need-bytes", "900000000", "--need-files", "30000", **places).stdout.startswith(f"{place}/")
    assert choose("--need-bytes", "1200000000", **places).stdout.startswith(f"{other}/")
    assert choose("--need-files", "50000", **places).stdout.startswith(f"{other}/")
    kit = place / f"likewise-{USER}/kits/0123456789abcdef"
    kit.mkdir()
    (kit / "python").touch()
    assert choose("--need-bytes", "1200000000", **places).stdout.startswith(f"{place}/")
    assert "are numbers" in choose("--need-bytes", "1e9", **places).stderr


# ---- who else could touch it

EVIL = "#!/bin/sh\necho ran > {}/$(id -u).$$\n"


def plant(people: Ground, cache: Path, owner: int) -> None:
    """Make a cache that looks complete, and in which everything is evil."""
    launch = people.launch()
    for name in (f"prefixes/{launch.manifest[:16]}/launch", f"kits/{launch.kit_id[:16]}/bin/python", "tmp/x"):
        path = cache / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(EVIL.format(people.evidence))
    (cache / f"kits/{launch.kit_id[:16]}/python").write_text("bin/python\n")
    for folder in ("leases", "used", "work", "agents", "layers"):
        (cache / folder).mkdir()
    for path in (cache, *cache.rglob("*")):
        path.chmod(0o777)
        os.chown(path, owner, owner)


def planted_folder(people: Ground) -> Path:
    plant(people, people.place(ALICE), MALLORY)
    return people.place(ALICE)


def planted_private_folder(people: Ground) -> Path:
    plant(people, people.place(ALICE), MALLORY)
    people.place(ALICE).chmod(0o755)
    return people.place(ALICE)


def planted_link(people: Ground) -> Path:
    target = people.shared / "nice"
    plant(people, target, MALLORY)
    people.place(ALICE).symlink_to(target)
    os.chown(people.place(ALICE), MALLORY, MALLORY, follow_symlinks=False)
    return target


def planted_link_to_her_own(people: Ground) -> Path:
    target = people.home(ALICE) / "precious"
    target.mkdir()
    (target / "file").write_text("precious")
    os.chown(target, ALICE, ALICE)
    people.place(ALICE).symlink_to(target)
    return target


def planted_in_her_open_folder(people: Ground) -> Path:
    plant(people, people.place(ALICE), MALLORY)
    os.chown(people.place(ALICE), ALICE, ALICE)
    return people.place(ALICE)


def planted_in_her_groups_folder(people: Ground) -> Path:
    plant(people, people.place(ALICE), MALLORY)
    os.chown(people.place(ALICE), ALICE, MALLORY)
    people.place(ALICE).chmod(0o770)
    return people.place(ALICE)


def planted_file(people: Ground) -> Path:
    people.place(ALICE).write_text(EVIL.format(people.evidence))
    os.chown(people.place(ALICE), MALLORY, MALLORY)
    return people.place(ALICE)


def dangling_link(people: Ground) -> Path:
    people.place(ALICE).symlink_to(people.shared / "made-by-her")
    return people.shared


@pytest.mark.root
@pytest.mark.parametrize(
    "trap",
    [
        planted_folder,
        planted_private_folder,
        planted_link,
        planted_link_to_her_own,
        planted_in_her_open_folder,
        planted_in_her_groups_folder,
        planted_file,
        dangling_link,
    ],
)
def test_what_somebody_else_made_is_passed_over(people: Ground, trap: Callable[[Ground], Path]) -> None:
    """Whatever stands in the place's name, a node runs nothing of it, reads and writes nothing there, and says so."""
    touched = trap(people)
    before = everything(touched)
    done = people.start(ALICE, WHERE, HOME=str(people.kept))
    home = people.kept / ".cache/likewise/node" / host_name()
    assert done.stdout == f"{ALICE} {home}/prefixes/{people.launch().manifest[:16]}\n", done.stderr
    assert done.stderr.startswith(f"likewise: {people.place(ALICE)} ")
    assert "passed over as a place for the cache.\n" in done.stderr
    assert everything(touched) == before
    assert os.listdir(people.evidence) == []


@pytest.mark.root
@pytest.mark.parametrize("trap", [planted_folder, planted_link, planted_in_her_open_folder])
def test_named_caches_are_looked_at_as_well(people: Ground, trap: Callable[[Ground], Path]) -> None:
    """A cache that was named and is not safe is refused in one sentence, and nothing in it is touched."""
    touched = trap(people)
    before = everything(touched)
    launch = people.launch(cache=str(people.place(ALICE)))
    done = people.run(ALICE, [*launch.argv(), "-c", WHERE])
    assert (done.returncode, done.stdout) == (15, "")
    assert done.stderr.startswith(f"likewise: {people.place(ALICE)} ") and len(done.stderr.splitlines()) == 1
    assert everything(touched) == before
    assert os.listdir(people.evidence) == []


@pytest.mark.root
@pytest.mark.parametrize("name", ["prefixes", "kits", "leases", "tmp", "used", "work", "agents"])
@pytest.mark.parametrize("kind", ["link", "theirs"])
def test_folders_in_the_cache_are_looked_at(people: Ground, name: str, kind: str) -> None:
    """A link, or somebody else's folder, within a cache that is the user's own is refused in one sentence."""
    cache = people.place(ALICE)
    plant(people, people.shared / "nice", MALLORY)
    cache.mkdir(mode=0o700)
    if kind == "link":
        (cache / name).symlink_to(people.shared / "nice")
    else:
        (cache / name).mkdir()
        os.chown(cache / name, MALLORY, MALLORY)
    os.chown(cache, ALICE, ALICE)
    before = everything(people.shared / "nice")
    done = people.start(ALICE, WHERE, HOME="")
    assert (done.returncode, done.stdout) == (15, "")
    problem = "is not a directory of its own" if kind == "link" else "belongs to another user"
    assert done.stderr.splitlines()[0].startswith(f"likewise: {cache}/{name} {problem}. ")
    assert everything(people.shared / "nice") == before
    assert os.listdir(people.evidence) == []


@pytest.mark.root
@pytest.mark.parametrize(
    "owner, group, mode, why",
    [
        (MALLORY, MALLORY, 0o1777, "belongs to another user"),
        (0, 0, 0o777, "can be written by everybody"),
        (0, MALLORY, 0o770, "can't be entered"),
        (0, MALLORY, 0o775, "can be written by its group"),
        (0, MALLORY, 0o1777, ""),
        (ALICE, MALLORY, 0o775, ""),
    ],
)
def test_folders_above_are_looked_at(people: Ground, owner: int, group: int, mode: int, why: str) -> None:
    """A place in a folder whose entries somebody else can exchange is no place, however private it is itself."""
    above = people.shared / "above"
    (above / "below").mkdir(parents=True)
    os.chown(above / "below", ALICE, ALICE)
    above.chmod(mode)
    os.chown(above, owner, group)
    done = people.choose(ALICE, TMPDIR=str(above / "below"))
    if why:
        assert done.stdout == f"{people.home(ALICE)}/.cache/likewise/node/{host_name()}\n"
        assert f"{above}" in done.stderr and why in done.stderr
    else:
        assert (done.stdout, done.stderr) == (f"{above}/below/likewise-{ALICE}\n", "")


@pytest.mark.root
def test_no_place_at_all(people: Ground) -> None:
    """Where no place is safe the node does not start, and says of each one why."""
    planted_folder(people)
    done = people.start(ALICE, WHERE, HOME="")
    assert (done.returncode, done.stdout) == (15, "")
    passed, private, said = done.stderr.splitlines()
    assert "belongs to another user" in passed and "/tmp/" in private
    assert said.startswith("likewise: No place for the node's cache is both safe and usable")


@pytest.mark.root
def test_users_do_not_meet(people: Ground) -> None:
    """Two users of a machine each have a cache in the shared folder, and neither can look into the other's."""
    for user in (ALICE, MALLORY):
        assert people.start(user, WHERE).stdout.startswith(f"{user} {people.place(user)}/")
    before = everything(people.place(ALICE))
    peek = people.run(MALLORY, ["ls", str(people.place(ALICE))])
    assert peek.returncode != 0
    done = people.run(MALLORY, [*people.launch(cache=str(people.place(ALICE))).argv(), "-c", WHERE])
    assert done.returncode == 15 and "belongs to another user" in done.stderr
    assert everything(people.place(ALICE)) == before


def race(place: Path, target: Path) -> None:
    """Make and remove things at `place`, for ever."""
    while True:
        for make in (lambda: place.symlink_to(target), lambda: place.mkdir(0o777)):
            with contextlib.suppress(OSError):
                make()
                place.unlink() if place.is_symlink() else place.rmdir()


@pytest.mark.root
def test_races_are_lost_by_the_attacker(people: Ground) -> None:
    """While somebody makes and removes links and folders of that name all the time, only the user's own is used."""
    target, in_home = people.shared / "target", people.home(ALICE) / ".cache/likewise/node" / host_name()
    target.mkdir()
    target.chmod(0o777)
    os.chown(target, MALLORY, MALLORY)
    racer = os.fork()
    if racer == 0:
        try:
            os.setgroups([])
            os.setgid(MALLORY)
            os.setuid(MALLORY)
            race(people.place(ALICE), target)
        finally:
            os._exit(1)
    try:
        for _ in range(6):
            done = people.choose(ALICE)
            place = Path(done.stdout.rstrip("\n"))
            assert place in (people.place(ALICE), in_home), done.stderr
            found = place.lstat()
            assert (found.st_uid, found.st_mode) == (ALICE, 0o40700)
            shutil.rmtree(place)
        assert os.waitpid(racer, os.WNOHANG) == (0, 0)
    finally:
        os.kill(racer, signal.SIGKILL)
        os.waitpid(racer, 0)
    assert os.listdir(target) == []
