"""Snapshots of computers that are not here, and plans for others with a real resolver."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from likewise.model.digest import digest_bytes
from likewise.model.plan import Decision, Plan
from likewise.model.snapshot import Distribution, Origin, OriginKind, PrefixKind, Snapshot
from likewise.model.target import Platform, Target
from likewise.planner.elsewhere import plan_elsewhere
from likewise.planner.options import PlanOptions
from likewise.planner.resolver import Lock, Question
from likewise.planner.targets import parse_target
from likewise.resolution.uv import UvResolver
from support.values import make_interpreter

MAC = Platform(os="macos", arch="aarch64")
LINUX = parse_target("linux-64", python="3.11.7")

PURE = ("py3-none-any",)
MAC_TAG = "cp311-cp311-macosx_11_0_arm64"
LINUX_TAG = "cp311-cp311-manylinux_2_17_x86_64"


def installed(
    name: str,
    version: str,
    *requires: str,
    tags: Iterable[str] = (MAC_TAG,),
    origin: OriginKind = OriginKind.INDEX,
    **more: Any,
) -> Distribution:
    """One distribution of a Mac, compiled for it unless `tags` say otherwise."""
    content = None if origin is OriginKind.EDITABLE else digest_bytes(f"{name} {version}".encode())
    given = {"content": content, "origin": Origin(kind=origin), **more}
    return Distribution(name=name, version=version, requires=requires, tags=tuple(tags), **given)


def pure(name: str, version: str, *requires: str, **more: Any) -> Distribution:
    """One distribution of a Mac that is the same everywhere."""
    return installed(name, version, *requires, tags=PURE, **more)


KIT = (pure("distributed", "2024.8.0"), pure("likewise", "0.1.0"), pure("msgspec", "0.18.6"))


def snapshot_of(*distributions: Distribution, platform: Platform = MAC, kit: bool = True) -> Snapshot:
    """What is installed on a computer, with what a node needs to join."""
    every = [*distributions, *(KIT if kit else ())]
    return Snapshot(
        interpreter=make_interpreter(
            platform=platform,
            prefix="/Users/me/venv",
            base_prefix="/usr/local",
            executable="/Users/me/venv/bin/python",
            base_kind=PrefixKind.OTHER,
        ),
        distributions=tuple(sorted(every, key=lambda d: d.name)),
        code=(),
    )


class Asked(UvResolver):
    """uv, and every question that it was asked."""

    def __init__(self, work: Path, index: str, **more: Any) -> None:
        environ = {"UV_DEFAULT_INDEX": index, "UV_CACHE_DIR": str(work / "cache"), "UV_HTTP_RETRIES": "0"}
        super().__init__(work=work / "questions", environ=environ, **more)
        self.index = index
        self.questions: list[Question] = []

    def resolve(self, question: Question) -> Lock:
        """Answer, and remember what was asked."""
        self.questions.append(question)
        return super().resolve(question)


def plan_with(
    resolver: UvResolver, snapshot: Snapshot, *, target: Target = LINUX, here: bool = True, **options: Any
) -> Plan:
    """The plan for `target`."""
    return plan_elsewhere(snapshot, target, PlanOptions(**options), resolver, here=here)


def decided(plan: Plan, name: str) -> Decision:
    """The decision about `name`."""
    found = plan.get(name)
    assert found is not None, name
    return found


def said(plan: Plan, code: str) -> list[str]:
    """The messages of all problems with this code."""
    return [problem.message for problem in plan.problems if problem.code == code]
