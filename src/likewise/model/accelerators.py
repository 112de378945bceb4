"""Builds for accelerators, as local versions (PEP 440) and PyTorch's indexes name them: ``cpu``, ``cu126``.

CUDA's driver runs what was built for an older CUDA and, from 11 on, for a later minor version of the same major one
(NVIDIA, "CUDA Compatibility": minor version compatibility).
"""

from __future__ import annotations

import re

import msgspec

from likewise.model.target import Target

PYTORCH = ("torch", "torchaudio", "torchvision")
"""PyTorch's own distributions that have a build of each version for each accelerator, on an index for each of them. The
build without a label, which everybody's index has, is for CUDA on x86_64 Linux, and for the processor elsewhere."""

_LABEL = re.compile(
    r"(?P<before>pt\d+)?(?P<label>cpu|xpu|rocm\d+(?:\.\d+)*|(?P<prefix>cu|cuda)(?P<cuda>\d{2,}))(?P<after>\..+)?"
)


class Build(msgspec.Struct, frozen=True, kw_only=True):
    """What a label says.

    Attributes
    ----------
    label : str
        ``cu124`` of ``pt25cu124``.
    cuda : tuple of (int, int), or None
        The CUDA that it was built for.
    before : str
        ``pt25``: what it was built with besides.
    has_sibling : bool
        Whether builds for other accelerators have labels like it. jaxlib's (``cuda12.cudnn91``) have not: the one for
        the processor has no label.
    """

    label: str
    cuda: tuple[int, int] | None = None
    before: str = ""
    has_sibling: bool = True

    def runs_on(self, target: Target) -> bool:
        """Whether `target` has what it was built for."""
        driver = driver_of(target)
        if self.cuda is None or driver is None:
            return self.label == "cpu" and driver is None
        return self.cuda <= driver or self.cuda[0] == driver[0] >= 11


def build_of(label: str) -> Build | None:
    """The build that a label names, None when it names no accelerator.

    >>> build_of("pt25cu124").cuda, build_of("cuda12.cudnn91").cuda, build_of("computecanada")
    ((12, 4), (12, 0), None)
    """
    found = _LABEL.fullmatch(label)
    if found is None:
        return None
    return Build(
        label=found["label"],
        cuda=_cuda(found["cuda"]) if found["cuda"] else None,
        before=found["before"] or "",
        has_sibling=found["prefix"] != "cuda",
    )


def driver_of(target: Target) -> tuple[int, int] | None:
    """The CUDA that the driver of `target` serves."""
    if not target.cuda:
        return None
    major, _, minor = target.cuda.partition(".")
    return int(major), int(minor.partition(".")[0] or 0)


def unlabelled(name: str, target: Target) -> str:
    """The label of the build that `target` should get of a distribution which has none here, "" for none."""
    platform = target.platform
    cuda_comes_along = (platform.os, platform.arch) == ("linux", "x86_64") and not target.cuda
    return "cpu" if name in PYTORCH and cuda_comes_along else ""


def _cuda(digits: str) -> tuple[int, int]:
    """``124`` is 12.4, ``92`` is 9.2, ``12`` is 12."""
    if len(digits) == 2 and digits.startswith("1"):
        return int(digits), 0
    return int(digits[:-1]), int(digits[-1])
