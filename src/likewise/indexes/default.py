"""The index that is asked unless something else is configured: uv knows which one that is."""

from __future__ import annotations

import re
import subprocess
from functools import lru_cache

from uv import find_uv_bin

_DEFAULT = re.compile(r"--default-index\b.*?by default:\s*<(https?://[^\s>]+)>", re.DOTALL)


@lru_cache(maxsize=1)
def default_index() -> str:
    """Its URL, as uv's own help states it; "" when uv can't be run or does not say."""
    try:
        done = subprocess.run(
            [find_uv_bin(), "--color", "never", "help", "--no-pager", "pip", "compile"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=30, check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    found = _DEFAULT.search(done.stdout)
    return found[1].rstrip("/") if found else ""
