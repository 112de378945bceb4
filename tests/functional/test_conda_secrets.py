"""How one gets into a channel stays with the client: records of a prefix hold tokens, and nothing that is made of it.

Then wherever conda's, mamba's and rattler's users keep credentials: they reach the channel, and nothing else.
"""

from __future__ import annotations

import base64
import json
import pickle
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote_plus

import pytest

from likewise.errors import FetchError
from likewise.indexes.conda_channels import Channels, find_channels
from likewise.indexes.conda_open import open_to_all
from likewise.resolution.rattler import RattlerSolver
from support.canaries import canary, credentials, words_beneath, words_in, words_said
from support.commands import likewise
from support.conda_channel import CondaChannel, install
from support.conda_package import Package
from support.conda_package import write_channel as write_packages
from support.conda_repodata import package, write_channel
from support.conda_server import ChannelServer, serve_channel
from support.prefixes import UV, clean_environ, make_venv, run
from support.processes import watched
from support.users import likewise_wheel
from support.wheels import site_packages

pytest.importorskip("rattler")

# ---- the same platform


PICKLED = """
import pickle, sys
from likewise import plan, scan
snapshot = scan()
values = snapshot, plan(snapshot)
sys.stdout.write(f"{values!r} {pickle.dumps(values)!r}")
"""


@pytest.fixture(scope="module")
def seen(conda_channel: CondaChannel, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A prefix from two guarded channels, with a user's own secrets in it, and what came of looking at it."""
    folder = tmp_path_factory.mktemp("conda-secrets")
    firm = write_packages(folder / "firm", [Package("cargo", "1.0", {"share/cargo.txt": "cargo\n"})])
    with (
        serve_channel(conda_channel.folder, token=canary("token_in_path")) as first,
        serve_channel(firm, user="me", password=canary("password_in_url")) as second,
    ):
        specs = ["python", "distributed", f"{second.url}::cargo"]
        prefix = install(folder / "prefix", specs, [first.url, second.url], folder / "packages")
    python = prefix / "bin/python"
    run(UV, "pip", "install", "--quiet", "--python", python, likewise_wheel())
    recorded = credentials(words_beneath(prefix / "conda-meta"))
    plant(prefix)
    (folder / "work").mkdir()
    environ = clean_environ(LIKEWISE_CACHE=str(folder / "client"), HOME=str(folder / "home"))
    said = []
    with watched() as commands:
        for words in (["-m", "likewise", "scan", "--json"], ["-m", "likewise", "plan", "-v"], ["-c", PICKLED]):
            argv = [python, *words]
            done = subprocess.run(argv, cwd=folder / "work", env=environ, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr[-3000:]
            said += [done.stdout, done.stderr]
    return SimpleNamespace(
        recorded=recorded,
        said=said,
        commands=commands,
        written=words_beneath(folder / "client", folder / "work"),
        channel=second.plain_url,
        kept=b"".join(path.read_bytes() for path in (folder / "client").rglob("*") if path.is_file()),
    )


def plant(prefix: Path) -> None:
    """What users and conda keep in a prefix."""
    (prefix / ".condarc").write_text(f"channels: [https://conda.invalid/t/{canary('condarc')}/firm]\n")
    (prefix / "etc/conda/activate.d").mkdir(parents=True, exist_ok=True)
    (prefix / "etc/conda/activate.d/mine.sh").write_text(f"export API_KEY={canary('activate')}\n")
    (prefix / "conda-meta/state").write_text(json.dumps({"env_vars": {"FIRM_LOGIN": canary("state")}}))
    spec = f"https://conda.invalid/t/{canary('history')}/firm::cargo"
    (prefix / "conda-meta/history").write_text(f"==> 2026-01-01 00:00:00 <==\n# update specs: ['{spec}']\n")


@pytest.mark.registry
def test_the_installer_keeps_credentials_in_its_records(seen: SimpleNamespace) -> None:
    """Otherwise what follows would prove nothing."""
    assert seen.recorded == {"_token_in_path", "_password_in_url"}


@pytest.mark.registry
def test_looking_at_a_prefix_keeps_none(seen: SimpleNamespace) -> None:
    """Not in what is remembered of its records; where a package came from is."""
    assert credentials(seen.written) == set()
    assert seen.channel.encode() in seen.kept


@pytest.mark.registry
def test_looking_at_a_prefix_says_none(seen: SimpleNamespace) -> None:
    """Not in values, shown, as JSON or pickled, not in what is said, not in a command line."""
    for said in seen.said:
        assert credentials(words_said(said)) == set()
    assert sum(seen.channel in said for said in seen.said) >= 2
    assert credentials(words_said("\n".join(seen.commands))) & seen.recorded == set()
    assert any(" likewise scan " in command for command in seen.commands)


# ---- another platform: where credentials are kept


EXPORT = """
name: e
channels: [forge]
dependencies:
  - python=3.11.9=h9_0
  - numpy=1.26.4=h0_0
"""


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A channel that has what `EXPORT` names, for Linux."""
    linux = [package("python", "3.11.9"), package("numpy", "1.26.4", "python >=3.11,<3.12.0a0")]
    return write_channel(tmp_path_factory.mktemp("channel") / "forge", {"linux-64": linux})


def ask(
    home: Path, channel: str, *more: str, command: str = "plan", **environ: str
) -> subprocess.CompletedProcess[str]:
    """A plan for a Mac's file, by a user with this home."""
    (home / "e.yml").write_text(EXPORT)
    words = ["--from", home / "e.yml", "--client", "osx-arm64", "--target", "linux-64", "--channel", channel, *more]
    places = {"HOME": str(home), "LIKEWISE_CACHE": str(home / "cache"), "PIP_CONFIG_FILE": "/dev/null"}
    places["XDG_CONFIG_HOME"] = str(home / ".config")
    return likewise(command, *words, cwd=home, **places, **environ)


def basic(password: str) -> str:
    """What a request has to say."""
    return "Basic " + base64.b64encode(f"me:{password}".encode()).decode()


def keep(home: Path, kind: str, secret: str, url: str = "") -> dict[str, str]:
    """Put a credential for `url` where its kind is kept; the variables that say so."""
    token = f"{quote_plus(url.rpartition('/')[0])}.token"
    files = {
        "netrc": (".netrc", f"machine 127.0.0.1 login me password {secret}\n"),
        "rattler-basic": ("auth.json", {"127.0.0.1": {"BasicHTTP": {"username": "me", "password": secret}}}),
        "rattler-bearer": (".rattler/credentials.json", {"127.0.0.1": {"BearerToken": secret}}),
        "rattler-token": ("auth.json", {"127.0.0.1": {"CondaToken": secret}}),
        "pixi-basic": ("pixi.json", {"127.0.0.1": {"BasicHTTP": {"username": "me", "password": secret}}}),
        "pixi-bearer": ("pixi.json", {"127.0.0.1": {"BearerToken": secret}}),
        "pixi-token": ("pixi.json", {"127.0.0.1": {"CondaToken": secret}}),
        "mamba-token": (".mamba/auth/authentication.json", {"127.0.0.1": {"type": "CondaToken", "token": secret}}),
        "anaconda-token": (f".config/binstar/{token}", secret),
        "continuum-token": (f".continuum/anaconda-client/tokens/{token}", f"{secret}\n"),
        "condarc": (".condarc", f"channel_alias: http://me:{secret}@127.0.0.1:1/x\nchannels: [\n"),
    }
    name, content = files[kind]
    (home / name).parent.mkdir(parents=True, exist_ok=True)
    (home / name).write_text(content if isinstance(content, str) else json.dumps(content))
    (home / name).chmod(0o600)
    if name == "pixi.json":
        (home / ".pixi").mkdir()
        (home / ".pixi" / "config.toml").write_text(f'authentication-override-file = "{home / name}"\n')
    return {"RATTLER_AUTH_FILE": str(home / name)} if name == "auth.json" else {}


def guard(kind: str, wanted: str) -> dict[str, str]:
    """How a channel wants a credential of this kind."""
    if kind.endswith("bearer"):
        return {"bearer": wanted}
    return {"token": wanted} if kind.endswith("token") else {"user": "me", "password": wanted}


KINDS = (
    *("netrc", "rattler-basic", "rattler-bearer", "rattler-token", "pixi-basic", "pixi-bearer", "pixi-token"),
    *("mamba-token", "anaconda-token", "continuum-token"),
)


@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_credentials_reach_the_channel_and_nothing_else(tmp_path: Path, channel: Path, kind: str, right: bool) -> None:
    """Wherever it is kept the channel gives its list; a wrong one ends with an error; nothing shows or keeps it, and no
    other host that is asked ever sees it."""
    secret = canary(f"kept_in_{kind.replace('-', '_')}_and_long_enough_for_base64")
    wanted = secret if right else "another"
    with serve_channel(channel, **guard(kind, wanted)) as server, serve_channel(channel, host="127.0.0.2") as other:
        environ = keep(tmp_path, kind, secret, server.plain_url)
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        with watched() as commands:
            done = ask(tmp_path, server.plain_url, "--channel", other.plain_url, "--json", **environ)
        sent = server.authorizations + server.asked
        strangers = [one for one in other.authorizations if one], "".join(other.asked)
    assert done.returncode == (0 if right else 19), done.stderr
    assert any(secret in one or one == basic(secret) for one in sent), sent
    assert strangers[0] == [] and secret not in strangers[1]
    if right:
        assert strangers[1]
        assert json.loads(done.stdout)["channels"] == [server.plain_url, other.plain_url]
    else:
        assert "40" in done.stdout and server.plain_url in done.stdout
    shows_nothing(tmp_path, secret, done.stdout, done.stderr, *commands, without=frozenset(before))
    assert all(path.read_bytes() == content for path, content in before.items())


@pytest.mark.parametrize(
    "kind", ["netrc", "rattler-bearer", "rattler-token", "pixi-basic", "pixi-token", "anaconda-token"]
)
def test_no_redirect_takes_a_credential_along(tmp_path: Path, channel: Path, kind: str) -> None:
    """A channel may have its files elsewhere: there nobody is told how one gets into the channel."""
    secret = canary(f"redirected_{kind.replace('-', '_')}_and_long_enough_for_base64")
    with serve_channel(channel, host="127.0.0.2") as other, serve_channel(channel, **guard(kind, secret)) as server:
        server.elsewhere = other.plain_url.rpartition("/")[0]
        done = ask(tmp_path, server.plain_url, "--json", **keep(tmp_path, kind, secret, server.plain_url))
    assert done.returncode == 0, done.stderr
    assert any(secret in one or one == basic(secret) for one in server.authorizations + server.asked)
    assert other.asked and secret not in "".join(other.asked)
    assert not any(other.authorizations)


def test_a_token_is_put_into_a_url_once(tmp_path: Path, channel: Path) -> None:
    """rattler puts its own there; one that others keep for the same host is left alone then."""
    secret = canary("kept_twice")
    with serve_channel(channel, token=secret) as server:
        environ = keep(tmp_path, "rattler-token", secret) | keep(tmp_path, "anaconda-token", secret, server.plain_url)
        done = ask(tmp_path, server.plain_url, "--json", **environ, **keep(tmp_path, "pixi-token", secret))
    assert done.returncode == 0, done.stdout
    assert not any(path.count("/t/") > 1 for path in server.asked)


def test_tokens_of_anaconda_client_are_left_alone_if_conda_is_told_so(tmp_path: Path, channel: Path) -> None:
    """By its configuration, or by a variable."""
    with serve_channel(channel, token=canary("left_alone")) as server:
        keep(tmp_path, "anaconda-token", server.token, server.plain_url)
        assert ask(tmp_path, server.plain_url, CONDA_ADD_ANACONDA_TOKEN="false").returncode == 19
        (tmp_path / ".condarc").write_text("add_anaconda_token: no\n")
        assert ask(tmp_path, server.plain_url).returncode == 19
    assert not any(server.token in path for path in server.asked)


@pytest.mark.parametrize(
    ("kept", "url", "place"),
    [
        ("https://api.conda.example", "https://conda.conda.example/mine", "https://conda.conda.example/t/TOKEN/mine"),
        ("https://conda.example/api", "https://conda.example/conda/mine", "https://conda.example/conda/t/TOKEN/mine"),
        ("https://conda.example/repo/", "https://conda.example/repo/main", "https://conda.example/t/TOKEN/repo/main"),
        ("https://conda.example/repo", "https://conda.example/repository/main", ""),
        ("https://conda.example", "https://conda.example.invalid/main", ""),
        ("https://conda.example", "http://conda.example/main", ""),
        ("https://firm.example", "https://firm.example/all/conda/x", "https://firm.example/all/t/TOKEN/conda/x"),
    ],
)
def test_where_tokens_of_anaconda_client_count(tmp_path: Path, kept: str, url: str, place: str) -> None:
    """For what lies beneath the address that they are kept for, or beneath its channels; behind the channels' place."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / f"{quote_plus(kept)}.token").write_text("TOKEN")
    (tmp_path / ".condarc").write_text("channel_alias: https://firm.example/all\n")
    found = find_channels([url], environ={"BINSTAR_CONFIG_DIR": str(tmp_path)}, home=tmp_path, python="")
    assert found.reveal() == ({url: (place,)} if place else {})


def test_an_order_of_files_with_credentials(tmp_path: Path) -> None:
    """As in pixi: the file of the variable before the one of the configuration, and a host before its domain."""
    (tmp_path / "first.json").write_text(json.dumps({"a.example.org": {"BearerToken": "of the variable"}}))
    entries = {"a.example.org": "of pixi", "*.example.org": "of the domain", "b.example.org": "of b", "127.0.0.1": "ip"}
    (tmp_path / "pixi.json").write_text(json.dumps({host: {"BearerToken": one} for host, one in entries.items()}))
    (tmp_path / "work" / ".pixi").mkdir(parents=True)
    (tmp_path / "work/.pixi/config.toml").write_text(f'authentication-override-file = "{tmp_path / "pixi.json"}"\n')
    environ = {"RATTLER_AUTH_FILE": str(tmp_path / "first.json"), "PIXI_PROJECT_ROOT": str(tmp_path / "work")}
    hosts = ["a.example.org", "b.example.org", "c.d.example.org", "example.org", "other.org"]
    found = find_channels([f"https://{one}/x" for one in hosts], environ=environ, home=tmp_path, python="")
    said = {host: (found.authorization(host, "/x/noarch/a") or {}).get("Authorization") for host in hosts}
    assert said == {
        "a.example.org": None,  # rattler's own
        "b.example.org": "Bearer of b",
        "c.d.example.org": "Bearer of the domain",
        "example.org": "Bearer of the domain",
        "other.org": None,
    }


def shows_nothing(home: Path, secret: str, *said: str, without: frozenset[Path]) -> None:
    """Neither the credential, nor the header that has it, was said or written."""
    assert secret not in words_said("\n".join(said))  # command lines of other tests may have theirs
    assert credentials(words_beneath(home, without=without)) == set()
    header = basic(secret).removeprefix("Basic ")
    assert header not in "".join(said)
    assert not [path for path in home.rglob("*") if path.is_file() and header.encode() in path.read_bytes()]


@pytest.mark.parametrize("form", ["explicit", "pixi"])
def test_exported_files_have_no_token(tmp_path: Path, channel: Path, form: str) -> None:
    """Lists of URLs for other tools name the packages as anybody may see them."""
    with serve_channel(channel, token=canary("exported")) as server:
        done = ask(tmp_path, server.url, "--format", form, command="export")
    assert done.returncode == 0, done.stderr
    assert f"{server.plain_url}/linux-64/numpy-1.26.4-h0_0.conda" in done.stdout
    assert words_said(done.stdout + done.stderr) == set()


def test_a_configuration_that_can_not_be_read_is_not_quoted(tmp_path: Path, channel: Path) -> None:
    """A parser's message shows the line that it fails at, which may have a password."""
    keep(tmp_path, "condarc", canary("in_a_broken_condarc"))
    done = ask(tmp_path, channel.as_uri())
    assert done.returncode == 0, done.stderr
    assert ".condarc" in done.stdout + done.stderr
    assert words_said(done.stdout + done.stderr) == set()


# ---- conda-auth, which keeps them in keyring


BACKEND = """
import os
from keyring.backend import KeyringBackend
from keyring.credentials import SimpleCredential

class Keyring(KeyringBackend):
    priority = 10

    def get_credential(self, service, username):
        found = service == os.environ["SERVICE"] and username == os.environ["WHO"]
        return SimpleCredential(username, os.environ["WORD"]) if found else None

    def set_password(self, service, username, password):
        raise NotImplementedError

    def get_password(self, service, username):
        found = self.get_credential(service, username)
        return found and found.password
"""


@pytest.mark.parametrize("place", ["auth.json", ".rattler/credentials.json"])
@pytest.mark.parametrize("how", ["no-object", "no-kind", "no-json", "folder"])
def test_credentials_of_rattlers_that_can_not_be_read_are_not_quoted(
    tmp_path: Path, channel: Path, how: str, place: str
) -> None:
    """rattler's own error has the words of the file that it fails at; what is said names the file."""
    secret = canary("in_a_broken_file")
    texts = {"no-object": f'"{secret}"', "no-kind": f'{{"{secret}": 1}}', "no-json": f'{{"BearerToken": {secret}}}'}
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    if how == "folder":
        path.mkdir()
    else:
        path.write_text(f'{{"127.0.0.1": {texts[how]}}}')
    done = ask(tmp_path, channel.as_uri(), **({"RATTLER_AUTH_FILE": str(path)} if place == "auth.json" else {}))
    assert done.returncode == 2, done.stderr
    assert str(path) in done.stdout + done.stderr
    assert words_said(done.stdout + done.stderr) == set()
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def with_keyring(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A python whose prefix has the real keyring package, with a back end of the test's own."""
    python = make_venv(tmp_path_factory.mktemp("keyring") / "venv", "keyring")
    (site_packages(python) / "own_backend.py").write_text(BACKEND)
    return str(python)


@dataclass(frozen=True)
class Entry:
    """How conda-auth was told of a channel, and how it keeps the secret."""

    how: str
    today: bool = False
    setting: dict[str, str] = field(default_factory=dict)  # besides the channel, or in place of it

    def kept(self, url: str, secret: str) -> dict[str, str]:
        """What the back end of the test has."""
        user = "me" if self.how == "http-basic" else "token"
        if not self.today:
            return {"SERVICE": f"conda-auth::{self.how}::{url}", "WHO": user, "WORD": secret}
        record = {"target": url, "auth_type": self.how, "username": user}
        record["token" if self.how == "token" else "password"] = secret
        target = self.setting.get("auth_target", url)
        return {"SERVICE": f"conda-auth::credential::{target}", "WHO": "credential", "WORD": json.dumps(record)}


ENTRIES = {
    "basic-before": Entry("http-basic", setting={"username": "me"}),
    "token-before": Entry("token"),
    "basic": Entry("http-basic", True, {"auth_target": "a-name-of-its-own"}),
    "token": Entry("token", True),
    "token-pattern": Entry("token", True, {"channel": "http://127.0.0.1:*"}),
}


@pytest.fixture(params=ENTRIES)
def by_conda_auth(
    request: pytest.FixtureRequest, tmp_path: Path, channel: Path, with_keyring: str
) -> Iterator[SimpleNamespace]:
    """A guarded channel, and what conda-auth's configuration and keyring say about it."""
    entry = ENTRIES[request.param]
    secret = canary(f"in_keyring_{request.param.replace('-', '_')}")
    with serve_channel(channel, **guard("bearer" if entry.how == "token" else "basic", secret)) as server:
        one = {"channel": server.plain_url, "auth": entry.how, **entry.setting}
        (tmp_path / ".condarc").write_text(json.dumps({"channel_settings": [one]}))
        environ = {"PYTHON_KEYRING_BACKEND": "own_backend.Keyring", **entry.kept(server.plain_url, secret)}
        others = ["http://127.0.0.2:1/forge", server.plain_url.replace("http:", "https:")]
        with watched() as commands:
            found = find_channels([server.plain_url, *others], environ=environ, home=tmp_path, python=with_keyring)
        assert found.authorization("127.0.0.2", "/forge") is None
        found = replace(found, names=found.names[:1])
        yield SimpleNamespace(server=server, found=found, commands=commands, secret=secret, folder=tmp_path)


def test_a_secret_in_condas_own_settings(tmp_path: Path, channel: Path) -> None:
    """Some write it there; the last setting for a channel counts, and none counts for another scheme."""
    with serve_channel(channel, user="me", password=canary("in_channel_settings")) as server:
        place, other = server.plain_url, server.plain_url.replace("http:", "https:")
        wrong = {"channel": place, "auth": "token", "token": "wrong"}
        right = {"channel": place, "auth": "http-basic", "username": "me", "password": "${WORD}"}
        (tmp_path / ".condarc").write_text(
            json.dumps({"channel_settings": [wrong, right, {**wrong, "channel": other}]})
        )
        found = find_channels([place], environ={"WORD": server.password}, home=tmp_path, python="")
        assert solver(found, tmp_path / "cache").candidates(["numpy"])["numpy"]
    shows_nothing(tmp_path, server.password, repr(found), without=frozenset())


def test_a_token_for_condas_own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There it has another word before it, as conda-auth says; the channel may be named instead of its URL."""
    monkeypatch.setattr("likewise.indexes.conda_auth.own_place", lambda: "https://conda.firm.example")
    monkeypatch.setattr("likewise.indexes.conda_channels.own_place", lambda: "https://conda.firm.example")
    setting = {"channel": "mine", "auth": "token", "token": canary("of_condas_own_place")}
    (tmp_path / ".condarc").write_text(json.dumps({"channel_settings": [setting]}))
    for name in ("mine", "https://conda.firm.example/mine"):
        found = find_channels([name, "https://conda.other.example/mine"], environ={}, home=tmp_path, python="")
        said = found.authorization("conda.firm.example", "/mine/noarch/repodata.json")
        assert said == {"Authorization": f"token {setting['token']}"}
        assert found.authorization("conda.other.example", "/mine/noarch/repodata.json") is None


@pytest.mark.registry
@pytest.mark.parametrize("name", ["conda.example", "*.example"])
def test_what_rattler_keeps_in_keyring_makes_a_channel_private(tmp_path: Path, with_keyring: str, name: str) -> None:
    """Nodes are not told of its packages."""
    mine, others = (f"https://{host}/forge/noarch/x-1-0.conda" for host in ("conda.example", "conda.invalid"))
    word = json.dumps({"BearerToken": canary("rattlers_in_keyring")})
    environ = {"PYTHON_KEYRING_BACKEND": "own_backend.Keyring", "SERVICE": "rattler", "WHO": name, "WORD": word}
    assert open_to_all([mine, others], environ=environ, home=tmp_path, python=with_keyring) == {others}
    environ["SERVICE"] = "another"
    assert open_to_all([mine, others], environ=environ, home=tmp_path, python=with_keyring) == {mine, others}


def solver(channels: Channels, cache: Path) -> RattlerSolver:
    """Who asks these channels."""
    return RattlerSolver(
        channels.names,
        "linux-64",
        ["__glibc=2.28=0"],
        cache=cache,
        authorization=channels.authorization,
        mirrors=channels.reveal(),
    )


@pytest.mark.registry
def test_conda_auth(by_conda_auth: SimpleNamespace) -> None:
    """The channel is read with what conda-auth keeps; values, command lines and rattler's cache don't have it."""
    channels: Channels = by_conda_auth.found
    server: ChannelServer = by_conda_auth.server
    offered = solver(channels, by_conda_auth.folder / "cache").candidates(["numpy"])
    assert [one.version for one in offered["numpy"]] == ["1.26.4"]
    assert any("keyring" in command for command in by_conda_auth.commands)
    shown = [repr(channels), repr(offered), *by_conda_auth.commands]
    shows_nothing(by_conda_auth.folder, by_conda_auth.secret, *shown, without=frozenset())
    with pytest.raises(TypeError, match="can't be pickled"):
        pickle.dumps(channels)
    assert server.asked


@pytest.mark.registry
def test_errors_carry_nothing(by_conda_auth: SimpleNamespace) -> None:
    """Not in their words, not in those of errors that they come from, not when they are sent."""
    by_conda_auth.server.status = 403
    with pytest.raises(FetchError, match="403") as caught:
        solver(by_conda_auth.found, by_conda_auth.folder / "cache").candidates(["numpy"])
    assert words_in(every_word(caught.value)) == set()


def test_errors_carry_no_token_of_a_url(tmp_path: Path, channel: Path) -> None:
    """Whatever a channel answers, and also where rattler's own error has the whole URL."""
    odd = f"a)b'{canary('in_an_odd_password')}"
    with serve_channel(channel, token=canary("in_an_error"), user="me", password=odd) as server:
        found = find_channels([server.url], environ={}, home=tmp_path, python="")
        assert solver(found, tmp_path / "cache").candidates(["numpy"])["numpy"]
        server.status = 403
        with pytest.raises(FetchError, match="403") as caught:
            solver(found, tmp_path / "another").candidates(["numpy"])
    assert canary("in_an_error") in server.asked[0]
    assert words_in(every_word(caught.value)) == set()
    assert server.plain_url in str(caught.value)
    assert words_in(repr(found).encode()) == set()
    assert words_beneath(tmp_path) == {}


@pytest.mark.parametrize("how", ["alias", "custom"])
@pytest.mark.parametrize("guard", ["token", "password"])
def test_a_place_of_channels_has_their_credential(tmp_path: Path, channel: Path, guard: str, how: str) -> None:
    """A plan has the channel's URL without it: that reaches the channel like the name that was planned with."""
    secret = canary("in_a_place_of_channels")
    with serve_channel(
        channel, **({"token": secret} if guard == "token" else {"user": "me", "password": secret})
    ) as server:
        base = server.url.rpartition("/")[0]
        said = f"channel_alias: {base}\n" if how == "alias" else f"custom_channels: {{forge: '{base}'}}\n"
        (tmp_path / ".condarc").write_text(said)

        def channels(name: str) -> Channels:
            return find_channels([name], environ={}, home=tmp_path, python="")

        planned = channels("forge").names
        assert planned == (server.plain_url,)
        found = channels(planned[0])
        assert found.names == planned
        assert solver(found, tmp_path / "cache").candidates(["numpy"])["numpy"]
    label = channels(f"{server.plain_url}/label/dev")
    assert label.places or label.headers
    others = [server.plain_url.replace("http:", "https:"), f"http://{server.host}/forge"]
    for other in [*others, f"{server.plain_url}.no"] if how == "custom" else others:
        nothing = channels(other)
        assert (dict(nothing.places), dict(nothing.headers)) == ({}, {})
    shows_nothing(tmp_path, secret, repr((found, label)), without=frozenset({tmp_path / ".condarc"}))


def every_word(error: BaseException) -> bytes:
    """All that an error, and whatever it came from, would tell."""
    said: list[Any] = []
    pending: list[BaseException | None] = [error]
    while pending:
        one = pending.pop()
        if one is not None:
            said += [str(one), repr(one), repr(one.args), repr(vars(one))]
            pending += [one.__cause__, one.__context__]
    return "\n".join(said).encode() + pickle.dumps(error)
