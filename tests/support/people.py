"""Two users of one machine, who share a folder as everybody shares ``/tmp``. Needs root."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from likewise.model.keys import kit_key, manifest_key
from likewise.node.command import Launch
from support.masking import masked_argv
from support.nodes import real_kit
from support.prefixes import clean_environ

ALICE, MALLORY = 12345, 54321
"""User numbers that nobody has."""


class Ground(msgspec.Struct, frozen=True):
    """Where they meet. Everything lies outside ``/tmp``, which is covered while they run something."""

    root: Path

    @property
    def shared(self) -> Path:
        """A folder for all, with the sticky bit."""
        return self.root / "shared"

    @property
    def evidence(self) -> Path:
        """A folder for all, where what should never run leaves a trace."""
        return self.root / "evidence"

    def home(self, user: int) -> Path:
        """A user's home."""
        return self.root / f"home-{user}"

    @property
    def kept(self) -> Path:
        """Another home of Alice's, which `clear` leaves: a node that starts there once more starts warm."""
        return self.root / "kept"

    def place(self, user: int) -> Path:
        """The name that the user's cache would have in the shared folder."""
        return self.shared / f"likewise-{user}"

    def launch(self, **change: object) -> Launch:
        """How anybody starts a node in the real kit's environment."""
        kit = real_kit()
        script, store = self.root / "bootstrap.sh", self.root / "store"
        launch = kit.launch(Path("auto"), store=store, script=str(script), kit=str(store / kit_key(kit.manifest.id)))
        return msgspec.structs.replace(launch, **change)

    def run(
        self, user: int, argv: Sequence[str], *, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as a user. ``TMPDIR`` is the shared folder; nothing can be made in ``/tmp``."""
        command = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--", *argv]
        environ = {**clean_environ(), "HOME": str(self.home(user)), "TMPDIR": str(self.shared), **(env or {})}
        return subprocess.run(
            masked_argv(command, ["/tmp"]), env=environ, cwd=self.home(user), capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip

    def start(self, user: int, code: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run Python code on a node of this user, who lets it find a place for the cache."""
        return self.run(user, [*self.launch().argv(), "-c", code], env=environ)

    def choose(self, user: int, *options: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Ask where the cache of this user would be."""
        argv = ["sh", str(self.root / "bootstrap.sh"), "--cache", "auto", "--command", "place", *options]
        return self.run(user, argv, env=environ)

    def clear(self) -> None:
        """Make the shared folders empty and the homes, too."""
        for path in (self.shared, self.evidence, self.home(ALICE), self.home(MALLORY)):
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir()
        for path in (self.shared, self.evidence):
            path.chmod(0o1777)
        for user in (ALICE, MALLORY):
            self.home(user).chmod(0o700)
            os.chown(self.home(user), user, user)


@contextmanager
def ground() -> Iterator[Ground]:
    """Make it, with a kit that everybody can read."""
    kit = real_kit()
    with tempfile.TemporaryDirectory(prefix="likewise-people-", dir="/var/tmp") as name:
        found = Ground(Path(name))
        found.root.chmod(0o755)
        for key in (kit_key(kit.manifest.id), manifest_key(kit.manifest.id)):
            path = found.root / "store" / key
            path.parent.mkdir(parents=True)
            shutil.copyfile(kit.store / key, path)
            path.chmod(0o644)
        shutil.copyfile(kit.launch(Path("/")).script, found.root / "bootstrap.sh")
        (found.root / "bootstrap.sh").chmod(0o644)
        found.kept.mkdir(mode=0o700)
        os.chown(found.kept, ALICE, ALICE)
        found.clear()
        yield found


def everything(folder: Path) -> dict[str, object]:
    """All that can be seen of a tree without changing it: owners, modes, times, contents, targets of links."""
    seen: dict[str, object] = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        found = path.lstat()
        content: object = None
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file():
            content = path.read_bytes()
        seen[str(path)] = (found.st_uid, found.st_mode, found.st_mtime_ns, found.st_ctime_ns, content)
    return seen
