"""What the nodes run, compared with what they should run."""

from __future__ import annotations

import enum

import msgspec

from likewise.model.digest import Digest


class DifferenceKind(str, enum.Enum):
    """In what way something differs."""

    CHANGED = "changed"  # a file's content, or its executable bit
    MISSING = "missing"
    EXTRA = "extra"  # a file that no layer owns
    VERSION = "version"  # a distribution or the interpreter has another version
    MANIFEST = "manifest"  # the node runs another environment
    CLIENT = "client"  # the client's environment is no longer the one of the manifest
    UNREACHABLE = "unreachable"  # the node gave no report


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is not as the manifest says. `layer` is the distribution (or interpreter, …) concerned."""

    node: str
    kind: DifferenceKind
    layer: str
    subject: str
    expected: str = ""
    actual: str = ""


class NodeReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one node (one prefix on one machine) said of itself.

    `processes` are the Dask addresses that run from this prefix; `distributions` maps normalized names to versions as
    `importlib.metadata` sees them there; `seconds` is the time the node took to check every file.
    """

    node: str
    prefix: str
    executable: str
    python: str
    manifest: str
    distributions: dict[str, str]
    files: int
    size: int
    seconds: float
    differences: tuple[Difference, ...] = ()
    processes: tuple[str, ...] = ()


class VerifyReport(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``cluster.verify()``."""

    manifest: Digest
    nodes: tuple[NodeReport, ...]
    differences: tuple[Difference, ...]

    @property
    def ok(self) -> bool:
        """Whether every node runs exactly the manifest, and the manifest is still the client's environment."""
        return not self.differences and bool(self.nodes)
