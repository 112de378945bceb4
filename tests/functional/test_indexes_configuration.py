"""Which indexes are asked, and in what order: compared with what the real pip and uv do with the same configuration."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from likewise.indexes import Indexes, find_indexes
from likewise.indexes.default import default_index
from likewise.indexes.pip_config import names_indexes
from likewise.indexes.stated import Source
from support.canaries import words_said
from support.indexes import IndexServer, serve_index
from support.plans import LINUX
from support.prefixes import UV, clean_environ

PYPI = default_index()


class Machine:
    """A user's machine in a folder: home, working directory, the machine-wide configuration and a prefix."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home, self.folder, self.machine, self.prefix = (root / n for n in ("home", "work/here", "machine", "venv"))
        for folder in (self.home, self.folder, self.machine, self.prefix / "bin"):
            folder.mkdir(parents=True)
        self.environ: dict[str, str] = {"XDG_CONFIG_DIRS": str(self.machine / "etc" / "xdg")}

    def write(self, files: Mapping[str, str]) -> None:
        """Files, by paths relative to the root."""
        for name, text in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def find(self, **more: Any) -> Indexes:
        """What likewise makes of it."""
        return find_indexes(
            environ=self.environ,
            home=self.home,
            folder=self.folder,
            python=str(self.prefix / "bin" / "python"),
            machine=self.machine,
            **more,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """An empty one."""
    return Machine(tmp_path)


def urls(indexes: Indexes) -> list[str]:
    """The URLs of the indexes, in their order."""
    return [index.url.rstrip("/") for index in indexes.order]


def codes(indexes: Indexes) -> set[str]:
    """What was odd."""
    return {problem.code for problem in indexes.problems}


# ---- pip


PIP_CASES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "nothing": ({}, {}),
    "user": ({"home/.config/pip/pip.conf": "[global]\nindex-url = http://127.0.0.1:9/a\n"}, {}),
    "old user file loses": (
        {
            "home/.pip/pip.conf": "[global]\nindex-url = http://127.0.0.1:9/old\nextra-index-url = http://127.0.0.1:9/x\n",
            "home/.config/pip/pip.conf": "[global]\nindex-url = http://127.0.0.1:9/new\n",
        },
        {},
    ),
    "install beats global wherever it stands": (
        {
            "machine/etc/xdg/pip/pip.conf": "[install]\nindex_url = http://127.0.0.1:9/install\n",
            "home/.config/pip/pip.conf": "[global]\nindex-url = http://127.0.0.1:9/global\n",
        },
        {},
    ),
    "several lines": (
        {
            "home/.config/pip/pip.conf": "[global]\nextra-index-url =\n    http://127.0.0.1:9/a\n"
            "    http://127.0.0.1:9/b\n"
        },
        {},
    ),
    "extra is replaced, not added": (
        {
            "machine/etc/xdg/pip/pip.conf": "[global]\nextra-index-url = http://127.0.0.1:9/machine\n",
            "home/.config/pip/pip.conf": "[global]\nextra-index-url = http://127.0.0.1:9/user\n",
        },
        {},
    ),
    "variables beat files": (
        {"home/.config/pip/pip.conf": "[install]\nindex-url = http://127.0.0.1:9/file\n"},
        {
            "PIP_INDEX_URL": "http://127.0.0.1:9/variable",
            "PIP_EXTRA_INDEX_URL": "http://127.0.0.1:9/b http://127.0.0.1:9/c",
        },
    ),
    "chosen file instead of the user's": (
        {
            "chosen.ini": "[global]\nindex-url = http://127.0.0.1:9/chosen\n",
            "home/.config/pip/pip.conf": "[global]\nextra-index-url = http://127.0.0.1:9/user\n",
        },
        {"PIP_CONFIG_FILE": "{root}/chosen.ini"},
    ),
    "chosen file that isn't there": (
        {"home/.config/pip/pip.conf": "[global]\nindex-url = http://127.0.0.1:9/user\n"},
        {"PIP_CONFIG_FILE": "{root}/missing.ini"},
    ),
    "no file at all": (
        {"home/.config/pip/pip.conf": "[global]\nindex-url = http://127.0.0.1:9/user\n"},
        {"PIP_CONFIG_FILE": "/dev/null"},
    ),
    "empty variable": (
        {"home/.config/pip/pip.conf": "[global]\nindex-url = http://127.0.0.1:9/user\n"},
        {"PIP_INDEX_URL": ""},
    ),
}


@pytest.mark.parametrize("case", PIP_CASES)
def test_the_same_indexes_as_pip(machine: Machine, case: str) -> None:
    """Every file, section and variable counts as it does for pip itself, which says where it looks."""
    files, environ = PIP_CASES[case]
    machine.write(files)
    machine.environ |= {name: text.format(root=machine.root) for name, text in environ.items()}
    assert set(urls(machine.find())) == pip_looks_in(machine)


def pip_looks_in(machine: Machine) -> set[str]:
    """The indexes that the pip of this prefix names; it then finds nobody there."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--retries", "0", "--timeout", "1",
         "--proxy", "http://127.0.0.1:9", "no-such-name"],
        env={**without_pip(), **machine.environ, "HOME": str(machine.home)},
        cwd=machine.folder,
        capture_output=True,
        text=True,
    )  # fmt: skip
    found = re.search(r"Looking in indexes: (.*)", done.stdout)
    return {url.strip().rstrip("/") for url in found[1].split(",")} if found else {PYPI}


def without_pip() -> dict[str, str]:
    """This process's variables without pip's and uv's settings."""
    return {name: text for name, text in clean_environ().items() if not name.startswith(("PIP_", "UV_", "XDG_"))}


def test_the_prefix_has_a_configuration_of_its_own(machine: Machine) -> None:
    """``pip.conf`` beside the interpreter beats the user's."""
    machine.write(
        {
            "venv/pip.conf": "[global]\nindex-url = http://127.0.0.1:9/venv\n",
            "home/.config/pip/pip.conf": "[global]\nindex-url = http://127.0.0.1:9/user\n",
        }
    )
    assert urls(machine.find()) == ["http://127.0.0.1:9/venv"]


@pytest.mark.parametrize(
    ("system", "path"),
    [
        ("win32", "home/AppData/Roaming/pip/pip.ini"),
        ("win32", "home/pip/pip.ini"),
        ("darwin", "home/Library/Application Support/pip/pip.conf"),
        ("darwin", "home/.config/pip/pip.conf"),
        ("darwin", "machine/Library/Application Support/pip/pip.conf"),
        ("linux", "machine/etc/pip.conf"),
    ],
)
def test_places_of_other_systems(machine: Machine, system: str, path: str) -> None:
    """Windows and macOS have their own folders."""
    machine.write({path: "[global]\nindex-url = http://127.0.0.1:9/there\n"})
    assert urls(machine.find(system=system)) == ["http://127.0.0.1:9/there"]


def test_requirements_files(machine: Machine) -> None:
    """Their options count, with variables filled in, in included files too, and replace pip's own as pip does it."""
    machine.write(
        {
            "home/.config/pip/pip.conf": "[global]\nextra-index-url = http://127.0.0.1:9/user\n",
            "work/here/requirements.txt": (
                "--index-url=https://me:${WORD}@127.0.0.1:9/main # ours\n-r more/base.txt\nnumpy==1.26.4 \\\n"
                "  --hash=sha256:00\n--trusted-host 127.0.0.1\n"
            ),
            "work/here/more/base.txt": "-ihttp://127.0.0.1:9/included\n--extra-index-url http://127.0.0.1:9/x\n"
            "-f wheels\n-r ../requirements.txt\n# -i http://127.0.0.1:9/commented\n--extra-index-url 'unfinished\n",
            "work/here/more/wheels/note": "",
        }
    )
    machine.environ["WORD"] = "secret"
    indexes = machine.find(requirements=[Path("requirements.txt")])
    assert urls(indexes) == ["http://127.0.0.1:9/x", "http://127.0.0.1:9/included"]
    assert indexes.find_links == ((machine.folder / "more" / "wheels").as_uri(),)
    assert indexes.connection.unverified == ("127.0.0.1",)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("before", ["", "# a long note\n" * 100_000])
def test_requirements_files_of_any_editor(machine: Machine, encoding: str, before: str) -> None:
    """Their options count whatever byte order mark is before them, and however far down they stand."""
    path = machine.folder / "requirements.txt"
    path.write_bytes(f"{before}--index-url http://127.0.0.1:9/main\nnumpy==1.26.4\n".encode(encoding))
    indexes = machine.find(requirements=[path])
    assert urls(indexes) == ["http://127.0.0.1:9/main"] and codes(indexes) == set()
    assert names_indexes(path)


@pytest.mark.parametrize(
    ("data", "said"),
    [(b"\xff\n", "is not UTF-8"), (b"\xff\xfea", "is not UTF-16"), (b"#" * (2**20 + 1), "has more than 1 MiB")],
)
def test_what_cant_be_read_is_told(machine: Machine, data: bytes, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For who knows which indexes it names."""
    monkeypatch.setattr("likewise.indexes.pip_config.LIMIT", 2**20)
    (machine.folder / "requirements.txt").write_bytes(data)
    (problem,) = machine.find(requirements=[Path("requirements.txt")]).problems
    assert said in problem.message


def test_pip_has_no_order_so_private_indexes_come_first(machine: Machine) -> None:
    """Where anybody can publish comes last, however the user wrote it; a problem says that pip would do otherwise."""
    machine.write(
        {
            "home/.config/pip/pip.conf": (
                "[global]\nindex-url = https://private.example/simple\n"
                f"extra-index-url = {PYPI}/ https://mirrors.example/pypi/simple/ https://second.example/simple\n"
            )
        }
    )
    indexes = machine.find()
    assert urls(indexes) == [
        "https://second.example/simple",
        "https://private.example/simple",
        PYPI,
        "https://mirrors.example/pypi/simple",
    ]
    assert indexes.strategy == "first-index"
    (problem,) = [problem for problem in indexes.problems if problem.code == "index-order"]
    assert "UV_INDEX_STRATEGY" in problem.message


def test_pytorch_index_is_for_pytorch(machine: Machine) -> None:
    """It has old versions of half of PyPI, and a name that it has would not be looked for on PyPI."""
    machine.environ["PIP_EXTRA_INDEX_URL"] = "https://wheels.example/whl/cu126"
    indexes = machine.find()
    assert urls(indexes) == [PYPI]
    assert codes(indexes) == {"index-pytorch"}


def test_no_index(machine: Machine) -> None:
    """``no-index`` of pip counts when uv says nothing."""
    machine.environ |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "wheels"}
    indexes = machine.find()
    assert urls(indexes) == []
    assert indexes.for_uv()[1] == ["--no-index"]
    assert indexes.find_links == ((machine.folder / "wheels").as_uri(),)
    machine.environ["UV_DEFAULT_INDEX"] = "https://private.example/simple"
    assert urls(machine.find()) == ["https://private.example/simple"]


# ---- uv


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[dict[str, IndexServer]]:
    """Five indexes that have nothing, so that all of them are asked."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(serve_index(tmp_path / "nothing")) for name in "abcde"}


UV_CASES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "user, default first in the file": (
        {"home/.config/uv/uv.toml": '[[index]]\nurl = "{a}"\ndefault = true\n[[index]]\nurl = "{b}"\n'},
        {},
    ),
    "project above, then user, then machine": (
        {
            "work/pyproject.toml": '[[tool.uv.index]]\nurl = "{a}"\n',
            "home/.config/uv/uv.toml": '[[index]]\nurl = "{b}"\n',
            "machine/etc/xdg/uv/uv.toml": '[[index]]\nurl = "{c}"\ndefault = true\n',
        },
        {},
    ),
    "uv.toml beats pyproject.toml beside it": (
        {
            "work/here/uv.toml": '[[index]]\nurl = "{a}"\ndefault = true\n',
            "work/here/pyproject.toml": '[[tool.uv.index]]\nurl = "{b}"\n',
        },
        {},
    ),
    "a pyproject.toml without uv's table": (
        {
            "work/here/pyproject.toml": '[project]\nname = "x"\nversion = "1"\n',
            "work/pyproject.toml": '[[tool.uv.index]]\nurl = "{a}"\ndefault = true\n',
        },
        {},
    ),
    "variables come first": (
        {"home/.config/uv/uv.toml": '[[index]]\nurl = "{a}"\n[[index]]\nurl = "{b}"\ndefault = true\n'},
        {"UV_INDEX": "one={c} {d}", "UV_DEFAULT_INDEX": "{e}"},
    ),
    "old names": (
        {"home/.config/uv/uv.toml": 'extra-index-url = ["{a}"]\nindex-url = "{b}"\n'},
        {"UV_EXTRA_INDEX_URL": "{c}"},
    ),
    "the table for uv pip": (
        {"home/.config/uv/uv.toml": 'index-url = "{a}"\n[pip]\nindex-url = "{b}"\nextra-index-url = ["{c}"]\n'},
        {},
    ),
    "explicit ones are not asked": (
        {
            "home/.config/uv/uv.toml": '[[index]]\nname = "only"\nurl = "{a}"\nexplicit = true\n'
            '[[index]]\nurl = "{b}"\ndefault = true\n'
        },
        {},
    ),
    "one name twice": (
        {"home/.config/uv/uv.toml": '[[index]]\nname = "firm"\nurl = "{a}"\n[[index]]\nurl = "{b}"\ndefault = true\n'},
        {"UV_INDEX": "firm={c}"},
    ),
    "a file that was chosen": (
        {
            "other.toml": '[[index]]\nurl = "{a}"\ndefault = true\n',
            "home/.config/uv/uv.toml": '[[index]]\nurl = "{b}"\n',
        },
        {"UV_CONFIG_FILE": "{root}/other.toml"},
    ),
    "no files": (
        {"home/.config/uv/uv.toml": '[[index]]\nurl = "{b}"\n'},
        {"UV_NO_CONFIG": "1", "UV_DEFAULT_INDEX": "{c}"},
    ),
}


@pytest.mark.parametrize("case", UV_CASES)
def test_the_same_order_as_uv(machine: Machine, servers: dict[str, IndexServer], case: str) -> None:
    """uv with the user's configuration, and uv with what is made of it here, ask the same indexes in the same order."""
    files, environ = UV_CASES[case]
    values = {name: server.url for name, server in servers.items()}
    machine.write({name: fill(text, values) for name, text in files.items()})
    machine.environ |= {name: fill(text, {**values, "root": str(machine.root)}) for name, text in environ.items()}
    own = uv_asks(machine, servers, machine.environ, [])
    indexes = machine.find()
    environment, arguments = indexes.for_uv()
    assert own == uv_asks(machine, servers, {**machine.environ, **environment}, ["--no-config", *arguments])
    assert own == [url for url in urls(indexes) if url != PYPI]
    assert own


def fill(text: str, values: Mapping[str, str]) -> str:
    """`text` with the values in place of their names in braces."""
    return re.sub(r"\{(\w+)\}", lambda found: values[found[1]], text)


def uv_asks(
    machine: Machine, servers: Mapping[str, IndexServer], environ: Mapping[str, str], arguments: list[str]
) -> list[str]:
    """The indexes that a uv asks about a name that none has. The public one is out of its reach."""
    before = {name: len(server.asked) for name, server in servers.items()}
    answered: list[str] = []
    for server in servers.values():
        server.heard = lambda url=server.url: answered.append(url.rstrip("/"))  # type: ignore[misc]
    environ = {**without_pip(), **environ, "HOME": str(machine.home), "HTTPS_PROXY": "http://127.0.0.1:9"}
    environ.pop("UV_CONFIG_FILE", None) if "--no-config" in arguments else None
    done = subprocess.run(
        [UV, "pip", "compile", "-", "-q", "--no-cache", "--python", sys.executable, *arguments],
        input="no-such-name\n", text=True, capture_output=True, cwd=machine.folder,
        env={**environ, "UV_HTTP_RETRIES": "0"},
    )  # fmt: skip
    assert done.returncode, done.stdout
    assert any(len(server.asked) > before[name] for name, server in servers.items()), done.stderr
    return list(dict.fromkeys(answered))


def test_names_and_where(machine: Machine) -> None:
    """Each index has a name of its own that doesn't change, and says which file or variable it is from."""
    machine.write({"home/.config/uv/uv.toml": '[[index]]\nname = "firm"\nurl = "https://a.example/simple"\n'})
    machine.environ |= {
        "PIP_EXTRA_INDEX_URL": "https://b.example/one https://b.example/two http://b.example:8080/x ../folder",
        "PIP_INDEX_URL": "https://firm/simple",
    }
    found = [(index.name, index.url, Path(index.where).name) for index in machine.find().order]
    assert found == [
        ("firm", "https://a.example/simple", "uv.toml"),
        ("b-example", "https://b.example/one", "PIP_EXTRA_INDEX_URL"),
        ("b-example-2", "https://b.example/two", "PIP_EXTRA_INDEX_URL"),
        ("b-example-8080", "http://b.example:8080/x", "PIP_EXTRA_INDEX_URL"),
        ("local", (machine.root / "work" / "folder").as_uri(), "PIP_EXTRA_INDEX_URL"),
        ("firm-2", "https://firm/simple", "PIP_INDEX_URL"),
    ]


def test_explicit_indexes_and_sources(machine: Machine) -> None:
    """They are known with the names that they are for."""
    machine.write(
        {
            "work/here/pyproject.toml": (
                '[[tool.uv.index]]\nname = "own"\nurl = "https://a.example/simple"\nexplicit = true\n'
                '[tool.uv.sources]\nMy_Package = { index = "own" }\nother = [{ index = "own", marker = "x" }]\n'
                'third = { git = "https://git.example/x" }\n'
            )
        }
    )
    indexes = machine.find()
    assert [index.name for index in indexes.explicit] == ["own"]
    assert indexes.sources == {"my-package": (Source("own"),), "other": (Source("own", marker="x"),)}
    assert indexes.assigned(LINUX) == {"my-package": ("own", "https://a.example/simple")}
    assert indexes.problems == ()
    assert urls(indexes) == [PYPI]


def test_strategy_is_the_users(machine: Machine) -> None:
    """What the user of uv chose is chosen; nonsense is not."""
    machine.write({"home/.config/uv/uv.toml": 'index-strategy = "unsafe-best-match"\n'})
    assert machine.find().strategy == "unsafe-best-match"
    machine.environ["UV_INDEX_STRATEGY"] = "unsafe-first-match"
    assert machine.find().strategy == "unsafe-first-match"
    machine.environ["UV_INDEX_STRATEGY"] = "nonsense"
    assert machine.find().strategy == "first-index"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("home/.config/pip/pip.conf", "index-url = https://user:CANARY0x5eC4e7_pip@a.example/\n"),
        ("home/.config/pip/pip.conf", "[global]\nindex-url\n= CANARY0x5eC4e7_pip\n CANARY0x5eC4e7_pip"),
        ("home/.config/uv/uv.toml", 'index-url = "https://user:CANARY0x5eC4e7_toml@a.example/\n'),
        ("work/here/pyproject.toml", "[tool.uv\nCANARY0x5eC4e7_pyproject"),
        ("home/.netrc", "machine a.example login user password x CANARY0x5eC4e7_netrc y"),
    ],
)
def test_damaged_files(machine: Machine, path: str, text: str) -> None:
    """They are passed over, named, and not quoted: what is damaged may be the line with the password."""
    machine.write({path: text})
    indexes = machine.find()
    (problem,) = indexes.problems
    assert problem.code == "index-configuration"
    assert problem.subject == str(machine.root / path)
    assert words_said(f"{indexes} {problem}") == set()
    assert urls(indexes) == [PYPI]


DEEP = b"index = " + b"[" * 100_000


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00", b"", b"index = 7\nindex-url = 3\n[pip]\nextra-index-url = 5\n", DEEP]
)
def test_odd_uv_files(machine: Machine, content: bytes) -> None:
    """Wrong encodings and wrong types stop nothing."""
    machine.write({"home/.config/uv/uv.toml": ""})
    (machine.home / ".config" / "uv" / "uv.toml").write_bytes(content)
    assert urls(machine.find()) == [PYPI]


def test_no_url(machine: Machine) -> None:
    """What can't be a URL is passed over and not quoted."""
    machine.environ["UV_INDEX"] = "https://user:CANARY0x5eC4e7_url@[nonsense/simple"
    indexes = machine.find()
    assert urls(indexes) == [PYPI]
    assert [problem.subject for problem in indexes.problems] == ["UV_INDEX"]
    assert words_said(f"{indexes} {indexes.problems}") == set()


def test_how_hosts_are_reached(machine: Machine) -> None:
    """pip's proxy, certificates and trusted hosts count for uv as well, and netrc, wherever it is."""
    machine.write({"home/.netrc": "machine a.example login me password secret\n", "home/firm.pem": ""})
    machine.environ |= {
        "PIP_PROXY": "http://me:word@proxy.example:3128",
        "PIP_CERT": str(machine.home / "firm.pem"),
        "PIP_TRUSTED_HOST": "a.example b.example:8080",
        "UV_INSECURE_HOST": "c.example",
    }
    environment, arguments = machine.find().for_uv()
    wanted = {
        "HTTPS_PROXY": "http://me:word@proxy.example:3128",
        "SSL_CERT_FILE": str(machine.home / "firm.pem"),
        "UV_INSECURE_HOST": "c.example a.example b.example:8080",
        "NETRC": str(machine.home / ".netrc"),
    }
    assert {name: environment.get(name) for name in wanted} == wanted
    assert arguments == []
    assert "word" not in repr(machine.find().connection)
