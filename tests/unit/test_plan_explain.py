"""Sentences about what does not go together."""

from __future__ import annotations

from likewise.model.plan import Level
from likewise.model.snapshot import Distribution, Origin, OriginKind, Snapshot
from likewise.planner.explain import conflict_error
from likewise.planner.levels import Rule
from likewise.planner.moves import Conflict, Pin, exactly
from likewise.planner.requirements import RequirementGraph
from likewise.planner.resolver import Lock, Question, Unsolvable
from support.values import TARGET, make_interpreter


class Never:
    """A resolver that has an answer only where one of the two is not asked for."""

    def resolve(self, question: Question) -> Lock:
        """See `likewise.planner.resolver.Resolver`."""
        if len(question.wanted) == 2:
            raise Unsolvable("no")
        return Lock(packages=())


def test_a_conflict_names_what_is_required_however_its_name_is_written() -> None:
    """PEP 503: ``zope.interface`` is ``zope-interface``."""
    index = Origin(kind=OriginKind.INDEX)
    installed = (
        Distribution(name="a", version="1.0.0", origin=index, requires=("zope.interface<2",)),
        Distribution(name="zope-interface", version="3.0.0", origin=index),
    )
    snapshot = Snapshot(interpreter=make_interpreter(), distributions=installed, code=())
    pins = [Pin(name=d.name, version=d.version, prefer=d.version, rule=Rule(Level.EXACT, "")) for d in installed]
    question = Question(target=TARGET, wanted=tuple(map(exactly, pins)))
    error = conflict_error(Never(), Conflict(question, pins), RequirementGraph(snapshot, TARGET))
    assert error.details["requires"] == ["a 1.0.0 requires zope.interface<2"]
