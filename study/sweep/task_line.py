"""The results of one task, kept in little memory.

A sweep of 2,000 trials has hundreds of thousands of these lines, each with some hundred numbers.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from study import schema

PER_TASK = {quantity.name for quantity in schema.PER_TASK}
BY_LANE = {quantity.name for quantity in schema.PER_TASK if quantity.by_lane}
BY_LAYER = {quantity.name: quantity.by_layer for quantity in schema.ALL_DIAGNOSTICS}
PROBES = {quantity.name for quantity in schema.PROBES}
NEEDED = {schema.TEST_ACCURACY, schema.TRAINING_SECONDS, schema.EVALUATION_SECONDS}
SUMMARY = {
    quantity.name: quantity
    for quantity in schema.SUMMARY
    if quantity.name not in ("summary/seconds", schema.CHOSEN_OBJECTIVE, schema.SECOND_OBJECTIVE)
}

_LAYER = re.compile(r"/layer_\w+$")


class Shape(NamedTuple):
    """The names of a line's numbers; how many lanes.

    Attributes:
        metrics: names of the numbers of all lanes together.
        lanes: names of the numbers that each lane has.
        diagnostics: names of the diagnostics; None if the line has none.
        lane_count: number of lanes.
    """

    metrics: tuple[str, ...]
    lanes: tuple[str, ...]
    diagnostics: tuple[str, ...] | None
    lane_count: int

    def continues(self, other: Shape) -> bool:
        """Whether its task may follow one of that shape.

        A trial that a newer version continues may measure more than before, but has an objective after all tasks or after none.
        """
        if self is other:
            return True
        more = set(self.metrics) - set(other.metrics)
        return (
            set(self.metrics) >= set(other.metrics)
            and set(self.lanes) >= set(other.lanes)
            and schema.OBJECTIVE not in more
        )


class TaskLine(Mapping[str, Any]):
    """A line of kind `task`, its numbers in one array.

    It reads like the dictionary that it was made of. Each access to `metrics`, `lanes` or `diagnostics` makes a new dictionary.

    Attributes:
        shape: the names of its numbers; equal shapes are one object.
        task, name, at, summary, probes, stops: as in the line; `summary` and `probes` are None where the line has none.
    """

    __slots__ = ("_numbers", "at", "name", "probes", "shape", "stops", "summary", "task")

    def __init__(self, line: Mapping[str, Any]) -> None:
        """Raises ValueError, with a clause, if the numbers do not fit."""
        lanes, diagnostics = line["lanes"], line.get("diagnostics")
        counts = {len(values) for part in (lanes, diagnostics or {}) for values in part.values()}
        if len(counts) > 1:
            raise ValueError(f"its quantities have different numbers of lanes, {sorted(counts)}")
        self.shape = _shape(
            tuple(line["metrics"]),
            tuple(lanes),
            None if diagnostics is None else tuple(diagnostics),
            counts.pop() if counts else 0,
        )
        numbers = list(line["metrics"].values())
        for values in lanes.values():
            numbers += values
        for values in (diagnostics or {}).values():
            numbers += values if None not in values else [math.nan if value is None else value for value in values]
        self._numbers = array("d", numbers)
        self.task, self.name, self.at = line["task"], line["name"], line["at"]
        self.summary, self.stops = line.get("summary"), "stops" in line
        self.probes = line.get("probes")
        if self.probes is not None:
            _check_probes(self.probes, self.shape.lane_count)
        if self.summary is not None:
            _check_summary(self.summary, schema.OBJECTIVE in self.shape.metrics)

    def __getitem__(self, key: str) -> Any:
        if key not in self._keys():
            raise KeyError(key)
        if key == "metrics":
            return dict(zip(self.shape.metrics, self._numbers, strict=False))
        if key == "lanes":
            return self._by_lane(self.shape.lanes, len(self.shape.metrics))
        if key == "diagnostics":
            first = len(self.shape.metrics) + len(self.shape.lanes) * self.shape.lane_count
            rows = self._by_lane(self.shape.diagnostics or (), first)
            return {name: [None if math.isnan(v) else v for v in values] for name, values in rows.items()}
        return {"kind": "task", "stops": True}.get(key) or getattr(self, key)

    def _by_lane(self, names: tuple[str, ...], first: int) -> dict[str, list[float]]:
        count = self.shape.lane_count
        starts = [first + place * count for place in range(len(names))]
        return {name: self._numbers[start : start + count].tolist() for name, start in zip(names, starts, strict=True)}

    def _keys(self) -> list[str]:
        optional = {
            "diagnostics": self.shape.diagnostics is not None,
            "probes": self.probes is not None,
            "summary": self.summary is not None,
            "stops": self.stops,
        }
        return ["kind", "task", "name", "metrics", "lanes", *(name for name, has in optional.items() if has), "at"]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys())

    def __len__(self) -> int:
        return len(self._keys())

    def __repr__(self) -> str:
        return f"TaskLine({dict(self)!r})"


@lru_cache(maxsize=1000)
def _shape(
    metrics: tuple[str, ...], lanes: tuple[str, ...], diagnostics: tuple[str, ...] | None, lane_count: int
) -> Shape:
    """The shape with these names.

    Raises ValueError, with a clause, if one is not logged per task or a necessary one is missing.
    """
    for part, names, known in (("metrics", metrics, PER_TASK), ("lanes", lanes, BY_LANE)):
        if unknown := sorted(set(names) - known):
            raise ValueError(f"{unknown[0][:60]!r} in {part!r} is not a quantity of the study")
        if missing := sorted((NEEDED & known) - set(names)):
            raise ValueError(f"{missing[0]!r} is missing in {part!r}")
    for name in diagnostics or ():
        if not _is_diagnostic(name):
            raise ValueError(f"{name[:60]!r} in 'diagnostics' is not a quantity of the study")
    return Shape(metrics, lanes, diagnostics, lane_count)


def _is_diagnostic(name: str) -> bool:
    """Whether this is a diagnostic's name, with its layer if due."""
    return bool(BY_LAYER.get(_LAYER.sub("", name))) or BY_LAYER.get(name) is False


def _check_probes(probes: Sequence[Mapping[str, Any]], lane_count: int) -> None:
    """Raises ValueError, with a clause, if names or lanes do not fit."""
    for probed in probes:
        for values in (probed["network"], *(copy["lanes"] for copy in probed["trained"])):
            for name, lanes in values.items():
                if name not in PROBES and not _is_diagnostic(name):
                    raise ValueError(f"{name[:60]!r} in 'probes' is not a quantity of the study")
                if len(lanes) != lane_count:
                    raise ValueError(f"{name!r} in 'probes' has {len(lanes)} lanes, not {lane_count}")


def _check_summary(summary: Mapping[str, float], validated: bool) -> None:
    if unknown := sorted(summary.keys() - SUMMARY):
        raise ValueError(f"{unknown[0][:60]!r} in 'summary' is not a quantity of the study")
    due = {
        name
        for name, quantity in SUMMARY.items()
        if (validated or not quantity.needs_validation) and not quantity.may_lack
    }
    if missing := sorted(due - summary.keys()):
        raise ValueError(f"{missing[0]!r} is missing in 'summary'")


def compacted(line: Mapping[str, Any]) -> Mapping[str, Any]:
    """A line, as a `TaskLine` if its kind is `task`.

    Raises ValueError, with a clause, if the numbers do not fit.
    """
    return TaskLine(line) if line["kind"] == "task" else line
