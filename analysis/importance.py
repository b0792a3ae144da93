"""Which settings mattered: Optuna's fANOVA over finished trials."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import optuna
import pandas as pd
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    json_to_distribution,
)
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import create_trial

from analysis import load
from analysis.load import Sweep

LEAST_TRIALS: Final = 20
"""Fewer trials make a setting's share meaningless."""


def importance(sweep: Sweep) -> pd.DataFrame:
    """The share of the objective's variance that each setting explains.

    By fANOVA (Hutter, Hoos and Leyton-Brown 2014).

    Returns:
        Columns scenario, method, setting, share, trials. The shares of one method in one scenario add up to 1. A method has no
        rows if it has fewer than `LEAST_TRIALS` finished trials with an objective, varies fewer than two settings, or reached
        the same objective in all trials.
    """
    rows, column = [], sweep.objectives[0].column
    for group in sweep.plan["groups"]:
        runs = sweep.finished
        runs = runs[(runs["scenario"] == group["scenario"]) & (runs["method"] == group["method"])]
        if column not in runs:
            continue
        runs = runs[runs[column].notna()]
        if len(runs) < LEAST_TRIALS:
            continue
        distributions = searched(group, runs)
        if len(distributions) < 2 or runs[column].nunique() < 2:
            continue
        shares = _shares(runs, distributions, column)
        rows += [
            {
                "scenario": group["scenario"],
                "method": group["method"],
                "setting": name,
                "share": share,
                "trials": len(runs),
            }
            for name, share in shares.items()
        ]
    return pd.DataFrame(rows, columns=["scenario", "method", "setting", "share", "trials"])


def searched(group: Mapping[str, Any], runs: pd.DataFrame) -> dict[str, BaseDistribution]:
    """A group's distributions by slash name.

    Explicit points are treated as a distribution too: numbers span a range, logarithmic if all are above 0, and anything else
    is a choice among the values as text.
    """
    if group["distributions"]:
        return {name: json_to_distribution(text) for name, text in group["distributions"].items()}
    spanned: dict[str, BaseDistribution] = {}
    for name in dict.fromkeys(name for point in group["points"] for name in point):
        values = runs[name].tolist()
        texts = list(dict.fromkeys(map(str, values)))
        if len(texts) < 2:
            continue
        if all(isinstance(value, int | float) and math.isfinite(value) for value in values):
            spanned[name] = FloatDistribution(float(min(values)), float(max(values)), log=min(values) > 0)
        else:
            spanned[name] = CategoricalDistribution(texts)
    return spanned


def _drawn(distribution: BaseDistribution, value: Any) -> Any:
    """A value as its distribution has it.

    A table may hold a whole number as 16.0, None as NaN, the text "1" as a number.
    """
    if isinstance(distribution, CategoricalDistribution):
        is_none = isinstance(value, float) and math.isnan(value)
        for choice in distribution.choices:
            if choice == value or str(choice) == str(value) or (is_none and choice is None):
                return choice
    return value


def _shares(runs: pd.DataFrame, distributions: Mapping[str, BaseDistribution], column: str) -> dict[str, float]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize")
    for run in load.rows(runs):
        params = {name: _drawn(distribution, run[name]) for name, distribution in distributions.items()}
        study.add_trial(create_trial(params=params, distributions=dict(distributions), value=run[column]))
    return get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
