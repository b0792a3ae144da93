"""A factor on rho or lambda, by place in training.

With n places (tasks of the sequence, or steps of a task), i the place from 0 on and p = min(i / (n - 1), 1), the factor is

| schedule | factor |
|---|---|
| `constant` | 1 |
| `linear` | from + (to - from) p |
| `cosine` | to + (from - to) (1 + cos(pi p)) / 2 |
| `first` | from at the first n places, then to |
| `last` | to, then from at the last n places |
| `list` | one number for each task |

A step whose factor is 0 is one of the base, but still takes as many gradients.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from study.config import LARGEST, Listed, StrictSettings
from study.contracts import Beginning
from study.errors import StudyError
from study.lanes import Tensors

FACTOR, PLACE, PLACES = "schedule factor", "schedule place", "schedule places"
"""Names in the memory of the factor of a task, and of the step and the number of steps of a task."""

Factor = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]


class ScheduleSettings(StrictSettings):
    """Settings of a schedule of rho or lambda."""

    schedule: Literal["constant", "linear", "cosine", "first", "last", "list"] = Field(
        "constant", description="Course of the factor on rho (GNP: lambda), see `study/optimizers/_schedule.py`."
    )
    schedule_over: Literal["tasks", "steps"] = Field(
        "tasks", description="Whether the schedule runs over the tasks of the sequence or the steps of each task."
    )
    schedule_from: Factor = Field(
        1.0, description="Factor at the beginning; with `first` and `last`: in the scheduled places."
    )
    schedule_to: Factor = Field(
        0.0, description="Factor at the end; with `first` and `last`: outside the scheduled places."
    )
    schedule_length: int = Field(
        0, ge=0, le=2**31, description="Tasks, or steps of a task, that the schedule takes; 0: all."
    )
    schedule_factors: Annotated[tuple[Factor, ...], Listed] = Field(
        (), max_length=100_000, description="Factors of the tasks, one for each, for `schedule=list`."
    )

    def check_schedule(self) -> None:
        """Raises StudyError if a setting is missing or without effect."""
        given = [name for name in SHAPE if getattr(self, name) != ScheduleSettings.model_fields[name].default]
        listed = bool(self.schedule_factors)
        if self.schedule == "list":
            if not listed:
                raise StudyError("schedule=list needs schedule_factors, a list with one number for each task.")
            if given:
                raise StudyError(f"{given[0]} has no effect with schedule=list, which is schedule_factors alone.")
        elif listed:
            raise StudyError(f"schedule_factors has no effect with schedule={self.schedule}; choose schedule=list.")
        elif self.schedule == "constant" and given:
            raise StudyError(
                f"{given[0]} has no effect with schedule=constant; choose schedule=linear, cosine, first or last."
            )
        elif self.schedule in ("first", "last") and not self.schedule_length:
            raise StudyError(f"schedule={self.schedule} needs schedule_length, a number of tasks or steps above 0.")


SHAPE = ("schedule_over", "schedule_from", "schedule_to", "schedule_length")
"""The settings of all schedules but `constant` and `list`."""


@dataclass(frozen=True)
class Schedule:
    """A schedule for some lanes.

    Attributes:
        kind, over: see `ScheduleSettings`.
        start, end: factors, [lane].
        length: [lane]; 0: all places.
        factors: [lane, task]; None unless the kind is `list`.
    """

    kind: str
    over: str
    start: Tensor
    end: Tensor
    length: Tensor
    factors: Tensor | None

    @classmethod
    def of(cls, settings: ScheduleSettings, lanes: int, device: str) -> Schedule | None:
        """The same schedule in every lane; None if constant."""
        if settings.schedule == "constant":
            return None

        def fill(value: float) -> Tensor:
            return torch.full((lanes,), float(value), device=device)

        listed = torch.tensor(settings.schedule_factors, device=device) if settings.schedule == "list" else None
        return cls(
            kind=settings.schedule,
            over=settings.schedule_over,
            start=fill(settings.schedule_from),
            end=fill(settings.schedule_to),
            length=fill(settings.schedule_length),
            factors=None if listed is None else listed.expand(lanes, -1),
        )

    def check_tasks(self, count: int) -> None:
        """Raises StudyError unless a list has a factor a task."""
        if self.factors is not None and self.factors.shape[1] != count:
            raise StudyError(
                f"optimizer/schedule_factors has {self.factors.shape[1]} numbers and the sequence {count} tasks; "
                f"give one number for each task."
            )

    def initial_memory(self) -> Tensors:
        """One number for each lane, until the first task begins."""
        if self.over == "tasks":
            return {FACTOR: torch.ones_like(self.start)}
        return {PLACE: torch.zeros_like(self.start), PLACES: torch.ones_like(self.start)}

    def before_task(self, beginning: Beginning) -> Tensors:
        """The memory before the first step of a task."""
        if self.over == "steps":
            places = torch.full_like(self.start, beginning.steps)
            return {PLACE: torch.zeros_like(self.start), PLACES: places}
        if self.factors is not None:
            return {FACTOR: self.factors[:, beginning.task].clone()}
        place, places = (torch.full_like(self.start, value) for value in (beginning.task, beginning.tasks))
        return {FACTOR: self.factor(place, places)}

    def next_factor(self, memory: Tensors) -> Tensor:
        """The factor of the next step, [lane].

        The step is counted in place.
        """
        if self.over == "tasks":
            return memory[FACTOR]
        factor = self.factor(memory[PLACE], memory[PLACES])
        memory[PLACE].add_(1)
        return factor

    def factor(self, place: Tensor, places: Tensor) -> Tensor:
        """The factor at a place, [lane].

        Args:
            place: from 0 on, [lane].
            places: number of tasks or steps, [lane].
        """
        if self.kind == "first":
            return torch.where(place < self.length, self.start, self.end)
        if self.kind == "last":
            return torch.where(place >= places - self.length, self.start, self.end)
        taken = torch.where(self.length == 0, places, self.length)
        share = (place / (taken - 1).clamp(min=1)).clamp(max=1)  # p
        if self.kind == "cosine":
            share = (1 - torch.cos(math.pi * share)) / 2
        return torch.lerp(self.start, self.end, share)
