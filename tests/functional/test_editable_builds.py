"""Editables become wheels: what is built, when, from what, and what happens when it is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from likewise.errors import BuildError
from likewise.layers.editable import Built, build_editables
from likewise.model.editable import Editable
from likewise.model.layer import LayerSource
from likewise.model.snapshot import Severity
from support.prefixes import clean_environ
from support.trees import Notes, make_tree


def build(work: Path, *editables: Editable, notes: Notes | None = None) -> Built:
    return build_editables(editables, python=sys.executable, notes=Notes() if notes is None else notes, work=work)


def content(layer: LayerSource) -> dict[str, str]:
    """The purelib files of a layer, metadata aside."""
    return {
        f.entry.path.removeprefix("purelib/"): Path(f.path).read_text()
        for f in layer.files
        if ".dist-info/" not in f.entry.path
    }


def tree_listing(path: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_mtime_ns, p.stat().st_size) for p in path.rglob("*")}


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tmp_path / "work"


def test_an_unchanged_tree_is_built_once_and_an_edited_one_again(tmp_path: Path, work: Path) -> None:
    """The content of the tree decides: nothing changed means no build, going back means the first build."""
    demo = make_tree(tmp_path / "demo", "demo")
    first = build(work, demo)
    assert (first.built, first.reused) == (1, 0)
    assert content(first.sources["demo"]) == {"demo/__init__.py": "answer = 42\n"}
    again = build(work, demo)
    assert (again.built, again.reused) == (0, 1)
    assert again.sources == first.sources

    module = tmp_path / "demo" / "src" / "demo" / "__init__.py"
    module.write_text("answer = 43\n")
    edited = build(work, demo)
    assert edited.built == 1
    assert content(edited.sources["demo"]) == {"demo/__init__.py": "answer = 43\n"}
    module.write_text("answer = 42\n")
    assert build(work, demo).sources == first.sources
    (tmp_path / "demo" / "src" / "demo" / "new.py").touch()
    assert "demo/new.py" in content(build(work, demo).sources["demo"])


def test_nothing_is_written_into_the_tree(tmp_path: Path, work: Path) -> None:
    """The back end litters a copy; the folder it ran in is gone afterwards."""
    demo = make_tree(tmp_path / "demo", "demo")
    before = tree_listing(tmp_path / "demo")
    build(work, demo)
    assert tree_listing(tmp_path / "demo") == before
    assert list((work / "builds").iterdir()) == []


@pytest.mark.parametrize("lost", ["files/purelib/demo/__init__.py", "record.json"])
def test_a_kept_wheel_that_lost_a_file_is_built_again(tmp_path: Path, work: Path, lost: str) -> None:
    """Whoever cleans up in the work folder costs a build, and gets no broken layer."""
    demo = make_tree(tmp_path / "demo", "demo")
    first = build(work, demo)
    (folder,) = (work / "wheels").iterdir()
    (folder / lost).unlink()
    second = build(work, demo)
    assert second.built == 1
    assert second.sources == first.sources
    assert content(second.sources["demo"])


def test_builds_run_side_by_side(tmp_path: Path, work: Path) -> None:
    """Two builds that wait for each other both end."""
    wait = """
        import time
        pathlib.Path({mine!r}).touch()
        while not pathlib.Path({other!r}).exists():
            time.sleep(0.02)
    """
    marks = [str(tmp_path / "mark-a"), str(tmp_path / "mark-b")]
    a = make_tree(tmp_path / "a", "a", before=wait.format(mine=marks[0], other=marks[1]))
    b = make_tree(tmp_path / "b", "b", before=wait.format(mine=marks[1], other=marks[0]))
    built = build_editables([a, b], python=sys.executable, notes=Notes(), work=work, jobs=2)
    assert (sorted(built.sources), built.built) == (["a", "b"], 2)


def test_odd_names_in_the_path(tmp_path: Path, work: Path) -> None:
    """Spaces and emoji in the path of a source tree, and in its file names."""
    demo = make_tree(tmp_path / "my 🐍 project", "demo")
    (tmp_path / "my 🐍 project" / "src" / "demo" / "a file 🎉.txt").write_text("hi")
    assert "demo/a file 🎉.txt" in content(build(work, demo).sources["demo"])


def test_modules_that_the_wheel_lacks_are_named(tmp_path: Path, work: Path) -> None:
    """A module in the package that the build leaves out is a warning; what lies beside the package, a note."""
    drop = "(here / 'src/demo/left_out.py').unlink(); (here / 'src/beside.py').unlink()"
    demo = make_tree(tmp_path / "demo", "demo", before=drop)
    (tmp_path / "demo" / "src" / "demo" / "left_out.py").touch()
    (tmp_path / "demo" / "src" / "beside.py").touch()
    for built in (build(work, demo), build(work, demo)):  # an earlier build's problems are told again
        own, around = built.problems
        assert (own.code, own.severity, own.subject) == ("missing-from-wheel", Severity.WARNING, "demo")
        assert "demo/left_out.py" in own.message
        assert (around.code, around.severity) == ("beside-the-package", Severity.NOTE)
        assert "beside.py" in around.message


def test_a_version_that_moved_is_told(tmp_path: Path, work: Path) -> None:
    """The tree builds to another version than the one that is installed: the layer has the tree's."""
    demo = make_tree(tmp_path / "demo", "demo", version="2.0")
    built = build(work, Editable(**{f: getattr(demo, f) for f in demo.__struct_fields__} | {"version": "1.9"}))
    assert built.sources["demo"].version == "2.0"
    assert [p.code for p in built.problems] == ["version-moved"]


def test_a_pure_package_that_does_not_build_is_shipped_as_source(tmp_path: Path, work: Path) -> None:
    """Its import package and metadata, without keys and tools, with a warning that has the back end's words."""
    demo = make_tree(tmp_path / "demo", "demo", before="raise SystemExit('the stars are wrong')")
    package = tmp_path / "demo" / "src" / "demo"
    (package / "data.csv").write_text("1")
    (package / ".env").write_text("PASSWORD=x")
    (package / "server.pem").write_text("key")
    notes = Notes()
    built = build(work, demo, notes=notes)
    paths = {f.entry.path for f in built.sources["demo"].files}
    assert paths == {
        "purelib/demo/__init__.py",
        "purelib/demo/data.csv",
        "purelib/demo-1.0.dist-info/METADATA",
    }
    (warning,) = built.problems
    assert (warning.code, warning.severity) == ("shipped-as-source", Severity.WARNING)
    assert "the stars are wrong" in warning.message
    second = build(work, demo, notes=notes)  # not tried again at once
    assert (second.built, second.reused) == (0, 1)
    assert (second.sources, second.problems) == (built.sources, built.problems)


def test_a_compiled_package_that_does_not_build_is_an_error(tmp_path: Path, work: Path) -> None:
    """The error has the back end's last words, all of its output, the tree, and what to do."""
    demo = make_tree(tmp_path / "demo", "demo", before="print('cc: no such thing'); raise SystemExit('no compiler')")
    (tmp_path / "demo" / "src" / "demo" / "fast.pyx").touch()
    with pytest.raises(BuildError) as caught:
        build(work, demo)
    error = caught.value
    assert "cc: no such thing" in str(error)
    assert "no compiler" in error.details["output"]
    assert str(tmp_path / "demo") in error.where
    assert "package_sync_ignore=['demo']" in error.todo
    assert str(work) not in error.details["output"], "paths of the copy mean nothing to the user"
    assert list((work / "builds").iterdir()) == []


def test_all_failures_are_in_one_error(tmp_path: Path, work: Path) -> None:
    """Three editables, two of which don't build: both are told, with their output; the third is kept."""
    trees = [
        make_tree(tmp_path / name, name, before=f"raise SystemExit('broken {name}')" if name != "good" else "")
        for name in ("bad", "good", "worse")
    ]
    for name in ("bad", "worse"):
        (tmp_path / name / "src" / name / "x.c").touch()
    with pytest.raises(BuildError) as caught:
        build(work, *trees)
    assert caught.value.where == "bad, worse"
    assert "broken bad" in caught.value.details["failures"]["bad"]
    assert "broken worse" in caught.value.details["failures"]["worse"]
    assert build(work, trees[1]).reused == 1


def test_credentials_stay_out_of_what_is_shown(tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A back end that prints every variable, an index URL with a password: nothing of it is in the error."""
    monkeypatch.setenv("UV_INDEX", "https://user:canary-one@index.example/simple")
    monkeypatch.setenv("PIP_INDEX_URL", "https://canary-two@index.example/simple")
    monkeypatch.setenv("UV_INDEX_PRIVATE_PASSWORD", "canary-three")
    demo = make_tree(
        tmp_path / "demo", "demo", before="import os; print(*os.environ.items(), sep='\\n'); raise SystemExit(3)"
    )
    (tmp_path / "demo" / "src" / "demo" / "x.c").touch()
    with pytest.raises(BuildError) as caught:
        build(work, demo)
    shown = str(caught.value) + repr(caught.value.details)
    assert "index.example" in shown
    assert "canary" not in shown


def test_a_work_folder_that_cant_be_written_is_named(tmp_path: Path, work: Path) -> None:
    """A file where the folder should be, a full or a read-only disk: a sentence, and no traceback of an OSError."""
    demo = make_tree(tmp_path / "demo", "demo")
    work.write_text("in the way")
    with pytest.raises(BuildError) as caught:
        build(work, demo)
    assert str(work) in caught.value.what
    assert "demo" in caught.value.where


def test_folders_of_killed_builds_are_swept(tmp_path: Path, work: Path) -> None:
    """What a process left that was killed a day ago goes with the next build; a fresh one may be in use."""
    for name, age in (("build-old", 2 * 86400), ("build-fresh", 60)):
        (work / "builds" / name).mkdir(parents=True)
        os.utime(work / "builds" / name, (time.time() - age,) * 2)
    build(work, make_tree(tmp_path / "demo", "demo"))
    assert [path.name for path in (work / "builds").iterdir()] == ["build-fresh"]


def test_a_tree_that_is_gone(tmp_path: Path, work: Path) -> None:
    """A removed source tree is named, with what to do."""
    demo = make_tree(tmp_path / "demo", "demo")
    os.rename(tmp_path / "demo", tmp_path / "moved")
    with pytest.raises(BuildError, match="source tree is gone") as caught:
        build(work, demo)
    assert caught.value.where == str(tmp_path / "demo")


def test_a_tree_that_changes_while_it_is_copied_is_looked_at_again(
    tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An editor saves between the look and the copy: what is built is one state, and the right one."""
    from likewise.layers import editable

    demo = make_tree(tmp_path / "demo", "demo")
    module = tmp_path / "demo" / "src" / "demo" / "__init__.py"
    copy_tree = editable.copy_tree

    def late_copy(tree: object, to: Path) -> Path:
        if module.read_text() == "answer = 42\n":
            module.write_text("answer = 43\n")
        return copy_tree(tree, to)  # type: ignore[arg-type]

    monkeypatch.setattr(editable, "copy_tree", late_copy)
    assert content(build(work, demo).sources["demo"]) == {"demo/__init__.py": "answer = 43\n"}


SESSION = """
import sys
from pathlib import Path
from likewise.errors import BuildError
from likewise.layers.editable import build_editables
from likewise.model.editable import Editable
from support.trees import Notes
work, tree, name = sys.argv[1:]
info = next(Path(tree + "-site").iterdir())
editable = Editable(
    name=name, version="1.0", path=tree, roots=(tree + "/src",), imports=(name,), metadata_path=str(info)
)
print("ready", flush=True)
try:
    built = build_editables([editable], python=sys.executable, notes=Notes(), work=Path(work))
except KeyboardInterrupt:
    print("interrupted")
else:
    print(built.built, built.sources[name].digest)
"""


def session(work: Path, tree: Path, name: str) -> subprocess.Popen[str]:
    """Another process that builds the same tree."""
    return subprocess.Popen(
        [sys.executable, "-c", SESSION, str(work), str(tree), name],
        env=clean_environ(PYTHONPATH=str(Path(__file__).parents[1])),
        stdout=subprocess.PIPE,
        text=True,
    )


def test_two_clients_build_the_same_tree_at_once(tmp_path: Path, work: Path) -> None:
    """Both get the same layer, and one wheel is kept."""
    make_tree(tmp_path / "demo", "demo", before="import time; time.sleep(0.5)")
    sessions = [session(work, tmp_path / "demo", "demo") for _ in range(2)]
    answers = [process.communicate(timeout=60)[0].split() for process in sessions]
    assert answers[0][2] == answers[1][2]
    assert len(list((work / "wheels").iterdir())) == 1
    assert list((work / "builds").iterdir()) == []


def test_ctrl_c_ends_the_build_with_its_children_and_leaves_nothing(tmp_path: Path, work: Path) -> None:
    """A compiler that ignores politeness is killed too; no folder of the build remains, no wheel is kept."""
    pid_file = tmp_path / "pid"
    stubborn = f"""
        import subprocess, sys
        code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(300)"
        child = subprocess.Popen([sys.executable, "-c", code])
        pathlib.Path({str(pid_file)!r}).write_text(str(child.pid))
        child.wait()
    """
    make_tree(tmp_path / "demo", "demo", before=textwrap.dedent(stubborn))
    process = session(work, tmp_path / "demo", "demo")
    deadline = time.monotonic() + 60
    while not (pid_file.exists() and pid_file.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    child = int(pid_file.read_text())
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert "interrupted" in output
    while is_running(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_running(child)
    assert list((work / "builds").iterdir()) == []
    assert not (work / "wheels").exists()


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
