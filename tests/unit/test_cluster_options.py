"""From options to command lines."""

from __future__ import annotations

from typing import Any

import pytest

from likewise.cluster.options import (
    LATE_DASHBOARD,
    LIFELINE,
    OWN_CONFIG,
    SCHEDULER_SIDE,
    check_options,
    cluster_shape,
    memory_bytes,
    render_options,
    require_local_nodes,
    require_local_target,
    scheduler_argv,
    worker_argv,
)
from likewise.errors import UnsupportedError, UsageError
from likewise.model.plan import Plan
from likewise.model.target import Platform, Target


@pytest.mark.parametrize(
    ("platform", "system"), [("darwin", "macOS"), ("win32", "Windows"), ("freebsd14", "freebsd14")]
)
def test_local_nodes_need_linux(platform: str, system: str) -> None:
    """Elsewhere than on Linux one sentence names the system and SSHCluster."""
    with pytest.raises(UnsupportedError) as caught:
        require_local_nodes(platform)
    message = str(caught.value)
    assert system in message
    assert "SSHCluster" in message
    assert message.count(".") == 1
    assert message.endswith(".")


def test_local_nodes_are_fine_on_linux() -> None:
    """Linux is not refused."""
    require_local_nodes("linux")


@pytest.mark.parametrize(
    ("n_workers", "threads", "cores", "shape"),
    [
        (None, None, 1, (1, 1)),
        (None, None, 4, (4, 1)),
        (None, None, 32, (8, 4)),
        (None, None, 7, (7, 1)),
        (None, 2, 8, (4, 2)),
        (None, 16, 8, (1, 16)),
        (3, None, 8, (3, 3)),
        (16, None, 8, (16, 1)),
        (0, None, 8, (0, 8)),
        (5, 7, 1, (5, 7)),
    ],
)
def test_shape(n_workers: int | None, threads: int | None, cores: int, shape: tuple[int, int]) -> None:
    """Workers and threads come from the cores where the user says nothing."""
    assert cluster_shape(n_workers, threads, cores) == shape


@pytest.mark.parametrize("cores", [*range(1, 40), 64, 96, 128])
def test_shape_is_that_of_local_cluster(cores: int) -> None:
    """The default is the one of Dask's LocalCluster."""
    from distributed.deploy.utils import nprocesses_nthreads

    assert cluster_shape(None, None, cores) == nprocesses_nthreads(cores)


@pytest.mark.parametrize(("n_workers", "threads"), [(-1, None), (2, 0), (None, -3)])
def test_impossible_shape(n_workers: int | None, threads: int | None) -> None:
    """Fewer than no workers, or less than one thread, is a usage error."""
    with pytest.raises(UsageError):
        cluster_shape(n_workers, threads, 4)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("auto", 250), (None, 0), (0, 0), (0.5, 500), (1.0, 1000), (12345, 12345), ("2 kiB", 2048), ("700", 700)],
)
def test_memory(limit: Any, expected: int) -> None:
    """A memory limit means what it means to LocalCluster."""
    assert memory_bytes(limit, 4, 1000) == expected


def test_memory_that_means_nothing() -> None:
    """Text that is no size is a usage error that shows it."""
    with pytest.raises(UsageError, match="plenty"):
        memory_bytes("plenty", 4, 1000)


@pytest.mark.parametrize(
    ("options", "argv"),
    [
        ({"memory_limit": 5}, ["--memory-limit", "5"]),
        ({"dashboard": False, "nanny": True}, ["--no-dashboard", "--nanny"]),
        ({"resources": {"GPU": 2, "MEM": 1e9}}, ["--resources", "GPU=2 MEM=1000000000.0"]),
        ({"resources": {}, "lifetime": None}, []),
        ({"preload": ["a", "b c"]}, ["--preload", "a", "--preload", "b c"]),
        ({"name": "it's; $(rm)"}, ["--name", "it's; $(rm)"]),
    ],
)
def test_rendering(options: dict[str, Any], argv: list[str]) -> None:
    """Options become words of a command line; nothing is quoted, since no shell reads them."""
    assert render_options(options) == argv


@pytest.mark.parametrize("value", [object(), {"a": []}, "nul\0", [print]])
def test_what_no_command_line_can_say(value: Any) -> None:
    """A value that can't be a word is a usage error that names the option."""
    with pytest.raises(UsageError, match="gift"):
        render_options({"gift": value}, where="worker_options")


def test_unknown_option() -> None:
    """An option that the command does not have is refused by name, with the spelling of Python or of the shell."""
    check_options({"life_time": 1, "x-y": 2}, {"--life-time", "--x-y"}, where="worker_options")
    with pytest.raises(UsageError, match=r"worker_options.*lifetiem"):
        check_options({"lifetiem": 1}, {"--lifetime"}, where="worker_options")


@pytest.mark.parametrize("name", ["name", "protocol", "scheduler_file", "tls_key", "nanny"])
def test_reserved_option(name: str) -> None:
    """What the cluster itself gives to its nodes can't be given again."""
    with pytest.raises(UsageError, match="cluster itself"):
        check_options({name: "x"}, {f"--{name.replace('_', '-')}"}, where="worker_options")


def test_local_nodes_are_what_this_computer_is() -> None:
    """Nodes on this computer can't be another processor or system; another C library's version is no matter here."""
    own, arm = (
        Target(platform=Platform(os="linux", arch=arch, libc="glibc", libc_version="2.17"), python="3.11.7")
        for arch in ("x86_64", "aarch64")
    )
    require_local_target(None, "x86_64")
    require_local_target(own, "x86_64")
    for goal in (arm, Plan(target=arm, decisions=(), kit=())):
        with pytest.raises(UsageError, match="which is linux-x86_64 and not linux-aarch64") as caught:
            require_local_target(goal, "x86_64")
        assert "SSHCluster" in caught.value.todo


def test_scheduler_command() -> None:
    """A scheduler loads our preloads, then the user's."""
    assert scheduler_argv({"port": 0}, preload=["mine"]) == [
        "-m", "distributed.cli.dask_scheduler", "--port", "0",
        "--preload", OWN_CONFIG, "--preload", LIFELINE, "--preload", SCHEDULER_SIDE, "--preload", "mine",
    ]  # fmt: skip


def test_the_dashboard_comes_late() -> None:
    """A scheduler with a dashboard starts without it and loads it afterwards, but for options that need it at once."""
    late = scheduler_argv({"dashboard": True, "dashboard_address": ":8787"})
    assert "--no-dashboard" in late
    assert LATE_DASHBOARD in late
    for options in ({"dashboard": True, "jupyter": True}, {"dashboard": True, "dashboard_prefix": "x"}):
        argv = scheduler_argv(options)
        assert "--dashboard" in argv
        assert LATE_DASHBOARD not in argv
    assert LATE_DASHBOARD not in scheduler_argv({"dashboard": False})


def test_worker_command() -> None:
    """A worker gets the scheduler's address, or the file that will hold it; never both."""
    known = worker_argv({"nthreads": 2}, name=3, scheduler="tls://a:1", preload_nanny=["n"])
    assert known == [
        "-m", "distributed.cli.dask_worker", "tls://a:1", "--nthreads", "2", "--name", "3", "--nanny",
        "--preload", OWN_CONFIG, "--preload", LIFELINE, "--preload-nanny", "n",
    ]  # fmt: skip
    waiting = worker_argv({}, name="w", nanny=False, scheduler_file="/run/s.json", preload_nanny=["n"])
    assert waiting[2:6] == ["--scheduler-file", "/run/s.json", "--name", "w"]
    assert "--no-nanny" in waiting
    assert "n" not in waiting
