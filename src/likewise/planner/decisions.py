"""Lines of a plan that are the same for every target: what is copied, built, shipped or left out, and the refusal."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from likewise.errors import PlanError
from likewise.model.plan import Action, Decision, Plan
from likewise.model.snapshot import CodeRoot, Distribution, OriginKind, Severity, Snapshot
from likewise.planner.options import PlanOptions
from likewise.planner.requirements import RequirementGraph


def required_by_text(name: str, graph: RequirementGraph, kept: Collection[str], more: Iterable[str] = ()) -> str:
    """Why something is shipped that nobody asked for. `more` are others that require it, and that are not installed."""
    requirers = sorted({*graph.required_by(name, kept), *more})
    return f"required by {', '.join(requirers)}" if requirers else "needed by every node to join"


def copy_reason(d: Distribution, *, ordinary: str = "same platform") -> str:
    """Where a copied distribution came from (`ordinary`: nothing special), what is no longer as it was installed."""
    kind = d.origin.kind
    what = {
        OriginKind.VCS: f"installed from version control at {d.origin.commit[:12] or 'an unknown commit'}",
        OriginKind.ARCHIVE: "installed from an archive",
        OriginKind.DIRECTORY: "installed from a local directory",
        OriginKind.SYSTEM: f"installed by the system as {d.origin.path or d.name}",
        OriginKind.CONDA: "installed by conda",
    }.get(kind, ordinary)
    changed = [f"{len(d.modified)} file{'s' * (len(d.modified) != 1)} modified since"] if d.modified else []
    gone = [f"{len(d.missing)} missing"] if d.missing else []
    return ", ".join([f"exact copy; {what}", *changed, *gone])


def decide_code(snapshot: Snapshot, options: PlanOptions) -> list[Decision]:
    """Loose code is shipped wherever it was written: it is Python source."""
    ignored = options.ignored
    return [
        Decision(name=root.name, version="", action=Action.DROP, reason=f"left out as asked ({root.why}: {root.path})")
        if root.name in ignored
        else Decision(name=root.name, version="", action=Action.SHIP, reason=_code_reason(root))
        for root in snapshot.code
    ]


def _code_reason(root: CodeRoot) -> str:
    return f"loose code, {root.files} file{'s' * (root.files != 1)} ({root.why}: {root.path})"


def refuse(plan: Plan, options: PlanOptions, critical: Collection[str]) -> None:
    """Raise when what is wrong stops the launch; all reasons in one error.

    Raises
    ------
    PlanError
        For problems of what is critical (or of anything, as `options` say), and where something critical is dropped.
    """
    errors = [p for p in plan.problems if p.severity is Severity.ERROR]
    stops = [p for p in errors if p.subject in critical]
    if options.fail_on == "any" or options.strict:
        stops = errors
    if options.strict:
        stops = [p for p in plan.problems if p.severity is not Severity.NOTE]
    dropped = [d for d in plan.decisions if d.action is Action.DROP and d.name in critical]
    if not stops and not dropped:
        return
    listed = [f"{p.subject}: {p.message}" for p in stops]
    listed += [f"{d.name}: {d.reason}" for d in dropped if d.name not in {p.subject for p in stops}]
    raise PlanError(
        f"This environment can't be replicated: {' '.join(listed[:3])}"
        + (f" … and {len(listed) - 3} more." if len(listed) > 3 else ""),
        todo="Reinstall what is named"
        + ("." if dropped or not (options.strict or options.fail_on == "any") else ", or relax strict or fail_on."),
        details={"problems": [{"code": p.code, "subject": p.subject, "message": p.message} for p in stops]},
    )
