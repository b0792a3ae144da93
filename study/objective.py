"""What a search optimises: a logged quantity and its direction.

    accuracy                validation accuracy, averaged over the tasks (the default)
    late_accuracy           validation accuracy of the last tenth of the tasks
    decline                 first tenth minus last tenth of the tasks, minimised
    decline_after_warmup    the same from an early tenth that leaves the first tasks out, minimised
    online_accuracy         accuracy on the training images before the update on them, averaged over the tasks
    NAME:max, NAME:min      any quantity of `study.schema` that is not computed from test images

Quantities of the tasks so far (`decline`, `gradient_evaluations`) count as they are after the last task, those of one task
(`loss/online`) averaged over the tasks. A diagnostic counts as it is after the last task, or at its onset, averaged over the
lanes, and over the layers if each has its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from study import schema
from study.errors import StudyError, brief, nearest
from study.schema import Quantity

Line = Mapping[str, Any]
"""The results of a task, see `study.training.task_log.task_line`."""

PERIODS: Final = {
    "units": "units_every",
    "rank": "units_every",
    "weights": "units_every",
    "hessian": "curvature_every",
    "sharpness": "curvature_every",
    "gradient": "curvature_every",
    "onset": "onset_every",
}
"""The setting of `diagnostics/` with the period of a diagnostic, by the first word of its name."""

_OF_TASKS: Final = {quantity.name for quantity in schema.PER_TASK}
_DIAGNOSTICS: Final = {quantity.name for quantity in schema.ALL_DIAGNOSTICS}
_WRITTEN: Final = {schema.CHOSEN_OBJECTIVE, schema.SECOND_OBJECTIVE}
_TOTAL_SECONDS: Final = "summary/seconds"


@dataclass(frozen=True)
class Objective:
    """One quantity that a search optimises.

    Attributes:
        name: as the user gives it, "late_accuracy" or "loss/online:min".
        quantity: the logged quantity.
        is_maximised: whether higher is better.
        label: what it is, in a few words.
        column: the number of a finished trial's summary that has its value.
    """

    name: str
    quantity: str
    is_maximised: bool
    label: str
    column: str = schema.CHOSEN_OBJECTIVE

    @property
    def declared(self) -> Quantity:
        """The quantity as the schema declares it."""
        return schema.QUANTITIES[self.quantity]

    @property
    def is_default(self) -> bool:
        """Whether it is the mean validation accuracy, maximised."""
        return self.name == ACCURACY

    @property
    def unit(self) -> str:
        """Of its values."""
        return self.declared.unit

    @property
    def axis(self) -> str:
        """Label of an axis, `label (unit)`."""
        return f"{self.label} ({self.unit})"

    @property
    def words(self) -> str:
        """`mean validation accuracy, maximised`."""
        return f"{self.label}, {'maximised' if self.is_maximised else 'minimised'}"

    @property
    def best_words(self) -> str:
        """`the highest mean validation accuracy`."""
        return f"the {'highest' if self.is_maximised else 'lowest'} {self.label}"

    @property
    def has_course(self) -> bool:
        """Whether it has a value after each task."""
        return self.quantity in _OF_TASKS

    @property
    def running(self) -> str | None:
        """The quantity, if its logged values need no averaging."""
        return self.quantity if self.has_course and not self.declared.is_of_one_task else None

    def score(self, value: float) -> float:
        """A value as a number of which more is better."""
        return value if self.is_maximised else -value

    def value(self, lines: Sequence[Line]) -> float | None:
        """The value after the last of these tasks.

        None if the tasks do not have it: nothing was held out, or a diagnostic is unknown in one of the lanes.
        """
        if not lines:
            return None
        if self.quantity == _TOTAL_SECONDS:
            parts = (schema.TRAINING_SECONDS, schema.EVALUATION_SECONDS)
            return sum(line["metrics"][part] for line in lines for part in parts) if lines[-1].get("summary") else None
        if self.quantity in _DIAGNOSTICS:
            return self._diagnostic(lines[-1].get("diagnostics") or {})
        if not (self.has_course and self.declared.is_of_one_task):
            place = "metrics" if self.has_course else "summary"
            value: float | None = (lines[-1].get(place) or {}).get(self.quantity)
            return value
        values = [line["metrics"].get(self.quantity) for line in lines]
        return None if None in values else sum(values) / len(values)

    def course(self, lines: Sequence[Line]) -> dict[int, float]:
        """Its value by number of tasks trained."""
        if not self.has_course:
            return {}
        by_count: dict[int, float] = {}
        total = 0.0
        for count, line in enumerate(lines, 1):
            value = line["metrics"].get(self.quantity)
            if value is None:
                break
            total += value
            by_count[count] = total / count if self.declared.is_of_one_task else value
        return by_count

    def _diagnostic(self, diagnostics: Mapping[str, Sequence[float | None]]) -> float | None:
        """Mean over layers and lanes; None if any is unknown."""
        layers = [values for name, values in diagnostics.items() if re.sub(r"/layer_\w+$", "", name) == self.quantity]
        numbers = [value for values in layers for value in values]
        known = [value for value in numbers if value is not None]
        return sum(known) / len(known) if known and len(known) == len(numbers) else None


ACCURACY: Final = "accuracy"

NAMED: Final = {
    objective.name: objective
    for objective in (
        Objective(ACCURACY, schema.OBJECTIVE, True, "mean validation accuracy", "summary/objective"),
        Objective("late_accuracy", schema.LATE_ACCURACY, True, "validation accuracy of the last tenth of the tasks"),
        Objective("decline", schema.DECLINE, False, "decline of validation accuracy"),
        Objective(
            "decline_after_warmup",
            schema.DECLINE_AFTER_WARMUP,
            False,
            "decline of validation accuracy after warm-up",
        ),
        Objective("online_accuracy", schema.ONLINE_ACCURACY, True, "mean online accuracy"),
    )
}

DEFAULT: Final = (NAMED[ACCURACY],)

TWO: Final = (NAMED[ACCURACY], NAMED["decline"])
"""What the sampler `nsga2` optimises unless told otherwise."""

AREA: Final = "area"


def parse(text: object) -> Objective:
    """The objective of a name.

    Raises StudyError if there is none, or if it is computed from test images.
    """
    if not isinstance(text, str):
        raise StudyError(f"{brief(text)} is no objective; write a name such as late_accuracy, or loss/online:min.")
    if text in NAMED:
        return NAMED[text]
    name, colon, direction = text.rpartition(":")
    if not colon:
        name, direction = text, ""
    if name.partition("_")[0] == AREA:
        raise StudyError(
            "An area above the full reset cannot be an objective: a trial has no curve of a reset to compare with, and above "
            "any fixed curve the area ranks trials as accuracy does; use accuracy, and compare with the reset in the report."
        )
    named = NAMED.get(name)
    quantity = named.quantity if named else name
    _check(quantity)
    if direction not in ("max", "min"):
        wanted = f"{name}:max or {name}:min" if direction == "" else f":max or :min, not :{brief(direction)}"
        raise StudyError(f"The objective {name} needs a direction: {wanted}.")
    is_maximised = direction == "max"
    for known in NAMED.values():
        if (known.quantity, known.is_maximised) == (quantity, is_maximised):
            return known
    label = next((known.label for known in NAMED.values() if known.quantity == quantity), quantity)
    column = "summary/objective" if quantity == schema.OBJECTIVE else schema.CHOSEN_OBJECTIVE
    return Objective(f"{quantity}:{direction}", quantity, is_maximised, label, column)


def _check(name: str) -> None:
    """Raises StudyError unless a search may read the quantity."""
    base = re.sub(r"/layer_\w+$|/lane_\d+$", "", name)
    quantity = schema.QUANTITIES.get(base)
    known = [one.name for one in (*schema.PER_TASK, *schema.ALL_DIAGNOSTICS, *schema.SUMMARY) if not one.on_test]
    if quantity is None:
        raise StudyError(f"Unknown objective {brief(name)}; {_nearest(name, known)}.")
    if quantity.on_test:
        raise StudyError(
            f"{name} cannot be an objective: it is computed from test images, and a search that reads them selects on the test "
            f"set; use a quantity of held-out images, such as accuracy or late_accuracy."
        )
    if base not in known or base in _WRITTEN:
        raise StudyError(f"{name} cannot be an objective: it is no result of a trial; {_nearest(name, known)}.")
    if base != name:
        part = "lanes" if "/lane_" in name else "layers"
        raise StudyError(
            f"{name} cannot be an objective; write {base}:max or {base}:min for the mean over the {part}, which every trial has."
        )


def _nearest(name: str, known: Sequence[str]) -> str:
    """A clause with a similar name, or the names of the usual ones."""
    hint = nearest(name, [*NAMED, *known]).partition("known: ")[0]
    return f"{hint}known: {', '.join(NAMED)}, and any logged quantity by name and direction, such as loss/online:min"


def parse_all(texts: Sequence[object], sampler: str) -> tuple[Objective, ...]:
    """The objectives of a search, the default for none.

    Raises StudyError if one is not possible, or the sampler cannot optimise so many.
    """
    if not texts:
        return TWO if sampler == "nsga2" else DEFAULT
    objectives = [parse(text) for text in texts]
    if len(objectives) > 2:
        raise StudyError(f"There can be one objective, or two with --sampler nsga2, not {len(objectives)}.")
    if len(objectives) == 2 and sampler != "nsga2":
        raise StudyError(f"Two objectives need --sampler nsga2; {sampler} optimises one.")
    if len(objectives) == 2 and objectives[0].quantity == objectives[1].quantity:
        raise StudyError(f"The two objectives are both {objectives[0].quantity}; name different ones, or one.")
    return tuple(objectives)


def of_plan(plan: Mapping[str, Any]) -> tuple[Objective, ...]:
    """The objectives of a plan as plain data.

    Plans of earlier versions name none. Raises StudyError as `parse_all`.
    """
    texts = plan.get("objectives") or ()
    if isinstance(texts, str) or not isinstance(texts, Sequence):
        raise StudyError(f"The objectives of a plan are a list, not {brief(texts)}.")
    return parse_all(texts, str(plan.get("sampler", "")))


def summary(objectives: Sequence[Objective], lines: Sequence[Line]) -> dict[str, float]:
    """What a finished trial's summary has of its objectives.

    Nothing for the mean validation accuracy, which is in every summary.
    """
    columns = [objectives[0].column, *([schema.SECOND_OBJECTIVE] if len(objectives) > 1 else [])]
    values = {column: one.value(lines) for column, one in zip(columns, objectives, strict=True)}
    return {name: value for name, value in values.items() if value is not None and name in _WRITTEN}


def values(objectives: Sequence[Objective], lines: Sequence[Line]) -> dict[str, float]:
    """The objectives' values after these tasks, by quantity."""
    found = {one.quantity: one.value(lines) for one in objectives}
    return {name: value for name, value in found.items() if value is not None}
