"""Conda packages of what is on this machine: its CPython, the libraries that this loads, and wheels from the index."""

from __future__ import annotations

import configparser
import os
import re
import ssl
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.parser import Parser
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from likewise.layers.relocate import find_patchelf
from support.conda_package import PLACEHOLDER, SUBDIR, Item, Package, file_item, script, tree_items
from support.prefixes import UV, clean_environ, run

MINOR = "{}.{}".format(*sys.version_info[:2])
ABI = f"cp{MINOR.replace('.', '')}"
SITE = f"lib/python{MINOR}/site-packages"
LIBC = os.confstr("CS_GNU_LIBC_VERSION").split()[1] if hasattr(os, "confstr") else ""
NAMES = {"dask": "dask-core", "msgpack": "msgpack-python"}
"""Distributions that conda calls otherwise."""

_MACHINES_OWN = re.compile(r"(linux-vdso|ld-linux|lib(c|m|dl|pthread|rt|util|resolv|anl|BrokenLocale)\.so)")
_PACKAGE_OF = (
    ("libssl", "openssl"), ("libcrypto", "openssl"), ("libcrypt.", "libxcrypt"), ("libsqlite3", "libsqlite"),
    ("liblzma", "liblzma"), ("libbz2", "bzip2"), ("libreadline", "readline"), ("libtinfo", "ncurses"),
    ("libncurses", "ncurses"), ("libpanel", "ncurses"), ("libz.", "libzlib"), ("libgcc_s", "libgcc"),
    ("libstdc++", "libstdcxx"), ("libgssapi", "krb5"), ("libkrb5", "krb5"), ("libk5", "krb5"), ("libcom_err", "krb5"),
    ("libkeyutils", "krb5"), ("libtirpc", "libnsl"),
)  # fmt: skip
_LEFT_OUT = {"__pycache__", "site-packages", "dist-packages", "test", "tests", "idlelib", "turtledemo", "tkinter"}
_LEFT_OUT |= {"ensurepip", "lib2to3"}
_LEFT_OUT_MODULES = ("_tkinter.", "nis.", "_dbm.", "_gdbm.", "_test", "_ctypes_test.", "_xxtest", "xxlimited")


@dataclass
class Libraries:
    """Shared libraries of this machine that go into packages of their own, by the names that they are loaded by."""

    files: dict[str, Path] = field(default_factory=dict)

    def of(self, elves: Sequence[Path]) -> tuple[str, ...]:
        """The packages that `elves` need, with everything that these need in turn noted in `files`."""
        needed = _outside(elves)
        new = {soname: place for soname, place in needed.items() if soname not in self.files}
        self.files |= new
        if new:
            self.of(list(new.values()))
        return tuple(sorted({package_of(soname) for soname in needed}))

    def packages(self, work: Path) -> list[Package]:
        """A package for each group of libraries."""
        groups: dict[str, dict[str, Path]] = {}
        for soname, place in sorted(self.files.items()):
            groups.setdefault(package_of(soname), {})[soname] = place
        made = []
        for name, members in groups.items():
            needs = [each for each in self.of(list(members.values())) if each != name]
            files: dict[str, Item] = {}
            for soname, place in members.items():
                copy = set_rpath(place, "$ORIGIN", work / "lib" / soname)
                files[f"lib/{place.name}"] = Item(copy.read_bytes(), executable=True)
                if place.name != soname:
                    files[f"lib/{soname}"] = Item(link=place.name)
            version = re.search(r"\.so\.([0-9.]*[0-9])$", next(iter(members.values())).name)
            made.append(Package(name, version[1] if version else "1", files, depends=(glibc(), *needs)))
        return made


def glibc(version: str = LIBC) -> str:
    """The virtual package that says which C library is needed."""
    return f"__glibc >={version},<3.0.a0"


def package_of(soname: str) -> str:
    """The conda package that has the library `soname`."""
    known = (package for start, package in _PACKAGE_OF if soname.startswith(start))
    return next(known, soname.partition(".so")[0].lower().replace("_", "-"))


def _outside(elves: Sequence[Path]) -> dict[str, Path]:
    """What the loader of this machine finds for `elves` outside of their own folder, but for the C library."""
    listed = subprocess.run(["ldd", *elves], capture_output=True, text=True, env=clean_environ(), check=False).stdout
    found = {soname: Path(place) for soname, place in re.findall(r"^\s+(\S+) => (/\S+) \(", listed, re.MULTILINE)}
    return {
        soname: place.resolve()
        for soname, place in found.items()
        if not _MACHINES_OWN.match(soname) and not soname.startswith("libpython") and "site-packages" not in place.parts
    }


def set_rpath(elf: Path, rpath: str, copy: Path) -> Path:
    """A copy of `elf` that looks for libraries in `rpath`."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    run(find_patchelf(), "--force-rpath", "--set-rpath", rpath, "--output", copy, elf)
    return copy


def is_elf(path: Path) -> bool:
    """Whether the file is a program or a library."""
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def relinked(elves: Mapping[str, Path], work: Path, own: Mapping[str, str] | None = None) -> dict[str, Item]:
    """ELF files by their paths in a prefix, made to look for libraries in the prefix's `lib`, after `own` paths."""

    def one(path: str, elf: Path) -> Item:
        lib = os.path.relpath("lib", os.path.dirname(path))
        rpath = ":".join(filter(None, [(own or {}).get(path, ""), f"$ORIGIN/{lib}"]))
        return Item(set_rpath(elf, rpath, work / path).read_bytes(), executable=True)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(elves, pool.map(one, elves.keys(), elves.values()), strict=True))


# ---- CPython


def python_package(work: Path, libraries: Libraries) -> list[Package]:
    """The Python that runs this, as conda packages it, with `python_abi` and certificates."""
    base, stdlib = Path(sys.base_prefix), Path(sysconfig.get_path("stdlib"))
    prefixes = sorted({str(base), sysconfig.get_config_var("prefix")}, key=len, reverse=True)
    files = _standard_library(stdlib, prefixes)
    elves = {path: stdlib / Path(path).relative_to(f"lib/python{MINOR}") for path, item in files.items() if _elf(item)}
    elves[f"bin/python{MINOR}"] = Path(os.path.realpath(sys.executable))
    for library in [*(base / "lib").glob(f"libpython{MINOR}*.so*"), *(base / "lib").glob("libpython3.so")]:
        if library.is_symlink():
            files[f"lib/{library.name}"] = Item(link=os.readlink(library))
        else:
            elves[f"lib/{library.name}"] = library
    files |= relinked(elves, work / "python")
    files |= {"bin/python": Item(link=f"python{MINOR}"), "bin/python3": Item(link=f"python{MINOR}")}
    for name in (f"pydoc{MINOR}", f"python{MINOR}-config"):
        if (base / "bin" / name).exists():
            files[f"bin/{name}"] = file_item(base / "bin" / name, prefixes=prefixes)
    files |= tree_items(Path(sysconfig.get_path("include")), at=f"include/python{MINOR}/", prefixes=prefixes)
    files[f"{SITE}/README.txt"] = Item(b"Packages go here.\n")
    needs = (glibc(), *libraries.of(list(elves.values())), "ca-certificates", f"python_abi {MINOR}.* *_{ABI}")
    version = "{}.{}.{}".format(*sys.version_info[:3])
    return [
        Package("python", version, files, build=f"0_{ABI}", depends=needs),
        Package("python_abi", MINOR, build=f"0_{ABI}", subdir="noarch", noarch="generic"),
        certificates(),
    ]


def _elf(item: Item) -> bool:
    return item.data.startswith(b"\x7fELF")


def _standard_library(stdlib: Path, prefixes: Sequence[str]) -> dict[str, Item]:
    found = {}
    for place, folders, names in os.walk(stdlib):
        folders[:] = [name for name in folders if name not in _LEFT_OUT]
        for name in names:
            if name.endswith((".a", ".o", ".pyc")) or name.startswith(_LEFT_OUT_MODULES):
                continue
            path = Path(place, name)
            if path.exists() and (not path.is_symlink() or path.resolve().is_relative_to(stdlib)):
                found[f"lib/python{MINOR}/{path.relative_to(stdlib)}"] = file_item(path, prefixes=prefixes)
    return found


def certificates() -> Package:
    """This machine's certificates; OpenSSL, which is the machine's, is told by a variable where they are."""
    bundle = ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt"
    return Package(
        "ca-certificates",
        "2024.2.2",
        {
            "ssl/cacert.pem": Path(bundle).read_bytes(),
            "ssl/cert.pem": Item(link="cacert.pem"),
            "etc/conda/activate.d/ca-certificates_activate.sh": 'export SSL_CERT_FILE="${CONDA_PREFIX}/ssl/cert.pem"\n',
            "etc/conda/deactivate.d/ca-certificates_deactivate.sh": "unset SSL_CERT_FILE\n",
        },
        build="hbcca054_0",
    )


# ---- wheels


def wheel_packages(requirements: Iterable[str], work: Path, libraries: Libraries) -> list[Package]:
    """Conda packages of `requirements` and all that they require: pure ones are noarch."""
    site = work / "wheels" / "site-packages"
    run(UV, "pip", "install", "--quiet", "--target", site, "--link-mode", "copy", "--python", sys.executable,
        "--only-binary", ":all:", *requirements)  # fmt: skip
    infos = sorted(site.glob("*.dist-info"))
    here = {canonicalize_name(Parser().parsestr((info / "METADATA").read_text())["Name"]) for info in infos}
    return [_of_wheel(info, here, work, libraries) for info in infos]


def conda_name(distribution: str) -> str:
    """What conda calls a distribution."""
    name = canonicalize_name(distribution)
    return NAMES.get(name, name)


def _of_wheel(info: Path, here: set[str], work: Path, libraries: Libraries) -> Package:
    """The package of one installed wheel."""
    known = Parser().parsestr((info / "METADATA").read_text())
    pure = "\nRoot-Is-Purelib: true" in f"\n{(info / 'WHEEL').read_text()}"
    files, elves = _wheel_files(info, "site-packages" if pure else SITE, "python-scripts" if pure else "bin")
    entry_points = _entry_points(info)
    depends = _requires(known.get_all("Requires-Dist", []), here)
    if pure:
        build, noarch, depends = "pyhd8ed1ab_0", "python", (f"python >={MINOR}", *depends)
    else:
        build, noarch = f"{ABI.replace('cp', 'py')}h5eee18b_0", ""
        files |= _relinked_wheel(elves, work / "elves" / info.name)
        files |= {f"bin/{name}": _entry_script(target) for name, target in map(_halves, entry_points)}
        needs = libraries.of([*elves.values()]) if elves else ()
        depends = (glibc(), *needs, f"python >={MINOR},<{_next_minor()}.0a0", f"python_abi {MINOR}.* *_{ABI}", *depends)
    return Package(
        conda_name(known["Name"]),
        known["Version"].replace("+", "_"),
        files,
        build=build,
        subdir="noarch" if noarch else SUBDIR,
        noarch=noarch,
        depends=depends,
        entry_points=tuple(entry_points) if pure else (),
    )


def _next_minor() -> str:
    return f"{sys.version_info[0]}.{sys.version_info[1] + 1}"


def _wheel_files(info: Path, at: str, scripts: str) -> tuple[dict[str, Item], dict[str, Path]]:
    """What `RECORD` names, at its places in a package; ELF files apart."""
    files: dict[str, Item] = {}
    elves: dict[str, Path] = {}
    generated = {name for name, _ in map(_halves, _entry_points(info))}
    for line in (info / "RECORD").read_text().splitlines():
        path = Path(line.rpartition(",")[0].rpartition(",")[0].strip('"'))
        place = info.parent / path
        if path.suffix == ".pyc" or not place.exists() or (path.parts[0] == "bin" and path.name in generated):
            continue
        target = f"{scripts}/{path.name}" if path.parts[0] == "bin" else f"{at}/{path}"
        if is_elf(place):
            elves[target] = place
        else:
            files[target] = file_item(place, prefixes=[sys.prefix])
    files[f"{at}/{info.name}/INSTALLER"] = Item(b"conda\n")
    files.pop(f"{at}/{info.name}/REQUESTED", None)
    return files, elves


def _relinked_wheel(elves: Mapping[str, Path], work: Path) -> dict[str, Item]:
    linked = {path: rpath for path, elf in elves.items() if (rpath := _rpath(elf)) is not None}
    static = {path: file_item(elf) for path, elf in elves.items() if path not in linked}
    return {**static, **relinked({path: elves[path] for path in linked}, work, linked)}


def _rpath(elf: Path) -> str | None:
    """Where a file looks for libraries; None when it is statically linked."""
    done = subprocess.run([find_patchelf(), "--print-rpath", elf], capture_output=True, text=True, check=False)
    return None if done.returncode else done.stdout.strip()


def _entry_points(info: Path) -> list[str]:
    if not (info / "entry_points.txt").exists():
        return []
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(info / "entry_points.txt")
    sections = [name for name in ("console_scripts", "gui_scripts") if parser.has_section(name)]
    return [f"{name} = {target.partition('[')[0].strip()}" for s in sections for name, target in parser.items(s)]


def _halves(entry_point: str) -> tuple[str, str]:
    name, _, target = entry_point.partition("=")
    return name.strip(), target.strip()


def _entry_script(target: str) -> Item:
    module, _, function = target.partition(":")
    first = f"#!{PLACEHOLDER}/bin/python"
    return script(f"{first}\nimport sys\nfrom {module} import {function.partition('.')[0]}\nsys.exit({function}())\n")


def _requires(lines: Iterable[str], here: set[str]) -> tuple[str, ...]:
    """Match specs for the requirements that hold here."""
    specs = []
    for requirement in map(Requirement, lines):
        if canonicalize_name(requirement.name) in here and (
            not requirement.marker or requirement.marker.evaluate({"extra": ""})
        ):
            versions = ",".join(sorted(re.sub(r"^===?(.*\.\*)$", r"\1", str(each)) for each in requirement.specifier))
            specs.append(f"{conda_name(requirement.name)} {versions}".strip())
    return tuple(specs)
