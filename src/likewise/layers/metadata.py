"""Credentials in a distribution's own metadata: a requirement may name a URL with a password or a token in it.

``Requires-Dist: tool @ git+https://user:TOKEN@host/tool`` is legal (PEP 508, PEP 440 direct references). It came with
the distribution, and would leave the client with its layer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import msgspec

from likewise.errors import LayerError
from likewise.layers.elf import Known
from likewise.model.digest import digest_bytes
from likewise.model.layer import LayerSource, SourceFile, layer_source
from likewise.model.snapshot import Problem, Severity

_NAMES = ("METADATA", "PKG-INFO", "requires.txt")
_REQUIREMENT = re.compile(rb"^Requires-Dist:.*@.*://.*$", re.MULTILINE)
_REQUIREMENT_OF_EGG = re.compile(rb"^.*@.*://.*$", re.MULTILINE)
_USER_INFO = re.compile(rb"(?<=://)[^/\s]*@")
_TOKEN_PATH = re.compile(rb"/t/[^/\s]+(?=/)")
_RULES = digest_bytes(b"\n".join(p.pattern for p in (_REQUIREMENT, _REQUIREMENT_OF_EGG, _USER_INFO, _TOKEN_PATH)))


def redact_requirements(name: str, data: bytes) -> bytes:
    """The content of the metadata file `name` without user info and path tokens in its requirements' URLs."""
    if name == "requires.txt":
        return _REQUIREMENT_OF_EGG.sub(_clean, data)
    head, blank, body = data.partition(b"\n\n")  # the description may show such a URL as an example
    return _REQUIREMENT.sub(_clean, head) + blank + body


def clean_layers(sources: Iterable[LayerSource], *, work: Path) -> tuple[list[LayerSource], tuple[Problem, ...]]:
    """`without_credentials` of each, in order, and all that was cleaned.

    That a layer has nothing to be cleaned is remembered in `work` by its digest, which is that of its content.

    Raises
    ------
    LayerError
        When a metadata file can't be read.
    """
    known: Known[bool] = Known(work / f"clean-layers-{_RULES[:16]}", bool)
    layers: list[LayerSource] = []
    problems: list[Problem] = []
    for source in sources:
        if known.get(source.digest, partial(_is_clean, source)):
            layers.append(source)
            continue
        clean, found = without_credentials(source)
        layers.append(clean)
        problems += found
    known.save()
    return layers, tuple(problems)


def _is_clean(source: LayerSource) -> bool:
    return without_credentials(source)[0] is source


def without_credentials(source: LayerSource) -> tuple[LayerSource, tuple[Problem, ...]]:
    """`source` with cleaned metadata, and what was cleaned. Nearly always the very same `source`.

    Raises
    ------
    LayerError
        When a metadata file can't be read.
    """
    changed: dict[str, SourceFile] = {}
    for file in source.files:
        name = file.entry.path.rpartition("/")[2]
        if is_metadata(file.entry.path):
            data = _content(file, source.name)
            clean = redact_requirements(name, data)
            if clean != data:
                entry = msgspec.structs.replace(file.entry, sha256=digest_bytes(clean), size=len(clean))
                changed[file.entry.path] = SourceFile(entry=entry, data=clean)
    if not changed:
        return source, ()
    files = [changed.get(file.entry.path, file) for file in source.files]
    problem = Problem(
        code="credential-removed",
        subject=source.name,
        message=f"A requirement of {source.name} names a URL with a credential; the nodes' copy of its metadata comes "
        "without it.",
        severity=Severity.NOTE,
    )
    return layer_source(source.kind, source.name, source.version, files), (problem,)


def is_metadata(path: str) -> bool:
    """Whether requirements stand in the file at this layer path, a vendored distribution's or the layer's own."""
    folder, _, name = path.rpartition("/")
    return name in _NAMES and folder.endswith((".dist-info", ".egg-info", "/EGG-INFO"))


def _content(file: SourceFile, name: str) -> bytes:
    if file.data is not None:
        return file.data
    try:
        with open(file.path, "rb") as stream:
            return stream.read()
    except OSError as error:
        raise LayerError(
            f"A metadata file can't be read ({error.strerror}).", where=f"{name}, {file.path}", todo="Reinstall it."
        ) from error


def _clean(match: re.Match[bytes]) -> bytes:
    return _TOKEN_PATH.sub(b"", _USER_INFO.sub(b"", match[0]))
