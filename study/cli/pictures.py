"""The pictures that a sweep logs, drawn from its records."""

import math
from collections.abc import Iterable
from pathlib import Path

from analysis.figures import accuracy, style
from study import schema
from study.sweep.record import TrialHistory

MEASURED_ON = {
    schema.TEST_ACCURACY: "test images",
    schema.VALIDATION_ACCURACY: "validation images (held out)",
    schema.ONLINE_ACCURACY: "training images, before the update",
}

MOST_CURVES = 12
"""The most lines in one picture: with more it cannot be read."""


class Pictures:
    """The pictures of trials and sweeps, as PNG files."""

    def colours(self, methods: Iterable[str]) -> dict[str, str]:
        """The colour of each method in all figures, hexadecimal."""
        return style.colours(methods)

    def learning_curve(self, path: Path, history: TrialHistory) -> None:
        """Draws the accuracy of one trial: lanes and mean.

        It is drawn for each task.
        """
        lanes = {
            label: [line["lanes"][name] for line in history.tasks]
            for name, label in MEASURED_ON.items()
            if name in history.tasks[0]["lanes"]
        }
        seeds = f"{len(history.seeds)} seeds" if len(history.seeds) > 1 else "1 seed"
        accuracy.learning_curve(path, f"{history.name} on {history.scenario}, {seeds}", lanes)

    def comparison(self, path: Path, scenario: str, histories: list[TrialHistory]) -> None:
        """Draws the test accuracy of several trials by task.

        They are those with the best objective of each method, or all of a grid or a confirmation.
        """
        shown = histories
        scored = {history.key: value for history in histories if (value := history.objective) is not None}
        if scored and any(history.phase != "confirm" for history in histories):
            goal = histories[0].objectives[0]
            ranked = sorted(
                histories, key=lambda history: -goal.score(scored[history.key]) if history.key in scored else math.inf
            )
            shown = [
                next(h for h in ranked if h.method == method) for method in dict.fromkeys(h.method for h in histories)
            ]
        lines = [
            accuracy.Curve(
                history.name, history.method, [line["lanes"][schema.TEST_ACCURACY] for line in history.tasks]
            )
            for history in shown[:MOST_CURVES]
        ]
        chosen = "best of each method by objective" if len(shown) < len(histories) else "all settings"
        accuracy.comparison(path, f"{scenario}: test accuracy of each task, {chosen}", lines)
