"""One process on a node: started, watched, ended with all it started. Real processes, without Dask in them."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import time
import warnings
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from distributed.core import Status

from likewise.cluster.local_process import LocalProcess, LocalScheduler, session_members
from likewise.cluster.process import Command, Tail, last_words
from likewise.errors import ClusterError, LayerError, NodeError

IDLE = "import time; print('up', flush=True); time.sleep(60)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + IDLE
TELL = "import sys; sys.stderr.write('the last words')"
# A grandchild in a process group of its own that ignores SIGTERM, as a nanny's child might.
PARENT = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {STUBBORN!r}], process_group=0); " + IDLE
if sys.version_info < (3, 11):
    PARENT = PARENT.replace("process_group=0", "preexec_fn=__import__('os').setpgrp")


def command(code: str, tmp_path: Path, **env: str) -> Command:
    """A command that runs `code`."""
    return Command(
        label="worker 7", node="node-3", argv=(sys.executable, "-c", code), cwd=str(tmp_path), env={"A": "b", **env}
    )


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run an asynchronous test, which must not hang."""
    asyncio.run(asyncio.wait_for(main, 30))


async def said(process: LocalProcess, text: str) -> None:
    """Wait until the process said `text`."""
    while text not in "\n".join(process.output.lines()):
        await asyncio.sleep(0.01)


def gone(pid: int | None) -> bool:
    """Whether there is no such process (a zombie is none)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_it_runs_where_and_with_what_it_was_told(tmp_path: Path) -> None:
    """The process has exactly the given folder and variables, and a session of its own."""

    async def main() -> None:
        code = "import os; print(os.getcwd(), sorted(os.environ), os.getsid(0) == os.getpid())"
        process = await LocalProcess(command(code, tmp_path, LC_CTYPE="C.UTF-8"))
        await process.exited.wait()
        assert process.output.lines() == [f"{tmp_path} ['A', 'LC_CTYPE'] True"]
        await process.close()

    run(main())


def test_close_ends_it(tmp_path: Path) -> None:
    """A process that obeys ends within moments, and closing again does nothing."""

    async def main() -> None:
        process = await LocalProcess(command(IDLE, tmp_path))
        assert process.status == Status.running
        await said(process, "up")
        started = time.monotonic()
        await asyncio.gather(process.close(), process.close())
        assert time.monotonic() - started < 2
        assert process.status == Status.closed
        assert process.returncode == -signal.SIGTERM
        assert gone(process.pid)
        await process.close()

    run(main())


def test_close_insists(tmp_path: Path) -> None:
    """A process that ignores the request is killed after the grace time."""

    async def main() -> None:
        process = await LocalProcess(command(STUBBORN, tmp_path), grace=0.2)
        await said(process, "up")
        await process.close()
        assert process.returncode == -signal.SIGKILL

    run(main())


@pytest.mark.parametrize("crashed", [False, True])
def test_close_reaches_grandchildren(tmp_path: Path, crashed: bool) -> None:
    """What the process started ends with it, also when it is in another process group and its parent is dead."""

    async def main() -> None:
        process = await LocalProcess(command(PARENT, tmp_path), grace=0.5)
        while process.output.lines() != ["up", "up"]:
            await asyncio.sleep(0.01)
        assert process.pid is not None
        children = session_members(process.pid)
        assert len(children) == 1
        if crashed:
            os.kill(process.pid, signal.SIGKILL)
            await process.exited.wait()
            assert not gone(children[0])
        await process.close()
        assert gone(children[0])

    run(main())


def test_a_crash_is_noticed_while_grandchildren_hold_its_output(tmp_path: Path) -> None:
    """The end of the process is seen at once, whoever else has its output open."""

    async def main() -> None:
        process = await LocalProcess(command(PARENT, tmp_path), grace=0.5)
        await said(process, "up\nup")
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        await asyncio.wait_for(process.exited.wait(), 2)
        assert process.status == Status.failed
        await process.close()

    run(main())


def test_its_last_words_are_in_the_error(tmp_path: Path) -> None:
    """A failure names the process, its node, how it ended and what it said last."""

    async def main() -> None:
        process = await LocalProcess(command(TELL + "; sys.exit(3)", tmp_path))
        await process.exited.wait()
        error = process.failure("ended")
        assert str(error).startswith("node-3: The worker 7 ended (exit code 3).")
        assert str(error).endswith("the last words")
        assert error.details == {"process": "worker 7", "returncode": 3, "output": ["the last words"]}
        await process.close()

    run(main())


def test_what_a_node_says_itself_is_the_error(tmp_path: Path) -> None:
    """A node that can't make its prefix says so in a sentence, and its exit code is the kind of error."""
    code = "import sys; sys.stderr.write('noise\\nlikewise: The kit is damaged. Remove it.\\n'); sys.exit({})"

    async def main() -> None:
        for status, kind in ((15, NodeError), (13, LayerError), (1, ClusterError)):
            process = await LocalProcess(command(code.format(status), tmp_path))
            await process.exited.wait()
            error = process.failure("ended")
            assert type(error) is kind
            assert str(error).endswith("The kit is damaged. Remove it.")
            await process.close()

    run(main())


@pytest.mark.parametrize("argv", [("/nowhere/python",), ("/",), ("nul\0",)])
def test_a_command_that_cannot_run(tmp_path: Path, argv: tuple[str, ...]) -> None:
    """What can't be executed is an error that names node and command, and leaves no open file."""

    async def main() -> None:
        before = len(os.listdir("/proc/self/fd"))
        process = LocalProcess(Command(label="worker 7", node="node-3", argv=argv, cwd=str(tmp_path), env={}))
        with pytest.raises(ClusterError, match=r"node-3: The worker 7 can't be started"):
            await process
        await process.close()
        assert process.status == Status.closed
        assert len(os.listdir("/proc/self/fd")) == before

    run(main())


def test_closing_gives_every_file_back(tmp_path: Path) -> None:
    """Starting and closing leaves no open file behind, whatever the process did."""

    async def main() -> None:
        first = await LocalProcess(command(TELL, tmp_path))  # whatever asyncio opens for its first process
        await first.close()
        before = len(os.listdir("/proc/self/fd"))
        for code in (TELL, IDLE):
            process = await LocalProcess(command(code, tmp_path))
            await process.close()
        assert len(os.listdir("/proc/self/fd")) == before

    run(main())


def test_closing_what_never_started(tmp_path: Path) -> None:
    """A process that was not started closes without ado."""

    async def main() -> None:
        process = LocalProcess(command(IDLE, tmp_path))
        await process.close()
        assert process.status == Status.closed
        assert process.pid is None

    run(main())


def test_the_lifeline_ends_with_the_client(tmp_path: Path) -> None:
    """Standard input stays open while the client lives, also when a forked child of it lives longer."""
    client = tmp_path / "client.py"
    client.write_text(
        f"""
import asyncio, os, sys, time
from likewise.cluster.local_process import LocalProcess
from likewise.cluster.process import Command
async def main():
    code = "import sys; sys.stdin.read(); open('ended', 'w').close()"
    process = await LocalProcess(Command(label="x", node="n", argv=({sys.executable!r}, "-c", code),
                                        cwd={str(tmp_path)!r}, env={{}}))
    if os.fork() == 0:
        time.sleep(60)
        os._exit(0)
    await asyncio.sleep(0.5)
    assert not os.path.exists({str(tmp_path / "ended")!r})
    print("ready", flush=True)
    await asyncio.sleep(20)
asyncio.run(main())
"""
    )

    async def main() -> None:
        process = await LocalProcess(command(f"exec(open({str(client)!r}).read())", tmp_path))
        await said(process, "ready")
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        while not (tmp_path / "ended").exists():
            await asyncio.sleep(0.02)
        await process.close()

    run(main())


def test_a_forgotten_process_ends(tmp_path: Path) -> None:
    """When nobody holds the process any more, it ends as at the end of the client."""
    pids: list[int | None] = []

    async def main() -> None:
        process = await LocalProcess(command("import sys; print('up', flush=True); sys.stdin.read()", tmp_path))
        await said(process, "up")
        pids.append(process.pid)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        run(main())
        gc.collect()
    deadline = time.monotonic() + 10
    while not gone(pids[0]):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_ctrl_c_does_not_reach_it(tmp_path: Path) -> None:
    """A signal to the client's process group passes the node by."""

    async def main() -> None:
        process = await LocalProcess(command(IDLE, tmp_path))
        assert process.pid is not None
        assert os.getpgid(process.pid) != os.getpgid(0)
        await process.close()

    run(main())


def test_a_scheduler_tells_its_address_in_a_file(tmp_path: Path) -> None:
    """Half a file is not believed; a whole one has the address."""
    file = tmp_path / "scheduler.json"
    code = (
        f"import time; f = open({str(file)!r}, 'w'); f.write('{{\"address\": \"tls:'); f.flush(); time.sleep(0.3); "
        "f.write('//127.0.0.1:5\"}'); f.flush(); time.sleep(60)"
    )

    async def main() -> None:
        process = LocalScheduler(command(code, tmp_path), address_file=file)
        await process
        assert await process.listening() == "tls://127.0.0.1:5"
        assert process.address == "tls://127.0.0.1:5"
        await process.close()

    run(main())


def test_last_words_begin_with_the_cause() -> None:
    """Of a long traceback the exceptions are shown in their order, then the end; of a short output, all of it."""
    middle = ["  File x", "    y = z"] * 5
    lines = ["chatter", "OSError: in use", *middle, "a.b.TooBadError", *middle, "OSError: in use", *middle, "The end."]
    assert last_words(lines) == ["OSError: in use", "a.b.TooBadError", *middle[-4:], "The end."]
    assert last_words(["one", "two"]) == ["one", "two"]
    assert last_words([]) == []


def test_tail_is_bounded() -> None:
    """However much a process says, few and short lines are kept: the last ones."""
    tail = Tail(lines=3, width=10)
    for piece in (b"one\ntw", b"o\n\nthree\nfour", b"x" * 10_000, b"\xff\n", b"\n", b"six"):
        tail.feed(piece)
    assert tail.lines() == ["three", "fourxxxxxx", "six"]
    tail.feed(b"ty\nseven\neight\r\nnine\n")
    assert tail.lines() == ["seven", "eight", "nine"]
