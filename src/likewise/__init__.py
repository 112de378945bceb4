"""likewise: every machine of your Dask cluster runs the Python environment that you are looking at.

The names below are loaded when first used: ``import likewise`` itself costs nothing, because the node side imports it
before anything else is there.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing's own name for it costs several ms, which every Python of a replica would pay
if TYPE_CHECKING:
    from typing import Any

    from likewise.cluster.jobqueue import SLURMCluster
    from likewise.cluster.local import Cluster
    from likewise.cluster.ssh.cluster import SSHCluster
    from likewise.deploy import bootstrap_files, command_prefix
    from likewise.errors import LikewiseError
    from likewise.model.plan import Plan
    from likewise.model.snapshot import Snapshot
    from likewise.model.verify import VerifyReport
    from likewise.sync import plan, scan

__version__ = "0.1.0"
__all__ = [
    "Cluster",
    "LikewiseError",
    "Plan",
    "SLURMCluster",
    "SSHCluster",
    "Snapshot",
    "VerifyReport",
    "__version__",
    "bootstrap_files",
    "command_prefix",
    "plan",
    "scan",
]

_WHERE = {
    "Cluster": "likewise.cluster.local",
    "LikewiseError": "likewise.errors",
    "Plan": "likewise.model.plan",
    "SLURMCluster": "likewise.cluster.jobqueue",
    "SSHCluster": "likewise.cluster.ssh.cluster",
    "Snapshot": "likewise.model.snapshot",
    "VerifyReport": "likewise.model.verify",
    "bootstrap_files": "likewise.deploy",
    "command_prefix": "likewise.deploy",
    "plan": "likewise.sync",
    "scan": "likewise.sync",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
