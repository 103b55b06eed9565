"""Hydra's launcher for Slurm: submitit's, which waits for every job and needs no accounting."""

import subprocess
from collections.abc import Sequence
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher

try:
    from hydra_plugins.hydra_submitit_launcher import submitit_launcher
    from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf
except ImportError:

    class SlurmLauncher(Launcher):
        """What stands for it where submitit is not installed."""

        def __init__(self, **settings: Any) -> None:
            raise ImportError("hydra/launcher=slurm needs submitit: pip install 'gruland[slurm]'")

        def setup(self, **what: Any) -> None: ...

        def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Any: ...

else:
    from submitit.core.utils import UncompletedJobError
    from submitit.slurm.slurm import SlurmInfoWatcher, SlurmJob

    #: Slurm's states of a job that does not run any more; every other one may still lead to a result.
    ENDED = (
        "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "REVOKED", "TIMEOUT",
    )  # fmt: skip

    class Queue(SlurmInfoWatcher):
        """What becomes of the jobs, asked of ``squeue`` every half minute.

        submitit asks ``sacct``, which many a cluster does not have: there a sweep would wait for a cancelled job for
        ever. Slurm keeps a job in the queue for minutes after its end (``MinJobAge``); one that is not there has ended.
        """

        def __init__(self) -> None:
            super().__init__(delay_s=30)

        def _make_command(self) -> list[str] | None:
            command = ["squeue", "--me", "--array", "--noheader", "--states=all", "--format=%i %T"]
            return command if self._registered - self._finished else None

        def read_info(self, string: bytes | str) -> dict[str, dict[str, str]]:
            text = string if isinstance(string, str) else string.decode()
            states = dict(line.split() for line in text.splitlines())
            return {job: {"JobID": job, "State": states.get(job, "CANCELLED")} for job in self._registered}

        def is_done(self, job_id: str, mode: str = "standard") -> bool:
            return self.get_state(job_id, mode=mode) in ENDED

    class SlurmLauncher(submitit_launcher.SlurmLauncher):
        """A Slurm job for each job of a sweep. One that is cancelled or killed leaves the others alone."""

        def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
            import submitit

            SlurmJob.watcher = Queue()
            settings = dict(self.params)
            executor = submitit.AutoExecutor(
                settings.pop("submitit_folder"),
                cluster="slurm",
                slurm_max_num_timeout=settings.pop("max_num_timeout"),
            )
            shared = BaseQueueConf.__dataclass_fields__
            executor.update_parameters(
                **{key if key in shared else f"slurm_{key}": value for key, value in settings.items()}
            )
            state = Singleton.get_state()
            calls = [
                (list(overrides), "hydra.sweep.dir", number, f"job_id_for_{number}", state)
                for number, overrides in enumerate(job_overrides, initial_job_idx)
            ]
            jobs = executor.map_array(self, *zip(*calls, strict=True))
            try:
                return [_ended(job) for job in jobs]
            except KeyboardInterrupt:  # the same command goes on: it must not meet these
                subprocess.run(["scancel", *{job.job_id.partition("_")[0] for job in jobs}], check=False)
                raise

    def _ended(job: Any) -> JobReturn:
        """What a job returned, or in its place a line that says what became of it."""
        try:
            result: JobReturn = job.results()[0]
        except UncompletedJobError:
            result = JobReturn(status=JobStatus.FAILED)
            said = f"ended without a result ({job.state.lower()})"
            result.return_value = ChildProcessError(
                f"Slurm's job {job.job_id} {said}: see {job.paths.stderr}"
            )
        return result
