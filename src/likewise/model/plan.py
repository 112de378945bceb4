"""What to do about each distribution, and why."""

from __future__ import annotations

import enum

import msgspec

from likewise.model.snapshot import Problem
from likewise.model.target import Target


class Action(str, enum.Enum):
    """What happens to one subject of the plan."""

    COPY = "copied"  # files as they are on the client
    FETCH = "fetched"  # a wheel for the target, from an index, by URL and hash
    BUILD = "built"  # an editable, made into a wheel
    SHIP = "shipped"  # loose code
    DROP = "dropped"  # left out, by the user's wish or for a stated reason


class Level(str, enum.Enum):
    """How far a distribution's version may move on the way to another platform."""

    EXACT = "exact"
    MINOR = "minor"  # the same major.minor
    ANY = "any"
    IGNORE = "ignore"  # left out


class LockedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that an index offers, pinned.

    Attributes
    ----------
    filename : str
        The wheel's (or, where there is no wheel, the sdist's) name: it says version and tags.
    url : str
        Where it is, without user info, token, query or fragment.
    sha256 : str
        Of its content, 64 hexadecimal digits.
    size : int or None
        In bytes, where the index says so.
    index : str
        The name of the index that offered it (`Index.name`), "" where that is not known: by it, and not by the
        URL, the client finds the credential that fetching may need.
    """

    filename: str
    url: str
    sha256: str
    size: int | None = None
    index: str = ""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the plan.

    Attributes
    ----------
    name : str
        A normalized distribution name or a code root's name.
    version : str
        The version on the nodes; of what is dropped, the one on the client.
    action : Action
    reason : str
        A few words, or one sentence.
    critical : bool
    installed : str
        The version on the client where it is another one, "" otherwise. ``new`` says that the client has none.
    new : bool
        The distribution exists on the target only.
    level : Level
        How far the version might have moved.
    file : LockedFile or None
        What is fetched.
    """

    name: str
    version: str
    action: Action
    reason: str
    critical: bool = False
    installed: str = ""
    new: bool = False
    level: Level = Level.EXACT
    file: LockedFile | None = None


class CondaDecision(Decision, frozen=True, kw_only=True):
    """The line of a conda package. `file` is its archive; its hash may be "" where a channel does not say it.

    Attributes
    ----------
    build : str
        The build string on the nodes.
    build_number : int
    channel : str
        Where it comes from: a URL without credentials.
    subdir : str
    noarch : str
        "", ``python`` or ``generic``.
    md5 : str
    requires, constrains : tuple of str
        Match specs, of what is fetched.
    distributions : tuple of str
        Normalized names of the Python distributions that it brings, as far as its name and the client's tell.
    """

    build: str = ""
    build_number: int = 0
    channel: str = ""
    subdir: str = ""
    noarch: str = ""
    md5: str = ""
    requires: tuple[str, ...] = ()
    constrains: tuple[str, ...] = ()
    distributions: tuple[str, ...] = ()


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to do about each distribution and code root, and why. The value of ``likewise plan``.

    Attributes
    ----------
    target : Target
    decisions : tuple of Decision
    kit : tuple of str
        Names of the distributions a node needs to join, and of the layers of conda packages that these depend on.
    problems : tuple of Problem
    requirements : str
        The requirements file on the client that names indexes (``--index-url``) which files come from, "" when there
        is none. The plan has no credential, so the client reads it there again when it fetches them.
    conda : tuple of CondaDecision
        What to do about each conda package, where the nodes are of another platform; `decisions` then has what comes
        on top of them. For nodes like the client, which get all that its prefix has: what they get besides.
    channels : tuple of str
        The conda channels that were asked, without credentials, the first one first.
    virtual_packages : tuple of str
        What conda is told of the nodes: ``__glibc=2.28=0``, ….
    """

    target: Target
    decisions: tuple[Decision, ...]
    kit: tuple[str, ...]
    problems: tuple[Problem, ...] = ()
    requirements: str = ""
    conda: tuple[CondaDecision, ...] = ()
    channels: tuple[str, ...] = ()
    virtual_packages: tuple[str, ...] = ()

    def get(self, name: str) -> Decision | None:
        """The decision about `name`, or None."""
        return next((d for d in self.decisions if d.name == name), None)
