"""The ways that are measured: what each presumes, what it must not find, and what is in its figure."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Way:
    """One way. All names of folders and files are those below the environment's folder, see `environments.Place`.

    Attributes
    ----------
    function : str
        In `ways.py`.
    includes : str
        What the figure includes besides the task.
    python : str
        The prefix that runs it.
    folders : dict
        Environment variables that name folders.
    environ : dict
        Other environment variables.
    forget : tuple of str
        What is put aside before a run.
    before : tuple of str
        What is made before a run.
    needs : tuple of str
        What is made once: methods ``make_…`` of `Place`.
    rehearse : bool
        Whether it has one run that does not count, which fills caches.
    rehearsal_lasts : bool
        Whether those caches are still there for the next run of the bench, whatever has become of likewise.
    bytecode_is_new : bool
        Whether the client's prefix has no bytecode when it starts.
    """

    function: str
    includes: str
    python: str = "client"
    folders: dict[str, str] = field(default_factory=dict)
    environ: dict[str, str] = field(default_factory=dict)
    forget: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    rehearse: bool = True
    rehearsal_lasts: bool = False
    bytecode_is_new: bool = False


LIMIT = "preinstalled"
SAME = "same processes"
MOST_OF = (
    ("likewise, empty node", LIMIT, 1.5),
    ("likewise, empty node", "uv, empty cache", 1 / 3),
    ("likewise, first launch ever", LIMIT, 2.0),
    ("likewise, warm", SAME, 1.15),
    ("likewise, warm", LIMIT, 1.3),
    ("likewise, one changed package", "likewise, warm", 1.2),
)
"""What likewise is held to in W160: a way, another, and how many times as long the first may take."""
MOST_TORCH = 10.0
"""By how many per cent torch in the prefix may change the time of a task that does not import it."""
MOST_MEMORY = {"client": 300, "filler": 150, "agent": 150, "hub": 150}
"""Megabytes that a process may need at most in whatever run."""
_CACHE = {"LIKEWISE_CACHE": "likewise"}

WAYS = {
    LIMIT: Way("preinstalled", "LocalCluster in the client's prefix, bytecode compiled: the limit"),
    SAME: Way("same_processes", "scheduler and worker each a process of the client's prefix, started together, no TLS"),
    "same processes, no dashboard": Way("same_processes_bare", "the same, the scheduler without its dashboard"),
    "likewise, first launch ever": Way(
        "likewise",
        "nothing is known, hashed, packed or on the node; bytecode in the client's prefix",
        folders=_CACHE,
        forget=("likewise",),
        rehearse=False,
    ),
    "likewise, first launch ever, no bytecode": Way(
        "likewise",
        "the same as uv leaves a prefix: the client compiles what it imports, likewise all",
        python="plain",
        folders={"LIKEWISE_CACHE": "likewise-plain"},
        forget=("likewise-plain",),
        needs=("plain",),
        rehearse=False,
        bytecode_is_new=True,
    ),
    "likewise, empty node": Way(
        "likewise",
        "store filled, nothing on the node but what the system has",
        folders=_CACHE,
        forget=("likewise/node",),
    ),
    "likewise, warm": Way("likewise", "store and node filled; scan, scheduler, worker, TLS", folders=_CACHE),
    "likewise, one changed package": Way(
        "likewise", "as warm, after one file of one pure package has changed", folders=_CACHE, before=("change_one",)
    ),
    "likewise, empty node, not streaming": Way(
        "likewise",
        "store filled, empty node; nothing starts before all of the prefix is there",
        folders=_CACHE,
        environ={"DASK_LIKEWISE__STREAMING": "false"},
        forget=("likewise/node",),
    ),
    "uv, empty cache": Way(
        "uv_install",
        "uv venv, download from loopback, uv pip install, worker; no bytecode",
        folders={"UV_CACHE_DIR": "uv-cold"},
        forget=("node", "uv-cold"),
        needs=("wheels",),
        rehearse=False,
    ),
    "uv, warm cache": Way(
        "uv_install",
        "uv venv, uv pip install from its cache, worker; no bytecode",
        folders={"UV_CACHE_DIR": "uv-warm"},
        forget=("node",),
        needs=("wheels",),
        rehearsal_lasts=True,
    ),
    "PipInstall": Way(
        "pip_install",
        "LocalCluster that has Dask alone, pip with wheels from loopback, restart",
        python="dask",
        folders={"PIP_CACHE_DIR": "pip-cache"},
        forget=("dask",),
        before=("make_dask",),
        needs=("wheels",),
        rehearsal_lasts=True,
    ),
    "Ray runtime_env": Way(
        "ray_uv",
        "ray.init that has Ray alone, virtualenv and uv with a warm cache for the task",
        python="ray",
        folders={"UV_CACHE_DIR": "uv-ray", "PIP_CACHE_DIR": "pip-cache"},
        needs=("wheels", "ray"),
        rehearsal_lasts=True,
    ),
    "venv-pack": Way(
        "venv_pack",
        "unpacking an archive made before, worker; not the packing",
        forget=("node",),
        needs=("archive",),
        rehearsal_lasts=True,
    ),
}
