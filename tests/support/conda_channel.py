"""A conda channel of the tests' own, and prefixes installed from it: real ones, made by py-rattler in seconds.

The channel has this machine's CPython and the libraries that it loads, numpy and distributed from wheels, and a few
packages that are made up to have what real ones have: see `made_up_packages`. Everything is made once for a run of
the tests and shared by its processes.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest

from support.conda_package import PLACEHOLDER, SUBDIR, Item, Package, script, write_channel
from support.conda_python import Libraries, glibc, python_package, set_rpath, wheel_packages
from support.prefixes import UV, run
from support.users import likewise_wheel
from support.wheels import record_hash, write_wheel

SPECS = ("python", "numpy", "distributed", "r-base", "geodata", "greeter", "oldform", "linky")
"""What the user of `CondaPrefix` asked for."""

ACTIVATE_R = """if [ -n "${CONDA_PREFIX:-}" ]; then export R_HOME="$CONDA_PREFIX/lib/R"; fi
export R_SEARCHES="${CONDA_PREFIX}/lib/R/library${R_SEARCHES:+:$R_SEARCHES}"
"""
R = f"""#!/bin/sh
# What starts R names the place that it was built for, as R's own does.
R_HOME_DIR={PLACEHOLDER}/lib/R
export R_HOME_DIR
exec "$R_HOME_DIR/bin/exec/R" "$@"
"""
GREETER = '''"""Says hello."""
from importlib import resources

WORD = "{word}"


def main():
    """Say it."""
    print(WORD, (resources.files(__name__) / "whom.txt").read_text().strip())
'''


@dataclass(frozen=True)
class CondaChannel:
    """The channel, as a folder, and the archives of its packages by their names."""

    folder: Path

    @property
    def url(self) -> str:
        """It as a ``file://`` URL."""
        return self.folder.as_uri()

    def archive(self, name: str) -> Path:
        """The archive of a package."""
        found = [path for path in self.folder.glob(f"*/{name}-*") if path.name.rsplit("-", 2)[0] == name]
        assert len(found) == 1, f"{name} in {self.folder}: {found}"
        return found[0]


@dataclass(frozen=True)
class CondaPrefix:
    """A user's conda prefix: `SPECS` from `channel`, with pip's packages on top.

    ``sample`` and ``extra`` come from pip alone, likewise with what it requires as well; of ``greeter`` conda
    installed 1.0, and pip 2.0 over it. Look at it, don't change it.
    """

    folder: Path
    channel: CondaChannel
    cache: Path  # py-rattler's package cache

    @property
    def python(self) -> Path:
        """Its python."""
        return self.folder / "bin" / "python"


# ---- packages


def made_up_packages(work: Path, libraries: Libraries) -> list[Package]:
    """Packages that have what real ones have, each as small as it can be.

    ``r-base``: programs that know their prefix, in text and in binary, links, variables by activation. ``geodata``:
    data that is found by a variable. ``greeter``: noarch Python with an entry point, a script and data. ``oldform``:
    ``.tar.bz2``. ``linky``: has a link script.
    """
    return [_r_base(work, libraries), *_geodata(), _greeter(), _old_form(), _linky()]


def _r_base(work: Path, libraries: Libraries) -> Package:
    """Like R: a shell script that starts a program, which finds its library by the prefix that is written in it.

    The program is this machine's bash; what matters is that it needs a library of another package.
    """
    bash = Path("/bin/bash").resolve()
    needs = libraries.of([bash])
    return Package(
        "r-base",
        "4.3.1",
        {
            "bin/R": script(R),
            "bin/Rscript": Item(link="R"),
            "lib/R/bin/R": Item(link="../../../bin/R"),
            "lib/R/bin/exec/R": _with_prefix_in_it(bash, work),
            "lib/R/etc/Renviron": f"R_LIBS_SITE={PLACEHOLDER}/lib/R/library\nR_DOC={PLACEHOLDER}/share/doc/R\n",
            "lib/R/library/base/R/base.rdb": b"\x89RDB\0" + _c_string("/lib/R/library") + _c_string("") + b"\x01\0end",
            "lib/R/library/base/DESCRIPTION": "Package: base\nVersion: 4.3.1\n",
            "lib/R/lib/libR.so.4.3": Item(b"not a library, but data", executable=True),
            "lib/R/lib/libR.so": Item(link="libR.so.4.3"),
            "share/doc/R": Item(link="../../lib/R/etc"),
            "etc/conda/activate.d/activate-r-base.sh": ACTIVATE_R,
            "etc/conda/deactivate.d/deactivate-r-base.sh": "unset R_HOME\n",
        },
        build="h29c4799_3",
        number=3,
        depends=(glibc(), *needs),
    )


def _c_string(path: str) -> bytes:
    """A path in the prefix as compilers write it: padded to some length, so that what follows must not move."""
    return PLACEHOLDER.encode() + path.encode() + b"\0"


def _with_prefix_in_it(program: Path, work: Path) -> Item:
    """The program, looking for libraries in the very prefix: where that is not rewritten, it does not find them."""
    patched = set_rpath(program, f"{PLACEHOLDER}/lib", work / "r-base")
    return Item(patched.read_bytes(), executable=True)


def _geodata() -> list[Package]:
    return [
        Package(
            "geodata",
            "9.3",
            {
                "share/proj/proj.db": b"SQLite format 3\0" + bytes(range(256)) * 40,
                "share/proj/größe.txt": "named as people name files\n",
                "share/proj/empty": b"",
                "etc/conda/activate.d/proj4-activate.sh": 'export PROJ_DATA="${CONDA_PREFIX}/share/proj"\n',
                "etc/conda/env_vars.d/geodata.json": '{"GEODATA_MODE": "fast"}\n',
            },
            depends=("geodata-base",),
        ),
        Package("geodata-base", "9.3", {"share/geodata/base.txt": "base\n"}, noarch="generic", subdir="noarch"),
    ]


def _greeter() -> Package:
    info = "greeter-1.0.dist-info"
    site = {
        "greeter/__init__.py": GREETER.format(word="hello"),
        "greeter/whom.txt": "conda\n",
        "greeter/only_in_conda.py": "OLD = True\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: greeter\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\ngreet = greeter:main\n",
        f"{info}/INSTALLER": "conda\n",
    }
    rows = [f"{path},{record_hash(text.encode())},{len(text.encode())}\n" for path, text in site.items()]
    site[f"{info}/RECORD"] = "".join([*rows, f"{info}/RECORD,,\n"])
    return Package(
        "greeter",
        "1.0",
        {
            **{f"site-packages/{path}": text for path, text in site.items()},
            "python-scripts/greet-loudly": script(f"#!{PLACEHOLDER}/bin/python\nimport greeter\ngreeter.main()\n"),
        },
        build="pyhd8ed1ab_0",
        noarch="python",
        subdir="noarch",
        depends=("python",),
        entry_points=("greet = greeter:main",),
    )


def _old_form() -> Package:
    return Package(
        "oldform",
        "0.9",
        {
            "bin/oldform": script(f"#!/bin/sh\necho {PLACEHOLDER}\n"),
            "lib/pkgconfig/oldform.pc": f"prefix={PLACEHOLDER}\nlibdir=${{prefix}}/lib\n",
            "lib/oldform.dat": b"\0\1" + _c_string("/lib/oldform.dat") + b"\2" * 20 + _c_string("/bin") * 2,
        },
    )


def _linky() -> Package:
    return Package("linky", "1.0", {"bin/.linky-post-link.sh": script("echo linked >> $PREFIX/.messages.txt\n")})


# ---- the channel and prefixes


def make_channel(root: Path, work: Path) -> CondaChannel:
    """Build all packages into a channel."""
    libraries = Libraries()
    own = [f"{name}=={version(name)}" for name in ("numpy", "distributed", "dask")]
    packages = [*python_package(work, libraries), *wheel_packages(own, work, libraries)]
    packages += made_up_packages(work, libraries)
    packages += libraries.packages(work)
    write_channel(root, packages, forms={"oldform": ".tar.bz2", "geodata": ".tar.bz2"})
    shutil.rmtree(work, ignore_errors=True)
    return CondaChannel(root)


def install(
    prefix: Path, specs: Sequence[str], channels: Sequence[str | Path], cache: Path, *, subdir: str = SUBDIR
) -> Path:
    """Solve `specs` and install what comes of it, with py-rattler; returns the prefix."""
    asyncio.run(_install(prefix, specs, channels, cache, subdir))
    return prefix


async def _install(
    prefix: Path, specs: Sequence[str], channels: Sequence[str | Path], cache: Path, subdir: str
) -> None:
    import rattler

    client = rattler.Client.default_client()
    records = await rattler.solve(
        [place.as_uri() if isinstance(place, Path) else place for place in channels],
        list(specs),
        gateway=rattler.Gateway(cache_dir=cache / "repodata", client=client),
        platforms=[subdir, "noarch"],  # type: ignore[list-item]
        virtual_packages=rattler.VirtualPackage.detect(),
    )
    requested = [rattler.MatchSpec(spec)._match_spec for spec in specs]  # what `install` takes, whatever it says
    await rattler.install(
        records,
        prefix,
        cache_dir=cache / "pkgs",
        client=client,
        show_progress=False,
        requested_specs=requested,  # type: ignore[arg-type]
    )


def install_pips(prefix: Path, work: Path) -> None:
    """What a user puts on top with pip: two packages, another version of conda's greeter, and likewise."""
    wheels = [
        write_wheel(work, {"sample/__init__.py": b"WORD = 'sample'\n"}),
        write_wheel(work, {"extra.py": b"import sample\n"}, name="extra", version="0.2", requires=("sample",)),
        write_wheel(
            work,
            {
                "greeter/__init__.py": GREETER.format(word="good evening").encode(),
                "greeter/whom.txt": b"pip\n",
                "greeter-2.0.dist-info/entry_points.txt": b"[console_scripts]\ngreet = greeter:main\n",
            },
            name="greeter",
            version="2.0",
        ),
    ]
    run(UV, "pip", "install", "--quiet", "--python", prefix / "bin" / "python", *wheels, likewise_wheel(), "asyncssh")


@contextmanager
def _once(factory: pytest.TempPathFactory, name: str) -> Iterator[Path | None]:
    """The folder `name` to fill, for whoever comes first in a run of the tests; others wait, and get None."""
    folder = _shared(factory) / name
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if Path(f"{folder}.complete").exists():
            yield None
            return
        yield folder
        Path(f"{folder}.complete").touch()


def _shared(factory: pytest.TempPathFactory) -> Path:
    base = factory.getbasetemp()
    return base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base


@pytest.fixture(scope="session")
def conda_channel(tmp_path_factory: pytest.TempPathFactory) -> CondaChannel:
    """The channel, made once for a whole run of the tests."""
    with _once(tmp_path_factory, "conda-channel") as folder:
        if folder:
            make_channel(folder, folder.with_name("conda-work"))
    return CondaChannel(_shared(tmp_path_factory) / "conda-channel")


@pytest.fixture(scope="session")
def conda_prefix(conda_channel: CondaChannel, tmp_path_factory: pytest.TempPathFactory) -> CondaPrefix:
    """A user's prefix, made once for a whole run of the tests: look at it, don't change it."""
    shared = _shared(tmp_path_factory)
    with _once(tmp_path_factory, "conda-prefix") as folder:
        if folder:
            install(folder, SPECS, [conda_channel.folder], shared / "conda-cache")
            install_pips(folder, shared / "conda-wheels")
    return CondaPrefix(shared / "conda-prefix", conda_channel, shared / "conda-cache")
