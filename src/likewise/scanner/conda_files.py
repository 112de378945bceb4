"""The layers of a prefix's conda packages, from their files: what is there counts, records say what it should be.

A package with a Python distribution has one layer with that, all other packages have one of their own, and that of
``python`` is the interpreter. What names the prefix is known by its placeholder again.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import msgspec

from likewise.errors import LayerError
from likewise.model.conda import LAYER_PREFIX, CondaPackage
from likewise.model.conda_identity import PYTHON, belongs, conda_path, entry_script_of, is_hidden
from likewise.model.digest import EMPTY, Digest, digest_bytes
from likewise.model.identity import entry_points, is_generated, script_from_prefix
from likewise.model.layer import FileEntry, LayerKind, LayerSource, SourceFile, layer_source, stays_inside
from likewise.model.manifest import prefix_path
from likewise.model.placeholders import likely_original, names, original_of, originals, with_prefix
from likewise.model.snapshot import Problem, Severity
from likewise.scanner.conda_records import Claim, Record, Records
from likewise.scanner.conda_spellings import Spellings
from likewise.scanner.distributions import Installed
from likewise.scanner.facts import Facts
from likewise.scanner.files import Progress, hash_files

PACKAGE_CACHE = "pkgs"
"""Folder of a prefix in which conda, where it lies there itself, keeps packages."""

_LINK_SCRIPTS = ("-pre-link.sh", "-post-link.sh", "-pre-unlink.sh")


class CondaFound(msgspec.Struct, frozen=True, kw_only=True):
    """What the conda packages of a prefix amount to.

    Attributes
    ----------
    packages : tuple of CondaPackage
        Sorted by name.
    distributions : dict of str to LayerSource
        The layers of those distributions that conda has installed, by name; they have all files of their packages.
    modified, missing : dict of str to tuple of str
        By name of such a distribution, layer paths of the files that are not what conda's record says, and that are not
        there.
    others : tuple of LayerSource
        The layers of all other packages.
    base : LayerSource or None
        The interpreter's.
    paths : frozenset of str
        Absolute paths of all files that conda packages have.
    owned : frozenset of str
        Paths, relative to the prefix, of everything that some record or distribution has.
    spellings : tuple of str
        The paths by which the prefix is called: see `likewise.scanner.conda_spellings`.
    variables : dict
        What activating the prefix sets: name → value, `PREFIX_MARK` for the prefix.
    problems : tuple of Problem
    """

    packages: tuple[CondaPackage, ...] = ()
    distributions: dict[str, LayerSource] = {}
    modified: dict[str, tuple[str, ...]] = {}
    missing: dict[str, tuple[str, ...]] = {}
    others: tuple[LayerSource, ...] = ()
    base: LayerSource | None = None
    paths: frozenset[str] = frozenset()
    owned: frozenset[str] = frozenset()
    spellings: tuple[str, ...] = ()
    variables: dict[str, str] = {}
    problems: tuple[Problem, ...] = ()


def conda_files(
    records: Records,
    *,
    prefix: str,
    python: str,
    implementation: str,
    installed: Iterable[Installed],
    sources: Mapping[str, LayerSource],
    facts: Facts,
    facts_before: Facts,
    look: bool = True,
    progress: Progress | None = None,
) -> CondaFound:
    """Look at every file of every conda package.

    Parameters
    ----------
    records : Records
    prefix : str
    python : str
        ``python3.11``.
    implementation : str
        Of the interpreter: the name of its layer.
    installed : iterable of Installed
        All distributions of the prefix.
    sources : mapping of str to LayerSource
        Their layers by name, as their own metadata has them.
    facts, facts_before : Facts
        Known digests of files, and of what they were before the prefix was put into them.
    look : bool, default True
        False where no node can have a copy: then packages are described and no file is looked at, and the layers of
        distributions stay what their own metadata says.
    progress : callable, optional
        See `likewise.scanner.files.settle`.
    """
    if not records.packages:
        return CondaFound(problems=records.problems)
    scan = _Scan(prefix, python, implementation, list(installed), sources, facts, facts_before)
    return scan.run(records, progress) if look else scan.describe(records)


class _Looked(msgspec.Struct, frozen=True):
    """A claimed file that is there."""

    claim: Claim
    path: str
    layer_path: str
    stat: os.stat_result
    link: str = ""


class _Before(msgspec.Struct, frozen=True):
    """A file as it was before `prefix` was put into it."""

    sha256: Digest
    size: int
    prefix: str


class _Package(msgspec.Struct):
    """A package while it is looked at."""

    record: Record
    distributions: list[str]  # those it still has
    replaced: str
    looked: list[_Looked] = []
    scripts: list[str] = []  # that were made when it was installed, relative to the prefix
    modified: list[str] = []
    missing: list[str] = []
    hidden: list[str] = []  # files of the prefix itself, which nobody looks at
    folders: list[str] = []  # that nodes won't have, since nothing is in them


class _Scan:
    def __init__(
        self,
        prefix: str,
        python: str,
        implementation: str,
        installed: list[Installed],
        sources: Mapping[str, LayerSource],
        facts: Facts,
        facts_before: Facts,
    ) -> None:
        self.prefix, self.python, self.implementation = prefix, python, implementation
        self.spellings = Spellings(prefix)
        self.installed = {one.name: one for one in installed}
        self.sources, self.facts, self.before = sources, facts, facts_before
        self.digests: dict[str, Digest] = {}
        self.problems: list[Problem] = []

    def describe(self, records: Records) -> CondaFound:
        """The packages, whose files nobody looks at."""
        packages = [self._describe(self._package(record), [], None) for record in records.packages]
        return CondaFound(packages=tuple(packages), problems=records.problems)

    def run(self, records: Records, progress: Progress | None) -> CondaFound:
        packages = [self._package(record) for record in records.packages]
        carried = {package.distributions[0]: package for package in packages if package.distributions}
        owned = self._paths_of(name for name in self.sources if name not in carried)
        self._look(packages, owned)
        self._hash(packages, carried, progress)
        self._settle_twice(packages)
        distributions, modified, missing, others = {}, {}, {}, []
        base: LayerSource | None = None
        described = []
        for package in packages:
            files = list(self._files(package))
            name = package.distributions[0] if package.distributions else ""
            source: LayerSource | None = None
            if name:
                files += self._unlisted(self.sources[name], package)
                source = self._layer(LayerKind.DISTRIBUTION, name, self.sources[name].version, files)
                if source is not None:
                    distributions[name] = source
                    modified[name] = self._layer_paths(package.modified)
                    missing[name] = self._layer_paths(package.missing)
            elif package.record.name == PYTHON:
                base = source = self._layer(LayerKind.INTERPRETER, self.implementation, package.record.version, files)
            elif files:
                own = LAYER_PREFIX + package.record.name
                source = self._layer(LayerKind.CONDA, own, package.record.version, files)
                others += [source] if source else []
            described.append(self._describe(package, files, source))
            self.problems += self._problems_of(package)
        return CondaFound(
            packages=tuple(described),
            distributions=distributions,
            modified=modified,
            missing=missing,
            owned=self._owned(packages),
            others=tuple(others),
            base=base,
            paths=frozenset(one.path for package in packages for one in package.looked),
            spellings=tuple(self.spellings.known),
            problems=(*records.problems, *self.problems),
        )

    def _package(self, record: Record) -> _Package:
        """Which distributions of a record are still its own: pip removes the metadata of what it replaces."""
        site = f"{self.prefix}/"
        by_folder = {one.folder.removeprefix(site): one for one in self.installed.values()}
        there = [by_folder[folder].name for folder in record.folders if folder in by_folder]
        there = [name for name in there if name in self.sources]
        replaced = ""
        if record.folders and not there:
            names = {_normalized(folder) for folder in record.folders}
            replaced = next((self.installed[name].installer or "pip" for name in names if name in self.installed), "")
        return _Package(record=record, distributions=there, replaced=replaced)

    def _paths_of(self, names: Iterable[str]) -> frozenset[str]:
        """Paths, relative to the prefix, of what these distributions have themselves."""
        return frozenset(
            prefix_path(file.entry.path, self.python) for name in names for file in self.sources[name].files
        )

    def _owned(self, packages: Iterable[_Package]) -> frozenset[str]:
        claimed = {claim.path for package in packages for claim in package.record.claims}
        scripts = {name for one in self.installed.values() for name in _entry_points(one)}
        try:
            made = [name for name in os.listdir(f"{self.prefix}/bin") if is_generated(f"scripts/{name}", scripts)]
        except OSError:
            made = []
        return frozenset(claimed | {f"bin/{name}" for name in made} | self._paths_of(self.sources))

    def _look(self, packages: Sequence[_Package], owned: Collection[str]) -> None:
        """Look at each claimed file that is content and nobody else's."""
        self._look_at_folders(packages)
        for package in packages:
            layer_paths = {conda_path(claim.path, self.python): claim for claim in package.record.claims}
            for layer_path, claim in layer_paths.items():
                if claim.path in owned or claim.folder:
                    continue
                if is_hidden(layer_path):
                    package.hidden.append(claim.path)
                elif claim.generated:
                    # pip's entry point of the same name has been put in the place of one that was replaced
                    own = claim.path.startswith("bin/") and not package.replaced
                    package.scripts += [claim.path] if own else []
                elif belongs(layer_path, layer_paths.__contains__):
                    self._look_at(package, claim, layer_path)

    def _look_at_folders(self, packages: Sequence[_Package]) -> None:
        claims = [(package, claim) for package in packages for claim in package.record.claims]
        empty = [(package, claim.path) for package, claim in claims if claim.folder]
        if empty:
            filled = {str(folder) for _, one in claims if not one.folder for folder in PurePosixPath(one.path).parents}
            for package, path in empty:
                if path not in filled and os.path.isdir(f"{self.prefix}/{path}"):
                    package.folders.append(path)

    def _look_at(self, package: _Package, claim: Claim, layer_path: str) -> None:
        path = f"{self.prefix}/{claim.path}"
        link = target = ""
        try:
            facts = os.lstat(path)
            if stat.S_ISLNK(facts.st_mode):
                target = os.readlink(path)
        except OSError:
            package.missing.append(claim.path)
            return
        if target:
            link = self._inside(claim.path, target) or (self._cached_link(claim.path, target) if claim.link else "")
            if link and claim.sha256 and not claim.link:
                package.modified.append(claim.path)
            if not link:
                try:
                    facts = os.stat(path)
                except OSError:
                    package.missing.append(claim.path)
                    return
        if link or stat.S_ISREG(facts.st_mode):
            package.looked.append(_Looked(claim, path, layer_path, facts, link))
        elif not stat.S_ISDIR(facts.st_mode):
            package.modified.append(claim.path)
        elif target:
            self._problem(
                "conda-link-outside",
                claim.path,
                f"{package.record}: {path} is a link to a folder outside of the prefix ({target}), so the nodes won't "
                "have it. Put the folder itself there if they need it.",
            )

    def _cached_link(self, path: str, target: str) -> str:
        """What a package has as a link, where that was linked in turn: the link of the package; else ""."""
        folder = os.path.dirname(f"{self.prefix}/{path}")
        try:
            link = os.readlink(os.path.join(folder, target))
        except OSError:
            return ""
        there = not os.path.isabs(link) and os.path.lexists(os.path.join(folder, link))
        return self._inside(path, link) if there else ""

    def _inside(self, path: str, link: str) -> str:
        """The target of a link as a relative one that a layer may have; "" when it leaves the prefix.

        So it does where it leads into the package cache that the first of conda's prefixes has: no node has that.
        """
        folder = os.path.dirname(path)
        if os.path.isabs(link):
            own = self.spellings.beginning(link)
            if own in (None, link):
                return ""
            link = os.path.relpath(link[len(own) + 1 :], folder or ".")
        cached = os.path.normpath(os.path.join(folder, link)).startswith(f"{PACKAGE_CACHE}/")
        return link if not cached and stays_inside(conda_path(path, self.python), link) else ""

    def _hash(self, packages: list[_Package], carried: Mapping[str, _Package], progress: Progress | None) -> None:
        """Make sure of the content of every file; those of distributions are known already."""
        for name in carried:
            for file in self.sources[name].files:
                if file.path and not file.entry.link:
                    self.digests[file.path] = file.entry.sha256
        pending = {
            one.path: one.stat
            for package in packages
            for one in package.looked
            if not one.link and one.path not in self.digests
        }
        digests, failures = hash_files(pending, self.facts, progress=progress)
        self.digests.update(digests)
        for path, why in failures.items():
            self._problem("unreadable-file", path, f"{path} can't be read ({why}); it is not shipped.", Severity.ERROR)

    def _settle_twice(self, packages: list[_Package]) -> None:
        """A path that two packages claim goes to the one whose record says what is there."""
        owners: dict[str, list[tuple[_Package, _Looked]]] = {}
        for package in packages:
            for one in package.looked:
                owners.setdefault(one.path, []).append((package, one))
        for path, several in owners.items():
            if len(several) > 1:
                several.sort(key=lambda item: self.digests.get(path) != item[1].claim.sha256_there)
                for package, one in several[1:]:
                    package.looked.remove(one)
        taken = {one.claim.path for package in packages for one in package.looked}
        for package in packages:
            package.scripts = [path for path in package.scripts if path not in taken]
            taken.update(package.scripts)

    def _files(self, package: _Package) -> Iterator[SourceFile]:
        for one in package.looked:
            if one.link:
                yield SourceFile(entry=FileEntry(path=one.layer_path, sha256=EMPTY, size=0, link=one.link))
            elif one.path in self.digests:
                file = self._file(package, one)
                if file is not None:
                    yield file
        yield from self._scripts(package)

    def _file(self, package: _Package, one: _Looked) -> SourceFile | None:
        claim, digest = one.claim, self.digests[one.path]
        executable = one.stat.st_mode & 0o111 != 0
        expected = claim.sha256_there
        same = digest == expected
        if expected and not same and package.replaced and claim.path.startswith("bin/"):
            return None  # the new one's entry point makes it anew
        before = self._before(one, known=same) if claim.placeholder else None
        if not expected and claim.sha256:  # some records say this alone
            same = (before.sha256 if before else digest) == claim.sha256
        if not same and (expected or claim.sha256):
            package.modified.append(claim.path)
        if before is None:
            entry = FileEntry(path=one.layer_path, sha256=digest, size=one.stat.st_size, executable=executable)
            return SourceFile(entry=entry, path=one.path)
        entry = FileEntry(
            path=one.layer_path,
            sha256=before.sha256,
            size=before.size,
            executable=executable,
            placeholder=claim.placeholder,
            binary=claim.binary,
        )
        return SourceFile(entry=entry, path=one.path, prefix=before.prefix)

    def _before(self, one: _Looked, *, known: bool) -> _Before | None:
        """A file before the prefix was put into it; None when it does not name the prefix."""
        claim = one.claim
        if known and claim.binary and claim.sha256:
            for prefix in self.spellings.known:
                if self.before.digest(self._fact(one.path, prefix), one.stat) == claim.sha256:
                    return _Before(Digest(claim.sha256), one.stat.st_size, prefix)
        try:
            data = Path(one.path).read_bytes()
        except OSError:
            return None
        for prefix in self.spellings.of(data):
            original = original_of(data, claim.placeholder, prefix, claim.sha256, binary=claim.binary)
            if original is not None:
                self.before.remember(self._fact(one.path, prefix), one.stat, Digest(claim.sha256))
                return _Before(Digest(claim.sha256), len(original), prefix)
        sure = known and claim.sha256 != ""
        before = self._guess(data, claim, clear=sure)
        if before is None and (sure or any(names(data, prefix) for prefix in self.spellings.known)):
            self._problem(
                "prefix-in-file",
                claim.path,
                f"{one.path} names the prefix in a way that can't be undone, so on the nodes it names this one.",
            )
        return before

    def _guess(self, data: bytes, claim: Claim, *, clear: bool) -> _Before | None:
        """What stands for a file that is not what the record says, with the placeholder where it names the prefix.

        None as well where it has to be `clear` and some of what names the prefix may have been there before.
        """
        for prefix in self.spellings.known:
            original = likely_original(data, claim.placeholder, prefix, binary=claim.binary)
            first = next(originals(data, claim.placeholder, prefix, binary=claim.binary))
            if original == data or (clear and original != first):
                continue
            try:
                same = with_prefix(original, claim.placeholder, prefix, binary=claim.binary) == data
            except ValueError:
                same = False
            if same:
                return _Before(digest_bytes(original), len(original), prefix)
        return None

    def _fact(self, path: str, prefix: str) -> str:
        """What it is remembered under what a file was before that prefix was put into it."""
        return path if prefix == self.prefix else f"{path}\0{prefix}"

    def _scripts(self, package: _Package) -> Iterator[SourceFile]:
        """Scripts of entry points: nodes would write them as pip does, and conda's are others."""
        for path in package.scripts:
            try:
                script = Path(self.prefix, path).read_bytes()
            except OSError:
                package.missing.append(path)
                continue
            data = entry_script_of(script)
            if data is None:
                package.modified.append(path)
                data = script_from_prefix(script, self._is_in_bin) or script
            entry = FileEntry(path=f"scripts/{path[4:]}", sha256=digest_bytes(data), size=len(data), executable=True)
            yield SourceFile(entry=entry, data=data)

    def _is_in_bin(self, program: str) -> bool:
        folder, _, name = os.path.dirname(program).rpartition("/")
        return name == "bin" and folder in self.spellings.known

    def _unlisted(self, source: LayerSource, package: _Package) -> list[SourceFile]:
        """What lies among a distribution's own files and no record names: the replica has what the disk has."""
        known = {claim.path for claim in package.record.claims}
        return [file for file in source.files if prefix_path(file.entry.path, self.python) not in known]

    def _layer_paths(self, paths: Iterable[str]) -> tuple[str, ...]:
        return tuple(sorted(conda_path(path, self.python) for path in paths))

    def _layer(self, kind: LayerKind, name: str, version: str, files: list[SourceFile]) -> LayerSource | None:
        try:
            return layer_source(kind, name, version, files)
        except LayerError as error:
            self._problem("unshippable", name, str(error), Severity.ERROR)
            return None

    def _describe(self, package: _Package, files: list[SourceFile], source: LayerSource | None) -> CondaPackage:
        record = package.record
        return CondaPackage(
            name=record.name,
            version=record.version,
            build=record.build,
            build_number=record.build_number,
            channel=record.channel,
            subdir=record.subdir,
            url=record.url,
            private=record.private,
            sha256=record.sha256,
            md5=record.md5,
            archive_size=record.archive_size,
            requested=record.requested,
            noarch=record.noarch,
            requires=record.requires,
            constrains=record.constrains,
            distributions=tuple(package.distributions or sorted({_normalized(f) for f in record.folders})),
            files=len(files),
            size=sum(file.entry.size for file in files),
            modified=tuple(sorted(package.modified)),
            missing=tuple(sorted(package.missing)) if not package.replaced else (),
            replaced=package.replaced,
            content=source.digest if source else None,
        )

    def _problems_of(self, package: _Package) -> Iterator[Problem]:
        record = package.record
        if package.replaced:
            names = ", ".join(sorted({_normalized(folder) for folder in record.folders} & self.installed.keys()))
            yield Problem(
                code="conda-replaced",
                subject=record.name,
                message=f"{package.replaced} has put {names} in the place of conda's {record}; the nodes get that.",
                severity=Severity.NOTE,
            )
        elif package.missing:
            yield _some(
                "conda-missing-files",
                record,
                package.missing,
                "of its files are not there ({shown}); the nodes won't have them either. Install it again if it needs "
                "them.",
                Severity.WARNING,
            )
        if package.modified:
            yield _some(
                "conda-modified-files",
                record,
                package.modified,
                "of its files are not what conda installed ({shown}); they are shipped as they are.",
                Severity.NOTE,
            )
        if package.hidden:
            yield _some(
                "conda-hidden-files",
                record,
                package.hidden,
                "of its files are hidden ones at the root of the prefix ({shown}), where somebody's own may lie; they "
                "are not shipped.",
                Severity.NOTE,
            )
        if package.folders:
            yield _some(
                "conda-empty-folders",
                record,
                package.folders,
                "of its folders have nothing in them ({shown}); layers have files alone, so the nodes won't have them.",
                Severity.NOTE,
            )
        scripts = [claim.path for claim in record.claims if claim.path.endswith(_LINK_SCRIPTS)]
        if scripts:
            yield Problem(
                code="conda-link-script",
                subject=record.name,
                message=f"{record} has a link script ({scripts[0]}), which may have changed what no record names; it "
                "is not run on the nodes.",
                severity=Severity.WARNING,
            )

    def _problem(self, code: str, subject: str, message: str, severity: Severity = Severity.WARNING) -> None:
        self.problems.append(Problem(code=code, subject=subject, message=message, severity=severity))


def _entry_points(one: Installed) -> frozenset[str]:
    """Names of the scripts that the metadata of a distribution asks for."""
    try:
        return entry_points(Path(one.folder, "entry_points.txt").read_text("utf-8", "replace"))
    except OSError:
        return frozenset()


def _some(code: str, record: Record, paths: list[str], text: str, severity: Severity) -> Problem:
    shown = ", ".join(sorted(paths)[:3]) + (", …" if len(paths) > 3 else "")
    message = f"{record}: {len(paths)} {text.format(shown=shown)}"
    return Problem(code=code, subject=record.name, message=message, severity=severity)


def _normalized(folder: str) -> str:
    """The normalized name (PEP 503) in the path of a dist-info or egg-info."""
    name = os.path.basename(folder).partition("-")[0]
    return name.replace("_", "-").replace(".", "-").lower()
