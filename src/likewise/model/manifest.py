"""The layers that make one environment, and how to start it."""

from __future__ import annotations

import functools

import msgspec

from likewise.errors import NodeError
from likewise.model.digest import Digest, digest_bytes
from likewise.model.layer import LayerKind
from likewise.model.target import Target

FORMAT = 1

ROOT_BASE = "data"
"""`Manifest.base` of a prefix that is its own base: the interpreter's layer lies at its root, as in a conda prefix."""


class LayerRef(msgspec.Struct, frozen=True, kw_only=True):
    """One layer of a manifest. `bytecode` is the digest of the bytecode layer that rides along, or None."""

    kind: LayerKind
    name: str
    version: str
    digest: Digest
    files: int
    size: int
    bytecode: Digest | None = None


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One environment, complete and free of client paths.

    Attributes
    ----------
    target : Target
    python : str
        Name of the library folder: ``python3.11``.
    cache_tag : str
        ``cpython-311``.
    layers : tuple of LayerRef
        The interpreter first, then distributions by name, then code roots, the native layer and conda's records. Where
        two layers own one path they hold the same content (the client's disk decided).
    before, after : tuple of str
        Names of the code layers on ``sys.path`` before the standard library, and after site-packages, in order.
    kit : tuple of str
        Names of the layers that are enough to join a cluster.
    needs : dict
        Lowest versions that a node must offer, by family: ``{"GLIBC": "2.35", "GLIBCXX": "3.4.30"}``.
    outline : Digest or None
        The layer that describes all others (see `likewise.model.outline`), for nodes that start before they have them.
    base : str
        The scheme of the interpreter's layer: ``interpreter``, the base of a venv, or `ROOT_BASE`.
    variables : dict
        Environment variables of every process; `PREFIX_MARK` in a value stands for the prefix.
    """

    target: Target
    python: str
    cache_tag: str
    layers: tuple[LayerRef, ...]
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    kit: tuple[str, ...] = ()
    needs: dict[str, str] = {}
    outline: Digest | None = None
    base: str = "interpreter"
    variables: dict[str, str] = {}
    format: int = FORMAT

    @property
    def interpreter(self) -> str:
        """Layer path of the interpreter: ``interpreter/bin/python3.11``."""
        return f"{self.base}/bin/{self.python}"

    def encode(self) -> bytes:
        """Canonical JSON: the preimage of the id."""
        return msgspec.json.encode(self)

    @property
    def id(self) -> Digest:
        """The environment's id: the digest of the manifest."""
        return digest_bytes(self.encode())

    @property
    def size(self) -> int:
        """Bytes of content, bytecode not counted."""
        return sum(layer.size for layer in self.layers)

    def digests(self) -> tuple[Digest, ...]:
        """Every layer that belongs to the environment, each once: those of `layers`, their bytecode, the outline."""
        bytecode = (layer.bytecode for layer in self.layers)
        found = (*(layer.digest for layer in self.layers), *bytecode, self.outline)
        return tuple(dict.fromkeys(digest for digest in found if digest is not None))


PREFIX_MARK = "@prefix@"
"""Stands for the folder of the prefix in `Manifest.variables`."""


def decode_manifest(data: bytes, expected: str) -> Manifest:
    """Read a manifest, checking that it is the one with the id `expected`.

    Raises
    ------
    NodeError
        When the bytes are not that manifest, or were written by a newer likewise.
    """
    if digest_bytes(data) != expected:
        raise NodeError(
            "The manifest's content does not match its id.",
            where=expected[:12],
            todo="Start the cluster again; the damaged copy will be replaced.",
        )
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.MsgspecError as error:
        raise NodeError(
            f"The manifest can't be read ({error}).",
            where=expected[:12],
            todo="Use the same version of likewise on both sides.",
        ) from error
    return manifest


def scheme_dirs(python: str) -> dict[str, str]:
    """Where each scheme of a layer path lies beneath a prefix: ``purelib`` → ``lib/python3.11/site-packages``."""
    return {
        "purelib": f"lib/{python}/site-packages",
        "scripts": "bin",
        "data": "",
        "headers": f"include/site/{python}",
        "code": "code",
        "interpreter": "interpreter",
        "native": "native",
    }


def prefix_path(path: str, python: str) -> str:
    """Where the layer path `path` lies beneath the prefix."""
    scheme, _, rest = path.partition("/")
    return _beginnings(python)[scheme] + rest


@functools.cache
def _beginnings(python: str) -> dict[str, str]:
    return {scheme: f"{base}/" if base else "" for scheme, base in scheme_dirs(python).items()}
