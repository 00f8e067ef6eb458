"""Adaptive scaling of a batch queue, in whole jobs, which replaces jobs that died.

Dask asks the queue again for a job whose only worker is gone, but not for one that held several
workers; and it adds and removes workers one by one, where a queue only knows jobs.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from distributed.deploy.adaptive import Adaptive

logger = logging.getLogger(__name__)


class WholeJobs(Adaptive):
    """Keeps the number of workers at a multiple of a job's, and dead jobs replaced.

    Parameters
    ----------
    cluster : dask_jobqueue.core.JobQueueCluster
    replace_after : float
        Seconds without any of its workers after which a job that once had one is given up.
    **bounds
        ``minimum`` and ``maximum`` workers, and whatever else `Adaptive` takes.
    """

    def __init__(self, cluster: Any, *, replace_after: float, **bounds: Any) -> None:
        self._jobs = cluster
        self._each = len(cluster.new_spec.get("group", ("",)))
        self._replace_after = replace_after
        self._seen: dict[str, float] = {}
        super().__init__(cluster, worker_key=_job_name if self._each > 1 else None, **bounds)

    async def safe_target(self) -> int:
        """Round the wanted number of workers up to whole jobs."""
        return -(-await super().safe_target() // self._each) * self._each

    async def recommendations(self, target: int) -> dict:
        """Forget the jobs that died, so that they are asked for again, and recommend what to do."""
        observed, now = self.observed, time.monotonic()
        for name, job in list(self._jobs.workers.items()):
            group = self._jobs.worker_spec.get(name, {}).get("group", ("",))
            if any(name + suffix in observed for suffix in group):
                self._seen[name] = now
            elif now - self._seen.get(name, now) >= self._replace_after:
                logger.warning("job %s of %s is gone; another one is asked for", job.job_id, name)
                del self._seen[name]
                del self._jobs.workers[name]
                await job.close()
        return await super().recommendations(target)


def _job_name(worker: Any) -> str:
    return str(worker.name).rpartition("-")[0]
