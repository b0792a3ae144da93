"""Where and with what a sweep runs, apart from what it tries."""

from __future__ import annotations

from pathlib import Path

from study.config import StrictSettings

DEFAULT_DIRECTORY = Path("study-results")
"""Folder of all sweeps unless the user names another one."""


class Execution(StrictSettings):
    """Where and with what a sweep runs; it may differ from one start to the next.

    Attributes:
        cpus_per_trial: CPUs of each trial, and its threads (at least one).
        gpus_per_trial: GPUs of each trial, a fraction shares a card; None: see `study.cluster.resources.divided`.
        workers: most trials at once; None: as many as the resources allow.
        address: of a Ray cluster; None or "local": one of this machine, for this sweep alone.
        storage: folder or address such as s3://BUCKET/PREFIX where checkpoints go; None: the sweep's own folder.
        data_dir: folder of downloaded data sets.
        tracking_uri: MLflow's store; None: the SQLite file beside the sweeps.
    """

    cpus_per_trial: float = 1.0
    gpus_per_trial: float | None = None
    workers: int | None = None
    address: str | None = None
    storage: str | None = None
    data_dir: str
    tracking_uri: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether it runs on a Ray of this machine, for this sweep alone."""
        return self.address in (None, "local")
