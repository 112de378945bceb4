"""``python -m likewise.node COMMAND …``: what a node does. Started by bootstrap.sh and by the cluster, not by people.

start --cache DIR --manifest ID [--store DIR] [--cluster ID] [--kit DIR] [--stream yes] [--first NAME,NAME…] -- ARGS…
                                                                    make the prefix, become its Python; with --stream
                                                                    as soon as that is possible, the rest follows
materialise (the same options)                                      make all of the prefix and print where it is
fill (the same options)                                             go on with a prefix that grows, in the background
delta --cache DIR --cluster ID --manifest ID --base ID [--store DIR] [--hub ADDRESS]
                                                                    make the delta and print where it is
verify [--prefix DIR] [--deltas DIR:DIR…] [--node NAME]             print a NodeReport as JSON
prune --cache DIR                                                   remove what expired; print what, as JSON
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import NoReturn

import msgspec

from likewise.errors import LikewiseError, NodeError, UsageError
from likewise.model.digest import Digest
from likewise.model.manifest import Manifest, decode_manifest
from likewise.node.cache import NodeCache, open_cache
from likewise.node.growing import can_start, is_whole
from likewise.node.lifeline import watch
from likewise.node.materialise import materialise
from likewise.node.sources import AgentSource, DirectoryStore, Store, UnpackedKit

_LIFELINE = "likewise.cluster.lifeline"
"""The Dask preload that ends a process together with whoever started it (`node.lifeline`)."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command. Errors are one line on stderr and the error's exit code."""
    command, *rest = list(sys.argv[1:] if argv is None else argv) or [""]
    try:
        if command not in _COMMANDS:
            raise UsageError(f"likewise.node has no command {command!r}.")
        options, arguments = _parse(rest)
        _COMMANDS[command](options, arguments)
    except LikewiseError as error:
        sys.stderr.write(f"likewise: {error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


def _parse(argv: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    options: dict[str, str] = {}
    position = 0
    while position < len(argv):
        if argv[position] == "--":
            return options, list(argv[position + 1 :])
        if not argv[position].startswith("--") or position + 1 == len(argv):
            raise UsageError(f"likewise.node does not understand {argv[position]!r}.")
        options[argv[position][2:]] = argv[position + 1]
        position += 2
    return options, []


def _option(options: dict[str, str], name: str) -> str:
    if not options.get(name):
        raise UsageError(f"likewise.node needs --{name}.")
    return options[name]


def _start(options: dict[str, str], arguments: list[str]) -> NoReturn:
    prefix = _prefix(options, arguments, stream=bool(options.get("stream")))
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores these, and what is ignored survives exec
        signal.signal(number, signal.SIG_DFL)
    launch = f"{prefix}/launch"
    try:
        os.execv(launch, [launch, *arguments])
    except OSError as error:
        raise NodeError(f"The prefix can't be started ({error}).", where=prefix) from error


def _materialise(options: dict[str, str], arguments: list[str]) -> None:
    print(_prefix(options, arguments))


def _prefix(options: dict[str, str], arguments: list[str], *, stream: bool = False) -> str:
    old = os.umask(0o022)  # the cache itself is private; only its owner gets this far
    signal.signal(signal.SIGTERM, _stop)
    if _LIFELINE in arguments:  # what will run has its starter at the other end of standard input; so have we
        threading.Thread(target=watch, daemon=True).start()  # exec ends it
    try:
        cache = open_cache(_option(options, "cache"))
        prefix = cache.prefix(_option(options, "manifest"))
        if is_whole(prefix):
            return prefix
        sources = _sources(options)
        manifest = _own_manifest(prefix, options) or _manifest(sources, Digest(options["manifest"]))
        if stream and _begin(cache, manifest, sources, options):
            return prefix
        return materialise(cache, manifest, sources, kit=_kit(options))
    finally:
        os.umask(old)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _begin(cache: NodeCache, manifest: Manifest, sources: Sequence[Store], options: dict[str, str]) -> bool:
    """Make what Python needs to start, and have the rest made in the background. False when that can't be done."""
    from likewise.node.base import can_stream, make_base
    from likewise.node.filler import fill_in_background

    kit = _kit(options)
    if not can_stream(manifest, kit):
        return False
    passed_on = ("cache", "manifest", "store", "cluster", "kit", "first")
    words = [word for name in passed_on if options.get(name) for word in (f"--{name}", _absolute(name, options[name]))]
    try:
        make_base(cache, manifest, sources, kit=kit, options=words)
    except NodeError as error:
        if error.where != "outline":
            raise
        sys.stderr.write(f"likewise: {error} Python starts when everything is there.\n")
        return False
    fill_in_background(cache, manifest, sources, kit=kit, first=_first(options))
    return True


def _fill(options: dict[str, str], arguments: list[str]) -> None:
    from likewise.node.filler import fill_in_background

    cache = open_cache(_option(options, "cache"))
    prefix = cache.prefix(_option(options, "manifest"))
    manifest = _own_manifest(prefix, options)
    if manifest is None or not can_start(prefix):
        raise NodeError("There is no prefix that could be filled.", where=prefix, todo="Start the cluster again.")
    if not is_whole(prefix):
        fill_in_background(cache, manifest, _sources(options), kit=_kit(options), first=_first(options))


def _first(options: dict[str, str]) -> list[str]:
    return [name for name in options.get("first", "").split(",") if name]


def _kit(options: dict[str, str]) -> UnpackedKit | None:
    kit = options.get("kit")
    return UnpackedKit(os.path.abspath(kit)) if kit else None


def _absolute(name: str, value: str) -> str:
    """A path that is to be used from another working directory; what is none stays as it is."""
    is_path = name in ("cache", "kit", "store") and value and "://" not in value
    return os.path.abspath(value) if is_path else value


def _own_manifest(prefix: str, options: dict[str, str]) -> Manifest | None:
    """The manifest, from the prefix when there is one: to complete it no source needs to have it still."""
    with contextlib.suppress(OSError, NodeError), open(f"{prefix}/manifest.json", "rb") as file:
        return decode_manifest(file.read(), options["manifest"])
    return None


def _sources(options: dict[str, str]) -> list[Store]:
    """Where layers come from, the nearest first: a store that this machine can read, then the cluster's other nodes."""
    store, cluster = _absolute("store", options.get("store", "")), options.get("cluster", "")
    sources: list[Store] = []
    if store and not (cluster and store.startswith("/") and not os.access(store, os.R_OK | os.X_OK)):
        sources.append(_directory_or_server(store))
    if cluster:
        sources.append(AgentSource(os.path.abspath(_option(options, "cache")), cluster))
    if not sources:
        raise UsageError("likewise.node needs --store or --cluster.")
    return sources


def _manifest(sources: Sequence[Store], manifest_id: Digest) -> Manifest:
    """The manifest, from the first source that has it. With none, the last one's error says where it is missing."""
    for source in sources[:-1]:
        with contextlib.suppress(NodeError):
            return source.manifest(manifest_id)
    return sources[-1].manifest(manifest_id)


def _directory_or_server(store: str) -> Store:
    if not store.startswith(("http://", "https://")):
        return DirectoryStore(store)
    from likewise.node.http_store import HttpStore  # costs 50 ms, which other nodes need not pay

    return HttpStore(store)


def _stop(number: int, frame: object) -> NoReturn:
    """Let a termination unwind, so that nothing is left behind."""
    sys.exit(128 + number)


def _delta(options: dict[str, str], arguments: list[str]) -> None:
    from likewise.node.delta import make_delta

    os.umask(0o022)
    signal.signal(signal.SIGTERM, _stop)
    cache = open_cache(_option(options, "cache"))
    cluster = _option(options, "cluster")
    sources = _sources({**options, "cluster": cluster if options.get("hub") else ""})
    manifest, base = (_manifest(sources, Digest(_option(options, name))) for name in ("manifest", "base"))
    print(make_delta(cache, cluster, manifest, base, sources))


def _verify(options: dict[str, str], arguments: list[str]) -> None:
    from likewise.node.verify import verify_prefix

    deltas = tuple(filter(None, options.get("deltas", "").split(":")))
    report = verify_prefix(options.get("prefix", sys.prefix), deltas=deltas, node=options.get("node", ""))
    print(msgspec.json.encode(report).decode())


def _prune(options: dict[str, str], arguments: list[str]) -> None:
    from likewise.node.expiry import prune

    print(msgspec.json.encode(prune(open_cache(_option(options, "cache")))).decode())


_COMMANDS: dict[str, Callable[[dict[str, str], list[str]], None]] = {
    "start": _start,
    "materialise": _materialise,
    "fill": _fill,
    "delta": _delta,
    "verify": _verify,
    "prune": _prune,
}

if __name__ == "__main__":
    main()
