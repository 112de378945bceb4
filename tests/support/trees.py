"""Source trees with a build back end of their own: it needs no network, and does what a test wants."""

from __future__ import annotations

import textwrap
from pathlib import Path

from likewise.model.editable import Editable

PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""

BACKEND = """
import pathlib, zipfile

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    here = pathlib.Path.cwd()
    {before}
    name = "{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(wheel_directory, name), "w") as wheel:
        for path in sorted(here.glob("src/**/*")):
            if path.is_file() and path.suffix != ".pyc":
                wheel.write(path, path.relative_to(here / "src").as_posix())
        info = "{name}-{version}.dist-info/"
        wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
        wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(info + "RECORD", "")
    (here / "litter.txt").write_text("back ends write into the tree")
    return name
"""


def make_tree(path: Path, name: str, *, before: str = "", version: str = "1.0") -> Editable:
    """A source tree in `src` layout and the editable that it would be; `before` is run by the build, first."""
    package = path / "src" / name
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("answer = 42\n")
    (path / "pyproject.toml").write_text(PYPROJECT)
    before = textwrap.indent(textwrap.dedent(before), "    ").strip()
    (path / "backend.py").write_text(BACKEND.format(name=name, version=version, before=before))
    info = path.parent / f"{path.name}-site" / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text("")
    return Editable(
        name=name,
        version=version,
        path=str(path),
        roots=(str(path / "src"),),
        imports=(name,),
        metadata_path=str(info),
    )


class Notes(dict[str, bytes]):
    """Notes kept in memory."""

    def get_bytes(self, key: str) -> bytes | None:
        return self.get(key)

    def put_bytes(self, key: str, data: bytes, *, replace: bool = False) -> None:
        if replace or key not in self:
            self[key] = data
