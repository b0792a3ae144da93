"""Selects the best trials by objective, never by test accuracy.

A table of trials has one row per trial, with the columns of `TRIAL_COLUMNS`; numbers that a trial does not have are NaN.
"""

from __future__ import annotations

import pandas as pd

TRIAL_COLUMNS = (
    "trial",
    "number",
    "scenario",
    "method",
    "phase",
    "name",
    "outcome",
    "objective",
    "accuracy_test",
    "accuracy_first_tenth",
    "accuracy_last_tenth",
    "decline",
    "lanes_diverged",
    "gradient_evaluations",
    "seconds",
)


def best(trials: pd.DataFrame, count: int = 1) -> pd.DataFrame:
    """The `count` best trials of each scenario and method.

    These are the finished trials with the highest objective; of equal ones the earlier trial wins. Reads the columns outcome,
    objective, number, scenario and method only. Trials without an objective are not candidates, so the result may be empty.
    """
    candidates = trials[(trials["outcome"] == "finished") & trials["objective"].notna()]
    ranked = candidates.sort_values(["objective", "number"], ascending=[False, True], kind="stable")
    chosen = ranked.groupby(["scenario", "method"], sort=False, group_keys=False).head(count)
    order = {
        label: place
        for place, label in enumerate(dict.fromkeys(zip(trials["scenario"], trials["method"], strict=True)))
    }
    places = [order[label] for label in zip(chosen["scenario"], chosen["method"], strict=True)]
    return chosen.assign(_place=places).sort_values("_place", kind="stable").drop(columns="_place")
