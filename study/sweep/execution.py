"""Where a sweep runs, and with which resources."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError, field_validator

from study import redaction
from study.config import StrictSettings, sentence
from study.errors import StudyError

LANES_PER_GPU = 60
"""Lanes of the packs of trials that a GPU trains by default.

Measured on an H200 with the networks of the paper: up to there a step takes hardly longer than with one lane (1.2 to 1.3 times).
`study bench --packs` measures it.
"""

DEFAULT_DIRECTORY = Path("study-results")
"""Default folder of all sweeps."""


class Execution(StrictSettings):
    """Where a sweep runs, and with what.

    It decides no result and may differ from one start to the next.

    Attributes:
        cpus_per_trial: CPUs of each trial, and its number of threads (at least one).
        gpus_per_trial: GPUs of each trial, a fraction to share one; None: see `study.cluster.resources.divided`.
        workers: most packs of trials at once; None: as many as the resources allow.
        pack: most trials that a worker trains together; None or 0: see `study.cluster.resources.divided`.
        address: of a Ray cluster; None or "local" for a Ray on this machine for this sweep only.
        storage: folder or address such as s3://BUCKET/PREFIX for the checkpoints; None: the sweep's own folder.
        data_dir: folder of downloaded data sets.
        tracking_uri: MLflow's store, without secrets; None: the SQLite file beside the sweeps.
    """

    cpus_per_trial: float = 1.0
    gpus_per_trial: float | None = None
    workers: int | None = None
    pack: int | None = None
    address: str | None = None
    storage: str | None = None
    data_dir: str
    tracking_uri: str | None = None

    @classmethod
    def from_plain(cls, plain: object) -> Execution:
        """Reads an execution from a log. Raises StudyError if malformed."""
        try:
            return cls.model_validate(plain)
        except ValidationError as error:
            raise StudyError(f"how it runs is malformed: {sentence(error, cls.model_fields)}") from None

    @field_validator("tracking_uri")
    @classmethod
    def _without_secrets(cls, address: str | None) -> str | None:
        """Logs of earlier versions have secrets in them."""
        return redaction.kept(address, recorded=True) if address else address

    @property
    def is_local(self) -> bool:
        """Whether it starts its own Ray on this machine."""
        return self.address in (None, "local")
