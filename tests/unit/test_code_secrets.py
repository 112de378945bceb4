"""Names that never leave the client."""

from __future__ import annotations

import pytest

from likewise.model.secrets import secret_path


@pytest.mark.parametrize(
    "path",
    [
        ".env", "pkg/.env.local", "prod.env", ".netrc", "_netrc", ".pypirc", ".git/config", "x/.ssh/id_ed25519",
        "id_rsa", "server.pem", "tls.KEY", "pkg/credentials.json", ".aws/config", "pkg/secrets.toml", "a/.kube/config",
        "client_secret_12.json", "service-account.json", "store.p12", ".git-credentials", ".pgpass",
    ],
)  # fmt: skip
def test_secrets(path: str) -> None:
    """Each of these has a stated reason to stay."""
    assert secret_path(path)


@pytest.mark.parametrize(
    "path",
    [
        "key.py", "credentials.py", "secrets.py", "pkg/secrets.pyi", "id_rsa.pub", "data/keys.csv", "environment.yml",
        "monkey.txt", "environ.env.py", "_secrets.cpython-311-x86_64-linux-gnu.so",
    ],
)  # fmt: skip
def test_code_and_ordinary_data_are_none(path: str) -> None:
    """Python modules are code whatever they are called, and so is data that only sounds alike."""
    assert not secret_path(path)
