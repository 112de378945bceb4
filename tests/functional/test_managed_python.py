"""uv's Python for another platform, downloaded from a site on loopback and made into an interpreter layer."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from likewise.errors import LayerError, UnsupportedError
from likewise.events import Event, Silent, StageAdvanced, StageFinished, StageStarted
from likewise.layers.interpreter import interpreter_source
from likewise.layers.managed import Offer, bytecode_magic, choose_python, managed_interpreter, offers
from likewise.layers.standalone import Standalone
from likewise.model.layer import LayerSource
from likewise.model.target import Platform
from likewise.scanner.probe import probe_python
from support.masking import masked
from support.prefixes import run
from support.replica import NoFacts, unpack
from support.standalone import Site, link, own_tree, pack, serve_site, toy_tree, write

ABILITIES = Path(__file__).parent.parent / "support" / "abilities.py"
ARM = Platform(os="linux", arch="aarch64", libc="glibc", libc_version="2.28")
INTEL = Platform(os="linux", arch="x86_64", libc="glibc", libc_version="2.28")
OWN = probe_python(sys.executable).interpreter
CANARY = "canary-7f3a9"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A download site that offers nothing yet."""
    (tmp_path / "site").mkdir()
    with serve_site(tmp_path / "site") as site:
        yield site


@pytest.fixture
def toy(tmp_path: Path) -> bytes:
    """The archive of a Python 3.11.7 for aarch64 that can't run."""
    return pack(toy_tree(tmp_path / "toy"))


class Heard:
    """Keeps all events."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def report(self, event: Event) -> None:
        """Keep it."""
        self.events.append(event)


def only(site: Site, platform: Platform = ARM) -> Offer:
    """The one Python that is offered."""
    (offer,) = offers(platform, environ=site.environ())
    return offer


def get(site: Site, work: Path, platform: Platform = ARM) -> LayerSource:
    """The layer of the one Python that is offered."""
    return managed_interpreter(only(site, platform), work=work, reporter=Silent(), environ=site.environ())


def left_over(work: Path) -> list[str]:
    """What is in the folder of downloaded Pythons."""
    return sorted(path.name for path in (work / "managed").iterdir())


def test_uv_offers_both_processors_without_a_network() -> None:
    """uv knows by itself which Pythons there are: every version that likewise supports, for both processors."""
    for platform in (INTEL, ARM):
        found = offers(platform, environ={"UV_OFFLINE": "1", "PATH": os.defpath, "HOME": "/nowhere"})
        minors = {one.version.rpartition(".")[0] for one in found}
        assert {"3.10", "3.11", "3.12", "3.13", "3.14"} <= minors
        assert {one.key.rsplit("-", 3)[2] for one in found} == {platform.arch}
        assert len({one.version for one in found}) == len(found)  # no free-threaded builds, no PyPy, no musl


def test_a_preference_for_the_clients_own_pythons_is_not_about_the_nodes() -> None:
    """Settings that say which Python the client's projects use leave the offers as they are."""
    base = {"PATH": os.defpath, "HOME": "/nowhere"}
    plain = offers(ARM, environ=base)
    assert offers(ARM, environ={**base, "UV_NO_MANAGED_PYTHON": "1"}) == plain != ()
    assert offers(ARM, environ={**base, "UV_PYTHON_PREFERENCE": "only-system"}) == plain


def test_a_list_of_ones_own_replaces_uvs(site: Site, toy: bytes) -> None:
    """UV_PYTHON_DOWNLOADS_JSON_URL is the whole offer; other C libraries and builds are not mixed in."""
    site.offer("3.11.7", "aarch64", toy)
    site.offer("3.11.9", "aarch64", toy, libc="musl")
    site.offer("3.11.8", "aarch64", toy, variant="freethreaded")
    site.offer("3.11.6", "x86_64", toy)
    assert [one.version for one in offers(ARM, environ=site.environ())] == ["3.11.7"]
    musl = Platform(os="linux", arch="aarch64", libc="musl", libc_version="1.2")
    assert [one.version for one in offers(musl, environ=site.environ())] == ["3.11.9"]


def test_a_list_that_is_not_there_is_an_error_in_uvs_words(tmp_path: Path) -> None:
    """The error names the setting and has what uv said."""
    environ = {"UV_PYTHON_DOWNLOADS_JSON_URL": str(tmp_path / "none.json"), "PATH": os.defpath}
    with pytest.raises(LayerError, match="UV_PYTHON_DOWNLOADS_JSON_URL") as caught:
        offers(ARM, environ=environ)
    assert "none.json" in caught.value.details["output"]


@pytest.mark.parametrize("os_name", ["macos", "windows"])
def test_no_python_for_nodes_that_are_not_linux(os_name: str) -> None:
    """Nodes run Linux."""
    with pytest.raises(UnsupportedError, match=os_name):
        offers(Platform(os=os_name, arch="aarch64"))


def test_the_layer_has_what_runs_and_nothing_else(site: Site, toy: bytes, tmp_path: Path) -> None:
    """The program, its libraries, the standard library and the headers; no tests, static libraries, pip, bytecode."""
    site.offer("3.11.7", "aarch64", toy)
    layer = get(site, tmp_path / "work")
    assert (layer.kind.value, layer.name, layer.version) == ("interpreter", "cpython", "3.11.7")
    stdlib = "interpreter/lib/python3.11"
    assert {f.entry.path for f in layer.files} - {"interpreter/ssl/cert.pem"} == {
        "interpreter/bin/python",
        "interpreter/bin/python3",
        "interpreter/bin/python3.11",
        "interpreter/lib/libpython3.11.so.1.0",
        "interpreter/lib/libtoy.so.1",
        f"{stdlib}/os.py",
        f"{stdlib}/importlib/_bootstrap_external.py",
        f"{stdlib}/lib-dynload/_toy.cpython-311.so",
        f"{stdlib}/_sysconfigdata__linux_aarch64-linux-gnu.py",
        f"{stdlib}/config-3.11-aarch64-linux-gnu/Makefile",
        "interpreter/include/python3.11/Python.h",
        "interpreter/include/python3.11/internal/pycore_code.h",
        "interpreter/include/python3.11/patchlevel.h",
    }
    assert [f.entry.path for f in layer.files if f.entry.executable] == ["interpreter/bin/python3.11"]
    assert {f.entry.path: f.entry.link for f in layer.files if f.entry.link} == {
        "interpreter/bin/python": "python3.11",
        "interpreter/bin/python3": "python3.11",
    }


def test_no_file_says_where_it_was_unpacked(site: Site, toy: bytes, tmp_path: Path) -> None:
    """Two clients with folders of other names get the same layer, and none of its files names a folder of theirs."""
    site.offer("3.11.7", "aarch64", toy)
    first, second = (get(site, tmp_path / name) for name in ("one", "another"))
    assert first.digest == second.digest
    contents = [Path(f.path).read_bytes() for f in first.files if f.path]
    assert len(contents) > 8
    assert [c for c in contents if os.fsencode(tmp_path) in c] == []


def test_a_second_use_downloads_nothing(site: Site, toy: bytes, tmp_path: Path) -> None:
    """The layer is kept: the site is not asked again, and nobody hears of a download."""
    site.offer("3.11.7", "aarch64", toy)
    first = get(site, tmp_path)
    assert len(site.asked) == 1
    heard = Heard()
    nowhere = {**site.environ(), "UV_PYTHON_INSTALL_MIRROR": "http://127.0.0.1:9"}
    again = managed_interpreter(only(site), work=tmp_path, reporter=heard, environ=nowhere)
    assert (again.digest, len(site.asked), heard.events) == (first.digest, 1, [])
    assert len(left_over(tmp_path)) == 1


@pytest.mark.parametrize("damage", ["file", "record"])
def test_what_was_damaged_is_downloaded_again(damage: str, site: Site, toy: bytes, tmp_path: Path) -> None:
    """A file cut short, or a record that makes no sense, costs a download and nothing else."""
    site.offer("3.11.7", "aarch64", toy)
    first = get(site, tmp_path)
    (folder,) = (tmp_path / "managed").iterdir()
    os.truncate(folder / ("files/interpreter/lib/python3.11/os.py" if damage == "file" else "record.json"), 3)
    again = get(site, tmp_path)
    assert (again.digest, len(site.asked)) == (first.digest, 2)
    assert left_over(tmp_path) == [folder.name]
    assert all(os.path.getsize(f.path) == f.entry.size for f in again.files if f.path)


def test_a_new_build_of_a_version_is_another_python(site: Site, toy: bytes, tmp_path: Path) -> None:
    """The same version is offered anew, under another address: what is kept of the old build is not it."""
    site.offer("3.11.7", "aarch64", toy)
    get(site, tmp_path / "work")
    listed = site.folder / "downloads.json"
    listed.write_text(listed.read_text().replace("20240107", "20240415"))
    newer = toy_tree(tmp_path / "newer")
    (newer / "lib/python3.11/os.py").write_text("sep = '/'  # built anew\n")
    archive = pack(newer)
    site.served = {path.replace("20240107", "20240415"): archive for path in site.served}
    listed.write_text(json.dumps({k: {**v, "sha256": None} for k, v in json.loads(listed.read_text()).items()}))
    layer = get(site, tmp_path / "work")
    assert any(f.path and b"built anew" in Path(f.path).read_bytes() for f in layer.files)


def test_a_wrong_hash_is_refused_and_leaves_nothing(site: Site, toy: bytes, tmp_path: Path) -> None:
    """What the mirror gives is not what uv knows: an error that says so, and no file of it."""
    site.offer("3.11.7", "aarch64", toy, sha256="0" * 64)
    with pytest.raises(LayerError) as caught:
        get(site, tmp_path)
    assert "0" * 64 in caught.value.details["output"]
    assert left_over(tmp_path) == []


def test_uvs_own_hashes_guard_a_mirror(site: Site, toy: bytes, tmp_path: Path) -> None:
    """With nothing set but the mirror, its archive must be the very one that uv was built to know."""
    environ = {k: v for k, v in site.environ().items() if k != "UV_PYTHON_DOWNLOADS_JSON_URL"}
    offer, _ = choose_python("3.11.7", ARM, offers(ARM, environ=environ), strict=True)
    name = "/20240107/cpython-3.11.7%2B20240107-aarch64-unknown-linux-gnu-install_only.tar.gz"
    site.served[name] = toy
    with pytest.raises(LayerError) as caught:
        managed_interpreter(offer, work=tmp_path, reporter=Silent(), environ=environ)
    assert [path.replace("+", "%2B") for path in site.asked] == [name]
    assert "hash" in caught.value.details["output"].lower()


@pytest.mark.parametrize("fault", ["missing", "cut", "no archive"])
def test_a_failed_download_leaves_nothing(fault: str, site: Site, toy: bytes, tmp_path: Path) -> None:
    """404, a connection that breaks, a page where an archive should be: an error in uv's words, and no file."""
    site.offer("3.11.7", "aarch64", toy, sha256=None)
    path = next(iter(site.served))
    site.cut = fault == "cut"
    if fault == "missing":
        del site.served[path]
    elif fault == "no archive":
        site.served[path] = b"<html>Please log in</html>"
    with pytest.raises(LayerError, match=r"cpython-3\.11\.7-linux-aarch64-gnu") as caught:
        get(site, tmp_path)
    assert caught.value.details["output"]
    assert left_over(tmp_path) == []


def test_a_wish_for_no_downloads_is_respected(site: Site, toy: bytes, tmp_path: Path) -> None:
    """UV_PYTHON_DOWNLOADS=never: the error says what forbids it."""
    site.offer("3.11.7", "aarch64", toy)
    environ = {**site.environ(), "UV_PYTHON_DOWNLOADS": "never"}
    with pytest.raises(LayerError, match="UV_PYTHON_DOWNLOADS"):
        managed_interpreter(only(site), work=tmp_path, reporter=Silent(), environ=environ)
    assert site.asked == []


def test_the_settings_may_stand_in_uvs_own_file(
    site: Site, toy: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """List and mirror in a uv.toml, which uv finds from the working directory, count like the variables."""
    site.offer("3.11.7", "aarch64", toy)
    environ = site.environ()
    names = ("UV_PYTHON_DOWNLOADS_JSON_URL", "UV_PYTHON_INSTALL_MIRROR")
    settings = [f"{name[3:].lower().replace('_', '-')} = '{environ.pop(name)}'\n" for name in names]
    (tmp_path / "uv.toml").write_text("".join(settings))
    monkeypatch.chdir(tmp_path)
    (offer,) = offers(ARM, environ=environ)
    layer = managed_interpreter(offer, work=tmp_path / "work", reporter=Silent(), environ=environ)
    assert (layer.version, len(site.asked)) == ("3.11.7", 1)


def test_the_mirrors_password_is_used_and_never_shown(site: Site, toy: bytes, tmp_path: Path) -> None:
    """It goes to the mirror in a header; it is in no error, no file and no event."""
    site.offer("3.11.7", "aarch64", toy)
    environ, heard = site.environ(user=f"me:{CANARY}"), Heard()
    assert offers(ARM, environ=environ) == offers(ARM, environ=site.environ())  # kept under the same name
    layer = managed_interpreter(only(site), work=tmp_path / "work", reporter=heard, environ=environ)
    assert "authorization: Basic " in "\n".join(site.headers).replace("Authorization", "authorization")
    site.served.clear()
    with pytest.raises(LayerError) as caught:
        managed_interpreter(only(site), work=tmp_path / "other", reporter=heard, environ=environ)
    said = f"{caught.value!r} {caught.value} {caught.value.details} {heard.events} {layer}"
    assert "127.0.0.1" in said
    assert CANARY not in said
    files = [path for path in (tmp_path / "work").rglob("*") if path.is_file()]
    assert [path for path in files if CANARY.encode() in path.read_bytes()] == []


@pytest.mark.parametrize("place", ["/t/{}/", "/{}/", "/?token={}&x="])
def test_a_token_in_the_mirrors_address_is_never_shown(place: str, site: Site, toy: bytes, tmp_path: Path) -> None:
    """In its path or its query: an error has the mirror's host and no more of it, wherever uv repeats the address."""
    site.offer("3.11.7", "aarch64", toy)
    offer, environ = only(site), site.environ()
    secret = {**environ, "UV_PYTHON_INSTALL_MIRROR": site.url + place.format(CANARY)}
    with pytest.raises(LayerError) as caught:
        managed_interpreter(offer, work=tmp_path / "work", reporter=Silent(), environ=secret)
    listed = {**environ, "UV_PYTHON_DOWNLOADS_JSON_URL": site.url + place.format(CANARY)}
    with pytest.raises(LayerError) as other:
        offers(ARM, environ=listed)
    for error in (caught.value, other.value):
        assert "127.0.0.1" in error.details["output"]
        assert CANARY not in f"{error!r} {error} {error.details}"


@pytest.mark.parametrize(
    "member",
    [
        link("python/lib/python3.11/stolen.py", "/etc/passwd"),
        link("python/lib/python3.11/stolen.py", "../../../../../../../../etc/passwd"),
        link("python/lib/python3.11/folder", "/etc"),
        tarfile.TarInfo("../../escaped"),
        tarfile.TarInfo("python/../../../escaped"),
        tarfile.TarInfo("/tmp/likewise-escaped"),
    ],
    ids=lambda member: f"{member.name}-{member.linkname}",
)
def test_nothing_leaves_the_folder(member: tarfile.TarInfo, site: Site, tmp_path: Path) -> None:
    """A hostile archive whose hash nobody knows writes nothing outside, and nothing from outside is in a layer."""
    site.offer("3.11.7", "aarch64", pack(toy_tree(tmp_path / "toy"), member), sha256=None)
    before = sorted(path.name for path in tmp_path.iterdir())
    try:
        layer = get(site, tmp_path / "work")
    except LayerError:
        assert left_over(tmp_path / "work") == []
    else:
        shipped = [Path(f.path).read_bytes() for f in layer.files if f.path]
        assert [content for content in shipped if b"root:" in content] == []
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*before, "work"])
    assert not os.path.lexists("/tmp/likewise-escaped")


@pytest.mark.parametrize("place", ["lib/python3.11/stolen.py", "include/python3.11/stolen.h", "bin/python3.11"])
def test_a_link_out_of_a_tree_is_never_followed(place: str, tmp_path: Path) -> None:
    """Whatever unpacked the tree: a file that leads out of it is refused by name."""
    tree = toy_tree(tmp_path / "toy")
    (tree / place).unlink(missing_ok=True)
    (tree / place).symlink_to("/bin/sh" if place.startswith("bin") else "/etc/passwd")
    standalone = Standalone(tree, version="3.11.7", arch="aarch64", where="toy")
    with pytest.raises(LayerError, match=f"{place}, which is a link out of it"):
        standalone.lay_out(tmp_path / "out")


def test_events_tell_how_far_a_slow_download_is(site: Site, toy: bytes, tmp_path: Path) -> None:
    """A stage with bytes that begins, advances while uv unpacks, and ends."""
    site.offer("3.11.7", "aarch64", toy)
    site.pause = 1.5
    heard = Heard()
    managed_interpreter(only(site), work=tmp_path, reporter=heard, environ=site.environ())
    first, *middle, last = heard.events
    assert isinstance(first, StageStarted)
    assert isinstance(last, StageFinished)
    assert "3.11.7" in last.summary
    assert all(isinstance(event, StageAdvanced) and event.amount > 0 for event in middle)
    assert middle != []


def test_two_processes_that_start_at_once_agree(site: Site, toy: bytes, tmp_path: Path) -> None:
    """Both end with the same layer, and one copy is kept."""
    site.offer("3.11.7", "aarch64", toy)
    site.pause = 0.5
    code = (
        "import sys; from pathlib import Path; from likewise.events import Silent;"
        "from likewise.layers.managed import Offer, managed_interpreter, offers;"
        "from likewise.model.target import Platform;"
        "(one,) = offers(Platform(os='linux', arch='aarch64', libc='glibc'));"
        "print(managed_interpreter(one, work=Path(sys.argv[1]), reporter=Silent()).digest)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "work")]
    environ = {**os.environ, **site.environ()}
    both = [subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    first, second = (process.communicate()[0].strip() for process in both)
    assert first == second
    assert len(first) == 64
    assert len(left_over(tmp_path / "work")) == 1


def test_an_interrupted_download_leaves_nothing(site: Site, toy: bytes, tmp_path: Path) -> None:
    """Ctrl-C while the archive is under way: uv ends too, and no half Python is there."""
    site.offer("3.11.7", "aarch64", toy)
    site.pause = 60
    code = (
        "import sys; from pathlib import Path; from likewise.events import Silent;"
        "from likewise.layers.managed import Offer, managed_interpreter, offers;"
        "one = Offer(version='3.11.7', key='cpython-3.11.7-linux-aarch64-gnu', platform=None);"
        "managed_interpreter(one, work=Path(sys.argv[1]), reporter=Silent())"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "work")]
    process = subprocess.Popen(command, env={**os.environ, **site.environ()}, stderr=subprocess.PIPE)
    assert site.waiting.wait(30)
    process.send_signal(signal.SIGINT)
    assert b"KeyboardInterrupt" in process.communicate(timeout=30)[1]
    assert left_over(tmp_path / "work") == []


def test_what_a_killed_process_left_is_removed_later(site: Site, toy: bytes, tmp_path: Path) -> None:
    """Downloads that nobody finished for a day, and Pythons unused for a month, go with the next download."""
    site.offer("3.11.7", "aarch64", toy)
    managed = tmp_path / "managed"
    long_ago = time.time() - 40 * 86400
    for name in (".download-old", ".download-new", "cpython-old", "cpython-new"):
        (managed / name).mkdir(parents=True)
        (managed / name / "record.json").touch()
        if name.endswith("old"):
            os.utime(managed / name / "record.json", (long_ago, long_ago))
            os.utime(managed / name, (long_ago, long_ago))
    get(site, tmp_path)
    assert len(left_over(tmp_path)) == 3
    assert {".download-new", "cpython-new"} < set(left_over(tmp_path))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bin/python3.11": b"#!/bin/sh\n"}, "no ELF file"),
        ({"include/python3.11/patchlevel.h": b'#define PY_VERSION "3.11.6"\n'}, "is 3.11.6"),
        ({"include/python3.11/patchlevel.h": b"nothing"}, "no known version"),
    ],
    ids=["program", "version", "header"],
)
def test_another_python_than_the_offered_one_is_refused(
    change: dict[str, bytes], said: str, site: Site, tmp_path: Path
) -> None:
    """An archive that is not what its name says never becomes a layer."""
    tree = toy_tree(tmp_path / "toy")
    write(tree, change)
    site.offer("3.11.7", "aarch64", pack(tree))
    with pytest.raises(LayerError, match=said):
        get(site, tmp_path)
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("missing", ["bin/python3.11", "include/python3.11/patchlevel.h", "lib/libpython3.11.so.1.0"])
def test_a_tree_that_lacks_a_part_is_refused(missing: str, site: Site, tmp_path: Path) -> None:
    """Without program, headers or its own library it is no Python that runs elsewhere; the part is named."""
    tree = toy_tree(tmp_path / "toy")
    (tree / missing).unlink()
    site.offer("3.11.7", "aarch64", pack(tree))
    with pytest.raises(LayerError, match=Path(missing).name.replace("+", r"\+")):
        get(site, tmp_path)


def test_a_python_for_another_processor_is_refused(site: Site, tmp_path: Path) -> None:
    """The program's own header says for which processor it is."""
    site.offer("3.11.7", "aarch64", pack(toy_tree(tmp_path / "toy", arch="x86_64")))
    with pytest.raises(LayerError, match="for x86_64"):
        get(site, tmp_path)


def test_a_work_folder_that_cannot_be_written_is_named(site: Site, toy: bytes, tmp_path: Path) -> None:
    """A file where the folder should be gives an error that names the place."""
    site.offer("3.11.7", "aarch64", toy)
    (tmp_path / "work").write_text("in the way")
    with pytest.raises(LayerError, match="work"):
        get(site, tmp_path / "work")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The archive of a Python that runs here."""
    return pack(own_tree(OWN, tmp_path_factory.mktemp("real")))


@pytest.mark.root
def test_the_downloaded_python_runs_in_any_folder(real: bytes, site: Site, tmp_path: Path) -> None:
    """With its original masked it can all that the original can, and its build variables name its own folder."""
    site.offer(OWN.version, OWN.platform.arch, real)
    layer = get(site, tmp_path / "work", OWN.platform)
    python = unpack([layer], tmp_path / "prefix", OWN.python)
    hide: list[str | Path] = [tmp_path / "work", *([] if OWN.base_prefix == "/usr" else [OWN.base_prefix])]
    answers = json.loads(masked([python, "-I", ABILITIES, "abilities"], hide, check=True).stdout)
    original = json.loads(run(OWN.executable, "-I", "-B", ABILITIES, "abilities"))
    assert {k for k, v in answers.items() if v == "ok"} >= {k for k, v in original.items() if v == "ok"} != set()
    mapped = json.loads(masked([python, "-I", ABILITIES, "files"], hide, check=True).stdout)
    assert [p for p in mapped if "libpython" in p and not p.startswith(str(tmp_path / "prefix"))] == []
    paths = "import sysconfig; print([v for v in sysconfig.get_config_vars().values() if '/install' in str(v)])"
    assert run(python, "-I", "-c", paths) == "[]\n"
    place = "import sysconfig; print(sysconfig.get_config_var('LIBDIR'))"
    assert run(python, "-I", "-c", place) == f"{tmp_path}/prefix/interpreter/lib\n"


def test_the_magic_number_is_known_without_running_it(real: bytes, site: Site, toy: bytes, tmp_path: Path) -> None:
    """Read from the layer's sources; the same that the Python itself would say."""
    site.offer(OWN.version, OWN.platform.arch, real)
    assert bytecode_magic(get(site, tmp_path / "own", OWN.platform)) == importlib.util.MAGIC_NUMBER.hex()
    site.offered.clear()
    site.offer("3.11.7", "aarch64", toy)
    assert bytecode_magic(get(site, tmp_path / "toy")) == "a70d0d0a"


@pytest.mark.parametrize(
    "executable",
    [
        home / "bin/python3"
        for home in sorted(Path(OWN.base_prefix).parent.glob("3.[1-9][0-9]*"))
        if (home / "bin/python3").exists()
    ]
    or [Path(sys.executable)],
    ids=lambda path: path.parent.parent.name,
)
def test_every_version_says_its_magic_number(executable: Path, tmp_path: Path) -> None:
    """As its own importlib does, for every Python that is installed here."""
    layer, _ = interpreter_source(probe_python(executable).interpreter, facts=NoFacts(), work=tmp_path)
    said = run(executable, "-c", "import importlib.util; print(importlib.util.MAGIC_NUMBER.hex())").strip()
    assert bytecode_magic(layer) == said
