"""Credentials planted wherever people have them, and a search for them in everything that was written."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from likewise.model.zstd import ZstdDecompressor
from support.prefixes import run
from support.users import make_user_venv

MARK = "CANARY0x5eC4e7"
"""Every planted credential begins with it, so one search finds them all and the rest of the word says which it was."""

CARGO = "CARGO0x90045"
"""In code that has to travel: proves that the search sees into archives."""

# Names of cargo are lower case: in bytecode a capital letter follows at once.
_NEEDLE = re.compile(rb"%s[A-Za-z0-9_]*|%s[a-z_]*" % (MARK.encode(), CARGO.encode()))
_BASE64 = re.compile(r"(?:[A-Za-z0-9_-]{40,}|[A-Za-z0-9+/]{40,})")

# A build back end of the tree's own, without requirements: it builds without a network, and talks as back ends do.
BACKEND = """
import os, zipfile
META = "Metadata-Version: 2.1\\nName: {name}\\nVersion: 1.0\\n"
WHEEL = "Wheel-Version: 1.0\\nGenerator: own\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    print("index:", os.environ.get("UV_INDEX_URL"), os.environ.get("UV_DEFAULT_INDEX"), os.environ.get("PIP_INDEX_URL"))
    if {fails}:
        raise SystemExit("cannot reach " + os.environ["UV_INDEX_URL"])
    name = "{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(wheel_directory, name), "w") as wheel:
        for folder, _, files in os.walk("{name}"):
            for file in files:
                wheel.write(os.path.join(folder, file))
        wheel.writestr("{name}-1.0.dist-info/METADATA", META)
        wheel.writestr("{name}-1.0.dist-info/WHEEL", WHEEL)
        wheel.writestr("{name}-1.0.dist-info/RECORD", "")
    return name

def build_editable(*args):
    raise NotImplementedError

def get_requires_for_build_wheel(config_settings=None):
    return []
"""


def canary(name: str) -> str:
    """The planted credential called `name` (letters and underscores)."""
    return f"{MARK}_{name}"


def url(name: str, host: str = "packages.example.invalid", path: str = "/simple") -> str:
    """A URL with a user and the credential called `name`."""
    return f"https://user:{canary(name)}@{host}{path}"


def uv_credentials(service: str, password: str) -> str:
    """What ``uv auth login`` writes for the user ``me``."""
    return f'[[credential]]\nservice = "{service}"\nusername = "me"\nscheme = "basic"\npassword = "{password}"\n'


@dataclass(frozen=True)
class Planted:
    """A user's machine with credentials everywhere."""

    folder: Path  # all of it
    python: Path
    site: Path
    home: Path
    project: Path  # the working directory
    script: Path
    environ: dict[str, str]
    own: frozenset[Path]  # the files that hold a credential because we put it there


def plant(folder: Path) -> Planted:
    """Make a venv with likewise, a home and a project, all of them full of credentials."""
    home, project = folder / "home", folder / "project"
    folder.mkdir()
    python = make_user_venv(folder / "venv")
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    before = {path for path in folder.rglob("*") if path.is_file()}
    _plant_home(home)
    (folder / "venv" / "pip.conf").write_text(f"[global]\nindex-url = {url('venv_pip_conf')}\n")
    _plant_project(project)
    _plant_installed(site)
    _plant_editable(folder / "mine", site)
    _plant_unbuildable(folder / "stubborn", site)
    own = {path for path in folder.rglob("*") if path.is_file()} - before
    return Planted(
        folder=folder,
        python=python,
        site=site,
        project=project,
        home=home,
        script=project / "main.py",
        environ={**_variables(), "HOME": str(home)},
        own=frozenset(own),
    )


def _variables() -> dict[str, str]:
    """The environment variables of somebody with private indexes and a cloud account."""
    names = "PIP_INDEX_URL PIP_EXTRA_INDEX_URL UV_INDEX_URL UV_EXTRA_INDEX_URL HTTPS_PROXY https_proxy"
    secrets = (
        "UV_INDEX_PRIVATE_PASSWORD TWINE_PASSWORD GITHUB_TOKEN AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN HF_TOKEN"
        " DATABASE_PASSWORD DASK_MYSERVICE__TOKEN DASK_DISTRIBUTED__CLIENT__SECRET_TOKEN"
    )
    return {
        **{name: url(f"environ_{name}", host="127.0.0.1:9") for name in names.split()},
        **{name: canary(f"environ_{name}") for name in secrets.split()},
        "UV_INDEX": f"private={url('environ_UV_INDEX', host='127.0.0.1:9')}",
        "UV_INDEX_PRIVATE_USERNAME": "user",
    }


def _write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _plant_home(home: Path) -> None:
    _write(
        home,
        {
            ".netrc": f"machine packages.example.invalid login user password {canary('netrc')}\n",
            ".config/pip/pip.conf": f"[global]\nextra-index-url = {url('pip_conf')}\n",
            ".pip/pip.conf": f"[global]\nindex-url = {url('old_pip_conf')}\n",
            ".config/uv/uv.toml": f'[[index]]\nname = "firm"\nurl = "{url("uv_toml", host="127.0.0.1:9")}"\n',
            ".config/dask/firm.yaml": f"firm:\n  password: {canary('dask_yaml')}\n  index: {url('dask_yaml_url')}\n",
            ".aws/credentials": f"[default]\naws_secret_access_key = {canary('aws_file')}\n",
            ".git-credentials": url("git_credentials") + "\n",
            ".gitconfig": f'[url "{url("gitconfig")}"]\n\tinsteadOf = https://packages.example.invalid/\n',
            ".ssh/id_ed25519": f"-----BEGIN OPENSSH PRIVATE KEY-----\n{canary('ssh_key')}\n",
            ".local/share/uv/credentials/credentials.toml": uv_credentials(
                "https://packages.example.invalid", canary("uv_store")
            ),
            ".pypirc": f"[pypi]\npassword = {canary('pypirc')}\n",
        },
    )


def _plant_project(project: Path) -> None:
    """Loose code beside secrets, and a package whose data lies beside secrets."""
    _write(
        project,
        {
            "loose.py": f"WORD = {CARGO + '_loose'!r}\n",
            "loose_package/__init__.py": f"WORD = {CARGO + '_package'!r}\n",
            "loose_package/data.csv": CARGO + "_data\n",
            "loose_package/.env": f"TOKEN={canary('package_env')}\n",
            "loose_package/id_rsa": canary("package_id_rsa"),
            "loose_package/credentials.json": json.dumps({"key": canary("package_credentials_json")}),
            "loose_package/.git/config": f"[remote]\nurl = {url('package_git')}\n",
            ".env": f"TOKEN={canary('project_env')}\n",
            ".env.local": f"TOKEN={canary('project_env_local')}\n",
            ".netrc": f"machine x login y password {canary('project_netrc')}\n",
            "id_rsa": f"-----BEGIN RSA PRIVATE KEY-----\n{canary('project_id_rsa')}\n",
            "server.pem": canary("project_pem"),
            "settings.toml": f"password = '{canary('project_settings')}'\n",
            ".git/config": f'[remote "origin"]\nurl = {url("project_git")}\n',
            ".git/hooks/pre-commit.py": f"# {canary('project_git_hook')}\n",
            ".idea/data.py": f"# {canary('project_dot_folder')}\n",
            "pyproject.toml": f'[[tool.uv.index]]\nname = "firm"\nurl = "{url("project_index", host="127.0.0.1:9")}"\n',
            "notebook.ipynb": json.dumps({"cells": [canary("project_notebook")]}),
        },
    )


def _plant_installed(site: Path) -> None:
    """Distributions from private places, whose installer noted where with the password."""
    vcs = {
        "url": url("vcs_url", path="/x.git"),
        "vcs_info": {"vcs": "git", "commit_id": "c0ffee", "requested_revision": "v1"},
    }
    archive = {"url": f"{url('archive_url', path='/x.whl')}?sig={canary('archive_query')}#sha256=0", "archive_info": {}}
    path_token = {"url": f"https://conda.example.invalid/t/{canary('path_token')}/x.whl", "archive_info": {}}
    for name, direct in {"from_vcs": vcs, "from_archive": archive, "from_path_token": path_token}.items():
        install(site, name, {f"{name}.py": f"WORD = {CARGO + '_' + name!r}\n"}, direct_url=direct)
    _write(
        site, {".env": f"TOKEN={canary('site_env')}\n", "id_rsa": canary("site_id_rsa"), ".netrc": canary("site_netrc")}
    )


def _plant_editable(tree: Path, site: Path) -> None:
    """An editable whose project names a private index, with secrets lying in its tree."""
    plant_tree(tree, "mine", fails=False)
    _write(
        tree,
        {
            "mine/__init__.py": f"WORD = {CARGO + '_mine'!r}\n",
            "uv.toml": f'[[index]]\nname = "firm"\nurl = "{url("tree_uv_toml", host="127.0.0.1:9")}"\n',
            ".env": f"TOKEN={canary('tree_env')}\n",
            ".netrc": canary("tree_netrc"),
            "id_rsa": canary("tree_id_rsa"),
            ".git/config": f"[remote]\nurl = {url('tree_git')}\n",
            "mine/.env": f"TOKEN={canary('tree_package_env')}\n",
            "notes.txt": canary("tree_notes"),
        },
    )
    (tree / "backend.py").write_text((tree / "backend.py").read_text().replace("for file in files:", FILTER))
    install(site, "mine", {"mine.pth": f"{tree}\n"}, direct_url={"url": tree.as_uri(), "dir_info": {"editable": True}})


def _plant_unbuildable(tree: Path, site: Path) -> None:
    """An editable of pure Python whose back end fails, so that its code is shipped as it lies among secrets."""
    plant_tree(tree, "stubborn", fails=True)
    _write(
        tree / "stubborn",
        {
            "__init__.py": f"WORD = {CARGO + '_stubborn'!r}\n",
            ".env": f"TOKEN={canary('stubborn_env')}\n",
            "id_rsa": canary("stubborn_id_rsa"),
            "credentials": canary("stubborn_credentials"),
        },
    )
    direct: dict[str, object] = {"url": tree.as_uri(), "dir_info": {"editable": True}}
    install(site, "stubborn", {"stubborn.pth": f"{tree}\n"}, direct_url=direct)


FILTER = "for file in (f for f in files if not f.startswith('.')):"


def plant_tree(tree: Path, name: str, *, fails: bool) -> None:
    """A source tree of a package `name` with a back end of its own, which shows credentials and may fail."""
    _write(
        tree,
        {
            "pyproject.toml": (
                f'[project]\nname = "{name}"\nversion = "1.0"\n'
                '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
                f'[[tool.uv.index]]\nname = "firm"\nurl = "{url(f"{name}_pyproject", host="127.0.0.1:9")}"\n'
            ),
            "backend.py": BACKEND.format(name=name, fails=fails),
            f"{name}/__init__.py": "",
        },
    )


def install(site: Path, name: str, files: dict[str, str], *, direct_url: dict[str, object] | None = None) -> None:
    """A distribution `name` 1.0 in the folder `site`, as an installer writes it."""
    info = f"{name}-1.0.dist-info"
    content = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/INSTALLER": "uv\n",
    }
    if direct_url:
        content[f"{info}/direct_url.json"] = json.dumps(direct_url)
    _write(site, content)
    lines = [f"{path},{_record_hash(text)},{len(text.encode())}" for path, text in content.items()]
    _write(site, {f"{info}/RECORD": "\n".join([*lines, f"{info}/RECORD,,", ""])})


def _record_hash(text: str) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


# ---- the search


def words_in(data: bytes) -> set[str]:
    """The planted words in `data`, in whatever zstd, gzip or zip archives it is, to any depth."""
    found = {match.decode() for match in _NEEDLE.findall(data)}
    for inner in _unpacked(data):
        found |= words_in(inner)
    return found


def words_said(text: str) -> set[str]:
    """The planted words in what processes said or were given, also in base64 (as Dask hands configuration on)."""
    found = words_in(text.encode())
    for token in _BASE64.findall(text):
        found |= words_in(base64.urlsafe_b64decode(token[: len(token) // 4 * 4]))
    return found


def _unpacked(data: bytes) -> Iterator[bytes]:
    if data.startswith(b"\x28\xb5\x2f\xfd"):
        yield ZstdDecompressor().decompress(data)
    elif data.startswith(b"\x1f\x8b"):
        try:
            yield gzip.decompress(data)
        except (OSError, EOFError, zlib.error):
            yield zlib.decompressobj(wbits=31).decompress(data)  # an unfinished one: what there is
    elif data.startswith(b"PK\x03\x04") and zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            yield from (archive.read(name) for name in archive.namelist())


def words_beneath(*folders: Path, without: frozenset[Path] = frozenset()) -> dict[str, set[str]]:
    """Planted word → the files beneath `folders` that hold it, in content or name; `without` are passed over.

    Of hard links to one file the first one's content counts.
    """
    found: dict[str, set[str]] = {}
    read: set[tuple[int, int]] = set()
    for folder in folders:
        for path in folder.rglob("*"):
            if path in without:
                continue
            words = words_in(str(path).encode())
            facts = path.lstat()
            if stat.S_ISREG(facts.st_mode) and (facts.st_dev, facts.st_ino) not in read:
                read.add((facts.st_dev, facts.st_ino))
                words |= words_in(path.read_bytes())
            for word in words:
                found.setdefault(word, set()).add(str(path))
    return found


def credentials(words: dict[str, set[str]] | set[str]) -> set[str]:
    """Those of `words` that are credentials, by their short names."""
    return {word.removeprefix(MARK) for word in words if word.startswith(MARK)}
