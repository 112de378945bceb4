"""Dask preload for nodes that have the client at the other end of their standard input: they end when it ends.

It starts to watch as soon as it is imported, which Dask's commands do while they read their arguments: before a nanny
waits for a scheduler that may never come. A nanny's child imports it, too, and needs no lifeline: it has its nanny.

A worker on another machine that was started before its scheduler had an address learns it here: the client sends
``{"scheduler": address}``, and the scheduler file appears that the worker waits for in its own working directory.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import threading
from typing import NoReturn

from likewise.cluster.options import SCHEDULER_FILE
from likewise.errors import LikewiseError
from likewise.node.disk import disk_error
from likewise.node.lifeline import watch


def heard(line: bytes) -> None:
    """Act on a line of the client's; one that is not understood is left alone."""
    try:
        message = json.loads(line)
        address = message["scheduler"]
    except (ValueError, KeyError, TypeError):
        return
    try:
        with open(f"{SCHEDULER_FILE}.new", "w", encoding="utf-8") as file:
            json.dump({"address": address}, file)
        os.replace(f"{SCHEDULER_FILE}.new", SCHEDULER_FILE)
    except OSError as error:
        _give_up(disk_error(error, os.getcwd()))


def _give_up(problem: LikewiseError) -> NoReturn:
    """End the process at once: Dask would wait for the file for ever, and its event loop with it."""
    sys.stderr.write(f"likewise: {problem}\n")
    sys.stderr.flush()
    os._exit(problem.exit_code)


if multiprocessing.parent_process() is None:
    threading.Thread(target=watch, kwargs={"heard": heard}, name="likewise-lifeline", daemon=True).start()
