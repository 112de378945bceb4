"""A prefix unpacked from layers as a node does it, for tests of the layers alone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from likewise.model.layer import LayerSource
from likewise.model.manifest import prefix_path


class NoFacts:
    """Remembers nothing."""

    def digest(self, path: str, stat: os.stat_result) -> None:
        """Never known."""

    def remember(self, path: str, stat: os.stat_result, digest: str) -> None:
        """Forget at once."""


def unpack(layers: Iterable[LayerSource], prefix: Path, python: str) -> Path:
    """Copy `layers` to where they belong beneath `prefix`, a venv on the copied interpreter; returns its python."""
    for layer in layers:
        for file in layer.files:
            target = prefix / prefix_path(file.entry.path, python)
            target.parent.mkdir(parents=True, exist_ok=True)
            if file.entry.link:
                target.symlink_to(file.entry.link)
            elif file.data is not None:
                target.write_bytes(file.data)
            else:
                shutil.copyfile(file.path, target)
            if not file.entry.link:
                target.chmod(0o755 if file.entry.executable else 0o644)
    (prefix / "pyvenv.cfg").write_text(f"home = {prefix}/interpreter/bin\ninclude-system-site-packages = false\n")
    (prefix / "bin").mkdir(exist_ok=True)
    (prefix / "lib" / python / "site-packages").mkdir(parents=True, exist_ok=True)
    for name in ("python", "python3", python):
        (prefix / "bin" / name).symlink_to(f"../interpreter/bin/{python}")
    return prefix / "bin" / "python"
