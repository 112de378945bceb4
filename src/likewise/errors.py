"""Every error that likewise raises on purpose: one root, structured fields, one exit code per kind.

A message says what happened, where, and what to do next. The fields carry the same facts for programs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class LikewiseWarning(UserWarning):
    """Something the user should know that does not stop the launch."""


class LikewiseError(Exception):
    """Root of all errors raised by likewise.

    Parameters
    ----------
    what : str
        One sentence: what is wrong.
    where : str, default ""
        The distribution, file, directory or node concerned.
    todo : str, default ""
        What the user can do next, as an imperative sentence.
    details : mapping, optional
        Further facts, JSON-serialisable, shown by ``--json``.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str = "", todo: str = "", details: Mapping[str, Any] | None = None) -> None:
        self.what = what
        self.where = where
        self.todo = todo
        self.details = dict(details or {})
        super().__init__(what, where, todo, self.details)

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text} {self.todo}" if self.todo else text

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.what, self.where, self.todo, self.details)

    def as_dict(self) -> dict[str, Any]:
        """The error as one JSON-serialisable mapping."""
        return {
            "error": self.code,
            "what": self.what,
            "where": self.where,
            "todo": self.todo,
            "details": self.details,
        }


def _rebuild(cls: type[LikewiseError], what: str, where: str, todo: str, details: Mapping[str, Any]) -> LikewiseError:
    return cls(what, where=where, todo=todo, details=details)


class ScanError(LikewiseError):
    """The prefix could not be read."""

    code, exit_code = "scan", 10


class PlanError(LikewiseError):
    """The plan refuses: a critical distribution is missing, or `fail_on`/`strict` says stop."""

    code, exit_code = "plan", 11


class BuildError(LikewiseError):
    """An editable could not be built; `details["output"]` has the build back end's own words."""

    code, exit_code = "build", 12


class LayerError(LikewiseError):
    """A layer is not what it claims to be, or names a path that may not be shipped."""

    code, exit_code = "layer", 13


class StoreError(LikewiseError):
    """The store could not be read or written."""

    code, exit_code = "store", 14


class NodeError(LikewiseError):
    """A node could not make or start its prefix."""

    code, exit_code = "node", 15


class VerifyError(LikewiseError):
    """A node runs something else than the manifest says."""

    code, exit_code = "verify", 16


class ClusterError(LikewiseError):
    """The cluster did not start, or lost its scheduler."""

    code, exit_code = "cluster", 17


class UnsupportedError(LikewiseError):
    """This platform or combination of options cannot be served."""

    code, exit_code = "unsupported", 18


class FetchError(LikewiseError):
    """An index does not answer as one, or a file could not be had from it, or is not the one that was pinned."""

    code, exit_code = "fetch", 19


class UsageError(LikewiseError):
    """An argument or a setting is wrong."""

    code, exit_code = "usage", 2
