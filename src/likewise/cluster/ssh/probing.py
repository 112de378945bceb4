"""What a host is like, and whether an environment fits it. One round trip asks for everything; the verdict is pure."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from importlib.resources import files

import msgspec

from likewise.cluster.ssh.connection import Host
from likewise.errors import ClusterError
from likewise.model.manifest import Manifest
from likewise.node.command import bootstrap_script
from likewise.node.launch import quote

MAX_SKEW = 12 * 3600.0
"""Seconds that a host's clock may be behind or ahead: certificates hold from a day before they were made."""

_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
_DF = re.compile(r"(\d+) +(\d+) +(\d+) +(?:\d+%|-) ")
_SYMBOL = re.compile(r"(GLIBCXX|CXXABI|GCC)_(\d+(?:\.\d+)*)$")
_ARCHIVE = 0.5  # of a layer's size, at most: packed copies that a node keeps for other nodes
_BYTECODE = 0.5


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """What a host said of itself.

    Attributes
    ----------
    node : str
        The host, as the user calls it.
    address : str
        The host's own address at which it was reached; "" when sshd does not say.
    addresses : tuple of str
        All that it has, loopback left out.
    system, machine, kernel : str
        As uname has them; `machine` in Linux's spelling.
    libc, libc_version : str
        ``glibc`` or ``musl``; "" when not known.
    offers : dict
        Highest version by family (``GLIBCXX``, …), of what was found.
    skew : float
        Seconds that its clock is ahead of ours, as far as that is sure.
    cache : str
        The node cache; "" when there can be none, then `notices` say why.
    free_bytes, free_files : int, optional
        What the cache's file system has left; None for not known or unlimited.
    executes : bool
        Whether files in the cache can be executed.
    kits, prefixes, scripts, layers : frozenset of str
        Names of what is there.
    lacks : tuple of str
        Programs that are missing.
    """

    node: str
    user: str = ""
    home: str = ""
    host: str = ""
    address: str = ""
    addresses: tuple[str, ...] = ()
    system: str = ""
    machine: str = ""
    kernel: str = ""
    libc: str = ""
    libc_version: str = ""
    offers: dict[str, str] = {}
    skew: float = 0.0
    cache: str = ""
    free_bytes: int | None = None
    free_files: int | None = None
    executes: bool = True
    kits: frozenset[str] = frozenset()
    prefixes: frozenset[str] = frozenset()
    scripts: frozenset[str] = frozenset()
    layers: frozenset[str] = frozenset()
    lacks: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


def probe_script(cache: str, manifest: Manifest | None) -> str:
    """The script that asks a host.

    Parameters
    ----------
    cache : str
        The node cache, or ``auto``.
    manifest : Manifest, optional
        What the cache shall have room for.
    """
    text = (files("likewise.cluster.ssh") / "probe.sh").read_text("utf-8")
    options = ["--cache", cache, "--command", "place"]
    if manifest is not None:
        space, inodes = needed(manifest)
        options += ["--manifest", manifest.id, "--need-bytes", str(space), "--need-files", str(inodes)]
    text = text.replace("@BOOTSTRAP@", bootstrap_script().decode())
    return f"set -- {' '.join(map(quote, options))}\n{text}"


async def probe(host: Host, cache: str, manifest: Manifest | None) -> Probe:
    """Ask `host`.

    Raises
    ------
    ClusterError
        When it does not answer as a machine with a POSIX shell does.
    """
    before = time.time()
    answer = await host.run(probe_script(cache, manifest))
    found = parse_probe(host.name, answer.out, before, time.time())
    if found is None:
        words = (answer.said.strip() or answer.out.strip() or f"exit code {answer.status}").splitlines()
        raise ClusterError(
            f"The host can't be asked what it is like: {words[-1]}",
            where=host.name,
            todo="Nodes are Linux machines with a POSIX shell.",
        )
    return found


def parse_probe(node: str, text: str, before: float, after: float) -> Probe | None:
    """What probe.sh printed between the times `before` and `after` (seconds, our clock); None when its end is missing.

    What a login script prints before it does no harm.
    """
    lines = [line.partition(" ")[::2] for line in text.splitlines()]
    said: dict[str, list[str]] = {}
    for name, value in lines:
        said.setdefault(name, []).append(value)

    def one(name: str) -> str:
        return said.get(name, [""])[0]

    if "end" not in said:
        return None
    libc, _, version = one("libc").partition(" ")
    connection = one("connection").split()
    clock = float(one("date") or after)
    return Probe(
        node=node,
        user=one("user"),
        home=one("home"),
        host=one("host"),
        address=connection[2].partition("%")[0] if len(connection) == 4 else "",
        addresses=tuple(address for address in said.get("address", ()) if not _is_local(address)),
        system=one("system"),
        machine=_MACHINES.get(one("machine"), one("machine")),
        kernel=one("kernel"),
        libc=libc.lower(),
        libc_version=version.strip(),
        offers=_highest(" ".join(said.get("symbols", ())).split()),
        skew=min(0.0, clock + 1 - before) or max(0.0, clock - after),
        cache=one("cache"),
        free_bytes=_free(one("disk"), 1024),
        free_files=_free(one("inodes"), 1),
        executes=one("exec") != "no",
        kits=_names(said.get("kit", ())),
        prefixes=_names(said.get("prefix", ())),
        scripts=_names(said.get("script", ())),
        layers=_names(said.get("layer", ())),
        lacks=tuple(said.get("lacks", ())),
        notices=tuple(said.get("notice", ())),
    )


def fits(probe: Probe, manifest: Manifest) -> tuple[str, ...]:
    """What keeps the environment `manifest` from running on a host: one sentence each, nothing when it fits."""
    target = manifest.target.platform
    problems = []
    if probe.system.lower() != target.os or probe.machine != target.arch:
        here, there = f"{probe.system} on {probe.machine}", f"{target.os} on {target.arch}"
        problems.append(f"It is {here}, and the environment is for {there}.")
    else:
        problems += _libc_problems(probe, manifest)
    if probe.lacks:
        problems.append(f"It lacks {', '.join(probe.lacks)}.")
    if abs(probe.skew) > MAX_SKEW:
        where = "ahead" if probe.skew > 0 else "behind"
        hours = f"{abs(probe.skew) / 3600:.0f} hours"
        problems.append(f"Its clock is {hours} {where}, so certificates would not hold there.")
    if not probe.cache:
        problems.append(f"There is no place for the cache: {' '.join(probe.notices) or 'it does not say why.'}")
        return tuple(problems)
    if not probe.executes:
        problems.append(f"Nothing in {probe.cache} can be executed: it seems to be mounted with noexec.")
    space, inodes = needed(manifest, probe)
    if probe.free_bytes is not None and probe.free_bytes < space:
        problems.append(f"{probe.cache} has {probe.free_bytes // 10**6} MB left, and about {_mb(space)} MB are needed.")
    if probe.free_files is not None and probe.free_files < inodes:
        problems.append(f"{probe.cache} has {probe.free_files} inodes left, and about {inodes} are needed.")
    return tuple(problems)


def _libc_problems(probe: Probe, manifest: Manifest) -> list[str]:
    target = manifest.target.platform
    if probe.libc and target.libc and probe.libc != target.libc:
        return [f"Its C library is {probe.libc}, and the environment needs {target.libc}."]
    offers = {**probe.offers, "GLIBC": probe.libc_version if probe.libc == "glibc" else ""}
    too_old = {
        family: (offers[family], version)
        for family, version in manifest.needs.items()
        if offers.get(family) and _numbers(offers[family]) < _numbers(version)
    }
    return [f"It has {family} {there}, and the environment needs {here}." for family, (there, here) in too_old.items()]


def needed(manifest: Manifest, probe: Probe | None = None) -> tuple[int, int]:
    """About how many bytes and files `manifest` takes in a cache, without what a host already has."""
    if probe is not None and manifest.id[:16] in probe.prefixes:
        return 0, 0
    missing = [ref for ref in manifest.layers if probe is None or ref.digest not in probe.layers]
    space = sum(ref.size for ref in missing) * (1 + _BYTECODE + _ARCHIVE)
    return int(space), sum(ref.files for ref in missing) * 2


def common_target(probes: Sequence[Probe]) -> str:
    """The name of the target that all these hosts are: with the oldest C library among them.

    Raises
    ------
    ClusterError
        When they are of several platforms.
    """
    kinds: dict[tuple[str, str, str], list[Probe]] = {}
    for one in probes:
        kinds.setdefault((one.system.lower(), one.machine, one.libc), []).append(one)
    if len(kinds) > 1:
        said = {", ".join(one.node for one in them): "-".join(filter(None, kind)) for kind, them in kinds.items()}
        raise ClusterError(
            "The hosts of one cluster have to be of one platform, and these are of several: "
            + "; ".join(f"{nodes} {kind}" for nodes, kind in said.items())
            + ".",
            where=", ".join(said),
            todo="Start a cluster for each platform.",
            details={"platforms": said},
        )
    ((system, machine, libc),) = kinds
    versions = [_numbers(one.libc_version)[:2] for one in probes if one.libc_version]
    return f"{system}-{machine}" + (f"-{libc}{'.'.join(map(str, min(versions)))}" if libc and versions else "")


def check_fit(probes: Iterable[Probe], manifest: Manifest) -> None:
    """Refuse hosts that the environment does not fit, all of them in one error.

    Raises
    ------
    ClusterError
    """
    problems = {probe.node: found for probe in probes if (found := fits(probe, manifest))}
    if problems:
        said = "".join(f"\n    {node}: {' '.join(found)}" for node, found in problems.items())
        raise ClusterError(
            f"The environment does not fit {'this host' if len(problems) == 1 else 'these hosts'}:{said}",
            where=", ".join(problems),
            details={"problems": {node: list(found) for node, found in problems.items()}},
        )


def node_address(probe: Probe, others: Sequence[Probe]) -> str:
    """The address at which the processes of a host listen.

    It is the one at which the host was reached, unless that leads to the host itself only and there are other hosts.
    """
    if not _is_local(probe.address):
        return probe.address
    if probe.address and all(_is_local(other.address) for other in others):
        return probe.address
    return next(iter(probe.addresses), "0.0.0.0")


def _is_local(address: str) -> bool:
    return address.startswith(("127.", "fe80:")) or address in ("::1", "localhost", "")


def _highest(symbols: Iterable[str]) -> dict[str, str]:
    highest: dict[str, str] = {}
    for family, version in (match.groups() for match in map(_SYMBOL.match, symbols) if match):
        if family not in highest or _numbers(highest[family]) < _numbers(version):
            highest[family] = version
    return highest


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def _free(line: str, unit: int) -> int | None:
    match = _DF.search(f"{line} ")
    return int(match[3]) * unit if match and int(match[1]) else None


def _names(paths: Iterable[str]) -> frozenset[str]:
    return frozenset(path.rpartition("/")[2] for path in paths)


def _mb(size: int) -> int:
    return -(-size // 10**6)
