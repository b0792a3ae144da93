"""Which trials are the best: by the objective, among finished trials, never by test accuracy.

A table of trials has one row a trial, with the columns of `TRIAL_COLUMNS`; numbers that a trial does not have are NaN.
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
    """The `count` finished trials with the highest objective of each scenario and method; ties go to the earlier trial.

    Reads the columns outcome, objective, number, scenario and method, and no other. Trials without an objective are no
    candidates, so the result may have no rows.
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
