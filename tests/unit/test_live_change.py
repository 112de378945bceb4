"""What a running process can take on without noticing, and what needs new ones."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest

from likewise.model.change import (
    Change,
    Changes,
    Contents,
    Loaded,
    Missed,
    classify,
    scheduler_changes,
    top_modules,
)
from likewise.model.digest import Digest, digest_bytes
from likewise.model.layer import LayerKind
from likewise.model.manifest import LayerRef, Manifest
from likewise.model.target import Platform, Target

STANDARD = frozenset({"json", "typing"})
NOTHING = Missed()


def part(
    name: str, *paths: str, version: str = "1.0", kind: LayerKind = LayerKind.DISTRIBUTION, **more: object
) -> Contents:
    """A layer's contents; its version is in its paths, as a distribution's is."""
    own = (f"purelib/{name}-{version}.dist-info/METADATA",) if kind is LayerKind.DISTRIBUTION else ()
    return Contents(kind=kind, name=name, paths=(*own, *paths), **more)  # type: ignore[arg-type]


BASE = (part("python", kind=LayerKind.INTERPRETER), part("one", "purelib/one/__init__.py", "scripts/one"))


def manifest(*parts: Contents, needs: Mapping[str, str] | None = None, after: tuple[str, ...] = ()) -> Manifest:
    """The manifest of these layers; the version is that of the first dist-info."""
    return Manifest(
        target=Target(platform=Platform(os="linux", arch="x86_64"), python="3.11.7"),
        python="python3.11",
        cache_tag="cpython-311",
        layers=tuple(
            LayerRef(kind=p.kind, name=p.name, version=version(p), digest=digest(p), files=len(p.paths), size=1)
            for p in parts
        ),
        after=after,
        needs=dict(needs or {}),
    )


def version(contents: Contents) -> str:
    """The version in the first dist-info."""
    info = next((p for p in contents.paths if ".dist-info/" in p), "")
    return info.partition(".dist-info/")[0].rpartition("-")[2]


def digest(contents: Contents) -> Digest:
    """Anything that differs with the contents."""
    return digest_bytes(msgspec.json.encode(contents))


def changes(*new: Contents, old: tuple[Contents, ...] = BASE, missed: Missed = NOTHING, **more: object) -> Changes:
    """What has changed from `old` to `new`."""
    now = manifest(*new, **more)  # type: ignore[arg-type]
    return classify(manifest(*old), now, {digest(p): p for p in new}, missed=missed, standard=STANDARD)


def objection(extra: Contents, missed: Missed = NOTHING) -> str:
    """Why `extra` can't be adopted in addition to what is there."""
    (change,) = changes(*BASE, extra, missed=missed).all
    assert (change.name, change.old, change.new) == (extra.name, "", version(extra))
    return change.why_new_workers


def test_records_of_conda_are_no_change() -> None:
    """They follow from the packages, and no process runs on them: what is added can be adopted all the same."""
    before, after = (part("conda:(records)", f"data/conda-meta/{n}", kind=LayerKind.RECORDS) for n in ("one", "two"))
    two = part("two", "purelib/two.py")
    assert not changes(*BASE, after, old=(*BASE, before))
    assert not changes(*BASE, after) and not changes(*BASE, old=(*BASE, before))
    found = changes(*BASE, two, after, old=(*BASE, before))
    assert ([change.name for change in found.all], found.can_be_adopted) == (["two"], True)


def test_nothing() -> None:
    """Equal manifests have no changes."""
    assert not changes(*BASE)
    assert changes(*BASE).can_be_adopted


@pytest.mark.parametrize(
    "extra",
    [
        part("two", "purelib/two/__init__.py", "scripts/two", "data/share/man/man1/two.1"),
        part("two", "purelib/_two.cpython-311-x86_64-linux-gnu.so", "purelib/two.libs/libx.so"),
        part("code-0", "code/code-0/mine.py", kind=LayerKind.CODE),
    ],
)
def test_additions(extra: Contents) -> None:
    """A distribution, or a root of loose code, with names of its own can be adopted."""
    assert objection(extra) == ""
    assert changes(*BASE, extra).can_be_adopted


@pytest.mark.parametrize(
    ("extra", "why"),
    [
        (part("two", "purelib/one/more.py"), "one can be imported already, from one"),
        (part("two", "purelib/json.py"), "json can be imported already, from the standard library"),
        (part("code-0", "code/code-0/one.py", kind=LayerKind.CODE), "one can be imported already"),
        (part("two", "scripts/one"), "scripts/one is there already"),
        (part("two", "purelib/two.py", "data/etc/two.conf"), "data/etc/two.conf has to be in the prefix"),
        (part("two", "purelib/two.pth"), "two.pth counts only when Python starts"),
        (part("two", "purelib/sitecustomize.py"), "sitecustomize counts only when Python starts"),
        (part("two", "purelib/two.py", groups=("dask.sizeof",)), "plugins (dask.sizeof)"),
        (part("native", "native/libx.so", kind=LayerKind.NATIVE), "part of the native"),
    ],
)
def test_what_a_process_would_notice(extra: Contents, why: str) -> None:
    """What shadows or overlaps anything, extends a package, or counts only at the start needs new workers."""
    assert why in objection(extra)


def test_what_was_looked_for() -> None:
    """A module or a distribution that any process has looked for in vain needs new workers; others don't."""
    two = part("two", "purelib/two_impl.py")
    assert "looked for two_impl" in objection(two, Missed(modules=frozenset({"two_impl"})))
    assert "looked for it" in objection(two, Missed(distributions=frozenset({"two"})))
    assert objection(two, Missed(modules=frozenset({"two", "three"}))) == ""


def test_two_additions_may_share_a_namespace() -> None:
    """Two distributions that come together may share a package that nobody knew before."""
    found = changes(*BASE, part("ns-a", "purelib/ns/a.py"), part("ns-b", "purelib/ns/b.py"))
    assert [c.name for c in found.added] == ["ns-a", "ns-b"] and found.can_be_adopted


def test_changed_and_removed() -> None:
    """Another version, other files of the same version, and a removal need new workers, and are told apart."""
    python, one = BASE
    found = changes(python, part("one", "purelib/one/__init__.py", version="2.0"))
    assert found.changed == (
        Change(name="one", old="1.0", new="2.0", why_new_workers="it is another version than 1.0"),
    )
    found = changes(python, part("one", "purelib/one/__init__.py", "purelib/one/more.py"))
    assert found.changed[0].why_new_workers == "its files were changed"
    found = changes(python)
    assert [c.name for c in found.removed] == ["one"] and not found.can_be_adopted
    old_code, new_code = (part("code-0", f"code/code-0/{n}.py", kind=LayerKind.CODE) for n in "ab")
    found = changes(python, one, new_code, old=(*BASE, old_code))
    assert "a module of it was changed" in found.changed[0].why_new_workers


def test_a_change_does_not_make_room() -> None:
    """What a changed distribution still has can't be added by another one."""
    found = changes(BASE[0], part("one", "purelib/one/__init__.py", version="2.0"), part("two", "purelib/one/x.py"))
    assert "one can be imported already" in found.added[0].why_new_workers


def test_needs_and_order() -> None:
    """An addition that needs more of the nodes, or comes before other loose code, needs new workers."""
    two = part("two", "purelib/two.py")
    assert "GLIBC 2.38" in changes(*BASE, two, needs={"GLIBC": "2.38"}).added[0].why_new_workers
    code = [part(f"code-{n}", f"code/code-{n}/m{n}.py", kind=LayerKind.CODE) for n in (0, 1)]
    then = manifest(*BASE, code[0], after=("code-0",))
    for after, fine in ((("code-0", "code-1"), True), (("code-1", "code-0"), False)):
        now = manifest(*BASE, *code, after=after)
        by_digest = {digest(p): p for p in (*BASE, *code)}
        assert classify(then, now, by_digest, missed=Missed(), standard=STANDARD).can_be_adopted is fine


def test_top_modules() -> None:
    """Packages, modules and extension modules have names; metadata, data folders and scripts have none."""
    paths = ["purelib/a/b/c.py", "purelib/d.py", "purelib/_e.abi3.so", "code/code-0/f.py", "code/code-0/g/h.py"]
    paths += ["purelib/i-1.0.dist-info/METADATA", "purelib/j.libs/x.so", "purelib/k.txt", "scripts/l", "data/m/n.py"]
    assert top_modules(paths) == {"a", "d", "_e", "f", "g"}


# The scheduler, which stays

TOPS = {"app": {"app"}, "base": {"base"}, "fast": {"fast", "_fast"}, "toolz": {"toolz"}, "unused": {"unused"}}


def stuck(*changed: str, requires: Mapping[str, set[str]] | None = None, **loaded: str) -> tuple[set[str], set[str]]:
    """What a scheduler forgets, and the names of what it can't exchange, when `changed` change."""
    found = Changes(changed=tuple(Change(name=name, old="1", new="2") for name in changed))
    modules = frozenset(loaded.get("modules", "app base fast toolz").split())
    compiled = frozenset(loaded.get("compiled", "fast").split())
    forget, stale = scheduler_changes(
        found, Loaded(modules=modules, compiled=compiled), tops=TOPS, fixed={"toolz"}, requires=requires or {}
    )
    return set(forget), {change.name for change in stale}


def test_the_scheduler_forgets_pure_modules() -> None:
    """Loaded modules of pure Python are forgotten, to be imported anew; what is not loaded needs nothing."""
    assert stuck("app", "unused") == ({"app"}, set())


def test_the_scheduler_keeps_what_it_runs_on() -> None:
    """Compiled modules that are loaded, and what Dask itself runs on, stay as they are."""
    assert stuck("app", "fast", "toolz") == ({"app"}, {"fast", "toolz"})
    assert stuck("fast", modules="app", compiled="") == (set(), set())


def test_the_scheduler_keeps_what_others_hold() -> None:
    """What a loaded distribution requires that stays is kept, and what is kept keeps what it requires itself."""
    requires = {"app": {"base"}}
    assert stuck("base", requires=requires) == (set(), {"base"})
    assert stuck("base", "app", requires=requires) == ({"base", "app"}, set())
    assert stuck("base", "app", requires={**requires, "fast": {"app"}}) == (set(), {"base", "app"})
