"""Why a version moved, why something can't be had, and what would help: sentences for people.

What is said about an index was found by asking; the resolver's own words are only quoted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from likewise.errors import PlanError, UnsupportedError
from likewise.model.plan import Level
from likewise.model.snapshot import Distribution, OriginKind
from likewise.model.target import Platform, Target
from likewise.planner.levels import Rule
from likewise.planner.moves import Conflict, Pin, answer, exactly, loosely, nearest_version, smallest
from likewise.planner.requirements import RequirementGraph
from likewise.planner.resolver import Lock, Question, Resolver, Unsolvable, Wanted
from likewise.planner.tables import critical_distributions

_NAME = re.compile(r"[a-z0-9]|[a-z0-9][a-z0-9._-]*[a-z0-9]", re.IGNORECASE | re.ASCII)

QUOTED = 1500
"""So many characters of a resolver's own explanation are repeated."""


def platform_name(platform: Platform) -> str:
    """``linux-x86_64``: a platform in a sentence."""
    return f"{platform.os}-{platform.arch}"


def listed(words: Iterable[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def capital(sentence: str) -> str:
    """`sentence` with a capital letter at its beginning."""
    return sentence[:1].upper() + sentence[1:]


# ---- why a version is what it is


def moved_reason(pin: Pin, version: str, target: Target, because: Sequence[str] = ()) -> str:
    """Why `pin` is at `version`, another one than is installed, and why at this one.

    Parameters
    ----------
    because : sequence of str
        With which others the installed version does not go together; empty when the target does not have it at all.
    """
    there = platform_name(target.platform)
    lost = (
        f"{pin.version} does not go with {listed(because)} there"
        if because
        else f"there is no wheel of {pin.version} for {there}"
    )
    within = f" within {'.'.join(pin.version.split('.')[:2])}" if pin.rule.level is Level.MINOR else ""
    if Version(version) > Version(pin.version):
        return f"{lost}; the next higher one{within}"
    return f"{lost}; the next lower one{within}, since there is no higher one"


def opponents(resolver: Resolver, question: Question, pin: Pin) -> tuple[str, ...]:
    """With whom the installed version of `pin` does not go together, of all that `question` asks for.

    Parameters
    ----------
    question : Question
        One that has an answer, with another version of `pin`, or with `pin` overridden.
    """
    wanted = {one.name: one for one in question.wanted if one.name != pin.name}
    exact = exactly(pin)
    standing = {one.name: one for one in question.standing if one.name != pin.name}
    mine = tuple(one for one in question.standing if one.name == pin.name)

    def clashes(names: frozenset[str]) -> bool:
        chosen = [one for name, one in wanted.items() if name in names]
        return not _solvable(
            resolver,
            msgspec.structs.replace(
                question,
                remembered=True,
                wanted=(*(() if mine else (exact,)), *chosen),
                standing=(*mine, *(one for name, one in standing.items() if name in names)),
                overridden=tuple(name for name in question.overridden if name != pin.name),
            ),
        )

    names = (*wanted, *standing)
    return smallest(names, clashes) if clashes(frozenset(names)) else ()


# ---- why something can't be had


def foreign_reason(d: Distribution, *, here: bool) -> str:
    """Why no index is asked for `d`, "" when one may be.

    What came from no index may have the name and version of something else on one. What no index can have (PEP 508
    says what a name is, PEP 440 what a version is) is not asked for either.
    """
    if not is_askable(d.name) or not _is_version(d.version):
        return "no index can have a distribution of this name and version"
    kind = {
        OriginKind.VCS: "installed from version control",
        OriginKind.ARCHIVE: "installed from an archive",
        OriginKind.DIRECTORY: "installed from a local directory",
        OriginKind.EDITABLE: "an editable",
    }.get(d.origin.kind)
    if kind is None:
        return ""
    where = d.origin.url or d.origin.path
    what = f"{kind}{f' ({where})' if where else ''}"
    return f"{what}, compiled for the client" if here else f"{what}, and its files are not here"


def is_askable(name: str) -> bool:
    """Whether a requirement (PEP 508) can have this name."""
    return _NAME.fullmatch(name) is not None


def _is_version(text: str) -> bool:
    try:
        Version(text)
    except InvalidVersion:
        return False
    return True


class Absence(msgspec.Struct, frozen=True):
    """Why a pinned version can't be had, and what helps."""

    reason: str
    todo: str


def absence(resolver: Resolver, question: Question, pin: Pin, client: Platform, *, needed: bool) -> Absence:
    """Why the target has nothing that `pin` allows.

    Parameters
    ----------
    question : Question
        What the search began with.
    client : Platform
        Where `pin` is installed.
    needed : bool
        Whether nodes can't do without it.
    """
    there = platform_name(question.target.platform)
    alone = msgspec.structs.replace(question, alone=True, prereleases=True, overridden=(), excluded=())
    exact = exactly(pin)
    own = msgspec.structs.replace(question.target, platform=client)

    def has(wanted: Wanted, **changes: object) -> Lock | None:
        try:
            return answer(resolver, msgspec.structs.replace(alone, wanted=(wanted,), **changes))
        except UnsupportedError:  # the client may be what no resolver knows
            return None

    nearest = nearest_version(resolver, question, msgspec.structs.replace(pin, rule=Rule(Level.ANY, "")))
    helps = _helps(pin, nearest, needed)
    source = has(exact, sdists=True)
    if source and all(not file.filename.endswith(".whl") for p in source.packages for file in p.files):
        build = f"To have it, build it there (pip wheel {pin.name}=={pin.version}) and offer the wheel on an index"
        return Absence(f"{pin.version} is offered as an sdist only, without a wheel for {there}", _joined(build, helps))
    if has(exact, anywhere=True):
        allow = (
            "If all your indexes may be trusted with this name, ask all of them: UV_INDEX_STRATEGY=unsafe-best-match"
        )
        return Absence(
            f"{pin.version} is not on the first index that has the name, only on another one", _joined(allow, helps)
        )
    if client != question.target.platform and has(exact, target=own):
        return Absence(f"{pin.version} has wheels for {platform_name(client)} and none for {there}", _joined(helps))
    if nearest or has(Wanted(name=pin.name)) or has(Wanted(name=pin.name), target=own):
        return Absence(f"{pin.version} is not offered for {there}: removed, or never on this index", _joined(helps))
    name_it = "If it came from another index, name that one as pip or uv know it (UV_INDEX, extra-index-url)"
    return Absence(f"no index has any version for {there}", _joined(name_it, helps))


def _helps(pin: Pin, nearest: str | None, needed: bool) -> str:
    """What can be done about a version that the target lacks."""
    if nearest and pin.name in critical_distributions():
        return (
            f"Install {nearest} here, which can be had there, too: it is critical, so both ends have to have the same"
        )
    level = [f"--level {pin.name}=any takes {nearest}"] if nearest else []
    return ", ".join([*level, *([] if needed else [f"--ignore {pin.name} leaves it out"])])


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part) + "." if any(parts) else "Nodes can't do without it."


# ---- conflicts


def conflict_error(resolver: Resolver, conflict: Conflict, graph: RequirementGraph) -> PlanError:
    """Who requires what, and the smallest change that would help."""
    core, words = _core(resolver, conflict)
    versions = {pin.name: pin.version for pin in conflict.pins}
    versions |= {one.name: one.version for one in conflict.question.standing}
    who = _who_requires_what(core, versions, graph)
    there = platform_name(conflict.question.target.platform)
    helps = _what_helps(resolver, conflict, core)
    named = listed(f"{name} {versions[name]}" for name in core) if core else "What is installed"
    together = " do not go together" if len(core) > 1 else " can't be had with what it requires"
    said = f": {'; '.join(who)}" if who else f". The resolver says: {quoted(words)}"
    return PlanError(
        f"{named}{together} on {there}{said}".rstrip(".") + ".",
        todo=f"What would help: {helps}." if helps else "Change one of them in the client's environment.",
        details={"conflict": list(core), "requires": who, "helps": helps, "resolver": words},
    )


def _core(resolver: Resolver, conflict: Conflict) -> tuple[tuple[str, ...], str]:
    """The fewest distributions that have no answer together, and what the resolver says about them."""
    question = conflict.question
    names = (*(one.name for one in question.wanted), *(one.name for one in question.standing))

    def without_the_others(names: frozenset[str]) -> Question:
        return msgspec.structs.replace(
            question,
            wanted=tuple(one for one in question.wanted if one.name in names),
            standing=tuple(one for one in question.standing if one.name in names),
        )

    core = smallest(names, lambda some: not _solvable(resolver, without_the_others(some)))
    try:
        resolver.resolve(without_the_others(frozenset(core)))
    except Unsolvable as error:
        return core, str(error)
    return core, ""


def _who_requires_what(core: Sequence[str], versions: Mapping[str, str], graph: RequirementGraph) -> list[str]:
    """The requirements among `core`, as far as the snapshot knows them."""
    return [
        f"{name} {versions[name]} requires {str(requirement).partition(';')[0].strip()}"
        for name in core
        for requirement in graph.active(name)
        if canonicalize_name(requirement.name) in core
    ]


def _what_helps(resolver: Resolver, conflict: Conflict, core: Sequence[str]) -> str:
    """Options of ``likewise plan``, the fewest that make an answer possible; "" when none does. Found by trying."""
    critical = critical_distributions()
    question = conflict.question
    free = sorted(
        (pin for pin in conflict.pins if pin.name not in critical), key=lambda pin: (pin.name not in core, pin.name)
    )
    wanted = {one.name: one for one in question.wanted}

    def moving(names: frozenset[str]) -> bool:
        loose = {
            pin.name: loosely(msgspec.structs.replace(pin, rule=Rule(Level.ANY, "")))
            for pin in free
            if pin.name in names
        }
        return _solvable(resolver, msgspec.structs.replace(question, wanted=tuple({**wanted, **loose}.values())))

    def leaving(names: frozenset[str]) -> bool:
        rest = tuple(one for name, one in wanted.items() if name not in names)
        excluded = (*question.excluded, *sorted(names))
        return _solvable(resolver, msgspec.structs.replace(question, wanted=rest, excluded=excluded))

    everything = tuple(pin.name for pin in free)
    if moving(frozenset(everything)):
        return " ".join(f"--level {name}=any" for name in smallest(everything, moving))
    if leaving(frozenset(everything)):
        return " ".join(f"--ignore {name}" for name in smallest(everything, leaving))
    return ""


def _solvable(resolver: Resolver, question: Question) -> bool:
    return answer(resolver, question) is not None


def quoted(words: str) -> str:
    """A resolver's own explanation in one line, its beginning where it is long."""
    text = " ".join(words.split())
    return text if len(text) <= QUOTED else f"{text[:QUOTED]}…"
