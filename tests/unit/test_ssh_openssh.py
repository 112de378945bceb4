"""OpenSSH's configuration, as OpenSSH itself reads it."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from likewise.cluster.ssh.connection import read_known_hosts, require_asyncssh
from likewise.cluster.ssh.openssh import Route, find_route, parse_settings, prefer_fast, route_from
from likewise.errors import UsageError

needs_ssh = pytest.mark.skipif(shutil.which("ssh") is None, reason="needs ssh")


def route(tmp_path: Path, text: str, host: str, **options: object) -> Route:
    config = tmp_path / "config"
    config.write_text(text)
    return asyncio.run(find_route(host, {"config": str(config), **options}))


@needs_ssh
def test_an_alias_leads_to_its_host(tmp_path: Path) -> None:
    """HostName, User, Port, keys that exist, known hosts and the jump host come from the configuration."""
    key, known = tmp_path / "key", tmp_path / "known"
    key.write_text("")
    known.write_text("")
    found = route(
        tmp_path,
        f"""
        Host node*
          HostName %h.cluster.example
          User me
          Port 2222
          IdentityFile {key}
          IdentityFile {tmp_path}/missing
          UserKnownHostsFile {known} {tmp_path}/missing
          GlobalKnownHostsFile none
          ProxyJump first,you@second:23
          ConnectTimeout 3
        """,
        "node7",
    )
    assert found.host == "node7.cluster.example"
    assert found.jumps == ("first", "you@second:23")
    arguments = found.arguments
    assert (arguments["username"], arguments["port"], arguments["connect_timeout"]) == ("me", 2222, 3.0)
    assert (arguments["client_keys"], arguments["known_hosts"]) == ([str(key)], [str(known)])
    assert (found.strict, found.remember) == ("yes", str(known))


@needs_ssh
def test_the_users_own_options_come_first(tmp_path: Path) -> None:
    """connect_options win over the configuration, and choose which of its sections count."""
    text = "Match user other\n  Port 1\nHost *\n  User me\n  Port 2\n"
    found = route(tmp_path, text, "h", username="other", known_hosts=None)
    assert (found.arguments["username"], found.arguments["port"], found.arguments["known_hosts"]) == ("other", 1, None)
    assert route(tmp_path, text, "h", port=3).arguments["port"] == 3


@needs_ssh
@pytest.mark.parametrize(
    ("said", "strict"), [("no", "no"), ("off", "no"), ("accept-new", "accept-new"), ("ask", "yes"), ("yes", "yes")]
)
def test_host_keys_are_checked_as_the_configuration_says(tmp_path: Path, said: str, strict: str) -> None:
    """Nobody can be asked, so `ask` means yes."""
    assert route(tmp_path, f"StrictHostKeyChecking {said}\n", "h").strict == strict


@needs_ssh
def test_a_configuration_that_openssh_refuses_is_told_in_its_words(tmp_path: Path) -> None:
    """With the file and the line."""
    with pytest.raises(UsageError, match=r"config.*line 1"):
        route(tmp_path, "Porrt 5\n", "h")


@pytest.mark.parametrize("name", ["", "-oProxyCommand=touch x"])
def test_a_name_that_is_an_option_is_none(name: str) -> None:
    """It would be one for ssh."""
    with pytest.raises(UsageError):
        asyncio.run(find_route(name, {}))


def test_fast_ciphers_come_first_and_none_is_added() -> None:
    """The configuration decides which ones may be used at all."""
    assert prefer_fast(["chacha20-poly1305@openssh.com", "aes256-gcm@openssh.com"]) == [
        "aes256-gcm@openssh.com",
        "chacha20-poly1305@openssh.com",
    ]
    assert prefer_fast(["aes256-ctr"]) == ["aes256-ctr"]


def test_an_agent_that_is_switched_off_is_not_asked() -> None:
    """IdentityAgent none."""
    settings = parse_settings("user me\nhostname h\nport 22\nidentityagent none\nciphers a\n")
    assert route_from(settings, {}, exists=lambda path: False).arguments["agent_path"] is None


def test_lines_that_nobody_understands_do_not_hide_the_others(tmp_path: Path) -> None:
    """A known-hosts file with a broken line is read all the same, and one that is missing is none."""
    asyncssh = require_asyncssh()
    key = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().strip()
    file = tmp_path / "known"
    file.write_text(f"broken\n@odd h1 {key}\nh1 {key}\n")
    known = read_known_hosts([str(tmp_path / "missing"), str(file)], asyncssh)
    keys, *_ = known.match("h1", "", None)
    assert len(keys) == 1
    assert not known.match("h2", "", None)[0]
