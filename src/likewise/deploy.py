"""What an operator needs to start scheduler and workers of any Dask deployment in the replica.

`bootstrap_files` gives the files (``bootstrap.sh``, the kit, the manifest and its layers) and lays them out in a
self-contained folder: on a shared disk, behind a web server, in an image, on a volume. `command_prefix` gives the argv
prefix that runs Python in the replica on a node that can read that folder. Whatever a deployer runs as ``python -m
distributed.cli.dask_worker …``, it runs as ``<prefix> -m distributed.cli.dask_worker …`` instead.

Nothing here is secret: certificates and tokens are the deployer's own business, and no credential may be part of a
prefix, because command lines can be read by everybody on a machine.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import TracebackType

import msgspec

from likewise import __version__
from likewise.errors import StoreError, UsageError
from likewise.events import Reporter
from likewise.model.bundle import DESCRIPTION, SCRIPT, BootstrapFile, Bundle, Written
from likewise.model.digest import Digest, digest_bytes
from likewise.model.keys import kit_key, layer_key, manifest_key
from likewise.model.manifest import Manifest
from likewise.model.plan import Plan
from likewise.model.target import Target
from likewise.node.command import Launch, bootstrap_script
from likewise.node.http_store import plain_url
from likewise.settings import resolve_settings
from likewise.store.export import check_folder as check_folder
from likewise.store.export import write_folder
from likewise.sync import Prepared, plan_options, prepare, target_named

_MODULES = {
    "dask": "dask",
    "dask-scheduler": "distributed.cli.dask_scheduler",
    "dask-worker": "distributed.cli.dask_worker",
    "dask-spec": "distributed.cli.dask_spec",
}
"""Console script → the module that Python runs with ``-m`` for the same effect."""

__all__ = ["BootstrapFile", "BootstrapFiles", "Bundle", "CommandPrefix", "Written", "bootstrap_files", "command_prefix"]


class CommandPrefix(tuple[str, ...]):
    """The argv prefix that runs Python in the replica; append ``("-m", "distributed.cli.dask_worker", …)``."""

    __slots__ = ()

    @property
    def shell(self) -> str:
        """The prefix as one piece of shell text, each word quoted where it has to be."""
        return shlex.join(self)

    def instead_of(self, command: Iterable[str]) -> list[str]:
        """The command line of a deployer, so that it runs in the replica.

        Parameters
        ----------
        command : iterable of str
            ``["dask-worker", …]``, ``["dask", "worker", …]`` or ``["python", …]``; paths before the names don't matter.

        Raises
        ------
        UsageError
            When it starts with none of these.
        """
        words = list(command)
        name = words[0].rpartition("/")[2] if words else ""
        if name in _MODULES:
            return [*self, "-m", _MODULES[name], *words[1:]]
        if re.fullmatch(r"python[0-9.]*", name):
            return [*self, *words[1:]]
        raise UsageError(
            f"It is not known how Python runs {name or 'an empty command'!r}.",
            where=shlex.join(words),
            todo="Append ['-m', the module of that command, …] to the prefix.",
        )


@dataclass(frozen=True, kw_only=True)
class BootstrapFiles:
    """Everything that a node reads, as files of this machine. A context manager.

    The layers are read from the store of this machine, where they stay until `close`, or until this value and this
    process are gone.

    Attributes
    ----------
    bundle : Bundle
        The description; it is itself among the files.
    manifest : Manifest
        Which layers make the environment.
    files : mapping of str to BootstrapFile
        By name.
    """

    bundle: Bundle
    manifest: Manifest
    files: Mapping[str, BootstrapFile]
    _prepared: Prepared = field(repr=False)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())

    def write_to(self, folder: str | os.PathLike[str], *, shared: bool = False, prune: bool = False) -> Written:
        """Lay the files out in a folder that nodes can use as a store.

        Each file appears whole, by a rename, and ``bundle.json`` and ``bootstrap.sh`` come last; what is there already
        is not written again. Nodes may read the folder meanwhile.

        Parameters
        ----------
        folder : path
            Made when missing. Whoever can write there decides what runs on the nodes, so a folder that everybody can
            write to is refused.
        shared : bool, default False
            False: only you can read what is written (0700 and 0600), as it may be your code. True: everybody can (0755
            and 0644), whatever the umask says; for a web server, an image, or a scheduler that runs as somebody else.
        prune : bool, default False
            Whether to remove layers, kits and manifests of former environments. Nodes that are told to start in one of
            those can't any more.

        Returns
        -------
        Written

        Raises
        ------
        UsageError
            When the folder is writable for everybody, or is no folder.
        StoreError
            When it can't be written.
        """
        return write_folder(Path(folder), self.files, last=(SCRIPT, DESCRIPTION), shared=shared, prune=prune)

    def close(self) -> None:
        """Give the layers back to expiry."""
        self._prepared.close()

    def __enter__(self) -> BootstrapFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def bootstrap_files(
    *,
    ignore: Iterable[str] | None = None,
    only: Iterable[str] | None = None,
    strict: bool | None = None,
    fail_on: str | None = None,
    python: str | os.PathLike[str] | None = None,
    target: str | Target | Plan | None = None,
    reporter: Reporter | None = None,
) -> BootstrapFiles:
    """Scan, plan, build and pack the environment as a cluster does, and give the files that nodes need.

    Parameters
    ----------
    ignore, only, strict, fail_on
        As ``package_sync_ignore`` and so on of `likewise.Cluster`; see `likewise.sync.plan_options`.
    python : path, optional
        The interpreter of another environment. Default: the running one, with its ``sys.path`` as it is now.
    target : str, Target or Plan, optional
        As ``package_sync_target`` of `likewise.SSHCluster`: what the nodes are, where they are not like this machine.
    reporter : Reporter, optional
        Listens to the progress.

    Returns
    -------
    BootstrapFiles

    Raises
    ------
    UsageError
        An argument is wrong; before anything is scanned.
    LikewiseError
        Anything that goes wrong while the environment is prepared.
    """
    options = plan_options(strict=strict, ignore=ignore, only=only, fail_on=fail_on)
    if isinstance(target, str):
        if python is not None:
            raise UsageError(
                "The name of a target means the running Python's version.", where="target", todo="Give a Target."
            )
        target = target_named(target)
    executable = os.fspath(python) if python is not None else None
    prepared = prepare(options, reporter=reporter, python=executable, goal=target)
    try:
        return _files(prepared)
    except BaseException:
        prepared.close()
        raise


def command_prefix(
    *,
    store: str,
    files: BootstrapFiles | Bundle | str | os.PathLike[str] | None = None,
    cache: str = "auto",
    script: str = "",
    kit: str = "",
    ask: bool = False,
    cluster: str = "",
    hub: str = "",
    ignore: Iterable[str] | None = None,
    only: Iterable[str] | None = None,
    strict: bool | None = None,
    fail_on: str | None = None,
    python: str | os.PathLike[str] | None = None,
    reporter: Reporter | None = None,
) -> CommandPrefix:
    """The argv prefix that runs Python in the replica on a node: ``("sh", "…/bootstrap.sh", …, "--")``.

    Parameters
    ----------
    store : str
        Where a node finds the bundle's folder: an absolute path of the node, or the address of a web server that serves
        it (``https://…``; then `script` is needed).
    files : BootstrapFiles, Bundle or path, optional
        What is in that folder: the files themselves, their description, or the folder as this machine sees it.
        Default: `bootstrap_files` with the options below (which change nothing in the folder: write it first).
    cache : str, default "auto"
        The node's cache: an absolute path of the node, or ``"auto"`` for the first place that is fit for it.
    script, kit : str, optional
        Where a node finds ``bootstrap.sh`` and the kit, if not in `store`. The kit, too, may be an address: it is
        fetched with curl or wget.
    ask : bool, default False
        Whether a worker asks its scheduler first what to run now, which may be newer than a prefix that was fixed when
        the cluster was made. For workers only, and for a scheduler with the preload
        ``likewise.cluster.scheduler_side``: from one that does not know, nothing starts.
    cluster, hub : str, optional
        The id of a cluster whose nodes give layers to each other, and the address of its hub. With neither, everything
        comes from `store`.
    ignore, only, strict, fail_on, python, reporter
        As in `bootstrap_files`; only without `files`.

    Returns
    -------
    CommandPrefix
        A tuple of str; its `shell` is the same as text for a shell.

    Raises
    ------
    UsageError
        When a path is not absolute, the folder holds no bundle, or a place has a credential in it.
    LikewiseError
        Without `files`, as `bootstrap_files`.
    """
    places = check_places(store=store, script=script, kit=kit, cache=cache, cluster=cluster)
    if files is None:
        with bootstrap_files(
            ignore=ignore, only=only, strict=strict, fail_on=fail_on, python=python, reporter=reporter
        ) as made:
            bundle = made.bundle
    elif any(given is not None for given in (ignore, only, strict, fail_on, python)):
        raise UsageError(
            "The files are chosen already, so there is nothing left to choose.",
            where="command_prefix",
            todo="Give ignore, only, strict, fail_on and python to bootstrap_files.",
        )
    else:
        bundle = _bundle(files)
    launch = Launch(
        script=places["script"] or f"{places['store']}/{SCRIPT}",
        cache=places["cache"],
        store=places["store"],
        manifest=bundle.manifest,
        kit=places["kit"] or f"{places['store']}/{bundle.kit}",
        kit_id=bundle.kit_id,
        kit_sha256=bundle.kit_sha256,
        ask=ask,
        cluster=cluster,
        hub=hub,
        stream=bundle.stream,
        first=bundle.first,
        need_bytes=bundle.need_bytes if cache == "auto" else 0,
        need_files=bundle.need_files if cache == "auto" else 0,
    )
    return CommandPrefix(launch.argv())


def check_places(
    *, store: str, script: str = "", kit: str = "", cache: str = "auto", cluster: str = ""
) -> dict[str, str]:
    """The places that `command_prefix` is given, as a node can use them; before anything is prepared.

    Raises
    ------
    UsageError
        As `command_prefix`.
    """
    if cluster and not re.fullmatch("[0-9a-f]{16}", cluster):
        raise UsageError(f"{cluster!r} is no cluster's id.", where="cluster", todo="Give 16 hexadecimal digits.")
    if is_url(store) and not script:
        raise UsageError(
            "A shell can't run a script from a web server.",
            where="script",
            todo=f"Fetch {SCRIPT} from the store onto the node, and give its path there as script.",
        )
    return {
        "store": _place(store, "store", url=True),
        "script": _place(script, "script") if script else "",
        "kit": _place(kit, "kit", url=True) if kit else "",
        "cache": cache if cache == "auto" else _place(cache, "cache"),
    }


def read_bundle(folder: str | os.PathLike[str]) -> Bundle:
    """The description of the bundle in `folder`.

    Raises
    ------
    UsageError
        When there is none.
    """
    path = Path(folder) / DESCRIPTION
    try:
        return msgspec.json.decode(path.read_bytes(), type=Bundle)
    except (OSError, msgspec.DecodeError) as error:
        raise UsageError(
            f"There is no bundle ({error}).",
            where=str(folder),
            todo="Write one with likewise.bootstrap_files().write_to(folder).",
        ) from error


def _bundle(files: BootstrapFiles | Bundle | str | os.PathLike[str]) -> Bundle:
    if isinstance(files, Bundle):
        return files
    return files.bundle if isinstance(files, BootstrapFiles) else read_bundle(files)


def _files(prepared: Prepared) -> BootstrapFiles:
    manifest, kit = prepared.manifest, kit_key(prepared.kit_id)
    platform = manifest.target.platform
    keys = [layer_key(digest) for digest in sorted(manifest.digests())]
    with ThreadPoolExecutor(max_workers=resolve_settings().jobs, thread_name_prefix="likewise-hash") as pool:
        files = list(pool.map(lambda key: _stored(prepared, key), [kit, manifest_key(manifest.id), *keys]))
    files.append(_in_memory(SCRIPT, bootstrap_script()))
    bundle = Bundle(
        manifest=manifest.id,
        kit_id=prepared.kit_id,
        kit_sha256=prepared.kit_sha256,
        need_bytes=sum(ref.size for ref in manifest.layers),
        need_files=sum(ref.files for ref in manifest.layers),
        python=manifest.target.python,
        platform=f"{platform.os}-{platform.arch}",
        likewise=__version__,
        stream=prepared.streams,
        first=prepared.first,
        files={file.name: file.sha256 for file in files},
    )
    files.append(_in_memory(DESCRIPTION, msgspec.json.format(msgspec.json.encode(bundle, order="sorted")) + b"\n"))
    return BootstrapFiles(
        bundle=bundle, manifest=manifest, files={file.name: file for file in files}, _prepared=prepared
    )


def _stored(prepared: Prepared, key: str) -> BootstrapFile:
    path = prepared.store.path(key)
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("rb", buffering=0) as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
                size += len(piece)
    except OSError as error:
        raise StoreError(f"The content can't be read ({error}).", where=str(path), todo="Try again.") from error
    return BootstrapFile(name=key, size=size, sha256=Digest(digest.hexdigest()), path=path)


def _in_memory(name: str, data: bytes) -> BootstrapFile:
    return BootstrapFile(name=name, size=len(data), sha256=digest_bytes(data), data=data)


def _place(place: str, where: str, *, url: bool = False) -> str:
    """`place` as a node can use it, without a slash at its end: an absolute path, or a web server's address."""
    text = os.fspath(place)
    if any(ord(character) < 32 for character in text):
        raise UsageError(f"{text!r} has control characters in it.", where=where, todo="Choose another place.")
    if url and is_url(text):
        return plain_url(text)
    if not PurePosixPath(text).is_absolute():
        raise UsageError(f"{text!r} is no absolute path.", where=where, todo="Give the path as a node sees it.")
    return text.rstrip("/") or "/"


def is_url(place: str) -> bool:
    """Whether `place` is an address, not a path."""
    return place.startswith(("http://", "https://"))
