"""Where credentials are found, that they reach the index they are for, and that they reach nothing else."""

from __future__ import annotations

import base64
import contextlib
import copy
import hashlib
import pickle
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import cloudpickle
import msgspec
import pytest

from likewise.errors import FetchError
from likewise.indexes import Indexes, find_indexes
from likewise.indexes.default import default_index
from likewise.indexes.fetch import fetch
from likewise.indexes.secret import Secret, credential
from likewise.indexes.sharing import open_to_nodes
from likewise.model.plan import LockedFile
from support.canaries import canary, credentials, uv_credentials, words_beneath, words_said
from support.indexes import IndexServer, Manner, offer, serve_index
from support.keyrings import keyring_environ, make_keyring
from support.prefixes import UV, clean_environ, make_venv, run
from support.processes import watched


def found(home: Path, *, python: str | None = None, **environ: str) -> Indexes:
    """The indexes of a user with this home and these variables, who has nothing else."""
    home.mkdir(exist_ok=True)
    return find_indexes(
        environ={"XDG_CONFIG_DIRS": str(home / "none"), **environ},
        home=home,
        folder=home,
        python=python,
        machine=home / "machine",
    )


def compile_with(indexes: Indexes, requirements: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What ``uv pip compile`` says and answers with these indexes."""
    environment, arguments = indexes.for_uv()
    return subprocess.run(
        [UV, "pip", "compile", "-", "--no-config", "--no-header", "--emit-index-annotation", "--generate-hashes",
         "--cache-dir", folder / "cache", "--python", sys.executable, *arguments],
        input=requirements, text=True, capture_output=True, cwd=folder,
        env={**clean_environ(HOME=str(folder)), **environment, "UV_HTTP_RETRIES": "0"},
    )  # fmt: skip


# ---- nothing is shown


def test_secrets_show_nothing() -> None:
    """Neither by accident nor through the usual ways to copy and send values."""
    secret, pair = Secret(canary("value")), credential(canary("user"), canary("password"))
    shown = [f"{one} {one!r} {one:>40} {[one]}" for one in (secret,)] + [f"{pair} {pair!r}"]
    assert words_said(" ".join(shown)) == set()
    for one in (secret, pair):
        for send in (pickle.dumps, cloudpickle.dumps, copy.copy, copy.deepcopy):
            if send is copy.copy and one is pair:
                continue  # a copy of the pair holds the same two secrets
            with pytest.raises(TypeError, match="can't be pickled"):
                send(one)


def test_indexes_show_and_send_nothing(tmp_path: Path) -> None:
    """Their credentials are in the environment meant for uv, and nowhere else."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".netrc").write_text(f"machine c.example login me password {canary('netrc')}\n")
    indexes = found(
        tmp_path / "home",
        PIP_INDEX_URL=f"https://me:{canary('pip')}@a.example/simple",
        UV_INDEX=f"firm=https://{canary('token_as_user')}@b.example/t/{canary('path')}/simple?key={canary('query')}",
        UV_FIND_LINKS=f"https://me:{canary('links')}@d.example/list.html",
    )
    environment, arguments = indexes.for_uv()
    shown = (
        f"{indexes} {indexes!r} {indexes.order} {indexes.explicit} {indexes.find_links} {indexes.problems} {arguments}"
    )
    assert words_said(shown) == set()
    assert credentials(words_said(str(environment))) == {"_pip", "_token_as_user", "_path", "_query", "_links"}
    for send in (pickle.dumps, cloudpickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="can't be pickled"):
            send(indexes)
    said = indexes.conceal(" ".join(environment.values()) + canary("netrc"))
    assert words_said(said) == set()


@pytest.mark.parametrize("token", ["fZkQ3mWpXaLrTb7c", "fZkQmWpXaLrTbcHd", "glpat-xk3uqvmwpd_arltb"])
def test_a_token_first_in_the_path_is_shown_and_sent_nowhere(tmp_path: Path, token: str) -> None:
    """Servers of downloads want it there, with few digits or none: not in names, words, uv's files or at nodes."""
    index = f"https://dl.example/{token}/firm/python/simple/"
    indexes = found(tmp_path / "home", UV_INDEX=f"firm={index}", UV_DEFAULT_INDEX="https://a.example/simple/")
    file = LockedFile(filename="x-1-py3-none-any.whl", url=f"{index}x-1-py3-none-any.whl", sha256="0" * 64)
    named = indexes.named(file)
    _, arguments = indexes.for_uv()
    said = f"{indexes} {indexes.order} {arguments} {named} {indexes.conceal(f'GET {index} failed')}"
    assert token not in said
    assert indexes.true_url(named.url) == file.url
    assert open_to_nodes([file, named], indexes) == frozenset()


# ---- they reach the index, through uv


@pytest.mark.parametrize("password", ["plain", "s@c:/r%e t+&#?", "ünïcode", ""])
def test_uv_gets_in(tmp_path: Path, password: str) -> None:
    """Whatever characters it has, and none at all."""
    offer(tmp_path / "wheels", "sample", "1.0")
    with serve_index(tmp_path / "wheels", user="me@firm", password=password) as index:
        indexes = found(tmp_path / "home", PIP_INDEX_URL=index.url_with_credentials)
        done = compile_with(indexes, "sample", tmp_path)
    assert "sample==1.0" in done.stdout, done.stderr


def test_uv_gets_in_with_netrc(tmp_path: Path) -> None:
    """Also to a host that only the index's page names."""
    offer(tmp_path / "wheels", "sample", "1.0", files={"sample.py": b"x" * 1000})
    guarded = {"user": "me", "password": "secret"}
    with (
        serve_index(tmp_path / "wheels", host="127.0.0.2", **guarded) as files,
        serve_index(tmp_path / "wheels", files_at=files.files_url, metadata=False, **guarded) as index,
    ):
        (tmp_path / "home").mkdir()
        (tmp_path / "home" / ".netrc").write_text(
            "machine 127.0.0.1 login me password secret\nmachine 127.0.0.2 login me password secret\n"
        )
        done = compile_with(found(tmp_path / "home", PIP_INDEX_URL=index.url), "sample", tmp_path)
    assert "sample==1.0" in done.stdout, done.stderr
    assert files.asked


def test_uv_reads_flat_lists_with_a_password(tmp_path: Path) -> None:
    """``--find-links`` may be a guarded page, too."""
    offer(tmp_path / "wheels", "sample", "1.0")
    with serve_index(tmp_path / "wheels", user="me", password="s,cret", form="html") as index:
        page = f"{index.url_with_credentials}sample/"
        done = compile_with(found(tmp_path / "home", PIP_FIND_LINKS=page, PIP_NO_INDEX="true"), "sample", tmp_path)
    assert "sample==1.0" in done.stdout, done.stderr


# ---- keyring


@pytest.fixture(scope="module")
def with_keyring(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A python whose prefix has the real keyring package, with a back end of the test's own."""
    return str(make_keyring(tmp_path_factory.mktemp("keyring")))


@pytest.fixture(scope="module")
def without_keyring(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A python whose prefix has nothing."""
    return str(make_venv(tmp_path_factory.mktemp("bare") / "venv"))


@pytest.mark.registry
@pytest.mark.parametrize("kept_under", ["url", "host"])
def test_keyring(tmp_path: Path, with_keyring: str, kept_under: str) -> None:
    """It is asked once about every index that may want it, through the prefix's own interpreter, as pip asks it."""
    wheel = offer(tmp_path / "wheels", "sample", "1.0")
    with (
        serve_index(tmp_path / "wheels", user="me", password="secret") as index,
        serve_index(tmp_path / "nothing", user="me", password="known") as known,
    ):
        service = index.url if kept_under == "url" else f"127.0.0.1:{index.port}"
        indexes = found(
            tmp_path / "home",
            python=with_keyring,
            PIP_INDEX_URL=index.url.replace("://", "://me@"),
            PIP_EXTRA_INDEX_URL=f"{default_index()} {known.url_with_credentials}",
            **keyring_environ(tmp_path, service),
        )
        assert not (tmp_path / "asked").exists()
        assert "sample==1.0" in compile_with(indexes, "sample", tmp_path).stdout
        fetch(pinned(index, wheel), tmp_path / "into", indexes=indexes)
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked == [f"{index.url} me", f"127.0.0.1:{index.port} me"][: 1 if kept_under == "url" else 2]


@pytest.mark.registry
def test_keyring_that_fails(tmp_path: Path, with_keyring: str) -> None:
    """It is as if it had nothing."""
    indexes = found(
        tmp_path / "home",
        python=with_keyring,
        PIP_INDEX_URL="https://a.example/simple",
        BROKEN="1",
        **keyring_environ(tmp_path, "x"),
    )
    assert indexes.authorization("https://a.example/x.whl") is None
    assert (tmp_path / "asked").exists()
    assert "keyring, which failed (RuntimeError)" in indexes.why_no_credential("https://a.example/x.whl")


@pytest.mark.registry
@pytest.mark.parametrize("setting", [{"PIP_KEYRING_PROVIDER": "disabled"}, {"UV_KEYRING_PROVIDER": "disabled"}])
def test_keyring_that_is_switched_off(tmp_path: Path, with_keyring: str, setting: dict[str, str]) -> None:
    """It is not asked."""
    indexes = found(
        tmp_path / "home",
        python=with_keyring,
        PIP_INDEX_URL="https://a.example/simple",
        **keyring_environ(tmp_path, "x"),
        **setting,
    )
    assert indexes.authorization("https://a.example/x.whl") is None
    assert not (tmp_path / "asked").exists()


def test_keyring_that_is_not_installed(tmp_path: Path, without_keyring: str) -> None:
    """The error says so, and for which Python."""
    wheel = offer(tmp_path / "wheels", "sample", "1.0")
    with serve_index(tmp_path / "wheels", user="me", password="secret") as index:
        indexes = found(tmp_path / "home", python=without_keyring, PIP_INDEX_URL=index.url)
        with pytest.raises(FetchError, match=r"keyring.* is not installed for") as error:
            fetch(pinned(index, wheel), tmp_path / "into", indexes=indexes)
    assert without_keyring in error.value.todo


def test_keyring_is_not_asked_for_the_public_index(tmp_path: Path) -> None:
    """Nobody waits for it who needs no credential: here asking would fail."""
    indexes = found(tmp_path / "home", python="/no/such/python")
    assert indexes.authorization(f"{default_index()}/x/") is None
    assert "keyring could not be asked" not in indexes.why_no_credential(f"{default_index()}/x/")


def pinned(index: IndexServer, wheel: Path) -> LockedFile:
    """`wheel` as that index offers it."""
    return LockedFile(
        filename=wheel.name,
        url=f"{index.files_url}{wheel.name}",
        sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
    )


# ---- no dependency confusion


def test_a_name_stays_where_it_is_found(tmp_path: Path) -> None:
    """The public index has a higher version of a private name; pip would take it, and it is not even asked."""
    offer(tmp_path / "private", "ours", "1.0")
    offer(tmp_path / "public", "ours", "99.0")
    offer(tmp_path / "public", "theirs", "1.0")
    with serve_index(tmp_path / "private") as private, serve_index(tmp_path / "public") as public:
        indexes = found(tmp_path / "home", PIP_INDEX_URL=public.url, PIP_EXTRA_INDEX_URL=private.url)
        done = compile_with(indexes, "ours\ntheirs\n", tmp_path)
        assert "ours==1.0" in done.stdout and "theirs==1.0" in done.stdout, done.stderr
        assert public.asked_for("ours") == 0
        pip = run(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", tmp_path / "pip", "ours",
                  PIP_INDEX_URL=public.url, PIP_EXTRA_INDEX_URL=private.url)  # fmt: skip
        assert [path.name for path in (tmp_path / "pip").iterdir()] == ["ours-99.0-py3-none-any.whl"], pip


@pytest.mark.parametrize("status", [401, 403, 500])
def test_a_private_index_that_fails_lets_nobody_else_answer(tmp_path: Path, status: int) -> None:
    """Otherwise whoever publishes the name would only have to wait for that."""
    offer(tmp_path / "public", "ours", "99.0")
    with (
        serve_index(tmp_path / "private", fault="status", status=status) as private,
        serve_index(tmp_path / "public") as public,
    ):
        indexes = found(tmp_path / "home", UV_DEFAULT_INDEX=public.url, UV_INDEX=private.url)
        done = compile_with(indexes, "ours", tmp_path)
    assert done.returncode and "ours" not in done.stdout
    assert public.asked_for("ours") == 0


# ---- canaries


@pytest.mark.registry
@pytest.mark.parametrize("guard", ["right", "wrong"])
def test_canaries(tmp_path: Path, with_keyring: str, guard: str, capfd: Any, caplog: Any) -> None:
    """Credentials from everywhere, used by uv, by keyring and by fetching, with success and without."""
    home = tmp_path / "home"
    home.mkdir()
    wheels = [offer(tmp_path / name / "wheels", name, "1.0") for name in ("ua", "ub", "uc", "ud", "ue")]
    places = ("store", "url", "variable", "netrc", "keyring")
    words = [canary(f"in_{name}_and_long_enough_to_be_seen_as_base64") for name in places]
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(
                serve_index(wheel.parent, host=f"127.0.0.{n}", user="me", password=word, metadata=False)
            )
            for n, (wheel, word) in enumerate(zip(wheels, words, strict=True), 1)
        ]
        in_store, in_url, in_variable, in_netrc, in_keyring = servers
        store = home / ".local" / "share" / "uv" / "credentials" / "credentials.toml"
        store.parent.mkdir(parents=True)
        store.write_text(uv_credentials(in_store.root, words[0]))
        (home / ".netrc").write_text(f"machine 127.0.0.4 login me password {words[3]}\n")
        (home / "uv.toml").write_text(f'[[index]]\nurl = "{in_url.url_with_credentials}"\n')
        environ = {
            "UV_INDEX": f"firm={in_variable.url} {in_store.url}",
            "UV_INDEX_FIRM_USERNAME": "me",
            "UV_INDEX_FIRM_PASSWORD": words[2],
            "PIP_INDEX_URL": in_keyring.url,
            "PIP_EXTRA_INDEX_URL": in_netrc.url,
            **keyring_environ(tmp_path, in_keyring.url, words[4]),
        }
        with watched() as commands:
            indexes = found(home, python=with_keyring, **environ)
            if guard == "wrong":
                for server in servers:
                    server.manner = Manner(folder=server.manner.folder, user="me", password="another")
            done = compile_with(indexes, "ua\nub\nuc\nud\nue\n", tmp_path)
            files = [indexes.named(pinned(*pair)) for pair in zip(servers, wheels, strict=True)]
            raised = [fetch_all(files, tmp_path / "into", indexes)]
    assert bool(done.returncode) is (guard == "wrong"), done.stderr
    assert [bool(one) for one in raised] == [guard == "wrong"]
    headers = {one.authorization.partition(" ")[2] for server in servers for one in server.asked} - {""}
    assert {base64.b64decode(header).decode() for header in headers} == {f"me:{word}" for word in words}
    assert any(UV in command for command in commands) and any("keyring" in command for command in commands)
    captured = capfd.readouterr()
    said = [*commands, done.stdout, done.stderr, captured.out, captured.err, caplog.text, *raised]
    said += [str(msgspec.json.encode(files)), repr(indexes), str(indexes.problems)]
    assert words_said(" ".join(said)) == set()
    own = frozenset({home / ".netrc", home / "uv.toml", store})
    assert words_beneath(tmp_path, without=own) == {}
    for path in filter(Path.is_file, tmp_path.rglob("*")):
        assert not any(header.encode() in path.read_bytes() for header in headers), path


def fetch_all(files: list[LockedFile], into: Path, indexes: Indexes) -> str:
    """Fetch `files`; all that the errors say, as everybody may print them."""
    said = []
    for file in files:
        try:
            fetch(file, into, indexes=indexes)
        except FetchError as error:
            said += [*traceback.format_exception(error), str(error.as_dict()), repr(error), str(pickle.dumps(error))]
    return "\n".join(said)
