"""Trials of an earlier sweep, within the plan of another."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

from study.config import Listed, StrictSettings
from study.sweep.ranges import range_of


class EarlierTrial(StrictSettings):
    """A finished trial of an earlier sweep.

    Attributes:
        trial: its key there.
        drawn: the settings that are drawn here, by slash name.
        values: of the objectives.
    """

    trial: str
    drawn: dict[str, Any]
    values: Annotated[tuple[float, ...], Listed]

    def fits(self, distributions: Mapping[str, str], objectives: int) -> bool:
        """Whether a search over these distributions can begin with it.

        Args:
            distributions: as Optuna's JSON, by slash name.
            objectives: their number.
        """
        return (
            self.drawn.keys() == distributions.keys()
            and all(range_of(text).contains(self.drawn[name]) for name, text in distributions.items())
            and len(self.values) == objectives
            and all(map(math.isfinite, self.values))
        )


class Predecessor(StrictSettings):
    """The earlier sweep whose trials a search begins with.

    They are copied into the plan: so the search stays a function of its own records, whatever becomes of the earlier sweep.

    Attributes:
        sweep: its name.
        identity: see `study.sweep.folder.SweepFolder.identity`.
        trials: its finished trials, by the label of their group.
    """

    sweep: str
    identity: str
    trials: dict[str, Annotated[tuple[EarlierTrial, ...], Listed]]
