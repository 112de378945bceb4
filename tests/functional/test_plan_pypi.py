"""Plans of what people have on a Mac, with the public index as it was on one day."""

from __future__ import annotations

from pathlib import Path

from likewise.model.plan import Action
from likewise.resolution.uv import UvResolver
from support.plans import decided, installed, plan_with, pure, said, snapshot_of

DAY = "2024-06-15"

TORCH = {
    "torch": "2.3.1",
    "filelock": "3.15.1",
    "fsspec": "2024.6.0",
    "jinja2": "3.1.4",
    "markupsafe": "2.1.5",
    "mpmath": "1.3.0",
    "networkx": "3.3",
    "sympy": "1.12.1",
    "typing-extensions": "4.12.2",
}
"""What ``pip install torch`` gave on a Mac on that day."""


def test_torch_of_a_mac_brings_its_libraries(tmp_path: Path) -> None:
    """Wheels for Linux require CUDA's libraries and triton, which no Mac has: they come in, exactly as required."""
    resolver = UvResolver(work=tmp_path, exclude_newer=DAY)
    snapshot = snapshot_of(*(installed(name, version) for name, version in TORCH.items()), kit=False)
    plan = plan_with(resolver, snapshot, here=False)
    assert {d.name: d.version for d in plan.decisions if not d.new} == TORCH
    new = {d.name: d for d in plan.decisions if d.new}
    assert {"triton", "nvidia-cudnn-cu12", "nvidia-nvjitlink-cu12"} <= new.keys()
    assert new["triton"].version == "2.3.1"
    assert new["nvidia-cudnn-cu12"].reason == "required on linux-x86_64 by torch"
    assert all(d.file and d.file.size and d.file.sha256 for d in plan.decisions)
    assert [problem.code for problem in plan.problems] == ["accelerator-libraries", "kit-missing"]


def test_a_version_that_linux_never_got(tmp_path: Path) -> None:
    """A patched pyarrow with a number of its own: the nearest published one is taken, and pandas and numpy stay."""
    resolver = UvResolver(work=tmp_path, exclude_newer=DAY)
    distributions = (
        installed("pandas", "2.2.2", "numpy>=1.23.2"),
        installed("numpy", "1.26.1"),
        installed("pyarrow", "16.0.7"),
        pure("six", "1.16.0"),
        pure("python-dateutil", "2.9.0.post0", "six>=1.5"),
        pure("pytz", "2024.1"),
        pure("tzdata", "2024.1"),
    )
    plan = plan_with(resolver, snapshot_of(*distributions))
    moved = {d.name: (d.installed, d.version) for d in plan.decisions if d.installed}
    assert moved == {"pyarrow": ("16.0.7", "16.0.0")}
    assert decided(plan, "pyarrow").reason.endswith("the next lower one within 16.0, since there is no higher one")
    assert decided(plan, "pandas").action is Action.FETCH
    assert said(plan, "not-on-target") == []
