"""Files that say what is installed, as tools write them."""

# ruff: noqa: E501  # what tools write has long lines

from __future__ import annotations

import json
from typing import Any

SHA = "ab" * 32
COMMIT = "0123456789abcdef0123456789abcdef01234567"

UV_LOCK = f"""
version = 1
revision = 3
requires-python = ">=3.10"

[[package]]
name = "project"
version = "0.1"
source = {{ virtual = "." }}
dependencies = [
    {{ name = "numpy", version = "2.2.6", marker = "python_full_version < '3.11'" }},
    {{ name = "numpy", version = "2.4.0", marker = "python_full_version >= '3.11'" }},
    {{ name = "web", extra = ["fast"] }},
]

[package.optional-dependencies]
more = [{{ name = "extra-only" }}]

[package.dev-dependencies]
dev = [{{ name = "testing" }}]
docs = [{{ name = "docs-only" }}]

[[package]]
name = "numpy"
version = "2.2.6"
source = {{ registry = "https://index.example/simple" }}

[[package]]
name = "numpy"
version = "2.4.0"
source = {{ registry = "https://me:secret@index.example/simple" }}
wheels = [
    {{ url = "https://me:secret@index.example/numpy-2.4.0-cp311-cp311-macosx_11_0_arm64.whl", hash = "sha256:{"1" * 64}", size = 5 }},
    {{ url = "https://me:secret@index.example/numpy-2.4.0-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl", hash = "sha256:{"2" * 64}", size = 6 }},
    {{ url = "https://index.example/numpy-2.4.0-cp311-cp311-musllinux_1_2_x86_64.whl", hash = "sha256:{"3" * 64}" }},
]

[[package]]
name = "web"
version = "1.0"
source = {{ registry = "https://index.example/simple" }}
dependencies = [{{ name = "appnope", marker = "sys_platform == 'darwin'" }}]
wheels = [{{ url = "https://index.example/web-1.0-py3-none-any.whl", hash = "sha256:{"4" * 64}" }}]

[package.optional-dependencies]
fast = [{{ name = "uvloop", marker = "sys_platform == 'linux' or sys_platform == 'cygwin'" }}]
slow = [{{ name = "extra-only" }}]

[[package]]
name = "appnope"
version = "0.1.4"
source = {{ registry = "https://index.example/simple" }}

[[package]]
name = "uvloop"
version = "0.21.0"
source = {{ registry = "https://index.example/simple" }}
wheels = [{{ url = "https://index.example/uvloop-0.21.0-cp311-cp311-manylinux_2_17_x86_64.whl", hash = "sha256:{"5" * 64}" }}]

[[package]]
name = "testing"
version = "3.0"
source = {{ git = "https://me:secret@example.org/t.git?rev=v3#{COMMIT}" }}

[[package]]
name = "docs-only"
version = "1.0"
source = {{ registry = "https://index.example/simple" }}
wheels = [{{ url = "https://index.example/docs_only-1.0-py3-none-any.whl", hash = "sha256:{"6" * 64}" }}]

[[package]]
name = "extra-only"
version = "1.0"
source = {{ registry = "https://index.example/simple" }}
"""

PYLOCK = f"""
lock-version = "1.0"
environments = ["sys_platform == 'darwin'", "sys_platform == 'linux'"]
requires-python = ">=3.10"
created-by = "hand"
dependency-groups = ["dev"]
default-groups = ["dev"]

[[packages]]
name = "numpy"
version = "2.4.0"
wheels = [{{ name = "numpy-2.4.0-cp311-cp311-manylinux_2_28_x86_64.whl", url = "https://me:secret@index.example/x", hashes = {{ sha256 = "{"2" * 64}" }} }}]

[[packages]]
name = "appnope"
version = "0.1.4"
marker = "sys_platform == 'darwin'"

[[packages]]
name = "testing"
version = "3.0"
marker = "'dev' in dependency_groups"
vcs = {{ type = "git", url = "https://me:secret@example.org/t.git", commit-id = "{COMMIT}" }}

[[packages]]
name = "extra-only"
version = "1.0"
marker = "'more' in extras"

[[packages]]
name = "mine"
directory = {{ path = "./mine", editable = true }}
"""


def inspected(*distributions: dict[str, Any], **environment: str) -> str:
    """A report of ``pip inspect``."""
    return json.dumps({"version": "1", "installed": distributions, "environment": environment})
