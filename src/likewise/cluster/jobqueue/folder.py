"""The folder that the client and the jobs of one cluster share: what a job starts from, and what it has to tell."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import psutil

from likewise.cluster.jobqueue.script import NOTE, parse_note
from likewise.errors import ClusterError

_NAME = re.compile(r"likewise-[0-9a-f]{16}")
_OWNER = "owner"


class JobFolder:
    """``<shared>/likewise-<cluster id>``, the user's own (0700), there as long as the cluster.

    Parameters
    ----------
    shared : Path
        A folder that the client and the nodes see under the same name; made when missing.
    cluster : str
        The cluster's id.

    Raises
    ------
    ClusterError
        When it can't be made.
    """

    def __init__(self, shared: Path, cluster: str) -> None:
        self.path = shared / f"likewise-{cluster}"
        try:
            shared.mkdir(mode=0o700, parents=True, exist_ok=True)
            _sweep(shared)
            self.path.mkdir(mode=0o700)
            self.notes.mkdir(mode=0o700)
            self.write(_OWNER, _this_process().encode())
            self.write(self.note_script.name, NOTE.encode())
        except OSError as error:
            raise ClusterError(
                f"The jobs' folder can't be made ({error}).",
                where=str(shared),
                todo="Give shared_folder: a folder that you and the nodes see and that you may write to.",
            ) from error

    @property
    def environ(self) -> Path:
        """The workers' variables."""
        return self.path / "environ"

    @property
    def note_script(self) -> Path:
        """What a job runs when its worker's command has failed."""
        return self.path / "note.sh"

    @property
    def notes(self) -> Path:
        """Where that leaves its note."""
        return self.path / "notes"

    def write(self, name: str, data: bytes) -> Path:
        """Make a file that only its owner can read, at once and whole."""
        path, new = self.path / name, self.path / f".{name}.new"
        with contextlib.suppress(FileNotFoundError):
            new.unlink()
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
        new.replace(path)
        return path

    def bring(self, name: str, source: Path) -> Path:
        """`source` under `name`: a hard link where that is possible, else a copy."""
        path = self.path / name
        if not path.exists():
            try:
                os.link(source, path)
            except OSError:  # another file system, or one without links
                new = self.path / f".{name}.new"
                shutil.copyfile(source, new)
                new.replace(path)
        return path

    def take_notes(self) -> list[tuple[str, int, str, list[str]]]:
        """Name of each failed worker, its exit code, its host and what it said last; each is told once."""
        found = []
        with contextlib.suppress(OSError):
            for path in sorted(self.notes.iterdir()):
                if not path.name.startswith("."):
                    with contextlib.suppress(OSError):
                        found.append((path.name, *parse_note(path.read_text("utf-8", "replace"))))
                        path.unlink()
        return found

    def remove(self) -> None:
        """Remove all of it, what is secret first. May be called more than once."""
        with contextlib.suppress(OSError):
            self.environ.unlink()
        shutil.rmtree(self.path, ignore_errors=True)


def _this_process() -> str:
    return f"{socket.gethostname()} {os.getpid()} {psutil.Process().create_time()}"


def _sweep(shared: Path) -> None:
    """Remove the folders that killed clients of this user have left, as far as this machine can know of it."""
    for path in list(_ours(shared)):
        try:
            host, pid, started = (path / _OWNER).read_text().split()
            dead = host == socket.gethostname() and not _lives(int(pid), float(started))
        except (OSError, ValueError):  # just being made, or by somebody who is not us
            continue
        if dead:
            shutil.rmtree(path, ignore_errors=True)


def _ours(shared: Path) -> Iterator[Path]:
    for entry in os.scandir(shared):
        if _NAME.fullmatch(entry.name):
            with contextlib.suppress(OSError):
                found = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid():
                    yield Path(entry.path)


def _lives(pid: int, started: float) -> bool:
    try:
        return bool(abs(psutil.Process(pid).create_time() - started) < 1.0)
    except psutil.Error:
        return False
