"""Bytes of a file that people wrote, as text."""

from __future__ import annotations

import codecs

LIMIT = 64 * 2**20
"""Bytes of a file that lists an environment; a lock of thousands of distributions has a few megabytes."""

_BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def encoding_of(data: bytes) -> str:
    """UTF-8, or what a byte order mark says: PowerShell's ``>`` writes UTF-16 with one."""
    return next((name for bom, name in _BOMS.items() if data.startswith(bom)), "utf-8")
