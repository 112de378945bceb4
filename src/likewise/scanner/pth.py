"""``.pth`` files, as the `site` module reads them. Pure but for one reader."""

from __future__ import annotations

import os
import re

import msgspec

from likewise.scanner.metadata import decode

_IMPORTED = re.compile(r"\bimport\s+([A-Za-z_]\w*)")


class Pth(msgspec.Struct, frozen=True, kw_only=True):
    """One ``.pth`` file.

    Attributes
    ----------
    path : str
        Absolute.
    folders : tuple of str
        Absolute, normalized directories (or zip files) that it adds, existing ones alone, as `site` does.
    code : tuple of str
        Its ``import`` lines, which Python runs at every start.
    """

    path: str
    folders: tuple[str, ...] = ()
    code: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """File name."""
        return os.path.basename(self.path)

    @property
    def imported(self) -> tuple[str, ...]:
        """Top-level names that its code imports."""
        return tuple(dict.fromkeys(name for line in self.code for name in _IMPORTED.findall(line)))


def parse_pth(data: bytes, path: str) -> Pth:
    """What the ``.pth`` file at `path` with content `data` says; whether folders exist is not looked up."""
    site = os.path.dirname(path)
    folders: list[str] = []
    code: list[str] = []
    for line in decode(data).splitlines():
        if line.startswith("#") or not line.strip() or "\0" in line:
            continue
        if line.startswith(("import ", "import\t")):
            code.append(line)
        else:
            folders.append(os.path.normpath(os.path.join(site, line.rstrip())))
    return Pth(path=path, folders=tuple(dict.fromkeys(folders)), code=tuple(code))


def read_pth(path: str) -> Pth:
    """The ``.pth`` file at `path`, with the folders that exist.

    Raises
    ------
    OSError
        When it can't be read.
    """
    with open(path, "rb") as file:
        pth = parse_pth(file.read(), path)
    return msgspec.structs.replace(pth, folders=tuple(f for f in pth.folders if os.path.exists(f)))
