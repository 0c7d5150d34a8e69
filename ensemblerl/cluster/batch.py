"""`Cluster`: the jobs of a batch queue as somebody asks for them, before anything is queued."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ensemblerl.cluster.arguments import misspelt
from ensemblerl.cluster.script import OUTSIDE
from ensemblerl.cluster.settings import Settings
from ensemblerl.cluster.site import from_toml
from ensemblerl.store.running import OWNER

if TYPE_CHECKING:
    from ensemblerl.cluster.pool import Pool
    from ensemblerl.cluster.preflight import Report
    from ensemblerl.cluster.queued import QueuedExecutor
    from ensemblerl.protocols import Job

JOBS = "jobs"
"""Directory in the store for job scripts, their output, and keys."""


class Cluster:
    """Jobs of a SLURM or PBS queue that run the members of a campaign.

    Nothing is queued before a campaign begins. Then so many jobs are kept in the queue: what dies,
    is cancelled, loses its node or comes to the end of its time is replaced, and no member is
    begun in a job that will end before it. As a context manager it keeps its jobs from one
    campaign to the next.

    Parameters
    ----------
    scheduler : "slurm" or "pbs"
    arguments : `ensemblerl.cluster.settings.Settings` says what there is, and what is checked

    Raises
    ------
    TypeError, ValueError, FileNotFoundError
        naming the argument, what was wanted and what came

    Examples
    --------
    >>> cluster = Cluster("slurm", n_jobs=8, cores=4, memory="8 GB", walltime="02:00:00")
    >>> cluster.settings.slots(member_cores=1)
    4
    """

    def __init__(self, scheduler: str, **arguments: Any) -> None:
        self.settings = Settings(scheduler, **arguments)
        self._pool: Pool | None = None
        self._shape: tuple[int, int, int] = (0, 0, 0)
        self._kept = False

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], **arguments: Any) -> Self:
        """The cluster of a site, from a TOML file; arguments given here count more.

        Raises
        ------
        FileNotFoundError, ValueError
            naming the file, what was wanted and what came
        """
        cluster = cls.__new__(cls)
        cluster.settings = from_toml(path, **arguments)
        cluster._pool, cluster._shape, cluster._kept = None, (0, 0, 0), False
        return cluster

    def job_script(self, member_cores: int = 1, *, program: bool = True) -> str:
        """Text of a job script, for reading: nothing is queued, started or written.

        What only a campaign knows is held open: the address of its driver, its keys and, without
        ``directory=``, its store.

        Parameters
        ----------
        member_cores : processor cores of one member
        program : members are programs (`Command`), not Python functions

        Raises
        ------
        ValueError
            for members that have no room in a job
        """
        from ensemblerl.cluster.showing import shown

        slots = self.settings.slots(member_cores)
        return shown(self.settings, (slots, member_cores, 1 if program else slots))

    def describe(self) -> str:
        """What is asked for, and why workers are missing, in a few lines."""
        from ensemblerl.cluster.describing import description

        pool = self._pool
        if pool is None:
            return description(self.settings, None)
        return description(self.settings, pool.reconciler, str(pool.cluster.dashboard_link))

    def preflight(self, **arguments: Any) -> Report:
        """Try the queue, a job, the network and the environment; see `preflight.preflight`.

        Raises
        ------
        TypeError
            for an argument that does not exist
        """
        from ensemblerl.cluster.preflight import preflight

        known = [name for name in inspect.signature(preflight).parameters if name != "settings"]
        for unknown in arguments.keys() - set(known):
            raise TypeError(misspelt(unknown, known))
        return preflight(self.settings, **arguments)

    def executor(self) -> QueuedExecutor:
        """What a campaign runs its members with."""
        from ensemblerl.cluster.queued import QueuedExecutor

        return QueuedExecutor(self._take, self._give, settings=self.settings)

    def close(self) -> None:
        """End all jobs; never raises. A later campaign has new ones submitted."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def __enter__(self) -> Self:
        self._kept = True
        return self

    def __exit__(self, *error: object) -> None:
        self._kept = False
        self.close()

    def __repr__(self) -> str:
        s = self.settings
        time = f", walltime={s.walltime}" if s.walltime else ""
        return f"Cluster({s.scheduler!r}, n_jobs={s.n_jobs}, cores={s.cores}{time})"

    def _take(self, job: Job) -> Pool:
        """The jobs for a campaign: those that are there, if its members fit into them."""
        from ensemblerl.cluster.opening import opened
        from ensemblerl.protocols import Detached

        cores = max(1, job.simulation.cores)
        slots = self.settings.slots(cores)
        processes = 1 if isinstance(job.simulation, Detached) else slots
        shape = (slots, cores, processes)
        if self._pool is not None and shape != self._shape:
            if self._pool.users:
                raise ValueError(
                    f"cluster: its jobs are in use by another campaign, whose members are of "
                    f"another size ({self._shape[1]} cores, here {cores}) or kind; give this one "
                    "a Cluster of its own"
                )
            self.close()
        if self._pool is None or self._pool.closed:
            directory, alone = place(self.settings, job.segments)
            self._pool = opened(self.settings, shape, directory, alone=alone)
            self._shape = shape
        return self._pool

    def _give(self, pool: Pool) -> None:
        if not self._kept and not pool.users:
            self.close()


def place(settings: Settings, segments: str) -> tuple[Path, bool]:
    """Where job scripts, logs and keys go; whether nobody else can be at work there.

    In the store, unless the user says where, or it is a temporary one, which nodes do not see.
    """
    if settings.directory is not None:
        return Path(settings.directory), False
    store = Path(segments).parent if segments else None
    if store is not None and not (store.parent / OWNER).exists():
        return store.resolve() / JOBS, True
    return Path.cwd() / OUTSIDE, False
