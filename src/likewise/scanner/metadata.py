"""Reading what a distribution's metadata folder says: pure functions on text, quick enough for hundreds of them.

Sources: the *core metadata* specification (an RFC 822-like header block), the wheel specification, and setuptools'
``requires.txt``. `email.parser` would give the same answers ten times slower.
"""

from __future__ import annotations

import re

import msgspec

# One search over the header block instead of a loop over its lines: most of them are license texts and classifiers.
_HEADER = re.compile(
    r"^(name|version|requires-dist|provides-extra):[ \t]*(.*(?:\n[ \t].*)*)", re.IGNORECASE | re.MULTILINE
)
_VALID_NAME = re.compile(r"[a-z0-9]|[a-z0-9][a-z0-9._-]*[a-z0-9]", re.IGNORECASE)


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """The headers that matter here. `name` and `version` are "" when the file does not have them."""

    name: str = ""
    version: str = ""
    requires: tuple[str, ...] = ()
    provides_extras: tuple[str, ...] = ()


def decode(data: bytes) -> str:
    """`data` as UTF-8; bytes that are none become U+FFFD, because a wrong author's name must not stop a scan."""
    return data.decode("utf-8", "replace").removeprefix("\ufeff")


def parse_metadata(data: bytes) -> Metadata:
    """The header block of a ``METADATA`` or ``PKG-INFO`` file."""
    values: dict[str, list[str]] = {}
    for field, value in _HEADER.findall(_headers(data)):
        text = value.strip() if "\n" not in value else " ".join(value.split())
        values.setdefault(field.lower(), []).append(text)
    return Metadata(
        name=values.get("name", [""])[0],
        version=values.get("version", [""])[0],
        requires=tuple(values.get("requires-dist", ())),
        provides_extras=tuple(values.get("provides-extra", ())),
    )


def _headers(data: bytes) -> str:
    head = data.partition(b"\n\n")[0].partition(b"\r\n\r\n")[0]
    return decode(head).replace("\r\n", "\n")


def parse_wheel_tags(data: bytes) -> tuple[str, ...]:
    """The ``Tag`` headers of a ``WHEEL`` file, expanded already by whoever wrote it."""
    return tuple(line[4:].strip() for line in decode(data).splitlines() if line[:4].lower() == "tag:")


def parse_requires_txt(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Requirements (PEP 508) and extras from setuptools' ``requires.txt``.

    Sections are ``[extra]``, ``[:marker]`` or ``[extra:marker]``, as `importlib.metadata` reads them.
    """
    requires: list[str] = []
    extras: list[str] = []
    condition = ""
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith("[") and line.endswith("]"):
            extra, _, marker = line[1:-1].partition(":")
            if extra and extra not in extras:
                extras.append(extra)
            parts = [f"({marker})" if marker and extra else marker, f'extra == "{extra}"' if extra else ""]
            condition = " and ".join(part for part in parts if part)
        elif line and not line.startswith("#"):
            space = " " if "@" in line else ""  # a URL ends at white space alone (PEP 508)
            requires.append(f"{line}{space}; {condition}" if condition else line)
    return tuple(requires), tuple(extras)


def split_folder_name(folder: str) -> tuple[str, str]:
    """Name and version in ``foo-1.0.dist-info``, ``foo-1.0-py3.11.egg-info`` or ``foo.egg-info``; "" for what lacks."""
    stem = folder.rpartition(".")[0]
    name, _, rest = stem.partition("-")
    version = re.sub(r"-py\d.*$", "", rest)
    return name, version


def is_valid_name(name: str) -> bool:
    """Whether `name` is a distribution name (*names and normalization* specification); pip ignores others."""
    return _VALID_NAME.fullmatch(name) is not None
