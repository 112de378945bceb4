"""``likewise plan --from`` and ``likewise export`` with files of conda's, as processes: pip on top, and credentials."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.canaries import canary, words_beneath, words_said
from support.commands import likewise
from support.conda_repodata import package, write_channel
from support.conda_server import serve_channel
from support.indexes import IndexServer, offer, serve_index

rattler = pytest.importorskip("rattler")
explicit_environment = pytest.importorskip("rattler.explicit_environment")

TAG = "cp311-cp311-manylinux_2_17_x86_64"
EXPORT = """
name: e
channels: [forge]
dependencies:
  - python=3.11.9=h9_0
  - openssl=3.3.1=h0_0
  - numpy=1.26.4=h0_0
  - pip:
      - ontop==1.0
      - sample==2.0.0
prefix: /opt/mini/envs/e
"""


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A channel that has what `EXPORT` names, for Linux."""
    linux = [
        package("python", "3.11.9", "openssl >=3.2"),
        package("openssl", "3.3.1"),
        package("numpy", "1.26.4", "python >=3.11,<3.12.0a0"),
    ]
    return write_channel(tmp_path_factory.mktemp("channel") / "forge", {"linux-64": linux})


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IndexServer]:
    """An index whose ``ontop`` requires numpy, which it has, too: in another version."""
    folder = tmp_path_factory.mktemp("index")
    offer(folder, "ontop", "1.0", tag=TAG, requires=["numpy>=1.20"])
    offer(folder, "sample", "2.0.1", tag=TAG)
    offer(folder, "numpy", "2.0.0", tag=TAG)
    with serve_index(folder) as server:
        yield server


def run(
    tmp_path: Path,
    index: IndexServer,
    *arguments: str | Path,
    command: str = "plan",
    text: str = EXPORT,
    **environ: str,
) -> subprocess.CompletedProcess[str]:
    """Run the command for a Mac's file, with nothing but this index configured."""
    folder = tmp_path / "cwd"
    folder.mkdir(exist_ok=True)
    (tmp_path / "e.yml").write_text(text)
    return likewise(
        command,
        "--from",
        tmp_path / "e.yml",
        "--client",
        "osx-arm64",
        "--target",
        "linux-64",
        *arguments,
        cwd=folder,
        HOME=str(tmp_path),
        LIKEWISE_CACHE=str(tmp_path / "cache"),
        UV_DEFAULT_INDEX=index.url,
        PIP_CONFIG_FILE="/dev/null",
        PIP_FIND_LINKS="",
        **environ,
    )


def test_pip_on_top_is_told_what_conda_provides(tmp_path: Path, index: IndexServer, channel: Path) -> None:
    """numpy comes from conda, so pip's does not; of what pip has, only the version that is not there moves."""
    done = run(tmp_path, index, "--channel", channel.as_uri(), "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert {d["name"]: d["version"] for d in plan["conda"]} == {
        "python": "3.11.9",
        "openssl": "3.3.1",
        "numpy": "1.26.4",
    }
    assert {d["name"]: (d["installed"], d["version"]) for d in plan["decisions"]} == {
        "ontop": ("", "1.0"),
        "sample": ("2.0.0", "2.0.1"),
    }
    assert plan["target"]["python"] == "3.11.9"
    assert plan["channels"] == [channel.as_uri()]
    assert "__glibc=2.28=0" in plan["virtual_packages"]


@pytest.mark.parametrize("option", ["--extra-index-url {}", '"--index-url={}"', "-i{}", "-i {} # ours"])
def test_indexes_of_pips_part_count(tmp_path: Path, index: IndexServer, channel: Path, option: str) -> None:
    """A name of the user's own is asked of the index that the file names, with its password, and of no other."""
    offer(tmp_path / "private", "secretive", "1.0", tag=TAG)
    with serve_index(tmp_path / "private", user="me", password=canary("password")) as private:
        pip = option.format(private.url_with_credentials)
        text = EXPORT.replace("      - ontop==1.0\n      - sample==2.0.0\n", f"      - {pip}\n      - secretive==1.0\n")
        done = run(tmp_path, index, "--channel", channel.as_uri(), "--json", text=text)
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert {d["name"]: d["version"] for d in plan["decisions"]} == {"secretive": "1.0"}
    assert index.asked_for("secretive") == 0
    problems = {problem["code"]: problem["message"] for problem in plan["problems"]}
    assert "UV_INDEX" in problems["indexes-piped"] and "not-understood" not in problems
    assert words_said(done.stdout + done.stderr) == set()
    assert words_beneath(tmp_path, without=frozenset({tmp_path / "e.yml"})) == {}


def test_people_read_both(tmp_path: Path, index: IndexServer, channel: Path) -> None:
    """The sums count conda's packages and pip's, and what moved is shown."""
    done = run(tmp_path, index, "--channel", channel.as_uri())
    assert "4 exact, 1 moved; for linux-x86_64 (glibc 2.28), Python 3.11.9" in done.stdout
    assert "3 conda packages to fetch" in done.stdout
    assert "2.0.0 → 2.0.1" in done.stdout


def test_what_rattler_reads_back(tmp_path: Path, index: IndexServer, channel: Path) -> None:
    """An exported pixi.lock has for py-rattler the very packages of the plan, and the wheels."""
    done = run(tmp_path, index, "--channel", channel.as_uri(), "--format", "pixi", command="export")
    assert done.returncode == 0, done.stderr
    (tmp_path / "pixi.lock").write_text(done.stdout)
    found = rattler.LockFile.from_path(tmp_path / "pixi.lock").default_environment()
    (records,) = found.conda_repodata_records().values()
    assert {(one.name.normalized, str(one.version), one.subdir) for one in records} == {
        ("python", "3.11.9", "linux-64"),
        ("openssl", "3.3.1", "linux-64"),
        ("numpy", "1.26.4", "linux-64"),
    }
    assert all(one.sha256 for one in records)
    assert next(one for one in records if one.name.normalized == "numpy").depends == ["python >=3.11,<3.12.0a0"]
    (wheels,) = found.pypi_packages().values()
    assert {(one.name, one.version) for one in wheels} == {("ontop", "1.0"), ("sample", "2.0.1")}


def test_an_explicit_list(tmp_path: Path, index: IndexServer, channel: Path) -> None:
    """Each URL once with its hash, behind what it depends on; py-rattler reads it, and it can be planned from."""
    done = run(tmp_path, index, "--channel", channel.as_uri(), "--format", "explicit", command="export")
    assert done.returncode == 0, done.stderr
    (tmp_path / "explicit.txt").write_text(done.stdout)
    spec = explicit_environment.ExplicitEnvironmentSpec.from_path(tmp_path / "explicit.txt")
    assert str(spec.platform) == "linux-64"
    names = [entry.url.rpartition("/")[2].partition("#")[0] for entry in spec.packages]
    assert names == ["openssl-3.3.1-h0_0.conda", "python-3.11.9-h0_0.conda", "numpy-1.26.4-h0_0.conda"]
    again = likewise(
        "plan",
        "--from",
        tmp_path / "explicit.txt",
        "--json",
        cwd=tmp_path / "cwd",
        HOME=str(tmp_path),
        LIKEWISE_CACHE=str(tmp_path / "cache"),
        UV_DEFAULT_INDEX=index.url,
        PIP_CONFIG_FILE="/dev/null",
    )
    assert again.returncode == 0, again.stderr
    assert {d["reason"] for d in json.loads(again.stdout)["conda"]} == {"the very same package"}
    assert {d["name"] for d in json.loads(again.stdout)["decisions"]} == {"ontop", "sample"}


def test_formats_of_pip_name_what_they_can_not_say(tmp_path: Path, index: IndexServer, channel: Path) -> None:
    """conda's packages are in comments, and in a notice."""
    done = run(tmp_path, index, "--channel", channel.as_uri(), "--format", "requirements", command="export")
    assert done.returncode == 0, done.stderr
    assert "# Not in here: openssl 3.3.1" in done.stdout
    assert "openssl" in done.stderr


def test_without_conda_packages_there_is_no_list_of_conda(tmp_path: Path, index: IndexServer) -> None:
    """The error says which formats there are."""
    (tmp_path / "freeze.txt").write_text("sample==2.0.1\n")
    done = run(tmp_path, index, "--from", tmp_path / "freeze.txt", "--format", "explicit", command="export")
    assert done.returncode == 18
    assert "no conda packages" in done.stderr


@pytest.mark.parametrize("kind", ["url", "token", "condarc", "mamba-basic", "mamba-bearer"])
def test_credentials_reach_a_channel_and_nothing_else(
    tmp_path: Path, index: IndexServer, channel: Path, kind: str
) -> None:
    """Wherever the credential is kept, the channel gives its list, and no output and no file of ours has it."""
    secret = canary(f"conda{kind.replace('-', '')}")
    guard = {"token": secret} if kind in ("token", "condarc") else {"user": "me", "password": secret}
    guard = {"bearer": secret} if kind == "mamba-bearer" else guard
    with serve_channel(channel, **guard) as server:
        named = server.url if kind in ("url", "token") else server.plain_url
        entry: dict[str, str] = {"type": "BearerToken", "token": secret}
        if kind == "mamba-basic":
            entry = {"type": "BasicHTTPAuthentication", "user": "me", "password": secret}
        if kind == "condarc":
            (tmp_path / ".condarc").write_text(f"channels:\n  - {server.url}\n")
        if kind.startswith("mamba"):
            (tmp_path / ".mamba" / "auth").mkdir(parents=True)
            (tmp_path / ".mamba" / "auth" / "authentication.json").write_text(json.dumps({"127.0.0.1": entry}))
        done = run(tmp_path, index, "--channel", named, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["channels"] == [server.plain_url]
        assert server.asked
    assert secret not in words_said(done.stdout + done.stderr)
    assert secret not in words_beneath(tmp_path / "cache")


@pytest.mark.parametrize("status", [401, 404, 500])
def test_a_channel_that_refuses(tmp_path: Path, index: IndexServer, channel: Path, status: int) -> None:
    """It is an error of fetching that names the channel, and not its token."""
    secret = canary("refused")
    with serve_channel(channel, token=secret, status=status) as server:
        done = run(tmp_path, index, "--channel", server.url)
    assert done.returncode == 19, done.stderr
    assert str(status) in done.stderr
    assert secret not in words_said(done.stdout + done.stderr)


def test_what_is_not_configured(tmp_path: Path, index: IndexServer, channel: Path) -> None:
    """A name stands behind the alias that is configured; ``defaults`` is what is configured for it."""
    (tmp_path / ".condarc").write_text(f"channel_alias: {channel.parent.as_uri()}\n")
    assert run(tmp_path, index).returncode == 0
    (tmp_path / ".condarc").write_text(f"default_channels: [{channel.as_uri()}]\n")
    done = run(tmp_path, index, "--channel", "defaults", "--json")
    assert json.loads(done.stdout)["channels"] == [channel.as_uri()]
