"""Which directories of ``sys.path`` hold installed distributions, and what each is for. Told from the probe."""

from __future__ import annotations

import os
from collections.abc import Sequence

import msgspec

from likewise.scanner.distributions import EGG_INFO, Installed
from likewise.scanner.editables import project_folder
from likewise.scanner.probe import Probe
from likewise.scanner.pth import Pth, read_pth


class Places(msgspec.Struct, frozen=True, kw_only=True):
    """The directories of ``sys.path``, sorted by use.

    Attributes
    ----------
    declared : tuple of str
        Site directories: those of `site.getsitepackages` and the user site, as far as they are on ``sys.path``.
    searched : tuple of str
        Where distributions are looked for, in order: all of ``sys.path`` but the `stray` ones; each directory once,
        however many names it has.
    stray : tuple of str
        The working directory and the script's: what lies there is seen while one stands in it, and not installed.
    pths : tuple of Pth
        The ``.pth`` files in `declared`.
    """

    declared: tuple[str, ...]
    searched: tuple[str, ...]
    stray: tuple[str, ...]
    pths: tuple[Pth, ...]


def find_places(probe: Probe) -> Places:
    """Sort the directories of ``sys.path``."""
    site_dirs = {*probe.site_dirs, *([probe.user_site] if probe.user_site_enabled else [])}
    declared = tuple(path for path in probe.sys_path if path in site_dirs)
    pths = tuple(pth for site in declared for pth in _pths(site))
    named = {*declared, *probe.pythonpath, *(folder for pth in pths for folder in pth.folders)}
    here = {probe.cwd, os.path.dirname(probe.main.file)} - {""}
    stray = [path for path in probe.sys_path if path in here and path not in named]
    unique: dict[str, str] = {}
    for path in probe.sys_path:
        if path not in stray:
            unique.setdefault(os.path.realpath(path), path)
    return Places(declared=declared, searched=tuple(unique.values()), stray=tuple(stray), pths=pths)


def _pths(site: str) -> list[Pth]:
    try:
        names = sorted(name for name in os.listdir(site) if name.endswith(".pth") and not name.startswith("."))
    except OSError:
        return []
    found = []
    for name in names:
        try:
            found.append(read_pth(os.path.join(site, name)))
        except OSError:
            continue  # reported when it turns out that nobody owns it
    return found


def is_source_tree(installed: Installed, declared: Sequence[str]) -> bool:
    """Whether the egg-info lies in a source tree that somebody put on ``sys.path``, not beside what was installed.

    Its modules are loose code then, shipped from where they are; of the distribution itself there is only the metadata.
    """
    if installed.site in declared or installed.link or not installed.folder.endswith(EGG_INFO):
        return False
    if os.path.exists(os.path.join(installed.folder, "installed-files.txt")):
        return False
    project = project_folder(installed.site)
    return any(os.path.exists(os.path.join(project, name)) for name in ("pyproject.toml", "setup.py", "setup.cfg"))
