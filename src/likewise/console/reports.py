"""A launch report and a verify report as tables for people."""

from __future__ import annotations

from collections.abc import Iterable

from likewise.console.text import counted, format_bytes, format_seconds, table
from likewise.model.layer import LayerKind
from likewise.model.report import Delivery, LaunchReport, bytes_by_source
from likewise.model.verify import Difference, VerifyReport

MOST_DIFFERENCES = 20


def describe_launch(report: LaunchReport) -> str:
    """One line per stage: how long it took and what it did. Stages may overlap, so the sum can exceed the clock."""
    rows = [(stage.name, format_seconds(stage.seconds), stage.summary) for stage in report.stages]
    return table(rows, head=("stage", "time", "what it did"), right=[1])


def describe_layers(layers: Iterable[Delivery]) -> str:
    """One line per layer: where it came from; and a last line with the bytes from each source."""
    found = sorted(layers, key=lambda one: (one.source, -one.size, one.name))
    rows = [
        (
            f"{one.name} {one.version}".strip(),
            "" if one.kind is LayerKind.DISTRIBUTION else one.kind.value,
            format_bytes(one.size) if one.size else "",
            one.source or "on its way",
        )
        for one in found
    ]
    total = ", ".join(f"{format_bytes(size)} from {source}" for source, size in sorted(bytes_by_source(found).items()))
    lines = [table(rows, head=("layer", "", "size", "from"), right=[2]), total]
    return "\n".join(line for line in lines if line)


def describe_verify(report: VerifyReport) -> str:
    """One line per node, what differs, and a last line with the verdict."""
    rows = [
        (
            node.node,
            node.python,
            f"{len(node.distributions):,}",
            f"{node.files:,}",
            format_bytes(node.size),
            format_seconds(node.seconds),
            "differs" if any(d.node == node.node for d in report.differences) else "identical",
            node.prefix,
        )
        for node in report.nodes
    ]
    head = ("node", "python", "distributions", "files", "size", "checked in", "", "prefix")
    shown = report.differences[:MOST_DIFFERENCES]
    lines = [table(rows, head=head, right=[2, 3, 4, 5]), *map(describe_difference, shown)]
    if len(report.differences) > len(shown):
        lines.append(f"… and {len(report.differences) - len(shown):,} more")
    verdict = "every file is what the manifest says" if report.ok else counted(len(report.differences), "difference")
    return "\n".join([*lines, f"manifest {report.manifest[:16]}: {verdict}"])


def describe_difference(difference: Difference) -> str:
    """One difference in a line."""
    text = f"{difference.node}: {difference.kind.value}: {difference.subject}"
    if difference.layer and difference.layer != difference.subject:
        text += f" (of {difference.layer})"
    if difference.expected or difference.actual:
        text += f": expected {difference.expected or 'nothing'}, found {difference.actual or 'nothing'}"
    return table([(text,)])
