"""An editable install: a distribution whose code lies in the user's source tree and has to be built for the nodes."""

from __future__ import annotations

import msgspec


class Editable(msgspec.Struct, frozen=True, kw_only=True):
    """Where an editable's code is, and how it gets onto ``sys.path`` here. A fact about the client; it never leaves it.

    Attributes
    ----------
    name : str
        Normalized (PEP 503).
    version : str
        As the installed metadata spells it.
    path : str
        The source tree: the directory that is built.
    roots : tuple of str
        Absolute directories that it adds to ``sys.path`` (``.pth`` lines, egg-link).
    imports : tuple of str
        Import names that it provides: top-level ones, and dotted ones inside namespace packages.
    mapping : dict
        Import name -> absolute path of its directory or file, for those that an import hook provides and not `roots`
        (setuptools' ``__editable___*_finder.py``, the ``editables`` library, scikit-build-core).
    metadata_path : str
        The installed dist-info or egg-info, absolute.
    """

    name: str
    version: str
    path: str
    roots: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()
    mapping: dict[str, str] = {}
    metadata_path: str = ""
