"""Shared libraries made for a test, without a compiler: copies of a small real one, given other names and needs."""

from __future__ import annotations

import shutil
import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path

from likewise.layers.relocate import find_patchelf, source_file
from likewise.model.layer import LayerKind, LayerSource, layer_source
from support.prefixes import run
from support.replica import NoFacts

TEMPLATE = min(Path(sysconfig.get_path("stdlib"), "lib-dynload").glob("_c*.so"), key=lambda p: p.stat().st_size)
"""An extension module: loading it as a plain library needs nothing of Python's."""


def make_library(
    path: Path, *, needs: Iterable[str] = (), rpath: str = "", runpath: str = "", soname: str = ""
) -> Path:
    """A shared library at `path` that needs `needs` besides the C library; `dlopen` loads it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(TEMPLATE, path)
    run(find_patchelf(), "--remove-rpath", path)
    run(find_patchelf(), "--set-soname", soname or path.name, path)
    for name in needs:
        run(find_patchelf(), "--add-needed", name, path)
    if rpath:
        run(find_patchelf(), "--force-rpath", "--set-rpath", rpath, path)
    if runpath:
        run(find_patchelf(), "--set-rpath", runpath, path)
    return path


def purelib_layer(site: Path, *, name: str = "made", data: Mapping[str, bytes] | None = None) -> LayerSource:
    """A distribution's layer of every file beneath `site`, as if that were site-packages."""
    for relative, content in (data or {}).items():
        (site / relative).parent.mkdir(parents=True, exist_ok=True)
        (site / relative).write_bytes(content)
    files = sorted(p for p in site.rglob("*") if p.is_file())
    entries = [source_file(str(p), f"purelib/{p.relative_to(site)}", NoFacts()) for p in files]
    return layer_source(LayerKind.DISTRIBUTION, name, "1.0", entries)
