"""The bench's figures: how they are summed up, shown and drawn."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

sys.path.append(str(Path(__file__).parents[2] / "bench"))

from environments import ENVIRONMENTS, Place
from memory import role_of
from plot import bar_chart
from report import Run, as_table, summary

FACTS: dict[str, Any] = {
    "command": "python bench/first_task.py",
    "runs": 3,
    "machine": {"cores": 2, "python": "3.11", "system": "Linux"},
    "load before": [0.1, 0.1, 0.1],
}


def run(seconds: float, **more: Any) -> Run:
    """A run that took `seconds`."""
    return Run(started=10.0, at=10.0 + seconds, result={}, peaks=more.pop("peaks", {}), left=[], **more)


def measured(folder: Path, name: str, factor: float = 1.0) -> tuple[Place, dict[str, list[Run]], dict[str, str]]:
    """Three runs of three ways in the environment `name`."""
    place = Place(ENVIRONMENTS[name], folder, None, None)
    runs = {
        "preinstalled": [run(s) for s in (2.0, 4.0, 3.0)],
        "same processes": [run(s) for s in (2.5, 2.4, 2.6)],
        "likewise, empty node": [
            run(s * factor, complete=20.0, stages={"launch": s, "task": 0.1}, peaks={"client": int(s * 1e8)})
            for s in (6.0, 5.0, 4.0)
        ],
    }
    return place, runs, {"Ray runtime_env": "python exited 1: <no ray> & so on"}


def test_ratios_are_of_medians(tmp_path: Path) -> None:
    """Median, ratio to the limit and to the same processes, stages of the median run, the highest peak of all runs."""
    value = summary([measured(tmp_path, "demo")], FACTS)
    way = value["environments"]["demo"]["ways"]["likewise, empty node"]
    assert (way["median"], way["ratio"], way["ratio to same processes"]) == (5.0, 1.67, 2.0)
    assert way["stages"] == {"launch": 5.0, "task": 0.1}
    assert way["peak MB"] == {"client": 600}
    assert way["complete"] == 10.0  # seconds after the start, which was at 10


def test_what_torch_costs_is_read_off(tmp_path: Path) -> None:
    """With both environments measured, the change of each way's median is given in per cent."""
    value = summary([measured(tmp_path, "w160"), measured(tmp_path, "w160-torch", 1.07)], FACTS)
    assert value["torch"] == {"preinstalled": 0.0, "same processes": 0.0, "likewise, empty node": 7.0}
    assert "likewise, empty node: +7.0 %" in as_table(value)


def test_the_table_names_what_was_left_out(tmp_path: Path) -> None:
    """A way that could not run stands in the table with its reason."""
    assert "left out: python exited 1: <no ray> & so on" in as_table(summary([measured(tmp_path, "demo")], FACTS))


def test_the_chart_has_a_bar_for_each_way(tmp_path: Path) -> None:
    """One bar for each way in each environment, as long as its median, with figures, for light and dark viewers."""
    value = summary([measured(tmp_path, "demo"), measured(tmp_path, "w160")], FACTS)
    text = bar_chart(value)
    drawing = ElementTree.fromstring(text)
    bars = [element for element in drawing.iter() if element.tag.endswith("rect")]
    assert [bar.attrib["class"] for bar in bars] == ["limit", "limit", "likewise"] * 2
    widths = [float(bar.attrib["width"]) for bar in bars]
    assert widths[0] / widths[2] == pytest.approx(3.0 / 5.0, abs=0.01)
    assert "prefers-color-scheme: dark" in text
    assert "5.00 (1.67 ×)" in [element.text for element in drawing.iter()]


def test_the_chart_of_nothing_is_a_drawing(tmp_path: Path) -> None:
    """An environment without any figure takes no room, and its name can't break the drawing."""
    place, _, skipped = measured(tmp_path, "demo")
    value = summary([(place, {}, skipped)], FACTS)
    value["environments"]["demo"]["about"] = "<&>"
    assert not [element for element in ElementTree.fromstring(bar_chart(value)).iter() if element.tag.endswith("rect")]


def test_processes_are_told_apart_by_their_command_lines() -> None:
    """Client, scheduler, nanny, worker, agent and filler, whatever else stands in the line."""
    lines = {
        "sh bootstrap.sh --hub x -- -m distributed.cli.dask_worker": "nanny",
        "python -m distributed.cli.dask_scheduler --port 0": "scheduler",
        "python -I -S -c … likewise.transport.__main__ agent": "agent",
        "python -I -S -c … likewise.node.__main__ start -- -m distributed.cli.dask_worker": "filler",
        "python -c from multiprocessing.spawn import spawn_main; spawn_main(…)": "worker",
        "tar -xzf archive": "helper",
    }
    assert {line: role_of(line, is_client=False) for line in lines} == lines
    assert role_of("python ways.py", is_client=True) == "client"
