"""How one gets into a channel stays with the client: records of a prefix hold tokens, and nothing that is made of it.

Then wherever conda's, mamba's and rattler's users keep credentials: they reach the channel, and nothing else.
"""

from __future__ import annotations

import base64
import json
import pickle
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from likewise.errors import FetchError
from likewise.indexes.conda_channels import Channels, find_channels
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
    return likewise(command, *words, cwd=home, **places, **environ)


def basic(password: str) -> str:
    """What a request has to say."""
    return "Basic " + base64.b64encode(f"me:{password}".encode()).decode()


def keep(home: Path, kind: str, secret: str) -> dict[str, str]:
    """Put a credential where its kind is kept; the variables that say so."""
    files = {
        "netrc": (".netrc", f"machine 127.0.0.1 login me password {secret}\n"),
        "rattler-basic": ("auth.json", {"127.0.0.1": {"BasicHTTP": {"username": "me", "password": secret}}}),
        "rattler-bearer": (".rattler/credentials.json", {"127.0.0.1": {"BearerToken": secret}}),
        "rattler-token": ("auth.json", {"127.0.0.1": {"CondaToken": secret}}),
        "mamba-token": (".mamba/auth/authentication.json", {"127.0.0.1": {"type": "CondaToken", "token": secret}}),
        "condarc": (".condarc", f"channel_alias: http://me:{secret}@127.0.0.1:1/x\nchannels: [\n"),
    }
    name, content = files[kind]
    (home / name).parent.mkdir(parents=True, exist_ok=True)
    (home / name).write_text(content if isinstance(content, str) else json.dumps(content))
    (home / name).chmod(0o600)
    return {"RATTLER_AUTH_FILE": str(home / name)} if name == "auth.json" else {}


@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("kind", ["netrc", "rattler-basic", "rattler-bearer", "rattler-token", "mamba-token"])
def test_credentials_reach_the_channel_and_nothing_else(tmp_path: Path, channel: Path, kind: str, right: bool) -> None:
    """Wherever it is kept the channel gives its list; a wrong one ends with an error; nothing shows or keeps it."""
    secret = canary(f"kept_in_{kind.replace('-', '_')}_and_long_enough_for_base64")
    wanted = secret if right else "another"
    guard = {"token": wanted} if kind.endswith("token") else {"user": "me", "password": wanted}
    with serve_channel(channel, **({"bearer": wanted} if kind == "rattler-bearer" else guard)) as server:
        environ = keep(tmp_path, kind, secret)
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        with watched() as commands:
            done = ask(tmp_path, server.plain_url, "--json", **environ)
        sent = server.authorizations + server.asked
    assert done.returncode == (0 if right else 19), done.stderr
    assert any(secret in one or one == basic(secret) for one in sent), sent
    if right:
        assert json.loads(done.stdout)["channels"] == [server.plain_url]
    else:
        assert "40" in done.stdout and server.plain_url in done.stdout
    shows_nothing(tmp_path, secret, done.stdout, done.stderr, *commands, without=frozenset(before))
    assert all(path.read_bytes() == content for path, content in before.items())


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


@pytest.fixture(params=["http-basic", "token"])
def by_conda_auth(
    request: pytest.FixtureRequest, tmp_path: Path, channel: Path, with_keyring: str
) -> Iterator[SimpleNamespace]:
    """A guarded channel, and what conda-auth's configuration and keyring say about it."""
    secret = canary(f"in_keyring_{request.param.replace('-', '_')}")
    who = "me" if request.param == "http-basic" else "token"
    guard = {"user": "me", "password": secret} if request.param == "http-basic" else {"bearer": secret}
    with serve_channel(channel, **guard) as server:
        one = {"channel": server.plain_url, "auth": request.param, "username": "me"}
        (tmp_path / ".condarc").write_text(json.dumps({"channel_settings": [one]}))
        environ = {
            "PYTHON_KEYRING_BACKEND": "own_backend.Keyring",
            "SERVICE": f"conda-auth::{request.param}::{server.plain_url}",
            "WHO": who,
            "WORD": secret,
        }
        with watched() as commands:
            found = find_channels([server.plain_url], environ=environ, home=tmp_path, python=with_keyring)
        yield SimpleNamespace(server=server, found=found, commands=commands, secret=secret, folder=tmp_path)


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
