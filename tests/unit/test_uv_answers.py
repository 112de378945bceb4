"""What uv answers, read."""

from __future__ import annotations

import pytest

from likewise.errors import PlanError
from likewise.model.origins import hosts_alone
from likewise.resolution.uv import _packages


def test_a_file_without_a_sha256_is_refused_by_name() -> None:
    """An index need not give one; nothing of its URL but the host is repeated."""
    text = """
    [[packages]]
    name = "sample"
    version = "1.0"
    wheels = [{ url = "https://me:secret@example.org/t/token/sample-1.0-py3-none-any.whl", hashes = { md5 = "00" } }]
    """
    with pytest.raises(PlanError, match="has no sha256") as caught:
        _packages(text, {}, {})
    assert caught.value.what.startswith("sample-1.0-py3-none-any.whl ")
    assert caught.value.where == "example.org"
    assert caught.value.todo


@pytest.mark.parametrize("scheme", ["https", "socks5", "git+ssh"])
def test_of_a_url_the_host_alone_is_repeated(scheme: str) -> None:
    """Of a proxy's and a repository's as well, and of one whose password has what a URL should not have."""
    said = hosts_alone(f"error: {scheme}://me:sec@ret@example.org:81/token/x?secret=1 failed, see file:///here")
    assert said == f"error: {scheme}://example.org:81/… failed, see file:///here"
