"""A plot with two logarithmic axes, as SVG text that needs nothing but a viewer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
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
