"""Back ends that ask git for the version, and how to tell them the one that is installed.

A wheel is built from a copy of the tree, and the copy of an environment should have the environment's versions: so the
installed version is handed to every back end that can be told (the table below). Those that insist on git find a
clone without files beside the copy; it shares the objects of the user's checkout and writes nothing to it.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from likewise.layers.source_tree import SourceTree, git

_ASKS_GIT = re.compile(
    r"\b(setuptools[-_]scm|hatch[-_]vcs|vcs[-_]versioning|flit[-_]scm|pbr|versioneer|versioningit|dunamai"
    r"|poetry[-_]dynamic[-_]versioning|uv[-_]dynamic[-_]versioning|setuptools[-_]git|source *= *[\"'](?:vcs|scm)[\"'])"
)
_CANT_BE_TOLD = re.compile(r"\b(versioneer|versioningit|dunamai|setuptools[-_]git)")


def version_variables(name: str, version: str) -> dict[str, str]:
    """Environment variables that make version plug-ins use `version` for the project `name` (normalized)."""
    suffix = re.sub(r"[-_.]+", "_", name).upper()
    return {
        f"SETUPTOOLS_SCM_PRETEND_VERSION_FOR_{suffix}": version,
        "SETUPTOOLS_SCM_PRETEND_VERSION": version,  # hatch-vcs and flit-scm don't say for whom they ask
        "PDM_BUILD_SCM_VERSION": version,
        "PBR_VERSION": version,
        "POETRY_DYNAMIC_VERSIONING_BYPASS": version,
        "UV_DYNAMIC_VERSIONING_BYPASS": version,
    }


def history_state(tree: SourceTree) -> str:
    """What a build sees of the history, when that can change the wheel; part of the key of a built wheel."""
    if not tree.checkout or not _CANT_BE_TOLD.search(tree.build_text):
        return ""
    return git(tree.checkout, "describe", "--tags", "--always", "--long").strip()


def lend_history(tree: SourceTree, copy: Path) -> None:
    """Where the build asks git, put a ``.git`` into the copy that answers as the checkout would.

    Best effort: where git can't make it, the build goes without. Nothing is written to the checkout.
    """
    if not tree.checkout or tree.base != tree.checkout or not _ASKS_GIT.search(tree.build_text):
        return
    clone = copy.with_name("history")
    git(tree.checkout, "clone", "--quiet", "--shared", "--no-checkout", "--template=", ".", str(clone))
    if (clone / ".git").is_dir():
        index = git(tree.checkout, "ls-files", "--stage", "-z")
        git(str(clone), "update-index", "-z", "--index-info", stdin=index)
        shutil.move(clone / ".git", copy / ".git")
