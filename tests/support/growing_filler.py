"""The stand-in for the filler that `support.growing` starts as ``python growing_filler.py PLAN``."""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class Filler:
    """Brings layers until all are there, or the file ``stop`` is, or nothing any more: the test is over."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plan: dict[str, Any] = json.loads((folder / "plan.json").read_text())
        self.prefix = Path(self.plan["prefix"])
        self.growing = self.prefix / "growing"
        self.names = {layer["digest"]: name for name, layer in self.plan["layers"].items()}
        order = sorted(self.plan["layers"])
        random.Random(self.plan["seed"]).shuffle(order)
        self.order: list[str] = [name for name in order if not self.there(name).exists()]
        self.wanted: list[str] = []
        self.queue = -1

    def there(self, name: str) -> Path:
        """The file that says that a layer is there."""
        return self.growing / "there" / str(self.plan["layers"][name]["digest"])

    def run(self) -> None:
        """Fill, unless another one does."""
        with open(self.growing / "lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return
            self.queue = os.open(self.growing / "queue", os.O_RDWR | os.O_NONBLOCK)
            self.note("began", str(os.getpid()))
            while (self.folder / "plan.json").exists() and not (self.folder / "stop").exists():
                self.listen()
                left = [name for name in self.order if not self.failed(name).exists()]
                if not self.order:
                    self.end()
                    return
                name = self.next(left)
                if name is None:
                    time.sleep(0.002)
                else:
                    self.bring(name)

    def failed(self, name: str) -> Path:
        """The file that says why a layer can't be had."""
        return self.growing / "failed" / self.there(name).name

    def note(self, what: str, name: str) -> None:
        """Write into the log."""
        with open(self.folder / "log", "a") as log:
            log.write(f"{what} {name}\n")

    def listen(self) -> None:
        """What is wanted comes first; what has failed is tried again."""
        try:
            wishes = os.read(self.queue, 1 << 16).decode().split()
        except BlockingIOError:
            return
        for digest in wishes:
            name = self.names[digest]
            self.note("wanted", name)
            self.wanted.insert(0, name)
            failed = self.failed(name)
            if failed.exists() and time.time() - failed.stat().st_mtime > 5:
                failed.unlink()

    def next(self, left: Sequence[str]) -> str | None:
        """What to bring now."""
        self.wanted = [name for name in self.wanted if name in left]
        candidates = self.wanted if self.plan["lazy"] else [*self.wanted, *left]
        return next((name for name in candidates if not (self.folder / "hold" / name).exists()), None)

    def bring(self, name: str) -> None:
        """Lay one layer out in any order, half of it before the delay; or say why that can't be."""
        layer = self.plan["layers"][name]
        why = self.folder / "fail" / name
        if why.exists():
            time.sleep(self.plan["delay"])
            (self.growing / "failed" / ".new").write_text(why.read_text())
            (self.growing / "failed" / ".new").rename(self.failed(name))
            self.note("failed", name)
            return
        files: list[str] = list(layer["files"])
        random.Random(name).shuffle(files)
        for number, path in enumerate(files):
            if number == len(files) // 2:
                time.sleep(self.plan["delay"])
            self.place(path)
        self.there(name).touch()
        self.order.remove(name)
        self.note("came", name)

    def place(self, path: str) -> None:
        """Put one file where it belongs; scripts by renaming, because another one stands in their place."""
        source, target = Path(self.plan["original"]) / path, self.prefix / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.startswith("bin/"):
            data = source.read_bytes().replace(self.plan["original"].encode(), self.plan["prefix"].encode())
            new = target.with_name(f".{target.name}.new")
            new.write_bytes(data)
            shutil.copymode(source, new)
            new.rename(target)
        elif not os.path.lexists(target):
            try:
                os.link(source, target, follow_symlinks=False)
            except OSError:
                shutil.copy2(source, target, follow_symlinks=False)

    def end(self) -> None:
        """All is there."""
        Path(self.plan["gate"]).unlink()
        self.growing.rename(self.prefix / ".grown")
        shutil.rmtree(self.prefix / ".grown")
        self.note("complete", "-")


if __name__ == "__main__":
    Filler(Path(sys.argv[1])).run()
