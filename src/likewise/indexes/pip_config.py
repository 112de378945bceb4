"""What pip's configuration says about indexes: its files, its environment variables, and requirements files.

The rules are pip's own (its user guide, "Configuration"): the machine's files, then the user's, then the prefix's,
then ``PIP_CONFIG_FILE``; what comes later replaces what came before; ``[install]`` beats ``[global]`` wherever either
stands; a variable ``PIP_…`` beats all files, and a requirements file beats even that.
"""

from __future__ import annotations

import configparser
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from likewise.indexes.secret import Secret
from likewise.indexes.stated import MOST, Configuration, Stated, unreadable
from likewise.indexes.urls import as_url
from likewise.model.snapshot import Problem
from likewise.model.text import LIMIT, encoding_of

_TRUE = {"1", "true", "yes", "on", "y", "t"}
_VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)\}")
_COMMENT = re.compile(r"(^|\s+)#.*$")
_OPTIONS = {
    "-i": "index-url",
    "--index-url": "index-url",
    "--pypi-url": "index-url",
    "--extra-index-url": "extra-index-url",
    "-f": "find-links",
    "--find-links": "find-links",
    "--trusted-host": "trusted-host",
    "-r": "requirement",
    "--requirement": "requirement",
    "-c": "requirement",
    "--constraint": "requirement",
}


@dataclass
class _Values:
    """The values that hold, each with the file or variable that gave it, and the folder its paths are relative to."""

    index: str = ""
    index_where: str = ""
    extra: list[tuple[str, str]] = field(default_factory=list)
    links: list[tuple[str, Path]] = field(default_factory=list)
    no_index: bool = False
    trusted: list[str] = field(default_factory=list)
    keyring: str = "auto"
    certificates: str = ""
    proxy: str = ""
    problems: list[Problem] = field(default_factory=list)


def read_pip(
    *,
    environ: Mapping[str, str],
    home: Path,
    folder: Path,
    prefix: Path | None,
    requirements: Sequence[Path | Secret],
    machine: Path,
    system: str,
) -> Configuration:
    """What pip would do.

    Parameters
    ----------
    environ : mapping
        The environment variables.
    home, folder : Path
        The user's home and the working directory.
    prefix : Path or None
        The prefix whose own ``pip.conf`` counts.
    requirements : sequence of Path or Secret
        Requirements files whose options count, or the text of one that came through a pipe.
    machine : Path
        Where ``etc`` lies (``/``).
    system : str
        ``sys.platform`` of this machine.
    """
    values = _Values()
    merged: dict[str, tuple[str, str]] = {}
    for path in config_files(environ=environ, home=home, prefix=prefix, machine=machine, system=system):
        merged |= _read_file(path, values.problems)
    for section in ("global", "install"):
        keys = {key: found for key, found in merged.items() if key.partition(".")[0] == section}
        _take(values, {key.partition(".")[2]: found for key, found in keys.items()}, folder)
    variables = {
        name[4:].lower().replace("_", "-"): (text, name)
        for name, text in environ.items()
        if name.startswith("PIP_") and text
    }
    _take(values, variables, folder)
    for one in requirements:
        if isinstance(one, Secret):
            _take_options(values, one.reveal(), "standard input", environ, folder, folder, seen=set())
        else:
            _read_requirements(values, one, environ, folder, seen=set())
    return _as_configuration(values, folder)


def config_files(
    *, environ: Mapping[str, str], home: Path, prefix: Path | None, machine: Path, system: str
) -> tuple[Path, ...]:
    """The files that pip reads, those that count most last; whether or not they exist."""
    chosen = environ.get("PIP_CONFIG_FILE", "")
    if chosen == os.devnull:
        return ()
    name = "pip.ini" if system == "win32" else "pip.conf"
    found = [folder / name for folder in _machine_folders(environ, machine, system)]
    if not (chosen and Path(chosen).exists()):
        found += [home / ("pip" if system == "win32" else ".pip") / name, _user_folder(environ, home, system) / name]
    found += [prefix / name] if prefix else []
    found += [Path(chosen)] if chosen else []
    return tuple(found)


def _machine_folders(environ: Mapping[str, str], machine: Path, system: str) -> list[Path]:
    if system == "win32":
        return [Path(environ.get("PROGRAMDATA", r"C:\ProgramData")) / "pip"]
    if system == "darwin":
        return [machine / "Library" / "Application Support" / "pip"]
    dirs = environ.get("XDG_CONFIG_DIRS") or str(machine / "etc" / "xdg")
    return [*(Path(one) / "pip" for one in dirs.split(":") if one), machine / "etc"]


def _user_folder(environ: Mapping[str, str], home: Path, system: str) -> Path:
    if system == "win32":
        return Path(environ.get("APPDATA") or home / "AppData" / "Roaming") / "pip"
    if system == "darwin":
        own = home / "Library" / "Application Support" / "pip"
        return own if own.is_dir() else home / ".config" / "pip"
    return Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "pip"


def _read_file(path: Path, problems: list[Problem]) -> dict[str, tuple[str, str]]:
    """``section.key`` → value and file. The words of a parser's error are the file's, and so are not passed on."""
    text = read_text(path, problems)
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(text)
    except configparser.Error:
        problems.append(unreadable(str(path), "is not a configuration file as pip reads it"))
        return {}
    return {
        f"{section}.{key.lower().replace('_', '-').removeprefix('--')}": (value, str(path))
        for section in parser.sections()
        for key, value in parser.items(section)
    }


def read_text(path: Path, problems: list[Problem], most: int = MOST) -> str:
    """A configuration file's text, "" when there is none, or more than `most` bytes."""
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
        if len(data) <= most:
            return data.decode(encoding_of(data))
        problems.append(unreadable(str(path), f"has more than {most >> 20} MiB"))
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except IsADirectoryError:
        return ""
    except OSError as error:
        problems.append(unreadable(str(path), f"can't be read ({error.strerror})"))
    except UnicodeDecodeError as error:
        problems.append(unreadable(str(path), f"is not {error.encoding.upper()}"))
    return ""


def _take(values: _Values, found: Mapping[str, tuple[str, str]], folder: Path) -> None:
    """Let `found` (option → value, where) replace what was there."""
    if "index-url" in found:
        values.index, values.index_where = found["index-url"][0].strip(), found["index-url"][1]
    if "extra-index-url" in found:
        text, where = found["extra-index-url"]
        values.extra = [(url, where) for url in text.split()]
    if "find-links" in found:
        values.links = [(one, folder) for one in found["find-links"][0].split()]
    if "no-index" in found:
        values.no_index = found["no-index"][0].strip().lower() in _TRUE
    if "trusted-host" in found:
        values.trusted = found["trusted-host"][0].split()
    values.keyring = found.get("keyring-provider", (values.keyring, ""))[0].strip()
    values.certificates = found.get("cert", (values.certificates, ""))[0].strip()
    values.proxy = found.get("proxy", (values.proxy, ""))[0].strip()


def _read_requirements(values: _Values, path: Path, environ: Mapping[str, str], folder: Path, seen: set[Path]) -> None:
    """Take the options of a requirements file, and of those that it includes."""
    path = Path(os.path.abspath(folder / path))
    if path in seen:
        return
    seen.add(path)
    _take_options(values, read_text(path, values.problems, LIMIT), str(path), environ, path.parent, folder, seen)


def _take_options(
    values: _Values, text: str, where: str, environ: Mapping[str, str], beside: Path, folder: Path, seen: set[Path]
) -> None:
    """Take the options in `text`, of a file in `beside`, and of the files that it includes."""
    for option, value in options_in(text, environ):
        if option == "requirement":
            if "://" not in value:
                _read_requirements(values, Path(value), environ, beside, seen)
        elif option == "no-index":
            values.no_index = True
        elif option == "index-url":
            values.index, values.index_where, values.extra = value, where, []
        elif option == "extra-index-url":
            values.extra.append((value, where))
        elif option == "find-links":
            values.links.append((value, beside if (beside / value).exists() else folder))
        else:
            values.trusted.append(value)


def names_indexes(requirements: Path | Secret) -> bool:
    """Whether a requirements file, or its text, has any of the options that say where files are."""
    text = requirements.reveal() if isinstance(requirements, Secret) else read_text(requirements, [], LIMIT)
    return any(True for _ in options_in(text, {}))


def options_in(text: str, environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The options of a requirements file that say where files are, in their order, with variables filled in.

    Examples
    --------
    >>> list(options_in("--extra-index-url=https://a.example/  # ours", {}))
    [('extra-index-url', 'https://a.example/')]
    """
    for line in re.sub(r"\\\r?\n", "", text).splitlines():
        line = _COMMENT.sub("", line).strip()
        if not line.startswith("-"):
            continue
        line = _VARIABLE.sub(lambda found: environ.get(found[1], found[0]), line)
        try:
            words = shlex.split(line)
        except ValueError:
            continue
        yield from _options(words)


def _options(words: list[str]) -> Iterator[tuple[str, str]]:
    while words:
        option, equals, value = words.pop(0).partition("=")
        if option == "--no-index":
            yield "no-index", ""
        elif option in _OPTIONS:
            if not equals:
                value = words.pop(0) if words else ""
            yield _OPTIONS[option], value
        elif (short := option[:2]) in _OPTIONS and not option.startswith("--"):
            yield _OPTIONS[short], option[2:] + equals + value  # -ihttps://…


def _as_configuration(values: _Values, folder: Path) -> Configuration:
    """What pip calls extra stands before its index, as in uv: pip itself knows no order."""
    indexes = [Stated(Secret(as_url(url, folder)), where) for url, where in values.extra]
    if values.index:
        indexes.append(Stated(Secret(as_url(values.index, folder)), values.index_where, default=True))
    configuration = Configuration(
        find_links=tuple(Secret(as_url(one, base)) for one, base in values.links),
        no_index=values.no_index,
        keyring=values.keyring != "disabled",
        unverified=tuple(values.trusted),
        certificates=str(folder / Path(values.certificates).expanduser()) if values.certificates else "",
        proxy=Secret(values.proxy) if values.proxy else None,
        problems=tuple(values.problems),
    )
    return configuration if values.no_index else replace(configuration, indexes=tuple(indexes))
