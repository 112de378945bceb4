"""Pythons of python-build-standalone's shape, and a site on loopback from which uv downloads them."""

from __future__ import annotations

import hashlib
import json
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from likewise.layers.interpreter import interpreter_source
from likewise.layers.relocate import find_patchelf
from likewise.model.layer import LayerSource
from likewise.model.snapshot import Interpreter
from support.elves import make_elf
from support.prefixes import run
from support.replica import NoFacts, unpack

SITE = "https://github.com/astral-sh/python-build-standalone/releases/download/"
"""What a mirror stands in for: uv replaces exactly this."""

MACHINES = {"x86_64": 62, "aarch64": 183}
HEADLINE = "# system configuration generated and used by the sysconfig module\n"
SYSCONFIG = f'{HEADLINE}build_time_vars = {{"prefix": "/install"}}\n'


def own_tree(interpreter: Interpreter, folder: Path) -> Path:
    """The Python that runs this test, as python-build-standalone would have built it: it works in any folder.

    No real one can be downloaded where these tests run.
    """
    layer, _ = interpreter_source(interpreter, facts=NoFacts(), work=folder / "work")
    return standalone_tree(layer, interpreter.python, folder / "python")


def standalone_tree(layer: LayerSource, python: str, tree: Path) -> Path:
    """The layer of a Python, laid out and linked at `tree` as python-build-standalone's are, built for ``/install``."""
    made = tree.parent / "made"
    unpack([layer], made, python)
    (made / "interpreter").rename(tree)
    program, library = tree / "bin" / python, f"lib{python}.so.1.0"
    if (tree / "lib" / library).exists():
        run(find_patchelf(), "--replace-needed", library, f"$ORIGIN/../lib/{library}", program)
    run(find_patchelf(), "--set-rpath", "$ORIGIN/../lib", program)
    for data in (tree / "lib" / python).glob("_sysconfigdata*.py"):
        text = data.read_text().replace("@base_prefix@", "/install")
        variables = text[text.index("build_time_vars") : text.index("\n\ndef _relocate")]
        data.write_text(f"{HEADLINE}{variables}\n")
    return tree


def toy_tree(folder: Path, version: str = "3.11.7", arch: str = "aarch64") -> Path:
    """A tree that can't run, as small as possible: what is in a real one is in it once."""
    python, library = "python" + ".".join(version.split(".")[:2]), "libpython3.11.so.1.0"
    machine = MACHINES[arch]

    def elf(*needed: str, runpath: str = "") -> bytes:
        return make_elf(machine=machine, needed=(*needed, "libc.so.6"), rpath="", runpath=runpath)

    stdlib, include = f"lib/{python}", f"include/{python}"
    write(
        folder / "python",
        {
            f"bin/{python}": elf(f"$ORIGIN/../lib/{library}"),
            f"bin/{python}-config": b"#!/bin/sh\n",
            f"lib/{library}": elf(),
            "lib/libtoy.so.1": elf(),
            "lib/libunused.so.1": elf(),
            "lib/pkgconfig/python3.pc": b"prefix=/install\n",
            f"{stdlib}/os.py": b"sep = '/'\n",
            f"{stdlib}/importlib/_bootstrap_external.py": b"MAGIC_NUMBER = (3495).to_bytes(2, 'little') + b'\\r\\n'\n",
            f"{stdlib}/lib-dynload/_toy.cpython-311.so": elf(
                "libtoy.so.1", "libelsewhere.so.2", runpath="$ORIGIN/../.."
            ),
            f"{stdlib}/lib-dynload/_testcapi.cpython-311.so": elf(),
            f"{stdlib}/_sysconfigdata__linux_{arch}-linux-gnu.py": SYSCONFIG.encode(),
            f"{stdlib}/config-3.11-{arch}-linux-gnu/Makefile": b"prefix=\t/install\n",
            f"{stdlib}/config-3.11-{arch}-linux-gnu/libpython3.11.a": b"!<arch>\n",
            f"{stdlib}/site-packages/pip/__init__.py": b"",
            f"{stdlib}/test/test_os.py": b"",
            f"{stdlib}/__pycache__/os.cpython-311.pyc": b"",
            f"{include}/Python.h": b"",
            f"{include}/internal/pycore_code.h": b"",
            f"{include}/patchlevel.h": f'#define PY_VERSION  "{version}"\n'.encode(),
            "share/man/man1/python3.1": b"",
        },
    )
    return folder / "python"


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write `files` beneath `folder`."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o755)


@dataclass
class Site:
    """What the site offers, and who asked for what."""

    url: str
    folder: Path
    offered: dict[str, dict[str, object]] = field(default_factory=dict)
    served: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    headers: list[str] = field(default_factory=list)
    pause: float = 0.0  # seconds before the second half of a file is sent
    cut: bool = False  # that half is never sent
    waiting: threading.Event = field(default_factory=threading.Event)  # set when a first half was sent

    def offer(
        self, version: str, arch: str, archive: bytes, *, sha256: str | None = "", variant: str = "", libc: str = "gnu"
    ) -> None:
        """Offer `archive` as a Python; its sha256 is the true one unless given, None for none."""
        name = f"cpython-{version}+20240107-{arch}-unknown-linux-{libc}-install_only.tar.gz"
        major, minor, patch = (int("".join(filter(str.isdigit, part[:2]))) for part in version.split("."))
        self.served[f"/20240107/{name.replace('+', '%2B')}"] = archive
        self.offered[f"cpython-{version}{variant and f'+{variant}'}-linux-{arch}-{libc}"] = {
            "name": "cpython",
            "arch": {"family": arch, "variant": None},
            "os": "linux",
            "libc": libc,
            "major": major,
            "minor": minor,
            "patch": patch,
            "prerelease": "",
            "url": f"{SITE}20240107/{name.replace('+', '%2B')}",
            "sha256": hashlib.sha256(archive).hexdigest() if sha256 == "" else sha256,
            "variant": variant or None,
            "build": "20240107",
        }
        (self.folder / "downloads.json").write_text(json.dumps(self.offered))

    def environ(self, user: str = "") -> dict[str, str]:
        """The settings by which uv downloads from here alone; `user` is ``name:password``."""
        place = self.url.replace("://", f"://{user}@") if user else self.url
        return {
            "UV_PYTHON_DOWNLOADS_JSON_URL": str(self.folder / "downloads.json"),
            "UV_PYTHON_INSTALL_MIRROR": place,
            "UV_HTTP_TIMEOUT": "5",
            "UV_HTTP_RETRIES": "0",
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.folder),
        }


def pack(tree: Path, *extra: tarfile.TarInfo) -> bytes:
    """`tree` as an archive of the site, with the members `extra` (links, and what a hostile one would have)."""
    target = tree.parent / f"{tree.name}.tar.gz"
    with tarfile.open(target, "w:gz", compresslevel=1) as archive:
        archive.add(tree, "python")
        for member in extra:
            archive.addfile(member)
    return target.read_bytes()


def link(name: str, target: str) -> tarfile.TarInfo:
    """A symbolic link as a member of an archive."""
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    return member


@contextmanager
def serve_site(folder: Path) -> Iterator[Site]:
    """A site that offers nothing yet."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            site.asked.append(self.path)
            site.headers.append(str(self.headers))
            content = site.served.get(self.path.replace("+", "%2B"))
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            half = len(content or b"") // 2
            self.wfile.write((content or b"")[:half])
            site.waiting.set()
            time.sleep(site.pause)
            if site.cut:
                self.close_connection = True
            else:
                self.wfile.write((content or b"")[half:])

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass  # the client went away, as a test wants

    server = Server(("127.0.0.1", 0), Handler)
    site = Site(url=f"http://127.0.0.1:{server.server_port}", folder=folder)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
