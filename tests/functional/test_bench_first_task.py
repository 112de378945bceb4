"""The bench measures: small runs of the real thing, from preparation to table, JSON and chart."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from support.prefixes import clean_environ
from support.users import common_cache

BENCH = Path(__file__).parents[2] / "bench" / "first_task.py"


def bench(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the bench to its end."""
    argv = [sys.executable, str(BENCH), *map(str, arguments)]
    return subprocess.run(argv, env=clean_environ(), capture_output=True, text=True, timeout=300, check=False)


def test_the_list_names_environments_and_ways() -> None:
    """``--list`` names everything that can be asked for, and does nothing else."""
    done = bench("--list")
    assert done.returncode == 0, done.stderr
    for name in ("w160-torch", "demo", "preinstalled", "Ray runtime_env", "likewise, first launch ever, no bytecode"):
        assert name in done.stdout


@pytest.mark.registry
def test_two_ways_are_measured_and_a_third_is_left_out(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Table, JSON and chart have the limit and likewise with stages and peaks; the way that failed says why."""
    requirements = tmp_path / "small.txt"
    requirements.write_text("tabulate\n")
    ways = ("preinstalled", "likewise, warm", "uv, warm cache")
    (tmp_path / "own-small").mkdir()
    packed = common_cache(tmp_path_factory)  # what other tests have packed and compiled
    packed.mkdir(parents=True, exist_ok=True)
    (tmp_path / "own-small" / "likewise").symlink_to(packed)
    done = bench(
        "--requirements", requirements, "--task", "tabulate", "--ways", *ways, "--runs", "1", "--unrehearsed",
        "--folder", tmp_path, "--wheels", tmp_path,
        "--json", tmp_path / "figures.json", "--svg", tmp_path / "chart.svg",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    value = json.loads((tmp_path / "figures.json").read_text())
    figures = value["environments"]["own"]
    assert list(figures["ways"]) == list(ways[:2]), figures["left out"]
    assert "was not found" in figures["left out"]["uv, warm cache"]  # the folder of wheels is empty
    limit, ours = figures["ways"].values()
    assert (limit["ratio"], len(limit["seconds"])) == (1.0, 1)
    assert list(limit["stages"]) == ["imports", "start", "task"]
    assert abs(sum(limit["stages"].values()) - limit["median"]) < 0.02
    assert {"scan", "pack", "start"} <= ours["launch"].keys() and ours["complete"] >= ours["median"]
    assert min(limit["peak MB"]["client"], ours["peak MB"]["scheduler"], ours["peak MB"]["worker"]) > 20
    assert "left running" not in ours
    assert "likewise, warm" in done.stdout and "uv, warm cache" in done.stdout
    drawing = ElementTree.parse(tmp_path / "chart.svg")
    assert len([element for element in drawing.iter() if element.tag.endswith("rect")]) == 2
