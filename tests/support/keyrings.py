"""The real keyring package in a prefix of its own, with a back end that is told by variables what it knows."""

from __future__ import annotations

from pathlib import Path

from support.prefixes import make_venv
from support.wheels import site_packages

BACKEND = """
import os, sys
from keyring.backend import KeyringBackend
from keyring.credentials import SimpleCredential

class Keyring(KeyringBackend):
    priority = 10

    def get_credential(self, service, username):
        with open(os.environ["ASKED"], "a") as log:
            print(service, username, file=log)
        if os.environ.get("BROKEN"):
            raise RuntimeError("locked")
        if service == os.environ["SERVICE"]:
            return SimpleCredential(username or "me", os.environ["WORD"])

    def set_password(self, service, username, password):
        raise NotImplementedError

    def get_password(self, service, username):
        found = self.get_credential(service, username)
        return found and found.password
"""


def make_keyring(folder: Path) -> Path:
    """The python of a prefix that has both."""
    python = make_venv(folder / "venv", "keyring")
    (site_packages(python) / "own_backend.py").write_text(BACKEND)
    return python


def keyring_environ(tmp_path: Path, service: str, word: str = "secret") -> dict[str, str]:
    """What the back end above wants to know."""
    return {
        "PYTHON_KEYRING_BACKEND": "own_backend.Keyring",
        "SERVICE": service,
        "WORD": word,
        "ASKED": str(tmp_path / "asked"),
    }
