"""The command prefix: what it says, how it is quoted, and what it refuses."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from likewise import command_prefix
from likewise.deploy import CommandPrefix
from likewise.errors import UsageError
from likewise.model.bundle import DESCRIPTION, Bundle
from likewise.model.digest import digest_bytes

BUNDLE = Bundle(
    manifest=digest_bytes(b"manifest"),
    kit_id=digest_bytes(b"kit"),
    kit_sha256=digest_bytes(b"file"),
    need_bytes=1000,
    need_files=10,
    python="3.11.7",
    platform="linux-x86_64",
    likewise="0.1.0",
    files={},
)


def option(prefix: CommandPrefix, name: str) -> str:
    """The value of an option in the prefix."""
    return prefix[prefix.index(name) + 1]


def test_prefix_of_a_shared_folder() -> None:
    """Script, store and kit lie in the folder; the node chooses its cache, knowing what it has to hold."""
    prefix = command_prefix(store="/shared/bundle/", files=BUNDLE)
    assert prefix[:2] == ("sh", "/shared/bundle/bootstrap.sh")
    assert option(prefix, "--store") == "/shared/bundle"
    assert option(prefix, "--kit") == f"/shared/bundle/kits/{BUNDLE.kit_id}"
    assert option(prefix, "--cache") == "auto"
    assert (option(prefix, "--need-bytes"), option(prefix, "--need-files")) == ("1000", "10")
    assert prefix[-1] == "--"
    assert not {"--ask", "--hub", "--cluster"} & set(prefix)


def test_prefix_of_a_web_server() -> None:
    """Layers and kit come from the address; the script is where somebody has put it."""
    url = "https://files.example.org/likewise"
    prefix = command_prefix(store=url, files=BUNDLE, script="/opt/bootstrap.sh", cache="/var/cache/node")
    assert prefix[:2] == ("sh", "/opt/bootstrap.sh")
    assert (option(prefix, "--store"), option(prefix, "--kit")) == (url, f"{url}/kits/{BUNDLE.kit_id}")
    assert option(prefix, "--cache") == "/var/cache/node"


def test_everything_else_can_be_said() -> None:
    """Nodes may ask their scheduler, and give layers to each other."""
    prefix = command_prefix(
        store="/b", files=BUNDLE, kit="/k", ask=True, cluster="0123456789abcdef", hub="tls://10.0.0.1:9000"
    )
    assert option(prefix, "--kit") == "/k"
    assert option(prefix, "--cluster") == "0123456789abcdef"
    assert option(prefix, "--hub") == "tls://10.0.0.1:9000"
    assert "--ask" in prefix


def test_a_shell_reads_the_prefix_as_it_is() -> None:
    """Quotes, dollars and spaces in a path survive a shell."""
    prefix = command_prefix(store="/a b/$HOME/it's", files=BUNDLE)
    done = subprocess.run(["sh", "-c", f"printf '%s\\n' {prefix.shell}"], capture_output=True, text=True, check=True)
    assert tuple(done.stdout.splitlines()) == prefix


def test_folder_tells_what_is_in_it(tmp_path: Path) -> None:
    """A folder that holds a bundle can be given instead of the bundle, wherever nodes see it."""
    (tmp_path / DESCRIPTION).write_bytes(msgspec.json.encode(BUNDLE))
    assert command_prefix(store="/x", files=tmp_path) == command_prefix(store="/x", files=BUNDLE)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"store": "shared/bundle"}, "no absolute path"),
        ({"store": "/x\ny"}, "control characters"),
        ({"store": "https://example.org/x"}, "bootstrap.sh"),
        ({"store": "https://me:geheim@example.org/x", "script": "/s"}, "more than a host"),
        ({"kit": "https://example.org/kit?token=geheim"}, "more than a host"),
        ({"cache": "cache"}, "no absolute path"),
        ({"script": "bootstrap.sh"}, "no absolute path"),
        ({"cluster": "../../etc"}, "no cluster's id"),
        ({"only": ["numpy"]}, "chosen already"),
        ({"fail_on": "warning"}, "chosen already"),
        ({"files": "/nowhere"}, "no bundle"),
    ],
)
def test_refusals(wrong: dict[str, Any], says: str) -> None:
    """What can't work on a node, or would show a credential, is refused at once, and the credential is not repeated."""
    with pytest.raises(UsageError, match=says) as caught:
        command_prefix(**{"store": "/shared", "files": BUNDLE, **wrong})
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    ("command", "python"),
    [
        (["dask-worker", "--nthreads", "2"], ["-m", "distributed.cli.dask_worker", "--nthreads", "2"]),
        (["/opt/conda/bin/dask-scheduler"], ["-m", "distributed.cli.dask_scheduler"]),
        (["dask", "worker", "tcp://s:1"], ["-m", "dask", "worker", "tcp://s:1"]),
        (["python3.11", "-m", "distributed.cli.dask_spec"], ["-m", "distributed.cli.dask_spec"]),
    ],
)
def test_commands_of_deployers(command: list[str], python: list[str]) -> None:
    """What a deployer runs by name is what Python runs in the replica."""
    prefix = command_prefix(store="/b", files=BUNDLE)
    assert prefix.instead_of(command) == [*prefix, *python]


@pytest.mark.parametrize("command", [[], ["bash", "-c", "dask-worker"], ["python-config"]])
def test_commands_that_are_not_python(command: list[str]) -> None:
    """Anything else is refused instead of being guessed at."""
    with pytest.raises(UsageError, match="not known how"):
        command_prefix(store="/b", files=BUNDLE).instead_of(command)
