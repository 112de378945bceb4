"""Clusters whose workers are jobs of a batch system: dask-jobqueue's classes, in a replica.

One mixin serves all of them. The real thing is tested with SLURM; of the others, what they would submit is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import ClassVar

from likewise.errors import UnsupportedError

try:
    import dask_jobqueue
except ImportError as error:
    raise UnsupportedError(
        "Job queues need dask-jobqueue, which is not installed here.", todo="Run: pip install 'likewise[slurm]'"
    ) from error

from likewise.cluster.jobqueue.cluster import ReplicaQueue
from likewise.cluster.jobqueue.job import replica_job

__all__ = ["HTCondorCluster", "LSFCluster", "OARCluster", "PBSCluster", "SGECluster", "SLURMCluster"]


def _user() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0  # Windows has no SLURM either


class SLURMCluster(ReplicaQueue, dask_jobqueue.SLURMCluster):  # type: ignore[misc]
    __doc__ = ReplicaQueue.describe("SLURM", dask_jobqueue.SLURMCluster)
    job_cls = replica_job(
        dask_jobqueue.slurm.SLURMJob, queue_command=("squeue", "--noheader", "--format=%A", f"--user={_user()}")
    )
    # Without it, SLURM hands all of the submitter's variables on, his PATH and his tokens among them.
    added_directives: ClassVar[Mapping[str, str]] = {"--export": "NONE"}


class PBSCluster(ReplicaQueue, dask_jobqueue.PBSCluster):  # type: ignore[misc]
    __doc__ = ReplicaQueue.describe("PBS", dask_jobqueue.PBSCluster)
    job_cls = replica_job(dask_jobqueue.pbs.PBSJob)


class SGECluster(ReplicaQueue, dask_jobqueue.SGECluster):  # type: ignore[misc]
    __doc__ = ReplicaQueue.describe("Grid Engine", dask_jobqueue.SGECluster)
    job_cls = replica_job(dask_jobqueue.sge.SGEJob)


class LSFCluster(ReplicaQueue, dask_jobqueue.LSFCluster):  # type: ignore[misc]
    __doc__ = ReplicaQueue.describe("LSF", dask_jobqueue.LSFCluster)
    # LSF hands the submitter's variables on, and not all of its versions can be told not to.
    job_cls = replica_job(dask_jobqueue.lsf.LSFJob, own_variables=("LSF_", "LSB_", "BSUB_", "EGO_", "XLSF_"))


class HTCondorCluster(ReplicaQueue, dask_jobqueue.HTCondorCluster):  # type: ignore[misc]
    __doc__ = ReplicaQueue.describe("HTCondor", dask_jobqueue.HTCondorCluster)
    job_cls = replica_job(dask_jobqueue.htcondor.HTCondorJob)


class OARCluster(ReplicaQueue, dask_jobqueue.OARCluster):  # type: ignore[misc]
    __doc__ = ReplicaQueue.describe("OAR", dask_jobqueue.OARCluster)
    job_cls = replica_job(dask_jobqueue.oar.OARJob)
