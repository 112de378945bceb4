"""What a user may say to a job queue's cluster: wrong arguments are refused before anything is scanned or submitted."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from typing import Any

import dask
import pytest

import likewise
from likewise.cluster.jobqueue import LSFCluster, SLURMCluster
from likewise.errors import UsageError

JOB = {"cores": 2, "memory": "2GB"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "cores"),
        ({**JOB, "qeue": "long"}, "qeue"),
        ({**JOB, "memory": "much"}, "much"),
        ({**JOB, "python": "/usr/bin/python3"}, "python"),
        ({**JOB, "shared_temp_directory": "/tmp"}, "shared_temp_directory"),
        ({**JOB, "shared_folder": "/a\nb"}, "/a\\nb"),
        ({**JOB, "env": {"A-B": "1"}}, "A-B"),
        ({**JOB, "package_sync_ignore": "numpy"}, "package_sync_ignore"),
        ({**JOB, "job_cls": str}, "job_cls"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], said: str, private_cache: Path) -> None:
    """The error is a UsageError that names what is wrong, and nothing was made."""
    with pytest.raises(UsageError) as raised:
        SLURMCluster(**arguments)
    assert said in str(raised.value)
    assert list(private_cache.iterdir()) == []


def test_the_public_name() -> None:
    """`likewise.SLURMCluster` is the class."""
    assert likewise.SLURMCluster is SLURMCluster


class Unstarted(SLURMCluster):
    """Stops before it is prepared, and shows what dask-jobqueue would get."""

    def _begin_replica(self, *args: Any, **kwargs: Any) -> None:
        raise InterruptedError

    def _check_job(self, kwargs: Any) -> None:
        type(self).given = dict(kwargs)
        super()._check_job(kwargs)


def given(**arguments: Any) -> dict[str, Any]:
    """What dask-jobqueue would get."""
    with pytest.raises(InterruptedError):
        Unstarted(**JOB, **arguments)
    return Unstarted.given


def test_the_users_own_words_stay() -> None:
    """Prologue, directives, worker arguments and time limits of the user are kept, ours come beside them."""
    found = given(
        job_script_prologue=["module load fast"], job_extra_directives=["--qos=high"], death_timeout=60,
        worker_extra_args=["--resources", "GPU=1"], queue="long",
    )  # fmt: skip
    assert found["job_script_prologue"][0] == "module load fast" and len(found["job_script_prologue"]) == 2
    assert found["job_extra_directives"] == ["--export=NONE", "--qos=high"]
    assert found["worker_extra_args"][:2] == ["--resources", "GPU=1"]
    assert (found["death_timeout"], found["queue"]) == (60, "long")
    assert given()["death_timeout"] == 300


@pytest.mark.filterwarnings("ignore:env_extra has been renamed:FutureWarning")
def test_the_users_configuration_stays() -> None:
    """The same in dask-jobqueue's configuration, under the section that was chosen, and under old names."""
    mine = {**dask.config.get("jobqueue.slurm"), "env-extra": ["module load old"], "death-timeout": 900}
    with dask.config.set({"jobqueue.mine": mine, "jobqueue.slurm.job-extra-directives": ["--export=ALL"]}):
        found = given(config_name="mine")
        assert found["job_script_prologue"][0] == "module load old"
        assert found["death_timeout"] == 900
        assert found["job_extra_directives"] == ["--export=NONE"]
        assert given()["job_extra_directives"] == ["--export=ALL"]
    with dask.config.set({"distributed.worker.preload": ["my.preload"], "distributed.nanny.preload": ["my nanny.py"]}):
        words = given()["worker_extra_args"]
    assert words[-4:] == ["--preload", "my.preload", "--preload-nanny", "'my nanny.py'"]


def test_keys_are_nowhere_in_what_dask_jobqueue_gets() -> None:
    """No argument of a job, and so no script or command line, has a key or certificate; TLS is on."""
    found = given()
    assert "PRIVATE" not in repr(found) and "CERTIFICATE" not in repr(found)
    assert found["protocol"] == "tls://"


def test_lsf_is_not_given_what_it_would_hand_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """bsub gets its own variables and the ordinary ones, and none of the submitter's others, which it would pass on."""
    (tmp_path / "bsub").write_text(f'#!/bin/sh\nenv > "{tmp_path}/env"\necho "Job <17> is submitted"\n')
    (tmp_path / "bsub").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("LSF_ENVDIR", "/etc/lsf")
    monkeypatch.setenv("DEPARTMENT_TOKEN", "secret")
    job = LSFCluster.job_cls("tls://h:1", name="w", **JOB, lsf_units="mb", use_stdin=False)
    asyncio.run(job.start())
    assert job.job_id == "17"
    got = (tmp_path / "env").read_text()
    assert "LSF_ENVDIR=/etc/lsf" in got and "HOME=" in got
    assert "DEPARTMENT_TOKEN" not in got


@pytest.mark.skipif(shutil.which("bsub") is not None, reason="here LSF is real")
def test_a_command_that_is_not_there(private_cache: Path, tmp_path: Path) -> None:
    """Where jobs can't be submitted the cluster's start says which command is missing, and leaves nothing."""
    with pytest.raises(likewise.LikewiseError) as raised:
        LSFCluster(
            1, **JOB, lsf_units="mb", use_stdin=False, shared_folder=tmp_path, package_sync=False,
            scheduler_options={"host": "127.0.0.1", "dashboard_address": ":0"},
        )  # fmt: skip
    assert "bsub is not there" in raised.value.what
    assert list(tmp_path.iterdir()) == []
