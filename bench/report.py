"""What was measured, as one JSON-serialisable value and as a table for people."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from catalogue import LIMIT, MOST_MEMORY, MOST_OF, MOST_TORCH, SAME, WAYS
from environments import Place


@dataclass(kw_only=True)
class Run:
    """One run of a way. Moments are those of the system-wide monotonic clock."""

    started: float
    at: float
    result: dict[str, str]
    peaks: dict[str, int]
    left: list[str]
    stages: dict[str, float] = field(default_factory=dict)
    launch: dict[str, float] = field(default_factory=dict)
    complete: float | None = None
    layers: int | None = None

    @property
    def seconds(self) -> float:
        """From the start of the process to the first result."""
        return self.at - self.started


Measured = tuple[Place, Mapping[str, Sequence[Run]], Mapping[str, str]]
"""An environment, the runs of its ways, and the ways that were left out with their reasons."""


def summary(measured: Sequence[Measured], facts: Mapping[str, Any]) -> dict[str, Any]:
    """All figures as one value."""
    environments = {}
    for place, runs, skipped in measured:
        medians = {name: statistics.median(run.seconds for run in found) for name, found in runs.items()}
        ways = {name: _way(name, found, medians) for name, found in runs.items()}
        if "venv-pack" in ways:
            ways["venv-pack"]["packing"] = {k: v for k, v in place.archive_notes().items() if k != "of"}
        about: dict[str, Any] = {"about": place.environment.about, "task": list(place.environment.task)}
        if place.requirements.exists():
            names = place.requirements.read_text().split()
            about["distributions"] = len(names)
            about["about"] += "".join(f"; {name}" for name in names if name.startswith("torch=="))
        environments[place.environment.name] = {**about, "ways": ways, "left out": dict(skipped)}
    value = {**facts, "environments": environments, "torch": _torch(environments)}
    return {**value, "goals": [*_goals(value)]}


def _way(name: str, runs: Sequence[Run], medians: Mapping[str, float]) -> dict[str, Any]:
    middle = sorted(runs, key=lambda run: run.seconds)[len(runs) // 2]  # its stages are shown
    peaks = {role for run in runs for role in run.peaks}
    complete = [run.complete - run.started for run in runs if run.complete]
    return {
        "median": round(medians[name], 3),
        "seconds": [round(run.seconds, 3) for run in runs],
        "ratio": _ratio(medians, name, LIMIT),
        "ratio to same processes": _ratio(medians, name, SAME),
        "stages": middle.stages,
        **({"launch": middle.launch} if middle.launch else {}),
        **({"complete": round(statistics.median(complete), 3)} if complete else {}),
        **({"new layers": max(run.layers or 0 for run in runs)} if middle.layers is not None else {}),
        "peak MB": {role: round(max(run.peaks.get(role, 0) for run in runs) / 1e6) for role in sorted(peaks)},
        "includes": WAYS[name].includes,
        **({"left running": sorted({line for run in runs for line in run.left})} if any(r.left for r in runs) else {}),
    }


def _ratio(medians: Mapping[str, float], name: str, to: str) -> float | None:
    return round(medians[name] / medians[to], 2) if to in medians else None


def _torch(environments: Mapping[str, Any]) -> dict[str, float]:
    """By how many per cent torch in the prefix changes the time of each way; the task does not import it."""
    without, with_torch = (environments.get(name, {}).get("ways", {}) for name in ("w160", "w160-torch"))
    return {
        name: round(100 * (with_torch[name]["median"] / without[name]["median"] - 1), 1)
        for name in with_torch
        if name in without
    }


def _goals(value: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What likewise is held to, as far as it was measured."""
    ways = value["environments"].get("w160", {}).get("ways", {})
    for way, to, most in MOST_OF:
        if way in ways and to in ways:
            yield _goal(f"w160, {way}: times {to}", most, ways[way]["median"] / ways[to]["median"])
    for way, percent in value["torch"].items():
        if WAYS[way].function == "likewise":
            yield _goal(f"with torch, {way}: change in per cent", MOST_TORCH, percent)
    ours = [
        figures["peak MB"]
        for environment in value["environments"].values()
        for way, figures in environment["ways"].items()
        if WAYS[way].function == "likewise"
    ]
    for role, most in MOST_MEMORY.items():
        if peaks := [peak[role] for peak in ours if role in peak]:
            yield _goal(f"memory of the {role} at most, MB", most, max(peaks))


def _goal(what: str, most: float, found: float) -> dict[str, Any]:
    return {"what": what, "at most": round(most, 2), "is": round(found, 2), "met": found <= most}


def as_table(value: Mapping[str, Any]) -> str:
    """The figures for people."""
    machine = value["machine"]
    lines = [
        f"{value['command']}",
        f"{value['runs']} runs, {machine['cores']} cores, Python {machine['python']}, load {value['load before'][0]}",
        "Seconds of whole processes from start to first result; ratio to preinstalled, and to the same processes.",
    ]
    for name, environment in value["environments"].items():
        lines += ["", *_environment(name, environment)]
    for name, percent in value["torch"].items():
        lines.append(f"with torch in the prefix: {name}: {percent:+.1f} %")
    lines.append("")
    for goal in value["goals"]:
        verdict = "yes" if goal["met"] else "NO"
        lines.append(f"goal: {goal['what']}: {goal['is']:g}, at most {goal['at most']:g}: {verdict}")
    return "\n".join(lines)


def _environment(name: str, environment: Mapping[str, Any]) -> list[str]:
    columns = (("runs", 4), ("median", 7), ("min", 6), ("max", 6), ("ratio", 6), ("same", 6), ("all", 6))
    head = "  ".join([f"{'way':42}", *(f"{column:>{width}}" for column, width in columns), "stages; peak MB"])
    lines = [f"{name}: {environment['about']}; the task imports {', '.join(environment['task'])}", head]
    for way, figures in environment["ways"].items():
        low, high = min(figures["seconds"]), max(figures["seconds"])
        ratios = "  ".join(_number(figures[key]) for key in ("ratio", "ratio to same processes"))
        complete = _number(figures.get("complete"))
        stages = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in figures["stages"].items())
        peaks = ", ".join(f"{role} {size}" for role, size in figures["peak MB"].items())
        times = f"{len(figures['seconds']):4}  {figures['median']:6.2f}s  {low:6.2f}  {high:6.2f}"
        lines.append(f"{way:42}  {times}  {ratios}  {complete}  {stages}; {peaks}")
        if "launch" in figures:
            launch = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in figures["launch"].items())
            new = f"; new layers: {figures['new layers']}" if "new layers" in figures else ""
            lines.append(f"{'':42}  of that the launch: {launch}{new}")
        if figures.get("packing"):
            lines.append(f"{'':42}  packing, not in the figure: {figures['packing']}")
        if figures.get("left running"):
            lines.append(f"{'':42}  left running and ended by the bench: {figures['left running']}")
    return [*lines, *(f"{way:42}  left out: {reason}" for way, reason in environment["left out"].items())]


def _number(value: float | None) -> str:
    return f"{value:6.2f}" if value is not None else f"{'–':>6}"
