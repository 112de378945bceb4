"""The Python of the nodes: the client's own where it can be, else the one that uv offers for their platform."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from likewise.errors import LayerError
from likewise.events import Reporter
from likewise.layers.interpreter import interpreter_source
from likewise.layers.managed import Offer, bytecode_magic, choose_python, managed_interpreter, offers
from likewise.layers.relocate import Facts
from likewise.model.layer import LayerSource
from likewise.model.snapshot import Interpreter, PrefixKind, Problem, Severity, described_interpreter
from likewise.model.target import Target
from likewise.planner.targets import check_client
from likewise.settings import Settings


class Choice(NamedTuple):
    """Which Python the nodes get.

    Attributes
    ----------
    target : Target
        With the version that they get.
    offer : Offer or None
        What has to be downloaded; None: the client's own is copied.
    problems : tuple of Problem
        Why it is another version than the client's.
    """

    target: Target
    offer: Offer | None = None
    problems: tuple[Problem, ...] = ()


class Base(NamedTuple):
    """A Python as a layer.

    Attributes
    ----------
    layer : LayerSource
    interpreter : Interpreter
        What it is; of one that is not this machine's, the folders are "".
    compiles : bool
        Whether bytecode that the client's Python makes is what it reads.
    problems : tuple of Problem
    """

    layer: LayerSource
    interpreter: Interpreter
    compiles: bool = True
    problems: tuple[Problem, ...] = ()


def is_own(target: Target, interpreter: Interpreter) -> bool:
    """Whether `interpreter` is the very Python for the very platform of `target`. How new the C library has to be is
    said by the files themselves, and compared with each node."""
    own, there = interpreter.platform, target.platform
    same = (own.os, own.arch, own.libc) == (there.os, there.arch, there.libc)
    return same and target.python == interpreter.version


def choose(
    target: Target, interpreter: Interpreter, *, strict: bool, environ: Mapping[str, str] | None = None
) -> Choice:
    """Choose the Python for `target`. With `strict` it is the very version.

    Parameters
    ----------
    target : Target
    interpreter : Interpreter
        The client's.
    strict : bool
    environ : mapping, optional
        Environment variables for uv; the process's own by default.

    Raises
    ------
    PlanError, UnsupportedError, LayerError
        When there is none; see `likewise.layers.managed` and `likewise.planner.targets.check_client`.
    """
    if is_own(target, interpreter):
        return Choice(target)
    check_client(interpreter, target)
    offered = offers(target.platform, environ=environ)
    offer, reason = choose_python(target.python, target.platform, offered, strict=strict)
    problem = Problem(code="python-moved", subject="python", message=f"The nodes get Python {offer.version}: {reason}.")
    return Choice(msgspec.structs.replace(target, python=offer.version), offer, (problem,) if reason else ())


def foresee(target: Target, interpreter: Interpreter, *, strict: bool) -> Choice:
    """What a launch will choose, for a plan. uv is not asked to use the network; a note says so where it had to.

    Raises
    ------
    PlanError, UnsupportedError
        As in `choose`, but no target is refused for its system: a plan may be for other tools.
    """
    if target.platform.os != "linux":
        return Choice(target)
    try:
        return choose(target, interpreter, strict=strict, environ={**os.environ, "UV_OFFLINE": "1"})
    except LayerError:
        return Choice(target, problems=(_undecided(target.python, strict=strict),))


def _undecided(python: str, *, strict: bool) -> Problem:
    minor = ".".join(python.split(".")[:2])
    other = "if uv offers it: strict allows no other" if strict else f"or the nearest patch of {minor} that uv offers"
    return Problem(
        code="python-open",
        subject="python",
        message=f"The nodes get Python {python}, {other}. uv's list of Pythons can't be read without the network, so "
        "this is decided when a cluster starts.",
        severity=Severity.NOTE,
    )


def own_base(interpreter: Interpreter, *, facts: Facts, settings: Settings, conda: LayerSource | None = None) -> Base:
    """The client's own Python. Where it is a conda package, that is its layer, `conda`.

    Raises
    ------
    UnsupportedError, LayerError
        See `likewise.layers.interpreter.interpreter_source`.
    """
    if conda is not None:
        return Base(conda, interpreter)
    layer, problems = interpreter_source(interpreter, facts=facts, work=settings.work)
    return Base(layer, interpreter, problems=problems)


def offered_base(
    choice: Choice | None, interpreter: Interpreter, *, settings: Settings, reporter: Reporter
) -> Base | None:
    """The Python that was chosen, downloaded unless it is kept from before; None where the client's own serves.

    Raises
    ------
    LayerError
        See `likewise.layers.managed.managed_interpreter`.
    """
    if choice is None or choice.offer is None:
        return None
    layer = managed_interpreter(choice.offer, work=settings.work, reporter=reporter)
    there = described_interpreter(choice.target, magic=bytecode_magic(layer), base_kind=PrefixKind.UV)
    compiles = (there.magic, there.cache_tag) == (interpreter.magic, interpreter.cache_tag)
    return Base(layer, there, compiles, choice.problems)
