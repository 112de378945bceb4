"""Whose a file is when no RECORD says so, and when two do."""

from __future__ import annotations

from pathlib import Path

import pytest

from likewise.model.digest import Digest
from likewise.model.layer import LayerKind, layer_source
from likewise.scanner.files import DistFiles, find_unlisted, list_files, settle
from support.prefixes import UV, make_venv, run
from support.wheels import NoFacts, contents, layout_of, site_packages, write_wheel


def write(site: Path, *names: str) -> None:
    """Files whose content is their name."""
    for name in names:
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(name)


def add_dist(site: Path, name: str, *files: str) -> None:
    """A distribution with a RECORD that lists `files`."""
    write(site, *files, f"{name}-1.dist-info/METADATA")
    rows = [*files, f"{name}-1.dist-info/METADATA", f"{name}-1.dist-info/RECORD"]
    (site / f"{name}-1.dist-info/RECORD").write_text("".join(f"{row},,\n" for row in rows))


def read_all(site: Path) -> tuple[dict[str, DistFiles], list[str]]:
    """Every distribution by the stem of its metadata, and what is left, relative to the site directory."""
    infos = [*sorted(site.glob("*-info"), reverse=True), *site.glob("*.egg/EGG-INFO")]
    listings = [list_files(info, layout=layout_of(site)) for info in infos]
    left = find_unlisted(listings)
    results = settle(listings, NoFacts())
    names = [(i.parent if i.name == "EGG-INFO" else i).name.partition("-")[0] for i in infos]
    return dict(zip(names, results, strict=True)), [str(Path(p).relative_to(site)) for p in left]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """An empty site directory."""
    site = tmp_path / "prefix/lib/python3.11/site-packages"
    site.mkdir(parents=True)
    return site


def test_an_unlisted_file_belongs_to_the_package_it_lies_in(site: Path) -> None:
    """In new folders of the package and in the dist-info too; a note says how many."""
    add_dist(site, "a", "a/__init__.py", "a/sub/x.py")
    add_dist(site, "b", "b/__init__.py")
    extra = ["a/extra.py", "a/new/deep/data.bin", "a/sub/.hidden", "a-1.dist-info/note.txt"]
    write(site, *extra, "a/__pycache__/extra.cpython-311.pyc", "a/sub/x.pyc", "loose.py", "loose/mod.py", "x.pth")
    found, left = read_all(site)
    assert found["a"].unlisted == tuple(sorted(f"purelib/{name}" for name in extra))
    assert {f"purelib/{name}" for name in extra} <= {f.entry.path for f in found["a"].files}
    assert [p.code for p in found["a"].problems] == ["unlisted-files"]
    assert found["b"].unlisted == () and found["b"].problems == ()
    assert left == ["loose", "loose.py", "x.pth"]


def test_namespace_packages_own_nothing(site: Path) -> None:
    """In a folder that several share, a file goes to whoever has files right there, or to nobody."""
    add_dist(site, "one", "ns/one/__init__.py")
    add_dist(site, "two", "ns/two/__init__.py", "shared/two.py")
    add_dist(site, "three", "shared/sub/three.py")
    write(site, "ns/one/extra.py", "ns/mine.py", "ns/mine/mod.py", "shared/extra.py", "shared/new/extra.py")
    found, left = read_all(site)
    assert found["one"].unlisted == ("purelib/ns/one/extra.py",)
    assert found["two"].unlisted == ("purelib/shared/extra.py", "purelib/shared/new/extra.py")
    assert found["three"].unlisted == ()
    assert left == ["ns/mine.py", "ns/mine/mod.py"]


def test_a_file_among_those_of_two_owners_goes_to_the_first_by_name(site: Path) -> None:
    """Whatever the order in which the distributions were found."""
    add_dist(site, "zeta", "both/__init__.py")
    add_dist(site, "alpha", "both/__init__.py")
    write(site, "both/extra.py")
    found, left = read_all(site)
    assert found["alpha"].unlisted == ("purelib/both/extra.py",)
    assert found["zeta"].unlisted == ()
    assert "purelib/both/__init__.py" in {f.entry.path for f in found["zeta"].files}
    assert left == []


def test_egg_info_with_installed_files(site: Path) -> None:
    """Paths are relative to the egg-info; scripts and data come along."""
    write(site, "old/__init__.py", "old-1.egg-info/PKG-INFO", "old-1.egg-info/top_level.txt", "other.py")
    write(site.parents[2], "bin/old-tool", "share/old/a.txt")
    (site / "old-1.egg-info/installed-files.txt").write_text(
        "../old/__init__.py\n../old/__pycache__/__init__.cpython-311.pyc\n../../../../bin/old-tool\n"
        "../../../../share/old/a.txt\nPKG-INFO\ntop_level.txt\n"
    )
    found, left = read_all(site)
    assert [f.entry.path for f in found["old"].files] == [
        "data/share/old/a.txt",
        "purelib/old-1.egg-info/PKG-INFO",
        "purelib/old-1.egg-info/installed-files.txt",
        "purelib/old-1.egg-info/top_level.txt",
        "purelib/old/__init__.py",
        "scripts/old-tool",
    ]
    assert found["old"].missing == () and left == ["other.py"]


@pytest.mark.parametrize(
    ("trace", "text"),
    [
        ("top_level.txt", "old\n_old\nold_mod\n"),
        ("SOURCES.txt", "setup.py\nsrc/old/__init__.py\nold_mod/__init__.py\n"),
    ],
)
def test_egg_info_with_names_only(site: Path, trace: str, text: str) -> None:
    """What goes by its top-level names and belongs to nobody else: packages, modules, extension modules."""
    add_dist(site, "neighbour", "old/neighbour.py")
    write(site, "old/__init__.py", "old/sub/x.txt", "old/__pycache__/y.pyc", "old-1.egg-info/PKG-INFO", "older.py")
    write(site, "_old.cpython-311-x86_64-linux-gnu.so", "old_mod.py")
    (site / "old-1.egg-info" / trace).write_text(text)
    found, left = read_all(site)
    expected = {"purelib/old/sub/x.txt", "purelib/old-1.egg-info/PKG-INFO", f"purelib/old-1.egg-info/{trace}",
                "purelib/old_mod.py"}  # fmt: skip
    if trace == "top_level.txt":
        expected |= {"purelib/_old.cpython-311-x86_64-linux-gnu.so"}
    shipped = {f.entry.path for f in found["old"].files}
    assert expected <= shipped
    assert "purelib/old/neighbour.py" not in shipped
    assert "older.py" in left and not any("pyc" in path for path in shipped)


def test_egg_info_that_is_a_single_file(site: Path) -> None:
    """distutils wrote only metadata: the module is found by the distribution's name."""
    write(site, "single.py", "single-1-py3.11.egg-info")
    found, left = read_all(site)
    assert [f.entry.path for f in found["single"].files] == ["purelib/single-1-py3.11.egg-info", "purelib/single.py"]
    assert left == []


def test_an_egg_directory_is_taken_whole(site: Path) -> None:
    """With its EGG-INFO, under its own path, without bytecode."""
    write(site, "egg-1-py3.11.egg/EGG-INFO/PKG-INFO", "egg-1-py3.11.egg/egg/__init__.py", "easy-install.pth")
    write(site, "egg-1-py3.11.egg/egg/__pycache__/__init__.cpython-311.pyc")
    found, left = read_all(site)
    assert [f.entry.path for f in found["egg"].files] == [
        "purelib/egg-1-py3.11.egg/EGG-INFO/PKG-INFO",
        "purelib/egg-1-py3.11.egg/egg/__init__.py",
    ]
    assert left == ["easy-install.pth"]


def test_dist_info_without_record(site: Path) -> None:
    """Taken by its top-level names; what the installer wrote into the dist-info stays out."""
    write(site, "bare/__init__.py", "bare-1.dist-info/METADATA", "bare-1.dist-info/INSTALLER")
    (site / "bare-1.dist-info/top_level.txt").write_text("bare\n")
    found, left = read_all(site)
    assert [f.entry.path for f in found["bare"].files] == [
        "purelib/bare-1.dist-info/METADATA",
        "purelib/bare-1.dist-info/top_level.txt",
        "purelib/bare/__init__.py",
    ]
    assert left == []


def test_files_owned_by_a_system_package(tmp_path: Path) -> None:
    """As dpkg lists them: directories, documentation and what lies elsewhere are passed over, links are followed."""
    site = tmp_path / "usr/lib/python3/dist-packages"
    site.mkdir(parents=True)
    write(site, "deb/__init__.py", "deb-1.egg-info", "deb/__pycache__/__init__.cpython-311.pyc", "other.py")
    write(tmp_path, "usr/share/deb/data.txt", "usr/share/doc/deb/copyright", "usr/bin/deb-tool", "etc/deb.conf")
    (site / "deb/data").symlink_to("../../../../share/deb")
    owned = ["usr", "usr/lib/python3/dist-packages/deb", "usr/lib/python3/dist-packages/deb/__init__.py",
             "usr/lib/python3/dist-packages/deb-1.egg-info", "usr/lib/python3/dist-packages/deb/data",
             "usr/share/deb/data.txt", "usr/share/doc/deb/copyright", "usr/bin/deb-tool", "etc/deb.conf"]  # fmt: skip
    listing = list_files(
        site / "deb-1.egg-info", layout=layout_of(site), owned=["/.", *(str(tmp_path / o) for o in owned)]
    )
    (files,) = settle([listing], NoFacts())
    assert list(contents(files)) == [
        "data/share/deb/data.txt",
        "purelib/deb-1.egg-info",
        "purelib/deb/__init__.py",
        "purelib/deb/data/data.txt",
        "scripts/deb-tool",
    ]
    assert files.problems == ()


@pytest.mark.registry
def test_opencv_and_its_headless_twin(tmp_path: Path) -> None:
    """39 paths have two owners; both layers hold what the disk has, and the one that lost names what differs."""
    python = make_venv(tmp_path / "v", "opencv-python", "opencv-python-headless", pip_args=("--no-deps",))
    site = site_packages(python)
    infos = sorted(site.glob("opencv*.dist-info"))
    listings = [list_files(info, layout=layout_of(site)) for info in infos]
    assert find_unlisted(listings) == tuple(
        sorted(str(p) for p in site.iterdir() if p.name in ("_virtualenv.py", "_virtualenv.pth"))
    )
    first, second = settle(listings, NoFacts())
    of_first, of_second = ({f.entry.path: f.entry for f in files.files} for files in (first, second))
    shared = of_first.keys() & of_second.keys()
    assert len(shared) >= 30
    assert {p: of_first[p] for p in shared} == {p: of_second[p] for p in shared}
    assert first.missing == second.missing == ()
    differing = [*first.modified, *second.modified]  # uv writes both at once: each of them won some
    assert differing and len(set(differing)) == len(differing) and shared.issuperset(differing)
    for path, entry in {**of_first, **of_second}.items():
        assert Digest(run("sha256sum", site / path.removeprefix("purelib/"))[:64]) == entry.sha256


def test_two_distributions_with_one_path_ship_the_same_bytes(tmp_path: Path) -> None:
    """Installed one over the other, offline: the disk decides for both, and layers of both can be made."""
    wheels = []
    for name, text in (("first", b"1\n"), ("second", b"2\n")):
        wheels.append(write_wheel(tmp_path, {"both/__init__.py": text, f"both/{name}.py": text}, name=name))
    python = make_venv(tmp_path / "v")
    for wheel in wheels:
        run(UV, "pip", "install", "-q", "--no-index", "--python", python, wheel)
    found, _ = read_all(site_packages(python))
    assert contents(found["first"])["purelib/both/__init__.py"] == b"2\n"
    assert contents(found["second"])["purelib/both/__init__.py"] == b"2\n"
    assert found["first"].modified == ("purelib/both/__init__.py",)
    assert found["second"].modified == ()
    for name, files in found.items():
        layer_source(LayerKind.DISTRIBUTION, name, "1.0", files.files)
