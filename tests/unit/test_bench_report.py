"""The bench's figures: how they are summed up, shown and drawn."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from likewise.layers.guess import guess_imports

sys.path.append(str(Path(__file__).parents[2] / "bench"))

from environments import ENVIRONMENTS, Place
from figures import filled, tables
from first_task import is_due, parse_arguments
from floor import COMPARED
from floor import as_table as floor_table
from floor import summary as floor_summary
from memory import role_of
from page_cache import read_through
from plot import bar_chart
from report import Run, as_table, summary

FACTS: dict[str, Any] = {
    "command": "python bench/first_task.py",
    "runs": 3,
    "minutes": 1.5,
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
            run(s * factor, complete=20.0, layers=3, stages={"launch": s, "task": 0.1}, peaks={"client": int(s * 1e8)})
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
    assert way["new layers"] == 3
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


def test_a_bar_much_longer_than_the_others_is_broken_off(tmp_path: Path) -> None:
    """A way that takes twenty times as long as the limit does not make the other bars too short to be compared."""
    place, runs, skipped = measured(tmp_path, "demo")
    runs["PipInstall"] = [run(60.0)]
    drawing = ElementTree.fromstring(bar_chart(summary([(place, runs, skipped)], FACTS)))
    widths = [float(element.attrib["width"]) for element in drawing.iter() if element.tag.endswith("rect")]
    assert widths[3] == 400 and widths[2] == pytest.approx(400 * 5 / 6, abs=0.1)
    assert "60.00 (20.00 ×)" in [element.text for element in drawing.iter()]


def test_what_is_missed_is_said(tmp_path: Path) -> None:
    """Ratios, changes and memory beyond what likewise is held to are named so; what was not measured is not named."""
    measurements = [measured(tmp_path, "w160"), measured(tmp_path, "w160-torch", 1.07)]
    value = summary(measurements, FACTS)
    goals = {goal["what"]: (goal["is"], goal["met"]) for goal in value["goals"]}
    assert goals == {
        "w160, likewise, empty node: times preinstalled": (1.67, False),
        "with torch, likewise, empty node: change in per cent": (7.0, True),
        "memory of the client at most, MB": (600, False),
    }
    assert "times preinstalled: 1.67, at most 1.5: NO" in as_table(value)


def test_ways_with_fewer_runs_are_spread_over_the_rounds() -> None:
    """Each way has as many runs as it was given, not all of them in the first rounds."""
    for rounds in range(1, 8):
        for count in range(1, rounds + 1):
            assert sum(is_due(number, count, rounds) for number in range(rounds)) == count
    assert [is_due(number, 3, 6) for number in range(6)] == [True, False, True, False, True, False]


def test_fewer_runs_are_asked_for_by_name() -> None:
    """``--runs-of`` takes ways and environments, whatever their names have in them, and refuses anything else."""
    arguments = parse_arguments(["--runs-of", "uv, empty cache=3", "w160-torch=2"])
    assert arguments.runs_of == {"uv, empty cache": 3, "w160-torch": 2}
    with pytest.raises(SystemExit):
        parse_arguments(["--runs-of", "uv=3"])


def test_the_task_of_a_program_is_seen_by_reading_it(tmp_path: Path) -> None:
    """The program that is measured says what its task needs as users' do: by imports, with nothing to look up."""
    place = Place(ENVIRONMENTS["w160"], tmp_path, None, None)
    place.make_program()
    source = place.program.read_bytes()
    guessed = guess_imports(source, ("ways",), lambda name: (place.program.parent / f"{name}.py").read_bytes())
    assert {"numpy", "pandas", "sklearn", "pyarrow", "scipy", "matplotlib", "distributed"} <= set(guessed)
    compile(source, place.program, "exec")


def test_a_page_is_filled_from_its_figures(tmp_path: Path) -> None:
    """What stands between the marks is replaced, once or twice, and nothing else is touched."""
    value = summary([measured(tmp_path, "demo")], FACTS)
    (tmp_path / "figures.json").write_text(json.dumps(value))
    last = "b <!-- figures of none.json -->\nc<!-- end -->\n"
    page = f"a\n\n<!-- figures of figures.json -->\nold\n<!-- end -->\n\n{last}"
    once = filled(page, tmp_path)
    assert once == filled(once, tmp_path)
    assert "| likewise, empty node | 3 | 5.00 | 4.00 | 6.00 | 1.67 | 2.00 | 10.00 | 3 |" in once
    assert once.startswith("a\n\n<!--") and once.endswith(last)
    assert "old" not in once and tables(value) in once


def test_what_is_compared_with_two_floors_has_two_ratios() -> None:
    """The floor's figures say of each what it took, the processors' seconds, and how much more than which floor."""
    runs = {
        name: [{"seconds": s * factor, "user": 1.0, "system": 0.5} for s in (2.0, 1.0, 3.0)]
        for factor, name in enumerate(COMPARED, start=1)
    }
    value = {"command": "python bench/floor.py", "load": 0.1, **floor_summary(runs, [], 2)}
    assert value["ways"]["from loose layers"]["ratios"] == {"create": 5.0, "link": 2.5}
    assert "| from loose layers | 3 | 10.00 | 5.00 | 15.00 | 1.50 | 5.00 × create, 2.50 × link |" in tables(value)
    assert "5.00 × create, 2.50 × link" in floor_table(value)


def test_the_page_has_the_figures_of_its_files() -> None:
    """What `docs/benchmarks.md` shows is what the JSON files beside it say."""
    docs = Path(__file__).parents[2] / "docs"
    page = (docs / "benchmarks.md").read_text("utf-8")
    assert filled(page, docs) == page


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


def test_what_is_too_large_for_the_page_cache_is_not_read(tmp_path: Path) -> None:
    """Files are read once, whatever number of names they have; more than is allowed not at all."""
    folder, alone, none = tmp_path / "folder", tmp_path / "alone", tmp_path / "none"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "one").write_bytes(b"x" * 100)
    (folder / "again").hardlink_to(folder / "deep" / "one")
    (folder / "link").symlink_to("deep")
    alone.write_bytes(b"y" * 10)
    assert read_through([folder, alone, none]) == 110
    assert read_through([folder, alone, none], most=109) == 0
