"""A launch report and a verify report as tables for people."""

from __future__ import annotations

from likewise.console.text import counted, format_bytes, format_seconds, table
from likewise.model.report import LaunchReport
from likewise.model.verify import Difference, VerifyReport

MOST_DIFFERENCES = 20


def describe_launch(report: LaunchReport) -> str:
    """One line per stage: how long it took and what it did. Stages may overlap, so the sum can exceed the clock."""
    rows = [(stage.name, format_seconds(stage.seconds), stage.summary) for stage in report.stages]
    return table(rows, head=("stage", "time", "what it did"), right=[1])


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
