"""Which library is whose, and where the dynamic linker would look."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from likewise.layers.elf import Elf
from likewise.layers.loader import Loader, expand, is_driver, is_glibc, is_platform, parse_cache, stays_with_node

HERE = Elf(machine="x86_64", bits=64, dynamic=True)


@pytest.mark.parametrize(
    "name",
    ["libc.so.6", "libm.so.6", "libpthread.so.0", "ld-linux-x86-64.so.2", "/lib64/ld-linux-x86-64.so.2", "libdl.so.2",
     "librt.so.1", "libutil.so.1", "libresolv.so.2", "libnss_files.so.2", "libnsl.so.1", "libmvec.so.1",
     "ld-musl-x86_64.so.1", "libc.musl-x86_64.so.1"],
)  # fmt: skip
def test_the_c_library_stays_with_the_node(name: str) -> None:
    """All of glibc's (and musl's) own libraries are known."""
    assert is_glibc(name)
    assert stays_with_node(name)


@pytest.mark.parametrize(
    "name", ["libcuda.so.1", "libnvidia-ml.so.1", "libGLX_nvidia.so.0", "libEGL_nvidia.so.0", "libdrm.so.2"]
)
def test_drivers_stay_with_the_node(name: str) -> None:
    """Libraries that must match the node's kernel are never shipped."""
    assert is_driver(name)
    assert stays_with_node(name)


@pytest.mark.parametrize(
    "name",
    ["libpq.so.5", "libgomp.so.1", "libcudart.so.12", "libcudnn.so.9", "libcublas.so.12", "libnccl.so.2", "libz.so.1",
     "libcrypt.so.1", "libnsl.so.2", "libcares.so.2", "libcurl.so.4", "libmkl_rt.so.2", "libGL.so.1", "libvas.so.1",
     "libdrmaa.so.1", "libnvrtc.so.12", "libnvJitLink.so.12"],
)  # fmt: skip
def test_ordinary_libraries_are_shipped(name: str) -> None:
    """Names that only begin like a system library's are not taken for one."""
    assert not stays_with_node(name)


def test_the_compilers_run_time_is_compared_not_shipped() -> None:
    """libstdc++ and libgcc_s belong to the platform; a mangled bundled copy does not."""
    assert is_platform("libstdc++.so.6")
    assert is_platform("libgcc_s.so.1")
    assert not is_platform("libstdc++-a1b2c3d4.so.6.0.30")


def test_origin_is_expanded_and_what_depends_on_the_machine_left_out() -> None:
    """$ORIGIN in both spellings; no relative folder, no $LIB."""
    assert expand("$ORIGIN/../x:${ORIGIN}:/abs/y/:rel:/z/$LIB:", "/a/b") == ["/a/x", "/a/b", "/abs/y"]


def cache(entries: list[tuple[str, str, int]], *, count: int | None = None) -> bytes:
    """An ld.so.cache in today's format."""
    texts, table, at = b"", b"", 48 + 24 * len(entries)
    for name, path, hwcap in entries:
        table += struct.pack("=iIIIQ", 0x303, at + len(texts), at + len(texts) + len(name) + 1, 0, hwcap)
        texts += name.encode() + b"\0" + path.encode() + b"\0"
    head = b"glibc-ld.so.cache1.1" + struct.pack("=II", len(entries) if count is None else count, len(texts))
    return head.ljust(48, b"\0") + table + texts


def test_the_cache_lists_paths_in_order_and_skips_processor_levels() -> None:
    """Libraries for newer processors only are left out: a node may have an older one."""
    data = cache(
        [
            ("liba.so.1", "/lib/v3/liba.so.1", 1 << 62),
            ("liba.so.1", "/lib/liba.so.1", 0),
            ("liba.so.1", "/o/liba.so.1", 0),
        ]
    )
    assert parse_cache(data) == {"liba.so.1": ["/lib/liba.so.1", "/o/liba.so.1"]}
    assert parse_cache(b"ld.so-1.7.0".ljust(64, b"\0") + data) == parse_cache(data)


@pytest.mark.parametrize("data", [b"", b"ld.so-1.7.0", cache([("a", "/a", 0)], count=9), cache([("a", "/a", 0)])[:-2]])
def test_a_cache_that_makes_no_sense_is_empty(data: bytes) -> None:
    """Old formats and truncated files fall back to the default folders."""
    assert parse_cache(data) == {}


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """Folders a, b, c, each with libx.so.1."""
    for name in "abc":
        (tmp_path / name).mkdir()
        (tmp_path / name / "libx.so.1").write_bytes(b"")
    return tmp_path


def find(shelf: Path, wanted_by: Elf, *, inherited: tuple[str, ...] = (), name: str = "libx.so.1") -> str:
    """Where libx.so.1 is found, relative to the shelf; LD_LIBRARY_PATH is b."""
    loader = Loader(lambda path: HERE, environ={"LD_LIBRARY_PATH": f"{shelf}/b"}, cache=b"")
    found = loader.find(name, wanted_by, str(shelf), inherited=inherited)
    return found.removeprefix(f"{shelf}/")


def with_paths(rpath: str = "", runpath: str = "") -> Elf:
    """An object with search paths."""
    return Elf(machine="x86_64", bits=64, dynamic=True, rpath=rpath, runpath=runpath)


def test_the_order_of_the_search_is_the_linkers(shelf: Path) -> None:
    """DT_RPATH, LD_LIBRARY_PATH, DT_RUNPATH; with the last, neither the first nor a loader's counts."""
    assert find(shelf, with_paths(rpath="$ORIGIN/a")) == "a/libx.so.1"
    assert find(shelf, with_paths(runpath="$ORIGIN/c")) == "b/libx.so.1"
    assert find(shelf, with_paths(rpath="$ORIGIN/a", runpath="$ORIGIN/c")) == "b/libx.so.1"
    assert find(shelf, HERE, inherited=(f"{shelf}/c",)) == "c/libx.so.1"
    assert find(shelf, with_paths(runpath="/none"), inherited=(f"{shelf}/c",)) == "b/libx.so.1"


def test_a_name_with_a_slash_is_a_path(shelf: Path) -> None:
    """It is not searched for."""
    assert find(shelf, HERE, name="$ORIGIN/c/libx.so.1") == "c/libx.so.1"
    assert find(shelf, HERE, name="$ORIGIN/d/libx.so.1") == ""


def test_a_library_for_another_machine_is_passed_over(shelf: Path) -> None:
    """The search goes on after a library of the wrong class or machine."""
    foreign = Elf(machine="aarch64", bits=64, dynamic=True)
    loader = Loader(lambda p: foreign if "/a/" in p else HERE, environ={}, cache=b"")
    assert loader.find("libx.so.1", with_paths(rpath="$ORIGIN/a:$ORIGIN/c"), str(shelf)) == f"{shelf}/c/libx.so.1"
    assert loader.find("libnone.so.1", HERE, str(shelf)) == ""
