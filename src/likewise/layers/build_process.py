"""Running uv's build front end: the command, its surroundings, what it said, and an end to it on Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import uv

TERMINATE_SECONDS = 3.0
"""Time a build gets to end by itself before it is killed."""

_USER_INFO = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)[^/\s@'\"]+@")
_SECRET_NAME = re.compile(r"PASSWORD|TOKEN|SECRET|API_?KEY", re.IGNORECASE)
_DROPPED = ("PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "UV_PYTHON", "UV_PROJECT", "UV_PROJECT_ENVIRONMENT")

# uv does not read pip's settings; these say the same. Values may hold credentials, so they stay out of argv.
_PIP_SETTINGS = {
    "PIP_INDEX_URL": "UV_DEFAULT_INDEX",
    "PIP_EXTRA_INDEX_URL": "UV_INDEX",
    "PIP_FIND_LINKS": "UV_FIND_LINKS",
    "PIP_NO_INDEX": "UV_NO_INDEX",
    "PIP_CERT": "SSL_CERT_FILE",
}


class StoppedError(Exception):
    """The builds were told to stop."""


@dataclass
class Processes:
    """The build processes that are running. `stop` ends them, children included, and lets no further one start."""

    _running: set[subprocess.Popen[str]] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stopped: bool = False

    def run(self, argv: list[str], *, cwd: str, env: Mapping[str, str]) -> tuple[int, str]:
        """Run a command to its end: exit code, and its output (stdout and stderr as they came).

        Raises
        ------
        StoppedError
            When `stop` was called.
        """
        with self._lock:
            if self._stopped:
                raise StoppedError
            process = subprocess.Popen(
                argv,
                cwd=cwd,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,  # a process group of its own, so that compilers end with the build
            )
            self._running.add(process)
        try:
            output, _ = process.communicate()
        except BaseException:
            _end(process)
            raise
        finally:
            with self._lock:
                self._running.discard(process)
        if self._stopped:
            raise StoppedError
        return process.returncode, output

    def stop(self) -> None:
        """End everything that runs."""
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for process in running:
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """End a process group: politely, then not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(TERMINATE_SECONDS)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def build_command(source: Path, out: Path, *, python: str, isolated: bool) -> list[str]:
    """The command that builds a wheel of `source` into `out`."""
    argv = [uv.find_uv_bin(), "build", "--wheel", "--python", python, "--out-dir", str(out)]
    return [*argv, *([] if isolated else ["--no-build-isolation"]), str(source)]


def build_environ(environ: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
    """The environment variables of a build: the user's (proxies, compilers, indexes), and `more`."""
    kept = {name: value for name, value in environ.items() if name not in _DROPPED}
    for pip_name, uv_name in _PIP_SETTINGS.items():
        if (
            environ.get(pip_name)
            and uv_name not in kept
            and not (uv_name == "UV_DEFAULT_INDEX" and "UV_INDEX_URL" in kept)
        ):
            kept[uv_name] = environ[pip_name].replace(" ", ",") if uv_name == "UV_FIND_LINKS" else environ[pip_name]
    kept.setdefault("UV_HTTP_TIMEOUT", "15")  # seconds of silence; a network that is not there must not cost a minute
    kept.setdefault("UV_HTTP_RETRIES", "1")
    return {
        **kept,
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_NO_PROGRESS": "1",
        "NO_COLOR": "1",
        "PYTHONDONTWRITEBYTECODE": "1",  # an unisolated build must not write into the user's prefix
        **more,
    }


def scrub(output: str, environ: Mapping[str, str]) -> str:
    """`output` without credentials: user info in URLs, and values of variables whose names say that they are secret."""
    output = _USER_INFO.sub(r"\g<scheme>***@", output)
    for name, value in environ.items():
        if len(value) >= 6 and _SECRET_NAME.search(name):
            output = output.replace(value, "***")
    return output


def last_words(output: str, lines: int = 10) -> str:
    """The part of a failed build's output that says why: the back end's last lines, and why uv gave up."""
    backend, causes = _parts(output)
    return "\n".join([*backend[-lines:], *causes]) or "It said nothing."


def backend_spoke(output: str) -> bool:
    """Whether a failed build came as far as the project's own back end."""
    return "build backend returned an error" in output


def one_line(output: str) -> str:
    """The one line of a failed build's output that says most: an exception, the back end's last line, a cause."""
    backend, causes = _parts(output)
    raised = [line for line in backend if re.match(r"\s*(\w+\.)*\w*(Error|Exception|Exit)\b", line)]
    line = (raised[-1:] or backend[-1:] or causes[-1:] or ["It said nothing."])[0]
    return line.strip().removeprefix("cause: ")


def _parts(output: str) -> tuple[list[str], list[str]]:
    """What the back end said, and uv's ``cause:`` lines behind it. Older versions of uv draw both as one tree."""
    text = [line for line in output.splitlines() if line.strip()]
    end = next((i for i, line in enumerate(text) if re.match(r"error: Failed to build", line)), len(text))
    backend = [line for line in text[:end] if not line.startswith(("Building wheel", "Building source"))]
    return backend, [line for line in text[end:] if line.lstrip().startswith("cause:")]
