"""The tables of a report: sweeps in, data frames out, each row with the MLflow runs that its numbers come from.

Accuracies, declines and differences are shares. A mean over lanes comes with the bounds of its 95 % t interval, `_low` and
`_high`, NaN where one lane leaves them unknown. What MLflow has as a number of its own is taken from there, digit by digit.
A table without rows has all its columns.
"""

from analysis.tables.accounts import budget, claims, diverged, effects, trials, versions
from analysis.tables.compared import (
    QUANTITIES,
    best,
    compute,
    paper_differences,
    per_task,
    settings,
    tuned_and_confirmed,
    winners_differences,
)
from analysis.tables.diagnosed import associations, networks

__all__ = [
    "QUANTITIES",
    "associations",
    "best",
    "budget",
    "claims",
    "compute",
    "diverged",
    "effects",
    "networks",
    "paper_differences",
    "per_task",
    "settings",
    "trials",
    "tuned_and_confirmed",
    "versions",
    "winners_differences",
]
