"""The kit and bootstrap.sh, on a host that has nothing but sh, tar and gzip: through ssh's standard input."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from likewise.cluster.ssh.connection import Host
from likewise.cluster.ssh.probing import Probe
from likewise.errors import LikewiseError, NodeError, StoreError
from likewise.model.digest import Digest, digest_bytes
from likewise.node.command import bootstrap_script
from likewise.node.launch import quote

_PIECE = 1 << 20
_LEVEL = 1  # a network is slower than this


def script_name() -> str:
    """What bootstrap.sh is called in a node's cache."""
    return f"bootstrap-{digest_bytes(bootstrap_script())[:16]}.sh"


def push_script(cache: str, kit_id: Digest, kit_sha256: Digest) -> str:
    """A script that puts bootstrap.sh and the kit into a node's cache; both appear whole or not at all.

    The kit, as gzip, is what follows the script on standard input. bootstrap.sh checks its digest before anything of it
    is run; ``prune`` is what it does then.
    """
    target, text = quote(f"{cache}/{script_name()}"), bootstrap_script().decode()
    options = f"--cache {quote(cache)} --kit - --kit-id {kit_id} --kit-sha256 {kit_sha256} --command prune"
    return f"""\
umask 077
[ -f {target} ] || {{ cat > {target}.$$ <<'LIKEWISE_END' && mv {target}.$$ {target}; }} || exit 15
{text}LIKEWISE_END
gzip -dc | sh {target} {options} > /dev/null
"""


class KitStream:
    """The kit as gzip, packed once however many hosts read it.

    Parameters
    ----------
    path : Path
        The kit, a tar.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pieces: list[bytes] = []
        self._more = asyncio.Event()
        self._packing: asyncio.Future[None] | None = None

    async def pieces(self, sent: Callable[[int], None]) -> AsyncIterator[bytes]:
        """The stream from its beginning. `sent` is called with the size of each piece when the next one is asked for.

        Raises
        ------
        StoreError
            When the kit can't be read.
        """
        if self._packing is None:
            loop = asyncio.get_running_loop()
            self._packing = loop.run_in_executor(None, self._pack, loop)
        index = 0
        while True:
            while index < len(self._pieces):
                yield self._pieces[index]
                sent(len(self._pieces[index]))
                index += 1
            if self._packing.done():
                if index < len(self._pieces):
                    continue
                self._packing.result()
                return
            self._more.clear()
            waiting = asyncio.ensure_future(self._more.wait())
            either: set[asyncio.Future[Any]] = {waiting, self._packing}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()

    def _pack(self, loop: asyncio.AbstractEventLoop) -> None:
        packer = zlib.compressobj(_LEVEL, wbits=31)
        try:
            with open(self._path, "rb") as file:
                while data := file.read(_PIECE):
                    self._add(loop, packer.compress(data))
        except OSError as error:
            raise StoreError(f"The kit can't be read ({error}).", where=str(self._path)) from error
        self._add(loop, packer.flush())

    def _add(self, loop: asyncio.AbstractEventLoop, data: bytes) -> None:
        if data:
            self._pieces.append(data)
            loop.call_soon_threadsafe(self._more.set)


def has_kit(probe: Probe, kit_id: Digest) -> bool:
    """Whether nothing has to be pushed."""
    return kit_id[:16] in probe.kits and script_name() in probe.scripts


async def push_kit(
    host: Host, probe: Probe, kit: KitStream, kit_id: Digest, kit_sha256: Digest, sent: Callable[[int], None]
) -> None:
    """Put the kit and bootstrap.sh into the cache of `host`, unless they are there.

    Raises
    ------
    NodeError
        In the host's own words.
    """
    if has_kit(probe, kit_id):
        return
    answer = await host.run(push_script(probe.cache, kit_id, kit_sha256), kit.pieces(sent))
    if answer.status != 0:
        raise push_error(host.name, answer.said, answer.status)


def push_error(node: str, said: str, status: int) -> LikewiseError:
    """The error of a host whose kit could not be unpacked."""
    lines = [line for line in said.splitlines() if line.strip()]
    told = [line.removeprefix("likewise: ") for line in lines if line.startswith("likewise: ")]
    words = (told or lines or [f"exit code {status}"])[-1]
    return NodeError(f"The kit can't be put there: {words}", where=node, details={"output": lines})
