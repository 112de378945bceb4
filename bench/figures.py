"""The figures as tables for `docs/`: ``python bench/figures.py docs/benchmarks.md``.

What stands between ``<!-- figures of FILE.json -->`` and ``<!-- end -->`` becomes what that file, beside the page, has.
``python bench/figures.py FILE.json`` prints it.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROLES = ("client", "helper", "scheduler", "nanny", "worker", "filler", "installer")
_PLACE = re.compile(r"(<!-- figures of (\S+\.json) -->\n).*?(?=<!-- end -->)", re.DOTALL)


def main(path: Path) -> None:
    """Fill the page, or print what a file of figures has."""
    if path.suffix == ".json":
        print(tables(json.loads(path.read_text("utf-8"))), end="")
    else:
        path.write_text(filled(path.read_text("utf-8"), path.parent), "utf-8")


def filled(page: str, folder: Path) -> str:
    """The page with the figures of the files that it names; a place whose file is not there stays as it is."""

    def fill(place: re.Match[str]) -> str:
        file = folder / place[2]
        if not file.exists():
            return place[0]
        chart = file.with_suffix(".svg")
        image = f"\n![The medians as bars]({chart.name})\n" if chart.exists() else ""
        return f"{place[1]}\n{tables(json.loads(file.read_text('utf-8')))}{image}\n"

    return _PLACE.sub(fill, page)


def tables(value: Mapping[str, Any]) -> str:
    """What `first_task.py` or `floor.py` has written, for people."""
    return "\n".join([*(_first_task(value) if "environments" in value else _floor(value))]) + "\n"


def _first_task(value: Mapping[str, Any]) -> Iterator[str]:
    yield f"`{value['command']}`"
    yield ""
    yield f"{_machine(value)}; load before: {value['load before'][0]}; {value['minutes']} minutes in all. Seconds."
    for name, environment in value["environments"].items():
        yield f"\n**{name}**, {environment['about']}; the task imports {', '.join(environment['task'])}.\n"
        yield from _times(environment)
        yield f"\nWhere the time goes ({name}, the median run):\n"
        yield from _stages(environment["ways"])
        yield f"\nPeak memory ({name}, MB):\n"
        yield from _memory(environment["ways"])
    if value["torch"]:
        changes = "; ".join(f"{way} {percent:+.1f} %" for way, percent in value["torch"].items())
        yield f"\nWhat torch in the prefix changes, for a task that does not import it: {changes}."
    if value["goals"]:
        yield "\n| what likewise is held to | at most | is | |\n|---|---|---|---|"
        for goal in value["goals"]:
            yield f"| {goal['what']} | {goal['at most']:g} | {goal['is']:g} | {'' if goal['met'] else '**missed**'} |"


def _machine(value: Mapping[str, Any]) -> str:
    machine = value["machine"]
    return f"{machine['cores']} cores, Python {machine['python']}, {machine['system']}"


def _times(environment: Mapping[str, Any]) -> Iterator[str]:
    yield "| way | runs | median | min | max | to preinstalled | to same processes | all | new layers |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for way, figures in environment["ways"].items():
        seconds = figures["seconds"]
        cells = [figures["median"], min(seconds), max(seconds), figures["ratio"], figures["ratio to same processes"]]
        yield _row(way, len(seconds), *map(_number, [*cells, figures.get("complete")]), figures.get("new layers", "–"))
    for way, reason in environment["left out"].items():
        yield _row(f"{way}: left out: {reason.replace('|', '/')}", *[""] * 8)


def _stages(ways: Mapping[str, Any]) -> Iterator[str]:
    yield "| way | stages | of that the launch |\n|---|---|---|"
    for way, figures in ways.items():
        packing = ", ".join(f"{what} {number}" for what, number in figures.get("packing", {}).items())
        launch = _seconds(figures.get("launch", {})) or (f"not in it: {packing}" if packing else "")
        yield _row(way, _seconds(figures["stages"]), launch)


def _memory(ways: Mapping[str, Any]) -> Iterator[str]:
    found = {role for figures in ways.values() for role in figures["peak MB"]}
    roles = [*(role for role in ROLES if role in found), *sorted(found.difference(ROLES))]
    yield _row("way", *roles)
    yield "|---" * (len(roles) + 1) + "|"
    for way, figures in ways.items():
        yield _row(way, *(figures["peak MB"].get(role, "–") for role in roles))


def _floor(value: Mapping[str, Any]) -> Iterator[str]:
    yield f"`{value['command']}`"
    yield ""
    what = f"{value['layers']} layers, {value['files']:,} files, {value['links']:,} links"
    yield f"{what}, {value['bytes'] / 1e6:,.0f} MB; {_machine(value)}; load before: {value['load']}."
    yield "Seconds; the processors' are those of all processes.\n"
    yield "| what | runs | median | min | max | processors | to its floors |\n|---|---|---|---|---|---|---|"
    for name, way in value["ways"].items():
        seconds = way["seconds"]
        cpu = sorted(user + system for user, system in zip(way["user"], way["system"], strict=True))[len(seconds) // 2]
        ratio = ", ".join(f"{ratio:.2f} × {floor}" for floor, ratio in way["ratios"].items())
        yield _row(name, len(seconds), *map(_number, [way["median"], min(seconds), max(seconds), cpu]), ratio)


def _seconds(stages: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {seconds:.2f}" for name, seconds in stages.items() if seconds >= 0.005)


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
