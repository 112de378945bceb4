"""What is here: the interpreter, the distributions and the loose code of one prefix, as printable values."""

from __future__ import annotations

import enum

import msgspec

from likewise.model.conda import CondaPackage
from likewise.model.digest import Digest
from likewise.model.target import Platform, Target

FORMAT = 1


class PrefixKind(str, enum.Enum):
    """Who made the prefix (or, for `Interpreter.base_kind`, the base prefix)."""

    VENV = "venv"
    CONDA = "conda"
    UV = "uv"  # uv-managed, that is python-build-standalone
    PYENV = "pyenv"
    SYSTEM = "system"
    OTHER = "other"


class Interpreter(msgspec.Struct, frozen=True, kw_only=True):
    """The Python that runs the prefix.

    Attributes
    ----------
    implementation : str
        ``cpython``.
    version : str
        Full version, PEP 440: ``3.11.7``, ``3.14.0rc1``.
    cache_tag : str
        ``cpython-311``: names bytecode files.
    magic : str
        Hexadecimal bytecode magic number; bytecode is valid for exactly one.
    abiflags : str
        "" or ``t`` (free-threaded), ``d`` (debug).
    platform : Platform
    prefix, base_prefix, executable : str
        Absolute paths on the client.
    kind, base_kind : PrefixKind
    """

    implementation: str
    version: str
    cache_tag: str
    magic: str
    abiflags: str
    platform: Platform
    prefix: str
    base_prefix: str
    executable: str
    kind: PrefixKind
    base_kind: PrefixKind

    @property
    def python(self) -> str:
        """``python3.11`` (``python3.13t`` when free-threaded): the name of its library folder."""
        major, minor = self.version.split(".")[:2]
        return f"python{major}.{minor}{'t' if 't' in self.abiflags else ''}"


def described_interpreter(
    target: Target, *, implementation: str = "cpython", magic: str = "", base_kind: PrefixKind = PrefixKind.OTHER
) -> Interpreter:
    """The Python of a target, which lies nowhere on this machine: as much of it as can be said."""
    major, minor = target.python.split(".")[:2]
    return Interpreter(
        implementation=implementation,
        version=target.python,
        cache_tag=f"{implementation}-{major}{minor}",
        magic=magic,
        abiflags="",
        platform=target.platform,
        prefix="",
        base_prefix="",
        executable="",
        kind=PrefixKind.OTHER,
        base_kind=base_kind,
    )


class OriginKind(str, enum.Enum):
    """Where a distribution came from."""

    INDEX = "index"  # a package index: no direct_url.json
    VCS = "vcs"  # PEP 610 vcs_info
    ARCHIVE = "archive"  # PEP 610 archive_info: a file or URL
    DIRECTORY = "directory"  # PEP 610 dir_info: a local directory, not editable
    EDITABLE = "editable"
    CONDA = "conda"
    SYSTEM = "system"  # a system package manager (dpkg)
    UNKNOWN = "unknown"


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where a distribution came from. `url` never carries user info, a token or a query string."""

    kind: OriginKind
    url: str = ""
    commit: str = ""
    revision: str = ""
    subdirectory: str = ""
    path: str = ""  # local directory of a directory or editable install; package name for a system one


class Distribution(msgspec.Struct, frozen=True, kw_only=True):
    """One installed distribution.

    Attributes
    ----------
    name : str
        Normalized (PEP 503).
    version : str
        As its metadata spells it.
    tags : tuple of str
        Wheel tags (PEP 425), empty when there is no WHEEL file.
    origin : Origin
    installer : str
        Content of ``INSTALLER``, "" when unknown.
    requested : bool
        Whether the user asked for it (``REQUESTED``; pip and uv write it).
    requires : tuple of str
        Requirement strings (PEP 508), as in the metadata.
    provides_extras : tuple of str
    imports : tuple of str
        Top-level import packages and modules.
    metadata_path : str
        The dist-info or egg-info, absolute.
    files, size : int
        Number and bytes of its non-generated files.
    modified : tuple of str
        Layer paths whose content differs from what ``RECORD`` says.
    missing : tuple of str
        Layer paths that ``RECORD`` lists and that are not there.
    content : Digest or None
        Identity of its layer; None for an editable, which has to be built first.
    """

    name: str
    version: str
    origin: Origin
    tags: tuple[str, ...] = ()
    installer: str = ""
    requested: bool = False
    requires: tuple[str, ...] = ()
    provides_extras: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()
    metadata_path: str = ""
    files: int = 0
    size: int = 0
    modified: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    content: Digest | None = None


class CodePosition(str, enum.Enum):
    """Where a code root stands on ``sys.path``."""

    BEFORE = "before"  # like PYTHONPATH: before the standard library
    AFTER = "after"  # like a .pth file: after site-packages


class CodeRoot(msgspec.Struct, frozen=True, kw_only=True):
    """A directory of loose code: importable, owned by no distribution. `name` is its key among the layers."""

    name: str
    path: str
    why: str  # "sys.path[0]", "PYTHONPATH", "working directory", "mine.pth", "site-packages"
    position: CodePosition
    files: int
    size: int
    content: Digest


class Severity(str, enum.Enum):
    """How much a problem matters."""

    NOTE = "note"  # worth knowing, nothing lost
    WARNING = "warning"  # something may behave differently on the nodes
    ERROR = "error"  # the subject can't be replicated as it is


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Something found on the way that a person should know.

    `code` is a stable identifier such as ``shadowed-dist-info``; `subject` the distribution or file; `message` one
    sentence that says what, where and, if anything can be done, what to do.
    """

    code: str
    subject: str
    message: str
    severity: Severity = Severity.WARNING


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What is here. The value of ``likewise scan``; it can be printed, stored and compared.

    Attributes
    ----------
    interpreter : Interpreter
    distributions : tuple of Distribution
        Sorted by name.
    code : tuple of CodeRoot
        In ``sys.path`` order.
    problems : tuple of Problem
    format : int
    conda : tuple of CondaPackage
        Everything that the prefix's conda records name, Python or not, sorted by name; empty without conda.
    virtual_packages : tuple of str
        What conda says of this machine: ``__glibc=2.36=0``, ``__linux=6.1.0=0``, …; empty without conda.
    """

    interpreter: Interpreter
    distributions: tuple[Distribution, ...]
    code: tuple[CodeRoot, ...]
    problems: tuple[Problem, ...] = ()
    format: int = FORMAT
    conda: tuple[CondaPackage, ...] = ()
    virtual_packages: tuple[str, ...] = ()

    def get(self, name: str) -> Distribution | None:
        """The distribution with this normalized name, or None."""
        return next((d for d in self.distributions if d.name == name), None)
