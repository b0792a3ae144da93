"""The typed forms of the lines of records and logs.

A new kind of line, or a new key, is declared here first: whatever is not declared is refused. A key that older files lack is
`NotRequired`. A change that older versions of the study cannot read needs a new `study.sweep.lines.FORMAT`.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, TypeAdapter, with_config
from typing_extensions import NotRequired, TypedDict  # noqa: UP035  # pydantic needs these before Python 3.12

CLOSED = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

Count = Annotated[int, Field(ge=0, lt=2**53)]
Moment = Annotated[float, Field(ge=0, lt=2.5e11)]
"""Seconds since 1970; the end is before the year 10,000, where Python's calendar ends."""
Words = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]*$")]
Place = Annotated[str, Field(pattern=r"^[^\x00]+$")]
"""A path or an address."""


@with_config(CLOSED)
class Facts(TypedDict):
    """Where and with what a trial is trained."""

    versions: dict[str, str]
    rule: dict[str, float]
    device: NotRequired[Words]
    device_name: NotRequired[Words]
    threads: NotRequired[Count]
    host: NotRequired[Words]
    data_fingerprint: NotRequired[Words]
    source_fingerprint: NotRequired[Words]
    git_commit: NotRequired[Words | None]
    parts: NotRequired[dict[str, Words]]


@with_config(CLOSED)
class TrialLine(TypedDict):
    """The first line of a record."""

    kind: Literal["trial"]
    format: NotRequired[int]
    key: Words
    number: Count
    scenario: Words
    method: Words
    phase: Literal["grid", "tune", "confirm"]
    tried: dict[str, Any]
    config: dict[str, Any]
    task_count: Annotated[int, Field(ge=1, lt=2**53)]
    sampler_notes: dict[str, Count]
    at: Moment


@with_config(CLOSED)
class StartLine(TypedDict):
    """An attempt at a trial begins."""

    kind: Literal["start"]
    at: Moment


@with_config(CLOSED)
class FactsLine(TypedDict):
    """Where and with what an attempt trains."""

    kind: Literal["facts"]
    facts: Facts
    at: Moment


LaneValues = dict[str, list[float | None]]
"""Each lane's value by schema name; null where it is unknown."""


@with_config(CLOSED)
class CopyForm(TypedDict):
    """Copies of the networks, trained with one learning rate."""

    lr: float
    undone: bool
    lanes: LaneValues


@with_config(CLOSED)
class ProbedForm(TypedDict):
    """An operation on the networks, see `study.training.probes`."""

    operation: Words
    level: float | None
    network: LaneValues
    trained: list[CopyForm]


@with_config(CLOSED)
class ResultLine(TypedDict):
    """The results of one task, see `study.sweep.task_line`."""

    kind: Literal["task"]
    task: Count
    name: Words
    metrics: dict[str, float]
    lanes: dict[str, list[float]]
    diagnostics: NotRequired[LaneValues]
    probes: NotRequired[list[ProbedForm]]
    summary: NotRequired[dict[str, float]]
    stops: NotRequired[Literal[True]]
    at: Moment


@with_config(CLOSED)
class CheckpointLine(TypedDict):
    """Where a checkpoint is."""

    kind: Literal["checkpoint"]
    path: Place
    at: Moment


@with_config(CLOSED)
class NoteLine(TypedDict):
    """What a reader of the numbers should know."""

    kind: Literal["note"]
    text: str
    at: Moment


@with_config(CLOSED)
class LostLine(TypedDict):
    """The worker of an attempt has died."""

    kind: Literal["lost"]
    reason: str
    at: Moment


@with_config(CLOSED)
class EndLine(TypedDict):
    """How a trial ended."""

    kind: Literal["end"]
    outcome: Literal["finished", "stopped", "failed"]
    reason: NotRequired[str]
    at: Moment


@with_config(CLOSED)
class PlanLine(TypedDict):
    """The first line of a sweep's log."""

    kind: Literal["plan"]
    format: NotRequired[int]
    plan: dict[str, Any]
    execution: dict[str, Any]
    task_counts: dict[str, Annotated[int, Field(ge=1, lt=2**53)]]
    directory: NotRequired[Place]
    at: Moment


@with_config(CLOSED)
class SessionLine(TypedDict):
    """A launch or a resume."""

    kind: Literal["start"]
    execution: dict[str, Any]
    resolved: NotRequired[dict[str, Any]]
    directory: NotRequired[Place]
    at: Moment


@with_config(CLOSED)
class BudgetLine(TypedDict):
    """A change of the number of trials."""

    kind: Literal["budget"]
    trials: Count
    at: Moment


@with_config(CLOSED)
class SessionEndLine(TypedDict):
    """The end of a launch or a resume."""

    kind: Literal["end"]
    interrupted: bool
    failed: Count
    fault: str
    at: Moment


@with_config(CLOSED)
class LoggedLine(TypedDict):
    """MLflow's share of a session."""

    kind: Literal["logged"]
    complete: bool
    seconds: Annotated[float, Field(ge=0)]
    at: Moment


ANY_LINE: Final = TypeAdapter(dict[str, Any])
RECORD_LINE: Final[TypeAdapter[Any]] = TypeAdapter(
    Annotated[
        TrialLine | StartLine | FactsLine | ResultLine | CheckpointLine | NoteLine | LostLine | EndLine,
        Field(discriminator="kind"),
    ]
)
LOG_LINE: Final[TypeAdapter[Any]] = TypeAdapter(
    Annotated[PlanLine | SessionLine | BudgetLine | SessionEndLine | LoggedLine, Field(discriminator="kind")]
)
