"""Files of conda, mamba and pixi: what they say, and what is wrong with them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from likewise.errors import UsageError
from likewise.formats.conda import choose, is_conda, read_conda
from likewise.formats.conda_values import Contents, archive_of
from likewise.formats.read import Reading, read
from likewise.model.conda import CondaPackage
from likewise.model.target import Platform, Target

LINUX = Platform(os="linux", arch="x86_64", libc="glibc", libc_version="2.36")
MAC = Platform(os="macos", arch="aarch64")
MACHINE = Target(platform=LINUX, python="3.11.7")
CANARY = "kanarienvogel"
SHA = "ab" * 32

EXPLICIT = f"""# platform: osx-arm64
@EXPLICIT
https://user:{CANARY}@channels.example/t/{CANARY}/forge/osx-arm64/libzlib-1.3.1-h8359307_2.conda#sha256:{SHA}
https://channels.example/t/{CANARY}/forge/osx-arm64/python-3.11.9-h932a869_0_cpython.conda#{"c" * 32}
file:///srv/own/noarch/zipp-3.19.2-pyhd8ed1ab_0.tar.bz2
# pip sample @ https://files.example/sample-1.2-py3-none-any.whl --hash=sha256:{SHA}
"""
LIST = """# packages in environment at /opt/mini/envs/e:
#
# Name                    Version                   Build  Channel
python                    3.11.9          hb885b13_0_cpython    conda-forge
_libgcc_mutex             0.1                        main
sample                    1.2                      pypi_0    pypi
older                     4.1                       <pip>
"""
MICROMAMBA = """List of packages in environment: "/opt/e"

  Name    Version  Build               Channel
────────────────────────────────────────────────
  python  3.11.9   hb885b13_0_cpython  conda-forge
"""
LIST_EXPORT = """# This file may be used to create an environment using:
# $ conda create --name <env> --file <this file>
# platform: win-64
python=3.11.9=h631f459_0_cpython
sample=1.2=pypi_0
"""
LIST_JSON = json.dumps(
    [
        {
            "base_url": f"https://channels.example/t/{CANARY}/forge",
            "build_number": 2,
            "build_string": "h8359307_2",
            "channel": "forge",
            "name": "libzlib",
            "platform": "osx-arm64",
            "version": "1.3.1",
        },
        {"build_string": "pypi_0", "channel": "pypi", "name": "Sample.Thing", "platform": "pypi", "version": "1.2"},
    ]
)
ENVIRONMENT = f"""
name: mine
channels:
  - https://channels.example/t/{CANARY}/forge
  - conda-forge
  - nodefaults
dependencies:
  - python>=3.10,<3.12
  - numpy=1.26
  - conda-forge::r-base
  - pip
  - pip:
      - requests>=2
      - sample==1.2
      - https://user:{CANARY}@files.example/what.zip
"""
EXPORT = """
name: e
channels: [defaults]
dependencies:
  - python=3.11.9=hb885b13_0
  - openssl=1.1.1u=hca72f7f_0
  - tzdata=2023c=h04d1e81_0
prefix: /opt/mini/envs/e
"""
CONDA_LOCK = f"""
version: 1
metadata:
  channels:
  - url: conda-forge
    used_env_vars: []
  platforms: [linux-64, osx-arm64]
package:
- name: python
  version: 3.11.10
  manager: conda
  platform: osx-arm64
  dependencies:
    libzlib: '>=1.3.1,<2.0a0'
    __osx: '>=11.0'
  url: https://channels.example/conda-forge/osx-arm64/python-3.11.10-h1_0_cpython.conda
  hash: {{md5: {"d" * 32}, sha256: {SHA}}}
  category: main
  optional: false
- {{name: __osx, version: '11.0', manager: conda, platform: osx-arm64, url: file:///tmp/x/osx-arm64/__osx-11.0-0.tar.bz2,
   hash: {{sha256: null}}}}
- {{name: docs, version: '1', manager: conda, platform: osx-arm64, category: docs, url: nowhere}}
- name: sample
  version: '1.10'
  manager: pip
  platform: osx-arm64
  dependencies: {{other: '>=1'}}
  url: https://files.example/sample-1.10-py3-none-any.whl
  hash: {{sha256: {SHA}}}
- {{name: python, version: 3.11.9, manager: conda, platform: linux-64, dependencies: [],
   url: 'https://channels.example/conda-forge/linux-64/python-3.11.9-h1_0_cpython.conda'}}
"""


def pixi(version: int) -> str:
    """A ``pixi.lock`` of this version, with the same content."""
    url = "https://channels.example/forge/osx-arm64/python-3.11.9-h932a869_0_cpython.conda"
    wheel = "https://files.example/sample-1.2-py3-none-any.whl"
    head = {4: "kind: conda\n  url", 5: "kind: conda\n  url", 6: "conda", 7: "conda"}[version]
    said = "  name: python\n  version: 3.11.9\n  build: h932a869_0_cpython\n" if version < 6 else ""
    pypi = f"pypi: {wheel}" if version >= 6 else f"kind: pypi\n  url: {wheel}"
    platforms = "platforms:\n- name: mac\n  subdir: osx-arm64\n" if version == 7 else ""
    key = "mac" if version == 7 else "osx-arm64"
    return (
        f"version: {version}\n{platforms}environments:\n  default:\n"
        "    channels:\n    - url: https://channels.example/forge/\n"
        f"    packages:\n      {key}:\n      - conda: {url}\n      - pypi: {wheel}\n"
        "      - conda_source: own[ab12] @ .\n"
        f"  empty:\n    channels: []\n    packages: {{}}\n"
        f"packages:\n- {head}: {url}\n{said}  sha256: {SHA}\n  depends:\n  - libzlib >=1.2\n"
        f"- {pypi}\n  name: sample\n  version: '1.2'\n  sha256: {SHA}\n  requires_dist:\n  - other>=1\n"
    )


def contents(text: str, *, client: Platform | None = None) -> tuple[Contents, Platform]:
    """What a file says of the client."""
    assert is_conda(text)
    return choose(read_conda(text), client=client, machine=LINUX)


def package(found: Contents, name: str) -> CondaPackage:
    """One of its packages."""
    return next(one for one in found.packages if one.name == name)


def test_an_explicit_list() -> None:
    """Name, version, build, channel, subdir and hash come from each URL; what pip has from comments."""
    found, platform = contents(EXPLICIT)
    assert platform == MAC
    assert [str(one) for one in found.packages] == [
        "libzlib-1.3.1-h8359307_2",
        "python-3.11.9-h932a869_0_cpython",
        "zipp-3.19.2-pyhd8ed1ab_0",
    ]
    zlib = package(found, "libzlib")
    assert (zlib.channel, zlib.subdir, zlib.sha256) == ("https://channels.example/forge", "osx-arm64", SHA)
    assert package(found, "python").md5 == "c" * 32
    assert package(found, "zipp").channel == "file:///srv/own"
    assert found.channels == ()
    assert [(pin.name, pin.version, pin.wheels[0].sha256) for pin in found.pins] == [("sample", "1.2", SHA)]


@pytest.mark.parametrize(
    "line, channel, subdir",
    [
        ("/home/me/pkgs/python-3.11.9-h0_0.conda", "file:///home/me/pkgs", ""),
        ("/srv/forge/linux-64/python-3.11.9-h0_0.conda", "file:///srv/forge", "linux-64"),
        ("file:///home/me/Downloads/python-3.11.9-h0_0.conda", "file:///home/me/Downloads", ""),
        ("C:\\pkgs\\python-3.11.9-h0_0.conda", "file:///C:/pkgs", ""),
        ("pkgs/python-3.11.9-h0_0.conda", "", ""),
        ("https://site.example/v1/python-3.11.9-h0_0.conda", "https://site.example/v1", ""),
    ],
)
def test_an_archive_in_any_folder(line: str, channel: str, subdir: str) -> None:
    """A folder that is called like no platform is none, and its archives may be for any."""
    found, platform = contents(f"@EXPLICIT\n{line}\n")
    python = package(found, "python")
    assert (python.version, python.channel, python.subdir) == ("3.11.9", channel, subdir)
    assert platform.os == "linux"


def test_what_holds_a_credential_is_known_to_the_process_alone() -> None:
    """Of a URL with user info or a token only the plain one is in the values; the other is not shown."""
    colons = f"dependencies:\n- https://u:{CANARY}@channels.example/t/{CANARY}/forge/linux-64::numpy\n"
    for text in (EXPLICIT, LIST_JSON, ENVIRONMENT, colons):
        listing = read_conda(text)
        assert CANARY in str(listing.secrets["https://channels.example/forge"])
        assert CANARY not in repr(listing)


SPEC = "dependencies:\n- numpy[{}]\n"
ADDRESS = f"https://u:{CANARY}@h.example/t/{CANARY}"


@pytest.mark.parametrize(
    "text",
    [
        SPEC.format(f"url='{ADDRESS}/c/linux-64/numpy-1.0-0.conda'"),
        SPEC.format(f"channel='{ADDRESS}/c',version='1.*'"),
        pixi(6).replace("other>=1", f"other @ {ADDRESS}/other.whl"),
        pixi(6).replace("own[ab12] @ .", f"git+https://{CANARY}@h.example/own?token={CANARY}#{CANARY}"),
        pixi(6).replace("libzlib >=1.2", f"{ADDRESS}/c::libzlib >=1.2"),
        CONDA_LOCK.replace("other: '>=1'", f"other: '@ {ADDRESS}/other.whl'"),
    ],
    ids=["url", "channel", "requires_dist", "source", "depends", "conda-lock"],
)
def test_what_else_may_hold_a_credential(text: str) -> None:
    """Match specs, what pip's packages require, and what a lock says is built from sources."""
    assert CANARY in text
    assert CANARY not in repr(read_conda(text))


@pytest.mark.parametrize("text", [LIST, MICROMAMBA], ids=["conda", "micromamba"])
def test_a_table(text: str) -> None:
    """conda's and micromamba's tables; what pip installed is no conda package."""
    found, platform = contents(text, client=MAC)
    assert platform == MAC
    assert package(found, "python").version == "3.11.9"
    assert package(found, "python").channel == "conda-forge"
    names = {"sample": "1.2", "older": "4.1"} if text == LIST else {}
    assert {pin.name: pin.version for pin in found.pins} == names


def test_name_version_build() -> None:
    """``conda list --export`` says for which platform it is."""
    found, platform = contents(LIST_EXPORT)
    assert (platform.os, platform.arch) == ("windows", "x86_64")
    assert [str(one) for one in found.packages] == ["python-3.11.9-h631f459_0_cpython"]
    assert [(pin.name, pin.version) for pin in found.pins] == [("sample", "1.2")]


def test_json() -> None:
    """``conda list --json``, with the channel's URL and the platform of what is not noarch."""
    found, platform = contents(LIST_JSON)
    assert platform == MAC
    assert package(found, "libzlib").channel == "https://channels.example/forge"
    assert [pin.name for pin in found.pins] == ["sample-thing"]


def test_what_is_asked_for() -> None:
    """In a file that somebody wrote, a line is a wish; what pip has without a version is one, too."""
    listing = read_conda(ENVIRONMENT)
    found, _ = choose(listing, client=None, machine=LINUX)
    assert {one.name: one.requested for one in found.packages} == {
        "numpy": ("numpy=1.26",),
        "pip": ("pip",),
        "python": ("python>=3.10,<3.12",),
        "r-base": ("conda-forge::r-base",),
    }
    assert not any(one.version for one in found.packages)
    assert found.channels == ("https://channels.example/forge", "conda-forge")
    assert found.requirements == ("requests>=2",)
    assert [(pin.name, pin.version) for pin in found.pins] == [("sample", "1.2")]
    assert [problem.subject for problem in listing.problems] == ["line 3 for pip"]
    assert CANARY not in repr(listing.problems)


@pytest.mark.parametrize("pip", ["- pip:\n", "- pip: []\n", "- pip:\n  -\n", "- pip: ''\n"])
def test_nothing_for_pip(pip: str) -> None:
    """A heading without a line beneath it asks for nothing."""
    listing = read_conda(f"dependencies:\n- python=3.11\n{pip}")
    [found] = listing.contents.values()
    assert (found.pins, found.requirements, listing.problems) == ((), (), ())


def test_what_is_exported() -> None:
    """``conda env export`` says what is installed; no number is made of a version."""
    found, _ = contents(EXPORT)
    versions = {one.name: one.version for one in found.packages}
    assert versions == {"python": "3.11.9", "openssl": "1.1.1u", "tzdata": "2023c"}
    assert not any(one.requested for one in found.packages)


def test_an_export_without_builds_is_of_what_is_installed() -> None:
    """With a prefix, ``name=version`` is a version that is there, and not the beginning of one."""
    text = "dependencies:\n- python=3.11\n- numpy=1.10\nprefix: /opt/e\n"
    assert {one.name: one.version for one in contents(text)[0].packages} == {"python": "3.11", "numpy": "1.10"}
    assert {one.version for one in contents(text.replace("prefix: /opt/e", ""))[0].packages} == {""}


def test_an_export_of_the_history_is_of_wishes() -> None:
    """conda writes the prefix there as well; what somebody asked for without a version tells them apart."""
    text = "name: e\ndependencies:\n  - python=3.11\n  - forge::r-base\nprefix: /opt/e\n"
    found, _ = contents(text)
    assert {one.name: (one.version, one.requested) for one in found.packages} == {
        "python": ("", ("python=3.11",)),
        "r-base": ("", ("forge::r-base",)),
    }


def test_an_export_as_json() -> None:
    """``conda env export --json`` has the same as YAML has."""
    for gap in (None, 2):
        told = {
            "name": "e",
            "channels": ["https://channels.example/t/x/forge"],
            "dependencies": ["python=3.11.9=h9_0", "openssl=3=h0_0", {"pip": ["sample==1.2"]}],
            "prefix": "/opt/e",
        }
        found, _ = contents(json.dumps(told, indent=gap))
        assert {one.name: one.build for one in found.packages} == {"python": "h9_0", "openssl": "h0_0"}
        assert [pin.name for pin in found.pins] == ["sample"]
        assert found.channels == ("https://channels.example/forge",)


def test_conda_lock() -> None:
    """Each platform has its own; virtual packages and categories that nobody installs are left out."""
    listing = read_conda(CONDA_LOCK)
    found, platform = choose(listing, client=MAC, machine=LINUX)
    assert platform == MAC
    assert [one.name for one in found.packages] == ["python"]
    assert found.packages[0].requires == ("libzlib >=1.3.1,<2.0a0", "__osx >=11.0")
    assert (found.packages[0].sha256, found.packages[0].build) == (SHA, "h1_0_cpython")
    assert [(pin.version, pin.requires) for pin in found.pins] == [("1.10", ("other>=1",))]
    assert choose(listing, client=None, machine=LINUX)[0].packages[0].version == "3.11.9"
    with pytest.raises(UsageError, match="linux-64, osx-arm64, and not for win-64"):
        choose(listing, client=Platform(os="windows", arch="x86_64"), machine=LINUX)


@pytest.mark.parametrize("version", [4, 5, 6, 7])
def test_pixi(version: int) -> None:
    """All versions say the same; what is built from sources is told."""
    listing = read_conda(pixi(version))
    found, platform = choose(listing, client=None, machine=LINUX)
    assert platform == MAC
    (python,) = found.packages
    assert (python.version, python.build, python.sha256) == ("3.11.9", "h932a869_0_cpython", SHA)
    assert python.requires == ("libzlib >=1.2",)
    assert [(pin.name, pin.version, pin.requires) for pin in found.pins] == [("sample", "1.2", ("other>=1",))]
    assert [(one.code, one.subject) for one in listing.problems] == [("from-source", "own")]


def test_old_pixi_locks_are_like_those_of_conda_lock() -> None:
    """Up to version 3, with lists in place of mappings."""
    text = CONDA_LOCK.replace("version: 1\n", "version: 3\n", 1)
    text = text.replace("    libzlib: '>=1.3.1,<2.0a0'\n    __osx: '>=11.0'", "  - libzlib >=1.3.1\n  - __osx >=11.0")
    assert package(contents(text, client=MAC)[0], "python").requires == ("libzlib >=1.3.1", "__osx >=11.0")


def test_one_of_several_environments() -> None:
    """The one called default, or the only one that has anything; else it has to be named."""
    text = pixi(6).replace("  default:", "  docs:")
    assert choose(read_conda(text), client=None, machine=LINUX)[0].packages
    two = text.replace("  empty:\n    channels: []\n    packages: {}\n", "")
    start = two.index("  docs:")
    block = two[start : two.index("packages:\n- ")]
    two = two[:start] + block + block.replace("  docs:", "  test:") + two[start + len(block) :]
    with pytest.raises(UsageError, match="several environments: docs, test"):
        choose(read_conda(two), client=None, machine=LINUX)
    assert choose(read_conda(two), client=None, machine=LINUX, environment="test")[0].packages
    with pytest.raises(UsageError, match="no environment 'nothing'"):
        choose(read_conda(two), client=None, machine=LINUX, environment="nothing")


def reading(tmp_path: Path, text: str, **options: object) -> Reading:
    """The file as `likewise plan --from` reads it."""
    path = tmp_path / "file"
    path.write_text(text, "utf-8")
    return read(path, machine=MACHINE, **options)  # type: ignore[arg-type]


def test_a_client(tmp_path: Path) -> None:
    """A snapshot has the packages, and Python's version from among them; pip's distributions are as ever."""
    found = reading(tmp_path, CONDA_LOCK, client=MAC)
    assert found.snapshot.interpreter.version == "3.11.10"
    assert found.snapshot.interpreter.platform == MAC
    assert [one.name for one in found.snapshot.conda] == ["python"]
    assert [d.name for d in found.snapshot.distributions] == ["sample"]
    assert not found.here
    with pytest.raises(UsageError, match=r"Python 3\.11\.10, and not 3\.12"):
        reading(tmp_path, CONDA_LOCK, client=MAC, python="3.12")


def test_pip_over_conda_is_told(tmp_path: Path) -> None:
    """Both have it: a problem says so, and it is planned as pip's, too."""
    text = LIST.replace("_libgcc_mutex             0.1 ", "sample                    1.0 ")
    found = reading(tmp_path, text)
    assert [d.version for d in found.snapshot.distributions if d.name == "sample"] == ["1.2"]
    assert [one.subject for one in found.snapshot.problems if one.code == "pip-over-conda"] == ["sample"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (EXPLICIT[: EXPLICIT.index("https")], "no conda package"),
        (EXPLICIT + EXPLICIT.replace("1.3.1", "1.3.2"), "two of libzlib"),
        ("dependencies: []\nchannels: []\n", "asks for nothing"),
        ("dependencies:\n- '>=3'\n", "no match spec"),
        (f"dependencies:\n- https://u:{CANARY}@h.example/x=\n- '!'\n", "no match spec"),
        ("dependencies: [" + "[" * 3000, "damaged"),
        ("channels: [a\ndependencies: {\n", "no YAML"),
        (CONDA_LOCK.replace("  version: 3.11.10\n", ""), "version"),
        (CONDA_LOCK + CONDA_LOCK[CONDA_LOCK.index("- name: python") :].replace("3.11.10", "3.11.8"), "two of python"),
        (pixi(6).replace("version: 6", "version: 8"), "version 8"),
        ("version: 6\nenvironments:\n  default:\n    channels: []\n    packages: {}\npackages: []\n", "no package"),
        ('[{"name": "a", "build_string": ', "damaged"),
        ("version: 6\nmetadata: {}\n", "no lock"),
        (re.sub("- conda: h.*", "- conda: [1]", pixi(6), count=1), "no text"),
        ("channels: [forge, null]\ndependencies: [python=3.11]\n", "no name"),
        ("channels:\n- forge\n-\ndependencies: [python=3.11]\n", "no name"),
    ],
)
def test_bad_input(tmp_path: Path, text: str, says: str) -> None:
    """Every one is an error that names the file, says what is wrong, and shows no credential."""
    with pytest.raises(UsageError) as caught:
        reading(tmp_path, text)
    assert says in caught.value.what
    assert caught.value.where == str(tmp_path / "file")
    assert caught.value.todo
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["https://h.example/forge/linux-64/repodata.json", "numpy-1.2.conda", "https://h.example/a.whl", "x-.tar.bz2", ""],
)
def test_what_is_no_archive(url: str) -> None:
    """Nothing is guessed from a name that has not three parts."""
    assert archive_of(url) is None
