"""Values that many tests need and whose details do not matter to them."""

from __future__ import annotations

from typing import Any

from likewise.model.digest import EMPTY
from likewise.model.snapshot import CodePosition, CodeRoot, Interpreter, PrefixKind
from likewise.model.target import Platform, Target

LINUX = Platform(os="linux", arch="x86_64", libc="glibc", libc_version="2.36")
TARGET = Target(platform=LINUX, python="3.11.7")


def make_interpreter(**other: Any) -> Interpreter:
    """A venv's interpreter, 3.11.7 on `LINUX`; `other` replaces fields."""
    fields: dict[str, Any] = {
        "implementation": "cpython",
        "version": "3.11.7",
        "cache_tag": "cpython-311",
        "magic": "a70d0d0a",
        "abiflags": "",
        "platform": LINUX,
        "prefix": "/venv",
        "base_prefix": "/base",
        "executable": "/venv/bin/python",
        "kind": PrefixKind.VENV,
        "base_kind": PrefixKind.UV,
    }
    return Interpreter(**{**fields, **other})


def make_code(**other: Any) -> CodeRoot:
    """A root of loose code, on ``sys.path`` before everything else; `other` replaces fields."""
    fields: dict[str, Any] = {
        "name": "code-0",
        "path": "/work",
        "why": "sys.path[0]",
        "position": CodePosition.BEFORE,
        "files": 1,
        "size": 1,
        "content": EMPTY,
    }
    return CodeRoot(**{**fields, **other})
