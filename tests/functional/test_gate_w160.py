"""Every top-level module of W160, imported by several processes at once, in any order, while it arrives in another."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path

import pytest

from support.growing import Growing, finish
from support.prefixes import clean_environ
from support.w160 import w160_python  # noqa: F401

pytestmark = [pytest.mark.w160, pytest.mark.registry]

IMPORT = """
import importlib, json, os, sys, threading, warnings
warnings.simplefilter("ignore")
names, out = json.loads(sys.argv[1]), sys.stdout
sys.stdout = sys.stderr
failed = {}
def work():
    while names:
        try:
            name = names.pop()
        except IndexError:
            return
        try:
            importlib.import_module(name)
        except BaseException as error:
            failed[name] = [type(error).__name__, str(error)]
threads = [threading.Thread(target=work) for _ in range(int(sys.argv[2]))]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
json.dump(failed, out)
out.flush()
os._exit(0)
"""
THREADS = (1, 1, 4)
"""Of each process."""

Failures = dict[str, list[str]]


def modules(growing: Growing) -> list[str]:
    """All top-level modules that something of W160 is behind."""
    names = (line.partition("\t")[0] for line in (growing.growing / "map").read_text().splitlines())
    return sorted(name for name in names if name.isidentifier() and name != "__pycache__")


def import_all(growing: Growing, names: list[str]) -> Failures:
    """Import modules in several processes at once, each its share of them; those that failed, with the errors."""
    processes = [
        growing.start(IMPORT, json.dumps(names[number :: len(THREADS)]), str(threads), MPLBACKEND="agg")
        for number, threads in enumerate(THREADS)
    ]
    failed: Failures = {}
    for process in processes:
        failed |= json.loads(finish(process, 400))
    return failed


def originally(python: Path, names: list[str]) -> Failures:
    """Which of these fail in the original, too. Each has a process of its own to fail in."""
    failed: Failures = {}
    for name in names:
        argv = [python, "-c", IMPORT, json.dumps([name]), "1"]
        env = clean_environ(PYTHONDONTWRITEBYTECODE="1", MPLBACKEND="agg")
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120, check=False)
        failed |= json.loads(done.stdout)
    return failed


def test_all_modules_in_any_order(w160_python: Path, tmp_path: Path) -> None:  # noqa: F811
    """No import fails that succeeds in the original, and none waits for ever."""
    with Growing(w160_python.parents[1], tmp_path / "prefix", delay=0.02, seed=1) as growing:
        growing.fill()
        names = modules(growing)
        random.Random(1).shuffle(names)
        failed = import_all(growing, names)
        assert failed.keys() <= originally(w160_python, sorted(failed)).keys(), failed


def test_layers_that_fail(w160_python: Path, tmp_path: Path) -> None:  # noqa: F811
    """Imports that need a layer that can't be had are errors that name it; all others are as in the original."""
    lost = {"scipy", "click", "botocore", "lxml", "sqlalchemy", "pyarrow"}
    with Growing(w160_python.parents[1], tmp_path / "prefix", delay=0.01, seed=3) as growing:
        lost &= set(growing.late)
        assert len(lost) > 3
        for name in lost:
            growing.fail(name, "No node has it.")
        growing.fill()
        failed = import_all(growing, random.Random(3).sample(modules(growing), 60))
        named = {name for name, (_, text) in failed.items() if any(f"{each}: No node has it." in text for each in lost)}
        assert named
        others = sorted(failed.keys() - named)
        assert set(others) <= originally(w160_python, others).keys(), failed
        lines = (line.partition("\t") for line in (growing.growing / "map").read_text().splitlines())
        digests = {growing.digest(name) for name in lost}
        needing = {name for name, _, needs in lines if digests & set(needs.split())}
        assert needing & failed.keys() == named & needing
