"""A conda prefix with pip's packages on top runs on hosts without Python and without conda, at another path."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from support.canaries import canary, credentials, words_beneath, words_said
from support.conda_channel import SPECS, CondaChannel, CondaPrefix, install, install_pips
from support.conda_python import is_elf
from support.conda_server import serve_channel
from support.ssh_client import SHELL, SSHClient
from support.testbed import FakeHosts, Host, Testbed

pytestmark = [pytest.mark.root, pytest.mark.registry]

START = """
cluster = SSHCluster({hosts}, connect_options={{"config": {config!r}}}, worker_options={{"nthreads": 1}})
client = cluster.get_client()
"""

COMPUTE = """
def first(n):
    import greeter, numpy, os, sample, ssl, subprocess, sys
    prefix = sys.prefix
    def said(*argv):
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    return {
        "sum": int(loose.double(numpy.arange(n)).sum()),
        "prefix": prefix,
        "base": sys.base_prefix,
        "words": [greeter.WORD, sample.WORD],
        "R": said(f"{prefix}/bin/Rscript", "-c", "echo $R_HOME_DIR; ldd $BASH"),
        "oldform": said(f"{prefix}/bin/oldform"),
        "greet": said(f"{prefix}/bin/greet"),
        "greet-loudly": said(f"{prefix}/bin/greet-loudly"),
        "authorities": len(ssl.create_default_context().get_ca_certs()) > 0,
        "variables": {name: os.environ.get(name, "") for name in
                      ("R_HOME", "R_SEARCHES", "PROJ_DATA", "GEODATA_MODE", "SSL_CERT_FILE", "CONDA_PREFIX")},
        "mapped": sorted({line.split(maxsplit=5)[5].strip() for line in open("/proc/self/maps") if "/" in line}),
    }

answer = client.submit(first, 30).result()
"""

SEEN = """
import pickle
report = cluster.verify()
answer = {
    "ok": report.ok,
    "nodes": sorted(node.node for node in report.nodes),
    "differences": [str(difference) for difference in report.differences],
    "stages": {stage.name: stage.done for stage in cluster.report.stages},
    "problems": sorted({problem.code for problem in cluster._prepared.problems}),
    "id": cluster.environment.id,
    "said": repr([cluster, cluster._prepared, report, cluster.report, cluster.get_logs(), client.get_worker_logs(),
                  pickle.dumps([cluster._prepared.snapshot, cluster._prepared.manifest, cluster._prepared.offers])]),
}
"""

END = "client.close(); cluster.close()"

LIBC = re.compile(r"(linux-vdso|ld-linux\S*|lib(c|m|dl|pthread|rt|util|resolv|anl)\.so)")


@pytest.fixture(scope="module")
def hosts(fake_hosts: FakeHosts) -> Testbed:
    return fake_hosts(2, fresh=True)


@pytest.fixture(scope="module")
def user(conda_channel: CondaChannel, tmp_path_factory: pytest.TempPathFactory) -> CondaPrefix:
    """A user with a prefix of his own, from a channel that wants a token, who is ready to start a cluster."""
    folder = tmp_path_factory.mktemp("conda-user")
    with serve_channel(conda_channel.folder, token=canary("of_a_channel")) as server:
        prefix = install(folder / "conda", SPECS, [server.url], folder / "packages")
    install_pips(prefix, folder / "wheels")
    (folder / "work").mkdir()
    (folder / "work" / "loose.py").write_text("def double(x):\n    return 2 * x\n")
    (folder / "work" / "client.py").write_text(SHELL)
    return CondaPrefix(prefix, conda_channel, folder / "packages")


@pytest.fixture(scope="module")
def launched(hosts: Testbed, user: CondaPrefix) -> Iterator[SimpleNamespace]:
    """Started and looked at; then the package cache goes, a file is changed, and all is started once more."""
    work = user.folder.parent
    client = SSHClient(user.python, cache=work / "cache")
    start = START.format(hosts=[hosts[0].name, *hosts.names], config=str(hosts.ssh_config))
    try:
        client.do(start)
        computed, seen = client.do(COMPUTE), client.do(SEEN)
        client.do(END)
        shutil.rmtree(user.cache)
        replace(user.folder / "share/geodata/base.txt", "changed by hand\n")
        client.do(start)
        again = client.do(SEEN)
        yield SimpleNamespace(computed=computed, seen=seen, again=again, stderr=client.stderr.read_text())
    finally:
        client.end()


def replace(path: Path, text: str) -> None:
    """Write a file anew: conda's package cache has another link to the old one."""
    path.unlink()
    path.write_text(text)


def conda_elves(prefix: Path) -> list[str]:
    """The programs and libraries that conda installed, as paths in the prefix."""
    import json

    records = [json.loads(path.read_text()) for path in (prefix / "conda-meta").glob("*.json")]
    files = [prefix / file for record in records for file in record["files"]]
    elves = [file for file in files if file.exists() and not file.is_symlink() and is_elf(file)]
    return [str(file.relative_to(prefix)) for file in elves]


def there(launched: SimpleNamespace) -> str:
    """The prefix on the hosts."""
    prefix: str = launched.computed["prefix"]
    return prefix


def test_the_first_task_runs(launched: SimpleNamespace, user: CondaPrefix) -> None:
    """numpy from conda, packages from pip, one that pip put over conda's, and a loose module; at another path."""
    assert launched.computed["sum"] == 2 * sum(range(30))
    assert launched.computed["words"] == ["good evening", "sample"]
    assert there(launched) != str(user.folder)
    assert not there(launched).startswith(str(user.folder.parent))


def test_every_host_is_verified(launched: SimpleNamespace) -> None:
    """verify() finds no difference, on any host and to the client."""
    for seen in (launched.seen, launched.again):
        assert (seen["ok"], seen["differences"]) == (True, [])
        assert seen["nodes"] == ["h1", "h2"]


def test_programs_know_where_they_are(launched: SimpleNamespace) -> None:
    """Text and binary placeholders are the node's prefix: a script finds a program, and that its library."""
    prefix = there(launched)
    home, *libraries = launched.computed["R"].splitlines()
    assert home == f"{prefix}/lib/R"
    assert any(f"libtinfo.so.6 => {prefix}/lib/" in line for line in libraries)
    assert launched.computed["oldform"] == prefix
    assert launched.computed["greet"] == launched.computed["greet-loudly"] == "good evening pip"


def test_activation_had_its_effect(launched: SimpleNamespace) -> None:
    """What activate.d and env_vars.d set is set for the worker, with the node's folders."""
    prefix = there(launched)
    assert launched.computed["variables"] == {
        "R_HOME": f"{prefix}/lib/R",
        "R_SEARCHES": f"{prefix}/lib/R/library",
        "PROJ_DATA": f"{prefix}/share/proj",
        "GEODATA_MODE": "fast",
        "SSL_CERT_FILE": f"{prefix}/ssl/cert.pem",
        "CONDA_PREFIX": prefix,
    }
    assert launched.computed["authorities"]


def test_nothing_is_loaded_from_outside_but_the_c_library(
    launched: SimpleNamespace, hosts: Testbed, user: CondaPrefix
) -> None:
    """`ldd` on a host, of every program and library of conda's, and what the worker has mapped."""
    prefix = there(launched)
    elves = conda_elves(user.folder)
    assert len(elves) > 80
    listed = hosts[1].run(f"cd {prefix} && ldd {' '.join(elves)}")
    found = re.findall(r"^\t(\S+) => (.+?)(?: \(0x\w+\))?$", listed, re.MULTILINE)
    assert {(n, p) for n, p in found if not LIBC.match(n) and not p.startswith(f"{prefix}/")} == set()
    mapped = [path for path in launched.computed["mapped"] if ".so" in path]
    outside = [path for path in mapped if not path.startswith(prefix) and not LIBC.match(path.rpartition("/")[2])]
    assert [path for path in mapped if path.startswith(prefix)] and outside == []


def test_no_file_of_a_host_names_the_clients_folders(
    launched: SimpleNamespace, hosts: Testbed, user: CondaPrefix
) -> None:
    """Neither the original prefix, nor the package cache, nor a placeholder is left in the replica."""
    for host in hosts:
        assert left(host, there(launched), str(user.folder.parent)) == []
        names = left(host, there(launched), "/opt/testbed_build_prefix")
        assert [name for name in names if "/conda-meta/" not in name] == []  # whoever moves a prefix needs to know


def test_no_host_has_the_channels_token(launched: SimpleNamespace, hosts: Testbed, user: CondaPrefix) -> None:
    """The user's records have it; no file of a host has, in whatever archive, nor what the client keeps and says."""
    assert credentials(words_beneath(user.folder / "conda-meta")) == {"_of_a_channel"}
    folders = [host.root / name for host in hosts for name in ("tmp", "root", "home", "var/tmp", "var/log", "run")]
    assert words_beneath(*folders, user.folder.parent / "cache") == {}
    assert words_said(launched.stderr + launched.seen["said"]) == set()


def test_every_host_has_records(launched: SimpleNamespace, hosts: Testbed, user: CondaPrefix) -> None:
    """Of the packages that the user has, and a history, in the prefix that started while it grew."""
    own = {path.name for path in (user.folder / "conda-meta").glob("*.json")}
    for host in hosts:
        assert set(host.run(f"ls {there(launched)}/conda-meta").split()) == {*own, "history"}


def left(host: Host, prefix: str, words: str) -> list[str]:
    """Files beneath `prefix` that have `words` in them."""
    return host.run(f"grep -rlsF {words} {prefix}", check=False).splitlines()


def test_a_changed_file_is_shipped_and_the_package_cache_is_not_needed(
    launched: SimpleNamespace, hosts: Testbed
) -> None:
    """The second start has no package cache, and a file that somebody changed."""
    assert launched.again["id"] != launched.seen["id"]
    for host in hosts:
        prefix = f"{there(launched).rpartition('/')[0]}/{launched.again['id'][:16]}"
        assert host.run(f"cat {prefix}/share/geodata/base.txt") == "changed by hand\n"


def test_what_conda_ran_when_it_installed_is_named(launched: SimpleNamespace) -> None:
    """A link script's work can't be repeated; a warning says whose it is."""
    problems: list[Any] = launched.seen["problems"]
    assert any("script" in code for code in problems), problems
