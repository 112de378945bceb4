"""Names of files and folders that never leave the client, each with its reason.

Names decide, not contents: looking into every file would make a warm scan a slow one. Python modules are never secrets
(`key.py`, `credentials.py` are code), so the patterns are only asked about other files.
"""

from __future__ import annotations

import fnmatch
import functools

SECRET_FOLDERS = {
    ".git": "history, and credentials in its config",
    ".hg": "history, and credentials in its config",
    ".svn": "history, and credentials in its config",
    ".ssh": "private keys",
    ".gnupg": "private keys",
    ".password-store": "passwords",
    ".aws": "cloud credentials",
    ".azure": "cloud credentials",
    ".boto": "cloud credentials",
    ".docker": "registry credentials",
    ".kube": "cluster credentials",
    ".kaggle": "an API token",
    ".config": "credentials of many programs",
}

SECRET_FILES = {
    ".env": "environment variables with passwords",
    ".env.*": "environment variables with passwords",
    "*.env": "environment variables with passwords",
    ".envrc": "environment variables with passwords",
    ".netrc": "passwords",
    "_netrc": "passwords",
    "netrc": "passwords",
    ".pypirc": "upload passwords",
    ".pgpass": "database passwords",
    ".my.cnf": "database passwords",
    ".npmrc": "registry tokens",
    ".git-credentials": "passwords",
    ".htpasswd": "password hashes",
    ".dockercfg": "registry credentials",
    ".s3cfg": "cloud credentials",
    ".boto": "cloud credentials",
    "credentials": "cloud credentials",
    "credentials.*": "cloud credentials",
    "client_secret*.json": "an OAuth secret",
    "application_default_credentials.json": "cloud credentials",
    "service[-_]account*.json": "cloud credentials",
    "secrets.*": "passwords",
    "kubeconfig": "cluster credentials",
    "*.tfstate": "cloud credentials",
    "*.tfvars": "cloud credentials",
    "id_rsa": "a private key",
    "id_dsa": "a private key",
    "id_ecdsa": "a private key",
    "id_ed25519": "a private key",
    "*.pem": "a private key",
    "*.key": "a private key",
    "*.p12": "a private key",
    "*.pfx": "a private key",
    "*.jks": "a private key",
    "*.keystore": "a private key",
    "*.ppk": "a private key",
    "*.kdbx": "passwords",
}

_CODE = (".py", ".pyi", ".pyc", ".pyx", ".pxd", ".so")


@functools.lru_cache(maxsize=8192)
def secret_file(name: str) -> str:
    """Why the file `name` (without folder) must not be shipped, or ""."""
    folded = name.casefold()
    if folded.endswith(_CODE) and not folded.startswith("."):
        return ""
    return next((why for pattern, why in SECRET_FILES.items() if fnmatch.fnmatchcase(folded, pattern)), "")


def secret_folder(name: str) -> str:
    """Why nothing in a folder called `name` may be shipped, or ""."""
    return SECRET_FOLDERS.get(name.casefold(), "")


def secret_path(path: str) -> str:
    """Why the file at `path` (``/``-separated) must not be shipped, judging by all of its components, or ""."""
    *folders, name = path.split("/")
    return next((why for folder in folders if (why := secret_folder(folder))), "") or secret_file(name)
