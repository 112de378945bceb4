"""Questions about a target, answered by ``uv pip compile``.

uv is told everything on its command line and in files of a folder of its own, so neither a project in the working
directory nor settings meant for other purposes change the answer. What it may have from outside are indexes and how to
reach them. Nothing is built, no code of any distribution runs here.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import msgspec
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version
from uv import find_uv_bin

from likewise.errors import PlanError, UnsupportedError
from likewise.model.accelerators import PYTORCH
from likewise.model.origins import hosts_alone
from likewise.model.plan import LockedFile
from likewise.model.target import Platform
from likewise.planner.resolver import Lock, Locked, Question, Standing, Unsolvable

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

GLIBC_STEPS = ((2, 17), (2, 28), *((2, minor) for minor in range(31, 41)))
"""The C library versions that ``--python-platform`` can name; a target gets the highest one it has."""

MUSL = (1, 2)
"""The C library that ``…-unknown-linux-musl`` means: wheels for it are chosen, which an older one can't load."""

_KEPT = re.compile(
    r"UV_(CACHE_DIR|OFFLINE|(DEFAULT_|EXTRA_)?INDEX(_URL)?|INDEX_.+|FIND_LINKS|NO_INDEX|KEYRING_PROVIDER|INSECURE_HOST"
    r"|SYSTEM_CERTS|NATIVE_TLS|HTTP_.+|CONCURRENT_.+|REQUEST_TIMEOUT|AZURE_.+|AWS_.+|GITHUB_TOKEN|CREDENTIALS_DIR)"
)
"""Of uv's own variables, those about indexes and connections; the others would change what is answered."""

_UNAUTHORIZED = re.compile(r"lack of valid authentication credentials|401 Unauthorized")
_NO_ANSWER = re.compile(r"^error: (No solution found|Failed to resolve dependencies)", re.MULTILINE)  # behind warnings
_FORGOTTEN = re.compile(r"the network was disabled")
_YANKED = re.compile(r'warning: `(?P<name>[^`=]+)==[^`]*` is yanked(?: \(reason: "(?P<reason>.*)"\))?')
_TODO = "See whether the package indexes answer; `uv pip compile` with the same settings shows the same."

_OFFLINE = "--offline"

_ROOT = "likewise-question"
"""Stands for whoever asks, where what is asked for must not count as asked for directly."""


class UvResolver:
    """A `likewise.planner.resolver.Resolver`.

    Parameters
    ----------
    environ : mapping, optional
        Further environment variables for uv; the only place where a credential may stand.
    arguments : sequence of str, optional
        Further arguments, without secrets.
    work : Path
        A directory for files that are needed while it runs; made if need be.
    assigned : mapping, optional
        Normalized name → name and URL (without any secret) of the one index that is asked about it.
    preferred : mapping, optional
        Name → version that is taken of what is not asked for by name, where nothing is against it. Default: the
        highest one.
    exclude_newer : str, default ""
        Only what was uploaded before this time (RFC 3339 or a date) exists. "": everything.
    timeout : float, default 600
        Seconds that one question may take.
    """

    def __init__(
        self,
        *,
        environ: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
        work: Path,
        assigned: Mapping[str, tuple[str, str]] | None = None,
        preferred: Mapping[str, str] | None = None,
        exclude_newer: str = "",
        timeout: float = 600,
    ) -> None:
        self._environ = dict(environ or {})
        self._arguments = tuple(arguments)
        self._work = work
        self._assigned = dict(assigned or {})
        self._preferred = dict(preferred or {})
        self._exclude_newer = exclude_newer
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"<UvResolver in {self._work}>"

    def resolve(self, question: Question) -> Lock:
        """See `likewise.planner.resolver.Resolver.resolve`."""
        if not (question.wanted or question.further or (question.standing and not question.alone)):
            return Lock(packages=())
        self._work.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="question-", dir=self._work) as folder:
            question = _kept_apart(question, self._assigned)
            assigned = _tellable(self._assigned, question)
            written = _write(question, Path(folder), assigned)
            answer = Path(folder) / "pylock.toml"
            if preferred := _preferences({**self._preferred, **{one.name: one.prefer for one in question.wanted}}):
                answer.write_text(preferred, "utf-8")
            said = self._ask([*written, "--output-file", str(answer)], question).stderr
            reasons = self._reasons(question, written, answer) if question.reasons else {}
            yanked = {_name(one["name"]): one["reason"] or "no reason given" for one in _YANKED.finditer(said)}
            return Lock(packages=_packages(answer.read_text("utf-8"), yanked, assigned), required_by=reasons)

    def _reasons(self, question: Question, written: list[str], answer: Path) -> dict[str, tuple[str, ...]]:
        """Who requires whom in `answer`: the same question in the format that says so, without asking an index anew."""
        try:
            text = self._run([*written, "--no-header", "--annotation-style", "line", _OFFLINE], question).stdout
        except Unsolvable:
            return {}
        found = {}
        for line in text.splitlines():
            name, _, via = line.partition("  # via ")
            if via:
                others = [one.strip() for one in via.split(",")]
                found[_name(name)] = tuple(_name(one) for one in others if not one.startswith("-") and one != _ROOT)
        return found

    def _ask(self, arguments: Sequence[str], question: Question) -> subprocess.CompletedProcess[str]:
        """Run uv; what is only remembered suffices if the question says so and nothing is forgotten."""
        if question.remembered:
            try:
                return self._run([*arguments, _OFFLINE], question)
            except Unsolvable as error:
                if not _FORGOTTEN.search(str(error)):
                    raise
        return self._run(arguments, question)

    def _run(self, arguments: Sequence[str], question: Question) -> subprocess.CompletedProcess[str]:
        environ = {key: value for key, value in os.environ.items() if not key.startswith("UV_") or _KEPT.fullmatch(key)}
        behind = ["--exclude-newer", self._exclude_newer] if self._exclude_newer else []
        try:
            done = subprocess.run(
                [find_uv_bin(), "pip", "compile", *arguments, *self._arguments, *_about(question), *behind],
                capture_output=True,
                text=True,
                encoding="utf-8",
                errors="replace",
                stdin=subprocess.DEVNULL,
                env={**environ, **self._environ},
                cwd=self._work,
                timeout=self._timeout,
            )
        except subprocess.TimeoutExpired as error:
            raise PlanError(
                f"No versions for {question.target.platform} were found within {self._timeout:.0f} s.",
                todo="See whether the package indexes answer.",
            ) from error
        except OSError as error:
            raise PlanError(f"uv, which chooses versions for other platforms, can't be run: {error}.") from error
        if done.returncode:
            raise self._failure(hosts_alone(done.stderr).strip())
        return done

    def _failure(self, said: str) -> Exception:
        """What a failed run means: the question, or something else."""
        words = " ".join(said.split())
        if _UNAUTHORIZED.search(words):
            return PlanError(
                f"An index wants a credential that it did not get: {words}",
                todo="Put it where uv or pip looks for it: netrc, keyring, UV_INDEX_<NAME>_PASSWORD, or in the URL.",
                details={"uv": said},
            )
        if _NO_ANSWER.search(said):
            return Unsolvable(said)
        return PlanError(f"uv could not choose versions: {words}", todo=_TODO, details={"uv": said})


def _kept_apart(question: Question, assigned: Mapping[str, tuple[str, str]]) -> Question:
    """`question` without what comes from a certain index and is not asked for by name: uv would ask all indexes then.

    Not so of PyTorch's own distributions: whoever else has these, they are what everybody gets.
    """
    asked = {*_asked(question), *(one.name for one in question.standing), *PYTORCH}
    return msgspec.structs.replace(question, excluded=(*question.excluded, *(n for n in assigned if n not in asked)))


def _asked(question: Question) -> set[str]:
    """The names that are asked for."""
    return {*(one.name for one in question.wanted), *map(_name, question.further)}


def _tellable(assigned: Mapping[str, tuple[str, str]], question: Question) -> dict[str, tuple[str, str]]:
    """Those of `assigned` that are asked for and that uv can be told: where it overrides, it knows no certain index.

    So what is overridden is asked for like anything else when it is PyTorch's, which everybody has, and otherwise it is
    not overridden (`_overrides`): another index may have something else under that name.
    """
    lost = {name for name in question.overridden if name in PYTORCH}
    return {name: there for name, there in assigned.items() if name in _asked(question) - lost}


def _write(question: Question, folder: Path, assigned: Mapping[str, tuple[str, str]]) -> list[str]:
    """The question as files in `folder`; the arguments that name them."""
    wanted = {one.name: f"{one.name}{one.specifier}" for one in question.wanted}
    standing = {} if question.alone else _standing(question.standing, folder)
    overrides = _overrides(question, {**wanted, **standing}, assigned)
    certain = [text for name, text in wanted.items() if name in assigned]
    listed = [*(text for name, text in wanted.items() if name not in assigned), *standing.values()]
    if question.further:
        root = _asking(folder / _ROOT, _ROOT, question.further, assigned)
        listed.append(f"{_ROOT} @ {root.as_uri()}")
    arguments = [_listed(folder / "requirements.in", listed)] if listed else []
    if certain:
        arguments.append(str(_asking(folder / "assigned", f"{_ROOT}-assigned", certain, assigned) / "pyproject.toml"))
    if overrides:
        arguments += ["--overrides", _listed(folder / "overrides.txt", overrides)]
    if question.sdists:
        static = (f"[[dependency-metadata]]\nname = {json.dumps(name)}\nrequires-dist = []" for name in wanted)
        arguments += ["--config-file", _listed(folder / "uv.toml", static)]
    return arguments


def _standing(standing: Iterable[Standing], folder: Path) -> dict[str, str]:
    """Name → what asks for it: a source tree in `folder`."""
    trees = {
        one.name: _project(folder / "standing" / one.name, one.name, one.version, one.requires, one.extras)
        for one in standing
    }
    return {name: f"{name} @ {tree.as_uri()}" for name, tree in trees.items()}


def _overrides(question: Question, asked: Mapping[str, str], assigned: Mapping[str, tuple[str, str]]) -> list[str]:
    """What counts in place of what anybody requires."""
    certain = (name for name in question.overridden if name in asked and name not in assigned)
    return [*(asked[name] for name in certain), *(f"{name}; python_version < '0'" for name in question.excluded)]


def _listed(file: Path, lines: Iterable[str]) -> str:
    """`file`, with `lines` in it."""
    file.write_text("\n".join([*lines, ""]), "utf-8")
    return str(file)


def _about(question: Question) -> list[str]:
    """The part of the command line that is the same for every question of this kind about this target."""
    arguments = ["--python", sys.executable, "--no-python-downloads", "--python-version", question.target.python]
    arguments += ["--python-platform", python_platform(question.target.platform), "--no-progress", "--color", "never"]
    arguments += ["--only-binary", ":all:", "--no-config"] if not question.sdists else []
    arguments += ["--resolution", "lowest-direct"] if question.lowest else []
    arguments += ["--no-deps"] if question.alone else []
    arguments += ["--index-strategy", "unsafe-best-match"] if question.anywhere else []
    if question.prereleases or question.alone or question.lowest:
        arguments += ["--prerelease", "allow" if question.prereleases else "explicit"]
    return arguments


def python_platform(platform: Platform) -> str:
    """`platform` as ``--python-platform`` spells it.

    Raises
    ------
    UnsupportedError
        uv knows no such platform.
    """
    known = {("macos", "x86_64"), ("macos", "aarch64"), ("windows", "x86_64"), ("windows", "aarch64")}
    if (platform.os, platform.arch) in known:
        return f"{platform.arch}-{'apple-darwin' if platform.os == 'macos' else 'pc-windows-msvc'}"
    if platform.os == "linux" and platform.arch in ("x86_64", "aarch64"):
        musl = platform.libc == "musl"
        usual = MUSL if musl else (2, 28)
        has = tuple(int(part) for part in platform.libc_version.split(".")[:2]) if platform.libc_version else usual
        if musl and has >= MUSL:
            return f"{platform.arch}-unknown-linux-musl"
        step = max((step for step in GLIBC_STEPS if step <= has), default=None)
        if step and not musl:
            return f"{platform.arch}-manylinux_{step[0]}_{step[1]}"
    raise UnsupportedError(
        f"Versions for {platform} can't be chosen.",
        todo="Known are linux-64 and linux-aarch64, with glibc 2.17 or later, or with musl 1.2 or later.",
    )


def _sources(names: Iterable[str], assigned: Mapping[str, tuple[str, str]]) -> list[str]:
    """What tells uv that some of `names` come from a certain index alone."""
    chosen = {name: assigned[name] for name in names if name in assigned}
    lines = [
        "[tool.uv.sources]",
        *(f"{name} = {{ index = {json.dumps(index)} }}" for name, (index, _) in chosen.items()),
    ]
    for index, url in dict(chosen.values()).items():
        lines += ["[[tool.uv.index]]", f"name = {json.dumps(index)}", f"url = {json.dumps(url)}", "explicit = true"]
    return lines if chosen else []


def _asking(folder: Path, name: str, requires: Sequence[str], assigned: Mapping[str, tuple[str, str]]) -> Path:
    """A source tree that requires what is asked for, some of it from a certain index."""
    return _project(folder, name, "0", requires, (), _sources(map(_name, requires), assigned))


def _project(
    folder: Path, name: str, version: str, requires: Sequence[str], extras: Sequence[str], more: Sequence[str] = ()
) -> Path:
    """A source tree whose metadata is all there is of it (PEP 621), so that nobody has to build it."""
    optional = [text for text in requires if "extra" in text.partition(";")[2]]
    plain = [text for text in requires if text not in optional]
    lines = ["[project]", f"name = {json.dumps(name)}", f"version = {json.dumps(_public(version))}"]
    lines += [f"dependencies = {json.dumps(plain)}", "[project.optional-dependencies]"]
    lines += [*(f"{json.dumps(extra)} = {json.dumps(optional)}" for extra in extras), *more]
    folder.mkdir(parents=True)
    (folder / "pyproject.toml").write_text("\n".join([*lines, ""]), "utf-8")
    return folder


def _public(version: str) -> str:
    """`version`, or "0" where PEP 440 has no such version."""
    try:
        return str(Version(version))
    except InvalidVersion:
        return "0"


def _preferences(versions: Mapping[str, str]) -> str:
    """What is preferred, as an earlier answer, from which uv departs only where it must; "" when nothing is."""
    packages = [
        f"[[packages]]\nname = {json.dumps(name)}\nversion = {json.dumps(_public(version))}\n"
        for name, version in versions.items()
        if version and _public(version) != "0"
    ]
    return "\n".join(['lock-version = "1.0"\ncreated-by = "likewise"\n', *packages]) if packages else ""


def _packages(text: str, yanked: Mapping[str, str], assigned: Mapping[str, tuple[str, str]]) -> tuple[Locked, ...]:
    """The packages of a ``pylock.toml`` (PEP 751) that come from an index; it says only of `assigned` ones which."""
    found = []
    for package in tomllib.loads(text).get("packages", []):
        if "wheels" in package or "sdist" in package:
            name = _name(package["name"])
            index, _ = assigned.get(name, ("", ""))
            files = tuple(_file(entry, index) for entry in package.get("wheels") or [package["sdist"]])
            found.append(Locked(name=name, version=package["version"], files=files, yanked=yanked.get(name, "")))
    return tuple(sorted(found, key=lambda package: package.name))


def _file(entry: Mapping[str, Any], index: str) -> LockedFile:
    parts = urlsplit(entry["url"])
    host = parts.netloc.rpartition("@")[2]
    filename = entry.get("name") or unquote(parts.path.rsplit("/", 1)[-1])
    if "sha256" not in entry["hashes"]:
        raise PlanError(
            f"{filename} has no sha256 by which it could be checked.",
            where=host,
            todo="Use an index that gives one (PEP 503, PEP 691).",
        )
    return LockedFile(
        filename=filename,
        url=urlunsplit((parts.scheme, host, parts.path, "", "")),
        sha256=entry["hashes"]["sha256"],
        size=entry.get("size"),
        index=index,
    )


def _name(text: str) -> str:
    """The normalized name at the beginning of a requirement."""
    found = re.match(r"\s*([A-Za-z0-9._-]+)", text)
    return str(canonicalize_name(found[1])) if found else ""
