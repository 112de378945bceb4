"""What is known of each conda package before anything is solved: how far it may move, and what the target offers."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

import msgspec
from packaging.utils import canonicalize_name

from likewise.model.conda import CondaPackage, spec_name
from likewise.model.plan import Level
from likewise.model.subdirs import subdir_of
from likewise.model.target import Platform, Target
from likewise.planner.conda_solver import Candidate, CondaSolver
from likewise.planner.levels import platform_only
from likewise.planner.options import PlanOptions
from likewise.planner.tables import critical_distributions

PYTHON = "python"

KERNEL = "4.18"
"""Of RHEL 8, which has the C library that a target has when nobody says otherwise."""

_WITH_BUILD = re.compile(r"(?P<rest>[^\s=\[]+(?:==?[^\s=\[]+=| +[^\s\[]+ +)?)(?<=[= ])(?P<build>[^\s=\[<>!~]+)")
_VALUE = r"""(?:'[^']*'|"[^"]*"|\[[^\]]*\]|[^,'"\[\]]*)"""
_FIELD = re.compile(rf"\s*(?P<key>\w+)\s*={_VALUE}(?:,|$)")
_BRACKETS = re.compile(rf"(?P<rest>[^\[]*)\[(?P<fields>(?:\s*\w+\s*={_VALUE}(?:,|(?=\])))*)\s*\]")
_OF_A_BUILD = frozenset({"build", "build_number", "md5", "sha256", "url", "fn", "subdir"})
"""What of a match spec's brackets is of one build (conda's documentation, "Package match specifications")."""

_OF_A_SUBDIR = re.compile(r".*[-_](?P<subdir>(?:linux|osx|win)-(?:64|32|arm64|aarch64|ppc64le|s390x|riscv64))")


class CondaPin(msgspec.Struct, frozen=True, kw_only=True):
    """A package of the client that the target should have.

    Attributes
    ----------
    package : CondaPackage
        As it is on the client; its version is "" where it is only asked for.
    level : Level
        How far its version may move; ANY means: no further than it must, within the same major.minor if possible.
    root : bool
        Nothing else on the client depends on it, or the user asked for it.
    offers : tuple of Candidate
        What the target may have of it, the lowest version first.
    versions : tuple of str
        Those that `level` and the user's specs allow, the nearest first; the client's own where there is that one.
    """

    package: CondaPackage
    level: Level
    root: bool
    offers: tuple[Candidate, ...] = ()
    versions: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The package's name."""
        return self.package.name

    @property
    def has_exact(self) -> bool:
        """Whether the target has the client's version."""
        return any(one.version == self.package.version for one in self.offers)

    @property
    def fixed(self) -> bool:
        """Whether it may not move."""
        return self.level is Level.EXACT

    def exactly(self, version: str) -> str:
        """The match spec of one version."""
        return f"{self.name} =={version}"

    def ranges(self) -> tuple[str, ...]:
        """The match specs of all that is allowed; they name no channel, which is the solver's part."""
        if self.level is Level.EXACT and self.package.version:
            return (self.exactly(self.package.version),)
        if self.level is Level.MINOR and self.package.version:
            return (f"{self.name} {minor(self.package.version)}.*",)
        return tuple(map(_without_channel, self.package.requested)) or (self.name,)


def without_build(spec: str) -> str:
    """A match spec that names no build: builds are of one platform.

    >>> without_build("numpy=1.26.4=py311h64a7726_0"), without_build("numpy 1.26.* py311*"), without_build("numpy>=1")
    ('numpy=1.26.4', 'numpy 1.26.*', 'numpy>=1')
    """
    spec, brackets = _brackets_of(spec)
    if match := _WITH_BUILD.fullmatch(spec.strip()):
        spec = match["rest"].rstrip("= ")
    return spec + brackets


def _without_channel(spec: str) -> str:
    """A match spec that names no build and no channel."""
    spec, brackets = _brackets_of(spec, _OF_A_BUILD | {"channel"})
    return without_build(spec.rpartition("::")[2]) + brackets


def _brackets_of(spec: str, left_out: Collection[str] = _OF_A_BUILD) -> tuple[str, str]:
    """What stands before the brackets of a match spec, and these, without what is of one build."""
    match = _BRACKETS.fullmatch(spec.strip())
    if match is None:
        return spec, ""
    fields = [field for field in _FIELD.finditer(match["fields"]) if field["key"] not in left_out]
    kept = ",".join(field[0].strip(" ,") for field in fields)
    return match["rest"].strip(), f"[{kept}]" if kept else ""


def virtual_packages(target: Target) -> tuple[str, ...]:
    """What conda is told of machines like `target` (conda's documentation, "Managing virtual packages")."""
    arch = target.platform.arch
    found = ["__unix=0=0", f"__linux={KERNEL}=0", f"__glibc={target.platform.libc_version}=0", f"__archspec=1={arch}"]
    if target.cuda:
        found.append(f"__cuda={target.cuda}=0")
    return tuple(found)


def foreign_reason(name: str, client: Platform, target: Platform) -> str:
    """Why a package has no place on `target`, going by its name; "" for any other."""
    match = _OF_A_SUBDIR.fullmatch(name)
    if match and match["subdir"] != subdir_of(target):
        return f"it is about {match['subdir']} alone"
    return platform_only(name, client, target)


def usable(offers: Iterable[Candidate], virtual: Collection[str]) -> tuple[Candidate, ...]:
    """Those that ask for no virtual package that the target lacks altogether, as noarch packages of others do."""
    names = {text.partition("=")[0] for text in virtual}
    return tuple(one for one in offers if all(need in names for need in map(spec_name, one.requires) if _virtual(need)))


def described(packages: Iterable[CondaPackage], solver: CondaSolver, client: Platform) -> tuple[CondaPackage, ...]:
    """`packages` with what they depend on, from their channels where nobody has said it."""
    packages = tuple(packages)
    silent = [one.name for one in packages if one.version and not one.requires]
    known = solver.described(silent, subdir_of(client)) if silent else {}
    found = []
    for one in packages:
        same = [o for o in known.get(one.name, ()) if o.version == one.version and one.build in ("", o.build)]
        if same and not one.requires:
            one = msgspec.structs.replace(one, requires=same[-1].requires, noarch=one.noarch or same[-1].noarch)
        found.append(one)
    return tuple(found)


def roots(packages: Iterable[CondaPackage]) -> frozenset[str]:
    """What the user asked for, and what nothing else depends on."""
    packages = tuple(packages)
    needed = {spec_name(need) for one in packages for need in one.requires if spec_name(need) != one.name}
    return frozenset(one.name for one in packages if one.requested or one.name not in needed or not one.version)


def level_of(package: CondaPackage, options: PlanOptions) -> Level:
    """How far a package may move: what is critical, and Python itself, not at all; others as asked, or if they must."""
    critical = package.name == PYTHON or canonicalize_name(package.name) in critical_distributions()
    if package.version and (critical or options.strict):
        return Level.EXACT
    return options.level_of(str(canonicalize_name(package.name))) or Level.ANY


def minor(version: str) -> str:
    """The first two parts of a version, as conda separates them: ``1.26`` of ``1.26.4``."""
    return ".".join(re.split(r"[.]", version)[:2])


def by_distance(version: str, versions: Iterable[str], solver: CondaSolver) -> tuple[str, ...]:
    """`versions`, the nearest to `version` first: those of the same major.minor, of these the next higher ones first.

    Of a package that is only asked for (`version` ""), the newest is the first.
    """
    if not version:
        return tuple(reversed(solver.ordered(set(versions))))
    line = solver.ordered({version, *versions})
    place = line.index(version)
    own = {one for one in versions if one == version}
    higher, lower = line[place + 1 :], line[:place][::-1]
    within = minor(version)
    ranked = [*(one for one in higher if minor(one) == within), *(one for one in lower if minor(one) == within)]
    return (*own, *ranked, *(one for one in (*higher, *lower) if minor(one) != within))


def pins_of(
    packages: Iterable[CondaPackage],
    top: Collection[str],
    offers: Mapping[str, tuple[Candidate, ...]],
    options: PlanOptions,
    solver: CondaSolver,
    virtual: Collection[str],
) -> tuple[CondaPin, ...]:
    """A pin for each package; those in `top` have to be there."""
    found = []
    for one in packages:
        pin = CondaPin(package=one, level=level_of(one, options), root=one.name in top)
        able = usable(offers.get(one.name, ()), virtual)
        allowed = [o for o in able if all(solver.matches(spec, o) for spec in pin.ranges())]
        found.append(
            msgspec.structs.replace(
                pin, offers=able, versions=by_distance(one.version, {o.version for o in allowed}, solver)
            )
        )
    return tuple(found)


def _virtual(name: str) -> bool:
    return name.startswith("__")
