"""A launch as a waterfall: one page of HTML that needs nothing else, neither the network nor a program.

Every name in it comes from somebody's environment, so all text is escaped, and the page's own policy lets no script run
but the one that is written here.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from html import escape as escape_html

import msgspec

from likewise.console.text import format_seconds
from likewise.model.timeline import Mark, PrefixTimes, ProcessTimes, Span, Timeline

_LEFT, _WIDE, _RIGHT, _ROW, _HEAD = 250, 820, 110, 20, 34

_LEGEND = {
    "stage": "a stage, on the client",
    "make": "a process, until Python of its prefix began: the prefix is made, or the part of it that this takes",
    "start": "from there until it had joined; a prefix, until it was complete",
    "layer": "a layer, from the start of the first process until it was there",
    "bad": "did not end",
}

_STYLE = """
:root { color-scheme: light dark; --text: #1f2328; --quiet: #59636e; --line: #d1d9e0; --back: #ffffff;
  --stage: #2a6fbb; --make: #dd8452; --start: #55a868; --layer: #8172b3; --bad: #c44e52 }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --quiet: #9198a1; --line: #3d444d; --back: #0d1117;
  --stage: #58a6ff; --make: #f0a36b; --start: #6fc583; --layer: #a99bdb; --bad: #ff7b72 } }
body { margin: 24px; background: var(--back); color: var(--text); font: 14px/1.5 system-ui, sans-serif }
h1 { font-size: 20px; margin: 0 } p { margin: 4px 0; color: var(--quiet) } svg { max-width: 100% }
svg[data-left] { height: auto }
text { font: 12px system-ui, sans-serif; fill: var(--text) } .quiet { fill: var(--quiet) }
p svg { vertical-align: -2px; margin: 0 4px 0 12px }
.title { font-weight: 600 } .grid { stroke: var(--line) } .row:hover .back { fill: var(--line); opacity: .5 }
.back { fill: transparent } .stage { fill: var(--stage) } .make { fill: var(--make) } .start { fill: var(--start) }
.layer { fill: var(--layer) } .bad { fill: var(--bad) } .mark { stroke: var(--bad); stroke-dasharray: 3 3 }
#cursor { stroke: var(--quiet); visibility: hidden }
#tip { position: fixed; visibility: hidden; pointer-events: none; background: var(--text); color: var(--back);
  padding: 3px 8px; border-radius: 4px; max-width: 40em; white-space: pre-wrap; font-size: 12px }
"""

_SCRIPT = """
const svg = document.querySelector("svg[data-left]"), tip = document.getElementById("tip");
const cursor = document.getElementById("cursor"), zero = +svg.dataset.left, scale = +svg.dataset.scale;
svg.addEventListener("mousemove", event => {
  const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
  const row = event.target.closest("[data-tip]"), inside = point.x >= zero;
  const lines = row ? [row.dataset.tip] : [];
  if (inside) lines.push("at " + ((point.x - zero) / scale).toFixed(3) + " s");
  cursor.style.visibility = inside ? "visible" : "hidden";
  cursor.setAttribute("x1", point.x); cursor.setAttribute("x2", point.x);
  tip.textContent = lines.join("\\n"); tip.style.visibility = lines.length ? "visible" : "hidden";
  tip.style.left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8) + "px";
  tip.style.top = Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8) + "px";
});
svg.addEventListener("mouseleave", () => { tip.style.visibility = cursor.style.visibility = "hidden"; });
"""


class Bar(msgspec.Struct, frozen=True):
    """A piece of a row, from `start` to `end` (Unix time), drawn in the colour `kind`."""

    kind: str
    start: float
    end: float


class Row(msgspec.Struct, frozen=True):
    """One line of the waterfall; `tip` says more, `note` stands behind it."""

    label: str
    bars: tuple[Bar, ...]
    note: str = ""
    tip: str = ""


class Group(msgspec.Struct, frozen=True):
    """Rows with a title; `note` stands where there are none."""

    title: str
    rows: tuple[Row, ...]
    note: str = ""


def profile_page(timeline: Timeline, *, title: str) -> str:
    """The page.

    Parameters
    ----------
    timeline : Timeline
        What is not known is left out, and the page says so.
    title : str
        What was run.

    Returns
    -------
    str
        A whole HTML document.
    """
    groups = groups_of(timeline)
    edges = [edge for group in groups for row in group.rows for bar in row.bars for edge in (bar.start, bar.end)]
    zero, seconds = (min(edges), max(max(edges) - min(edges), 0.001)) if edges else (0.0, 1.0)
    marks = [mark for mark in timeline.marks if zero <= mark.at <= zero + 1.1 * seconds]  # a script may run for days
    pin = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{pin}'"
    took = f"{format_seconds(seconds)} from the first stage to the last thing that was seen" if edges else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<p>{took or "Nothing was reported."}</p>
{_legend()}
{_drawing(groups, marks, zero, seconds)}
<p>Stages may overlap. Times of other machines are by their own clocks.</p>
<div id="tip"></div>
<script>{_SCRIPT}</script>
</body>
</html>
"""


def groups_of(timeline: Timeline) -> tuple[Group, ...]:
    """What the page shows, in its order: the stages, the processes, and the layers of each prefix that grew."""
    last = max((span.ended or span.started for span in timeline.stages), default=0.0)
    stages = Group("Stages, on the client", tuple(_stage(span, last) for span in timeline.stages), "None was reported.")
    names = sorted({process.node for process in timeline.processes})
    nodes = [Group(f"Node {name}", tuple(_process(p) for p in timeline.processes if p.node == name)) for name in names]
    none = Group("Nodes", (), "No process of the cluster was asked: it was not there, or did not answer.")
    began = {(p.node, p.prefix): p.spawned for p in reversed(timeline.processes)}
    growing = [_prefix(prefix, began.get((prefix.node, prefix.prefix))) for prefix in timeline.prefixes]
    warm = Group("Layers", (), "No prefix was seen growing: it was complete when its first process was there.")
    return (stages, *(nodes or [none]), *(growing or ([warm] if nodes else [])))


def _stage(span: Span, last: float) -> Row:
    ended = span.ended if span.ended is not None else max(last, span.started)
    bar = Bar("stage" if span.ended is not None else "bad", span.started, ended)
    note = format_seconds(ended - span.started) if span.ended is not None else "did not end"
    marks = [f"{mark.name}: after {mark.at - span.started:.2f} s" for mark in span.marks[:20]]
    return Row(span.name, (bar,), note, "\n".join([f"{span.name}: {note}", *filter(None, [span.summary]), *marks]))


def _process(process: ProcessTimes) -> Row:
    """One process: until its prefix could be started, and from there until it had joined."""
    ready, joined = process.ready, process.joined
    bars, said = [], []
    if ready is not None:
        bars.append(Bar("make", process.spawned, ready))
        said.append(f"{ready - process.spawned:.2f} s until Python of its prefix began")
    if joined is not None:
        bars.append(Bar("start", ready or process.spawned, joined))
        said.append(f"{joined - (ready or process.spawned):.2f} s from there until it had joined")
    ends = joined or ready
    note = format_seconds(ends - process.spawned) if ends else "never seen joining"
    bars = bars or [Bar("bad", process.spawned, process.spawned)]
    tip = [f"{process.name}, process {process.pid} on {process.node}", *said, process.prefix]
    return Row(process.name, tuple(bars), note, "\n".join(tip))


def _prefix(prefix: PrefixTimes, began: float | None) -> Group:
    """The layers of one prefix, each from the beginning of the first process there until it was there."""
    first = began if began is not None else min((mark.at for mark in prefix.layers), default=prefix.complete or 0.0)
    rows = [_layer(mark, first) for mark in prefix.layers]
    if prefix.complete is not None:
        after = format_seconds(prefix.complete - first)
        tip = f"all of {prefix.prefix} was there"
        rows.append(Row("complete", (Bar("start", first, prefix.complete),), after, tip))
    note = "" if prefix.complete is not None else ", still growing when the script ended"
    return Group(f"Layers on {prefix.node}{note}", tuple(rows), "None had come.")


def _layer(mark: Mark, first: float) -> Row:
    after = format_seconds(max(mark.at - first, 0.0))
    return Row(mark.name, (Bar("layer", first, max(mark.at, first)),), after, f"{mark.name}: there after {after}")


def _legend() -> str:
    pieces = [
        f'<svg width="12" height="12"><rect class="{kind}" width="12" height="12" rx="2"/></svg>{escape(text)}'
        for kind, text in _LEGEND.items()
    ]
    return f"<p>{''.join(pieces)}</p>"


def _drawing(groups: Sequence[Group], marks: Iterable[Mark], zero: float, seconds: float) -> str:
    scale = _WIDE / seconds
    height = sum(_HEAD + _ROW * max(len(group.rows), 1) for group in groups) + 50
    size = f'viewBox="0 0 {_LEFT + _WIDE + _RIGHT} {height}" width="{_LEFT + _WIDE + _RIGHT}"'
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} data-left="{_LEFT}" data-scale="{scale:.6f}">']
    parts += _axis(seconds, scale, height)
    for number, mark in enumerate(marks):
        across = _LEFT + (mark.at - zero) * scale
        anchor, aside = ("start", 3) if number % 2 else ("end", -3)  # two that are close do not lie on each other
        parts.append(f'<path class="mark" data-tip="{escape(mark.name)}" d="M{across:.1f} 18V{height - 4}"/>')
        name = escape(mark.name)
        parts.append(f'<text class="quiet" x="{across:.1f}" y="28" text-anchor="{anchor}" dx="{aside}">{name}</text>')
    top = 24
    for group in groups:
        parts.append(f'<text class="title" x="4" y="{top + 22}">{escape(group.title)}</text>')
        top += _HEAD
        for row in group.rows:
            parts += _row(row, top, zero, scale)
            top += _ROW
        if not group.rows:
            parts.append(f'<text class="quiet" x="16" y="{top + 14}">{escape(group.note)}</text>')
            top += _ROW
    cursor = f'<line id="cursor" x1="0" x2="0" y1="18" y2="{height - 4}" pointer-events="none"/>'
    return "\n".join([*parts, cursor, "</svg>"])


def _axis(seconds: float, scale: float, height: float) -> Iterator[str]:
    step = 10.0 ** math.floor(math.log10(seconds))
    step = next(size for size in (step / 10, step / 5, step / 2, step, 2 * step) if seconds / size <= 12)
    for number in range(math.floor(seconds / step) + 1):
        across = _LEFT + number * step * scale
        yield f'<path class="grid" d="M{across:.1f} 18V{height - 4}"/>'
        yield f'<text class="quiet" x="{across:.1f}" y="12" text-anchor="middle">{number * step:g} s</text>'


def _row(row: Row, top: int, zero: float, scale: float) -> Iterator[str]:
    yield f'<g class="row" data-tip="{escape(row.tip or row.label)}">'
    yield f'<rect class="back" x="0" y="{top}" width="{_LEFT + _WIDE + _RIGHT}" height="{_ROW}"/>'
    label = row.label if len(row.label) <= 36 else f"{row.label[:35]}…"
    yield f'<text x="{_LEFT - 8}" y="{top + 14}" text-anchor="end">{escape(label)}</text>'
    end = float(_LEFT)
    for bar in row.bars:
        left, width = _LEFT + (bar.start - zero) * scale, max((bar.end - bar.start) * scale, 1.5)
        yield f'<rect class="{bar.kind}" x="{left:.1f}" y="{top + 4}" width="{width:.1f}" height="12" rx="2"/>'
        end = max(end, left + width)
    yield f'<text class="quiet" x="{end + 6:.1f}" y="{top + 14}">{escape(row.note)}</text></g>'


def escape(text: str) -> str:
    """`text` as it may stand in HTML, in a line or an attribute; what can't be shown (or encoded) is not kept."""
    shown = "".join(c if c.isprintable() or c == "\n" else "�" for c in text)
    return escape_html(shown).replace("\n", "&#10;")
