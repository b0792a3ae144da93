"""The form of an archive's `sweep.json`, and of its lanes.

An archive may come from anywhere. It is checked once, when it is read, so that a report can trust it. Fields that are not named
here are kept as they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
import pandas as pd
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from study import objective, schema
from study.config import EARLIER_LABELS, NAME, SEED_LIMIT, Label, is_too_nested, label_of, sentence
from study.decision.halving import rungs_of_plan
from study.decision.rule import rule_of_plan
from study.errors import StudyError

FORMAT: Final = 1

LATEST_MS: Final = 4_102_444_800_000
"""The year 2100 in milliseconds since 1970: no time of a run is later."""

OUTCOMES = Literal["finished", "incomplete", "stopped", "failed", "interrupted", "running"]
"""See `analysis.runs`."""

Name = Annotated[str, Field(pattern=f"^{NAME.pattern}$")]
Seeds = Annotated[list[Annotated[int, Field(ge=0, lt=SEED_LIMIT)]], Field(min_length=1)]
Settings = dict[str, Any]
Time = Annotated[int, Field(ge=0, le=LATEST_MS)] | None


class Open(BaseModel):
    """Base of what is read, strict in the named fields."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False, frozen=True)


class Bounds(Open):
    """The ends or choices of a range in Optuna's JSON."""

    low: float | None = None
    high: float | None = None
    choices: Annotated[list[Any], Field(min_length=1)] | None = None


class Distribution(Open):
    """A distribution in Optuna's JSON."""

    name: Literal["FloatDistribution", "IntDistribution", "CategoricalDistribution"]
    attributes: Bounds

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        bounds = self.attributes
        if self.name == "CategoricalDistribution":
            is_whole = bounds.choices is not None
        else:
            is_whole = bounds.low is not None and bounds.high is not None and bounds.low <= bounds.high
        if not is_whole:
            raise ValueError("it has no range or no choices")
        return self


def _is_distribution(text: str) -> str:
    Distribution.model_validate_json(text)
    return text


class Origin(Open):
    """Where a point of a confirmation comes from."""

    rank: int | None = Field(None, ge=1)
    was_incumbent: bool = False


class Group(Open):
    """The trials of one method in one scenario, as planned."""

    scenario: Name
    method: Name
    settings: Settings
    points: list[Settings]
    distributions: dict[str, Annotated[str, AfterValidator(_is_distribution)]]
    trials: int = Field(ge=1, le=2**31)
    origins: list[Origin] = []


class Plan(Open):
    """What the sweep tried."""

    phase: Literal["grid", "tune", "confirm"]
    description: str
    seeds: Seeds
    groups: list[Group] = Field(min_length=1)
    labels: dict[str, Label] | None = None


class Trial(Open):
    """One trial; its settings and numbers are further fields."""

    run_id: str = Field(min_length=1)
    trial: str = Field(min_length=1)
    number: int = Field(ge=0, le=2**31)
    scenario: Name
    method: Name
    phase: Literal["grid", "tune", "confirm"]
    name: str
    outcome: OUTCOMES
    reason: str
    seeds: Seeds
    tasks: int = Field(ge=0, le=2**31)
    confirms_trial: str | None = None
    confirms_run_id: str | None = None
    selected_rank: int | None = Field(None, ge=1)
    device: str | None = None
    started: Time = None
    ended: Time = None


class Archived(Open):
    """The whole of `sweep.json`."""

    format: int = Field(ge=FORMAT, le=FORMAT)
    name: Name
    identity: str = Field(min_length=1)
    experiment_id: str
    run_id: str
    status: str
    plan: Plan
    tags: dict[str, str]
    notes: list[str]
    runs: list[Trial]


def parse(text: str) -> dict[str, Any]:
    """The plain data of `sweep.json`, checked.

    Raises ValueError, whose message is a clause, if the text has another form.
    """
    try:
        plain = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if not isinstance(plain, dict):
        raise ValueError("it is not a mapping")
    if is_too_nested(plain, most=len(text)):
        raise ValueError("it is nested too deep")
    try:
        archived = Archived.model_validate(plain)
    except ValidationError as error:
        raise ValueError(sentence(error, Archived.model_fields).rstrip(".")) from None
    labels = archived.plan.labels if archived.plan.labels is not None else EARLIER_LABELS
    for run in archived.runs:
        _check_numbers(run, labels)
    _check_trials(archived)
    try:
        objective.of_plan(plain["plan"])
    except StudyError as error:
        raise ValueError(str(error).rstrip(".")) from None
    rule_of_plan(plain["plan"])
    rungs_of_plan(plain["plan"])
    checked: dict[str, Any] = plain
    return checked


def _check_numbers(run: Trial, labels: Mapping[str, Label]) -> None:
    """Raises ValueError if a metric, or a setting on an axis, is no number."""
    further = run.model_extra or {}
    for name, value in further.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if name in schema.QUANTITIES:
            if not is_number:
                raise ValueError(f"{name}={value!r} of {run.trial!r} is not a number")
        elif isinstance(value, dict) and value:  # {} stands for a part without settings
            raise ValueError(f"{name}={value!r} of {run.trial!r} is not a setting")
        elif label_of(name, labels).role != "other" and not (is_number or value is None):
            raise ValueError(f"{name}={value!r} of {run.trial!r} is not a number")
    if run.outcome == "finished":
        validated = any(quantity.needs_validation and quantity.name in further for quantity in schema.PER_TASK)
        for quantity in schema.SUMMARY:
            is_due = (validated or not quantity.needs_validation) and not quantity.may_lack
            if is_due and quantity.name not in further:
                raise ValueError(f"{run.trial!r} has finished without {quantity.name}")


def _check_trials(archived: Archived) -> None:
    """Raises ValueError if a trial is doubled or not of the plan."""
    groups = {(group.scenario, group.method) for group in archived.plan.groups}
    if len(groups) < len(archived.plan.groups):
        raise ValueError("its plan has a method twice in a scenario")
    for field in ("trial", "run_id"):
        values = [getattr(run, field) for run in archived.runs]
        if len(set(values)) < len(values):
            raise ValueError(f"two of its runs have the same {field}")
    for run in archived.runs:
        if (run.scenario, run.method) not in groups or run.trial != f"{run.scenario}-{run.method}-{run.number:03d}":
            raise ValueError(f"its run {run.trial!r} is not a trial of its plan")


def check_lanes(lanes: pd.DataFrame, runs: pd.DataFrame) -> None:
    """Raises ValueError if lanes and runs do not match.

    Args:
        lanes: one row per lane and task of each trial.
        runs: one row per trial.
    """
    numbers = lanes[[quantity.name for quantity in schema.PER_TASK if quantity.name in lanes]]
    if np.isinf(numbers.to_numpy(dtype=float)).any():
        raise ValueError("it has a number that is infinite")
    if not lanes[schema.TEST_ACCURACY].between(0, 1).all():
        raise ValueError(f"it has {schema.TEST_ACCURACY} that is not from 0 to 1")
    rows_of = dict(iter(lanes.groupby("trial")))
    for trial, outcome, tasks, of_lanes in zip(
        runs["trial"], runs["outcome"], runs["tasks"], runs["seeds"], strict=True
    ):
        seeds = dict(enumerate(of_lanes))
        rows = rows_of.get(trial, lanes.iloc[:0])
        if rows.duplicated(["lane", "task"]).any() or (rows["lane"].map(seeds) != rows["seed"]).any():
            raise ValueError(f"the lanes of {trial!r} are not those of its seeds")
        if outcome == "finished":
            whole = [(lane, task) for lane in seeds for task in range(tasks)]
            if sorted(zip(rows["lane"], rows["task"], strict=True)) != whole:
                raise ValueError(f"the lanes of {trial!r} do not have each of its {tasks} tasks")
