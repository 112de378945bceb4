"""From a file of conda's to a Snapshot of what a client has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from likewise.errors import UsageError
from likewise.formats.conda import choose, read_conda
from likewise.formats.conda_values import Contents
from likewise.formats.listing import Listing, fixed
from likewise.model.snapshot import Problem
from likewise.model.target import Platform, Target
from likewise.versions import check_python

PYTHON = "python"


@dataclass(frozen=True)
class CondaReading:
    """What a file says of one environment.

    Attributes
    ----------
    contents : Contents
    listing : Listing
        What pip installed.
    where : Target
        The client's platform and Python.
    secrets : mapping
        Channel URL without credentials -> as the file has it. For this process only.
    options : str
        As `likewise.formats.conda_values.CondaListing` has it.
    """

    contents: Contents
    listing: Listing
    where: Target
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    options: str = field(default="", repr=False)


def read_conda_client(
    text: str, *, client: Platform | None, python: str, machine: Target, environment: str = ""
) -> CondaReading:
    """Read the file as what one client has.

    Parameters
    ----------
    text : str
    client : Platform, optional
        Default: what the file says, else the platform of `machine`.
    python : str
        The client's Python, where the file has none; "" for that of `machine`.
    machine : Target
    environment : str
        As in `likewise.formats.conda.choose`.

    Raises
    ------
    UsageError
        The file is damaged, is not for that platform, or has another Python.
    """
    found = read_conda(text)
    contents, platform = choose(found, client=client, machine=machine.platform, environment=environment)
    own = next((one.version for one in contents.packages if one.name == PYTHON), "")
    if own and python and not f"{own}.".startswith(f"{python}."):
        raise UsageError(f"This {found.form} has Python {own}, and not {python}.", todo="Leave --python out.")
    version = own or python or machine.python
    check_python(version)
    listing = Listing(
        form=found.form,
        select=fixed(contents.pins),
        offered=fixed(contents.pins),
        python=version,
        platform=platform,
        problems=(*found.problems, *_twice(contents)),
    )
    where = Target(platform=platform, python=version)
    return CondaReading(contents, listing, where, found.secrets, found.options)


def _twice(contents: Contents) -> tuple[Problem, ...]:
    """pip over conda: what both have is pip's, whose files were written later."""
    conda = {one.name: one.version for one in contents.packages}
    return tuple(
        Problem(
            code="pip-over-conda",
            subject=pin.name,
            message=f"conda has {conda[pin.name]} of it and pip {pin.version}; the nodes get pip's on top of conda's.",
        )
        for pin in contents.pins
        if pin.name in conda
    )
