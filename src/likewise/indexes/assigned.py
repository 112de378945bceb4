"""Which distributions come from one certain index: uv's ``tool.uv.sources``, and PyTorch's own. Pure values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from packaging.markers import InvalidMarker, Marker, UndefinedComparison, UndefinedEnvironmentName

from likewise.indexes.stated import Source
from likewise.indexes.urls import pytorch_build
from likewise.model.accelerators import build_of
from likewise.model.markers import marker_environment
from likewise.model.target import Target


def choose(sources: Mapping[str, tuple[Source, ...]], urls: Mapping[str, str], target: Target) -> dict[str, str]:
    """Where distributions come from, for nodes like `target`.

    Of sources that a project's extras choose from, and of PyTorch's indexes in pip's configuration, it is the one that
    has what `target` runs, for the newest CUDA.

    Parameters
    ----------
    sources : mapping
        Normalized distribution name → sources. Their markers are asked about the target.
    urls : mapping
        Name → URL of the indexes that there are.
    target : Target

    Returns
    -------
    dict
        Normalized distribution name → name of the index.
    """
    found = {}
    for name, given in sources.items():
        there = [one for one in given if one.index in urls and _holds(one.marker, target)]
        certain = [one.index for one in there if not one.chosen]
        if best := next(iter(certain or _fitting((one.index for one in there), urls, target)), None):
            found[name] = best
    return found


def _holds(marker: str, target: Target) -> bool:
    """Whether a marker holds on `target`; one that can't be understood does not."""
    try:
        return not marker or Marker(marker).evaluate(marker_environment(target))
    except (InvalidMarker, UndefinedComparison, UndefinedEnvironmentName):
        return False


def _fitting(indexes: Iterable[str], urls: Mapping[str, str], target: Target) -> list[str]:
    """Those of PyTorch's indexes that have what `target` runs, the best of them first."""
    builds = [(build, index) for index in indexes if (build := build_of(pytorch_build(urls[index])))]
    fitting = [(build.cuda or (0, 0), index) for build, index in builds if build.runs_on(target)]
    return [index for _, index in sorted(fitting, key=lambda pair: pair[0], reverse=True)]
