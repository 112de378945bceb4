"""One job of a batch system: submitted and cancelled by dask-jobqueue, with errors that say what to do."""

from __future__ import annotations

import os
import shlex
import sysconfig
from typing import Any, ClassVar

from distributed.core import Status
from distributed.deploy.spec import ProcessInterface

from likewise.cluster.environ import basic_environ
from likewise.cluster.jobqueue.script import note_line, note_name
from likewise.errors import ClusterError


class ReplicaJob:
    """Mixin for `dask_jobqueue.core.Job`.

    Parameters
    ----------
    note_script : str
        What runs when the job ends in error; "" for nothing.
    *args, name, job_script_prologue, **kwargs
        For dask-jobqueue.
    """

    own_variables: ClassVar[tuple[str, ...] | None] = None
    """Where the batch system hands all of the submitter's variables on: how the names of its own begin. Its commands
    then get only these, and what every login session has."""

    queue_command: ClassVar[tuple[str, ...]] = ()
    """What lists the ids of the user's jobs that wait or run, where the batch system has such a command."""

    job_id: str | None
    name: Any
    status: Status
    submit_command: str

    def __init__(
        self, *args: Any, name: Any = None, note_script: str = "", job_script_prologue: Any = (), **kwargs: Any
    ) -> None:
        first = [note_line(note_script, str(name))] if note_script else []
        super().__init__(  # type: ignore[call-arg]
            *args, name=name, job_script_prologue=[*first, *job_script_prologue], **kwargs
        )

    @property
    def note_name(self) -> str:
        """Under which name this job leaves a note."""
        return note_name(str(self.name))

    async def start(self) -> None:
        """Submit the job."""
        try:
            await super().start()  # type: ignore[misc]
        except BaseException:
            self.status = Status.failed
            raise

    async def _submit_job(self, script_filename: str) -> Any:
        command = shlex.split(self.submit_command)[0]
        try:
            return await super()._submit_job(script_filename)  # type: ignore[misc]
        except FileNotFoundError as error:
            raise ClusterError(
                f"The command {command} is not there.",
                where=str(self.name),
                todo="Run this where jobs can be submitted, and load what that needs.",
            ) from error
        except RuntimeError as error:
            raise ClusterError(
                f"{command} refused the job: {_refusal(str(error))}",
                where=str(self.name),
                todo="Look at cluster.job_script().",
                details={"output": str(error)},
            ) from error

    @classmethod
    async def _call(cls, cmd: list[str], *, shell: bool = False, **kwargs: Any) -> Any:
        if cls.own_variables is not None:
            own = {k: v for k, v in os.environ.items() if k.startswith((*cls.own_variables, "LD_LIBRARY_PATH"))}
            prefix = {sysconfig.get_path("scripts")}
            kwargs["env"] = {**basic_environ(os.environ, without=prefix), **own}
        return await super()._call(cmd, shell=shell, **kwargs)  # type: ignore[misc]

    @classmethod
    async def in_queue(cls) -> frozenset[str] | None:
        """Ids of the user's jobs that wait or run; None when that can't be known."""
        if not cls.queue_command:
            return None
        try:
            return frozenset((await cls._call([*cls.queue_command])).split())
        except (OSError, RuntimeError):  # the batch system does not answer just now
            return None

    async def close(self) -> None:
        """Cancel the job; harmless when it is over."""
        await super().close()  # type: ignore[misc]
        await ProcessInterface.close(self)  # which dask-jobqueue leaves out


def _refusal(text: str) -> str:
    """What the command said, from dask-jobqueue's report of it, as one sentence."""
    said = text.partition("\nstderr:\n")[2].strip() or text.partition("\nstdout:\n")[2].strip() or text
    return "; ".join(line.strip() for line in said.splitlines() if line.strip()).rstrip(".") + "."


def replica_job(
    job_cls: type, *, own_variables: tuple[str, ...] | None = None, queue_command: tuple[str, ...] = ()
) -> type:
    """dask-jobqueue's `job_cls` with the mixin; see `ReplicaJob` for the arguments."""
    members = {"own_variables": own_variables, "queue_command": queue_command}
    return type(
        job_cls.__name__, (ReplicaJob, job_cls), {"__module__": __name__, "__doc__": job_cls.__doc__, **members}
    )
