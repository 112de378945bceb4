"""A launch from a prefix whose RECORD files are wrong about what they name."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.users import common_cache, make_user_venv, run_script
from support.wheels import record_hash, write_wheel

pytestmark = pytest.mark.registry

SCRIPT = """
import json
from contextlib import closing
from likewise.events import Notice
from likewise.sync import prepare

class Ear:
    def __init__(self):
        self.notices = []
    def report(self, event):
        if isinstance(event, Notice):
            self.notices.append(event.message)

def main():
    seen = []
    for _ in range(2):
        ear = Ear()
        with closing(prepare(reporter=ear)) as prepared:
            modified = {d.name: d.modified for d in prepared.snapshot.distributions if d.modified}
            seen.append({"notices": [n for n in ear.notices if "RECORD" in n], "modified": modified})
    print(json.dumps(seen))

if __name__ == "__main__":
    main()
"""


def test_a_wrong_record_does_not_stop_a_launch(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What the scan believed and compiling or packing finds to be wrong is read at once; later launches know it."""
    wheels = [
        write_wheel(tmp_path, {f"{name}/{file}": b"x = 1\n"}, name=name,
                    record={f"{name}/{file}": f"{name}/{file},{record_hash(b'x = 2')},6"})
        for name, file in (("wrongcode", "__init__.py"), ("wrongdata", "data.bin"))
    ]  # fmt: skip
    python = make_user_venv(tmp_path / "venv", *wheels)
    (tmp_path / "work").mkdir()
    script = tmp_path / "work" / "script.py"
    script.write_text(SCRIPT)
    first, second = run_script(python, script, cache=common_cache(tmp_path_factory))
    assert [Path(notice.partition(" ")[0]).name for notice in first["notices"]] == ["__init__.py", "data.bin"]
    assert second["notices"] == []
    modified = {"wrongcode": ["purelib/wrongcode/__init__.py"], "wrongdata": ["purelib/wrongdata/data.bin"]}
    assert first["modified"] == second["modified"] == modified
