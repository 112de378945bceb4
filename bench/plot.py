"""Plots as SVG text that needs nothing but a viewer: one with two logarithmic axes, and bars."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 760, 440
LEFT, RIGHT, TOP, BOTTOM = 70, 230, 20, 50
COLOURS = ("#c44e52", "#dd8452", "#2a6fbb", "#888888", "#55a868")


def log_log_plot(curves: Mapping[str, Sequence[tuple[float, float]]], *, x: str, y: str) -> str:
    """The curves, each named at its right end; every value is above zero.

    Parameters
    ----------
    curves : mapping of str to sequence of (float, float)
    x, y : str
        What the axes say.
    """
    points = [point for curve in curves.values() for point in curve]
    low_x, high_x = _decades(p[0] for p in points)
    low_y, high_y = _decades(p[1] for p in points)

    def place(point: tuple[float, float]) -> tuple[float, float]:
        across = (math.log10(point[0]) - low_x) / (high_x - low_x)
        upwards = (math.log10(point[1]) - low_y) / (high_y - low_y)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - upwards * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    for decade in range(low_x, high_x + 1):
        across, bottom = place((10.0**decade, 10.0**low_y))
        parts.append(f'<path d="M{across:.1f} {bottom:.1f}V{TOP}" stroke="#ddd"/>')
        parts.append(f'<text x="{across:.1f}" y="{bottom + 18:.1f}" text-anchor="middle">{10**decade:,}</text>')
    for decade in range(low_y, high_y + 1):
        left, height = place((10.0**low_x, 10.0**decade))
        parts.append(f'<path d="M{left:.1f} {height:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 8:.1f}" y="{height + 4:.1f}" text-anchor="end">{10**decade:,}</text>')
    ends = _apart({name: place(curve[-1])[1] for name, curve in curves.items()})
    for (name, curve), colour in zip(curves.items(), COLOURS, strict=False):
        path = "L".join(f"{across:.1f} {height:.1f}" for across, height in map(place, curve))
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2.5"/>')
        parts += [f'<circle cx="{a:.1f}" cy="{h:.1f}" r="3.5" fill="{colour}"/>' for a, h in map(place, curve)]
        end = place(curve[-1])[0] + 10
        parts.append(f'<text x="{end:.1f}" y="{ends[name] + 4:.1f}" fill="{colour}">{escape(name)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 10}" text-anchor="middle">{escape(x)}</text>')
    parts.append(
        f'<text x="18" y="{HEIGHT / 2}" text-anchor="middle" transform="rotate(-90 18 {HEIGHT / 2})">{escape(y)}</text>'
    )
    return "\n".join([*parts, "</svg>\n"])


def _decades(values: Iterable[float]) -> tuple[int, int]:
    logs = [math.log10(value) for value in values]
    low, high = math.floor(min(logs)), math.ceil(max(logs))
    return low, max(high, low + 1)


def _apart(heights: dict[str, float], gap: float = 17) -> dict[str, float]:
    """Heights of the names, moved down as far as needed not to lie on each other."""
    placed: dict[str, float] = {}
    last = -math.inf
    for name, height in sorted(heights.items(), key=lambda item: item[1]):
        last = placed[name] = max(height, last + gap)
    return placed


_STYLE = """<style>
text { fill: #24292f } .quiet { fill: #57606a } .grid { stroke: #d0d7de } .range { stroke: #24292f }
.limit { fill: #8c959f } .likewise { fill: #2a6fbb } .other { fill: #dd8452 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .quiet { fill: #9aa4af } .grid { stroke: #3d444d } .range { stroke: #e6edf3 }
  .limit { fill: #7d8590 } .likewise { fill: #58a6ff } .other { fill: #f0a36b }
}
</style>"""
_LABELS, _BARS, _ROW, _TITLE = 280, 400, 22, 40
_BROKEN = 8
"""Bars more than so many times as long as the shortest are broken off, so that the others can be told apart."""


def bar_chart(value: Mapping[str, Any]) -> str:
    """What `first_task.py` measured: a bar for each median with the range of its runs, one group per environment.

    It has no background of its own and follows the viewer's choice of light or dark.

    Parameters
    ----------
    value : mapping
        As `report.summary` makes it.
    """
    parts: list[str] = []
    top = 0
    for name, environment in value["environments"].items():
        if environment["ways"]:
            group = _bars(f"{name}: {environment['about']}", environment["ways"], top)
            parts += group
            top += _TITLE + _ROW * len(environment["ways"]) + 24
    machine = value["machine"]
    runs = f"medians of {value['runs']} runs" if value["runs"] > 1 else "one run"
    said = f"seconds from the start of the process to the first result; {runs}, {machine['cores']} cores"
    size = f'viewBox="0 0 {_LABELS + _BARS + 140} {top + 24}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="13">'
    return "\n".join([head, _STYLE, *parts, f'<text class="quiet" x="10" y="{top + 12}">{said}</text>', "</svg>\n"])


def _bars(title: str, ways: Mapping[str, Any], top: int) -> list[str]:
    ends = [max(way["seconds"]) for way in ways.values()]
    longest = _BROKEN * min(ends)
    most = max(end for end in ends if end <= longest)
    step = 10.0 ** math.floor(math.log10(most))
    step = next(s for s in (step / 5, step / 2, step, 2 * step) if most / s <= 8)
    scale = _BARS / most
    bottom = top + _TITLE + _ROW * len(ways)
    parts = [f'<text x="10" y="{top + 18}" font-weight="bold">{escape(title)}</text>']
    for number in range(math.floor(most / step) + 1):
        across = _LABELS + number * step * scale
        parts.append(f'<path class="grid" d="M{across:.1f} {top + _TITLE - 8}V{bottom}"/>')
        label = f"{number * step:g}"
        parts.append(f'<text class="quiet" x="{across:.1f}" y="{bottom + 14}" text-anchor="middle">{label}</text>')
    for row, (name, way) in enumerate(ways.items()):
        parts += _bar(name, way, top + _TITLE + row * _ROW, scale)
    return parts


def _bar(name: str, way: Mapping[str, Any], top: int, scale: float) -> list[str]:
    kind = "likewise" if name.startswith("likewise") else "other"
    if name.startswith(("preinstalled", "same processes")):
        kind = "limit"
    low, high = (_LABELS + edge(way["seconds"]) * scale for edge in (min, max))
    broken = high > _LABELS + _BARS + 1
    width, middle = _BARS if broken else way["median"] * scale, top + 7.5
    stages = ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in way["stages"].items())
    ratio = f" ({way['ratio']:.2f} ×)" if way.get("ratio") else ""
    bar = f'<rect class="{kind}" x="{_LABELS}" y="{top}" width="{width:.1f}" height="15" rx="2">'
    range_of_runs = f"M{low:.1f} {middle}H{high:.1f}M{low:.1f} {middle - 3}v6M{high:.1f} {middle - 3}v6"
    gap = "".join(f"M{_LABELS + _BARS - 24 + across} {top + 18}l6 -21" for across in (0, 5))
    end = _LABELS + _BARS if broken else high
    return [
        f'<text x="{_LABELS - 8}" y="{top + 12}" text-anchor="end">{escape(name)}</text>',
        f"{bar}<title>{escape(stages)}</title></rect>",
        f'<path class="range" d="{gap if broken else range_of_runs}"/>',
        f'<text x="{end + 6:.1f}" y="{top + 12}">{way["median"]:.2f}{ratio}</text>',
    ]
