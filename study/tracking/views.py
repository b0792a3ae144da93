"""Prepared views of MLflow's page, and links to them.

Views show a sweep's trials as a table and as charts; links also show trials side by side. A view is stored in a tag of the
sweep's experiment, in the format of the page's own button "Share" (MLflow 3.8 to 3.17). Other versions of the page show their
default view instead.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote, urlencode

from mlflow import MlflowClient

from study import schema
from study.config import Role
from study.errors import StudyError
from study.sweep.folder import SweepFolder
from study.sweep.plan import Plan
from study.tracking.client import SWEEP_TAG, find_runs

VIEW_TAG: Final = "mlflow.sharedViewState."

KIND_TAGS: Final = {"mlflow.experimentKind": "custom_model_development"}
"""Tag that makes the page show the experiment as one of training, not of language models."""

TRAINING: Final = {"workflowType": "machine_learning"}
"""Query of an address with the same effect."""

LARGEST_TAG: Final = 5000
"""MLflow's limit for an experiment's tag, in characters."""

COLUMN_PIXELS: Final = 104
"""Width of a column: the first seven fit a wide window beside MLflow's assistant."""

COMPARED: Final = 10
"""Number of trials in a comparison: those of MLflow's choice "Show first 10"."""

CHARTS_A_ROW: Final = 2
"""A third one has no room beside MLflow's assistant, which is open in a new browser."""

COLOUR: Final = "mlflow.runColor"
"""Tag with the colour of a run in tables and charts: that of its method."""

METHOD, SCENARIO, BEST, CONFIRMS = "method", "scenario", "best", "confirms_trial"
"""Tags of a trial's run.

`best` names the method and scenario whose best trial by the objective it is; `confirms_trial` is the key of the trial of the
tuning that it confirms.
"""

Link = tuple[str, str]
"""Title and address."""


def views(plan: Plan) -> dict[str, str]:
    """The tags of an experiment that hold its views.

    There is a view of all trials and, if there are several scenarios, one of each scenario; and for each scenario a view that
    compares its best trials.
    """
    states = {_key(only): _state(plan, only) for only in _parts(plan)}
    states |= {_best_key(scenario): _best_state(plan, scenario) for scenario in _scenarios(plan)}
    tags = {f"{VIEW_TAG}{key}": json.dumps(state, separators=(",", ":")) for key, state in states.items()}
    return KIND_TAGS | {name: text for name, text in tags.items() if len(text) <= LARGEST_TAG}


def ranking(plan: Plan) -> str:
    """The metric that trials are sorted by.

    The objective, or the test accuracy if no trial may be selected: without held-out images and in confirmations.
    """
    goal = plan.goals[0]
    is_scored = _is_validated(plan) or not goal.declared.needs_validation
    if not is_scored or plan.confirms:
        return "summary/accuracy_test"
    return goal.running or goal.column


def _is_ascending(plan: Plan) -> bool:
    """Whether the best trial has the lowest value."""
    return ranking(plan) != "summary/accuracy_test" and not plan.goals[0].is_maximised


def experiment_links(root: str, experiment: str, plan: Plan, sweep_run: str) -> list[Link]:
    """Links to a sweep's views and to its own run.

    Args:
        root: the server's address.
        experiment: id of the sweep's experiment.
        plan: of the sweep.
        sweep_run: id of its own run.
    """
    links = []
    for only in _parts(plan):
        page = f"{root}/#/experiments/{experiment}/runs?{_query(_key(only))}"
        name = only or "all trials"
        links += [(f"{name}: table", page), (f"{name}: charts", f"{page}&compareRunsMode=CHART")]
    return [*links, ("the sweep's run", run_link(root, experiment, sweep_run))]


def comparison_link(root: str, experiment: str, scenario: str) -> str:
    """Address of the charts that compare a scenario's best trials."""
    return f"{root}/#/experiments/{experiment}/runs?{_query(_best_key(scenario))}&compareRunsMode=CHART"


def run_link(root: str, experiment: str, run: str) -> str:
    """Address of a run's page."""
    return f"{root}/#/experiments/{experiment}/runs/{run}?{urlencode(TRAINING)}"


def artifacts_link(root: str, experiment: str, run: str) -> str:
    """Address of a run's artifacts."""
    return f"{root}/#/experiments/{experiment}/runs/{run}/artifacts?{urlencode(TRAINING)}"


def sweeps_link(root: str) -> str:
    """Address of the list of all experiments."""
    return f"{root}/#/experiments?{urlencode(TRAINING)}"


def _parts(plan: Plan) -> list[str | None]:
    """The parts of a sweep with their own views.

    None stands for all trials; each scenario follows if there are several.
    """
    names = _scenarios(plan)
    return [None, *(names if len(names) > 1 else [])]


def _scenarios(plan: Plan) -> list[str]:
    return list(dict.fromkeys(group.scenario for group in plan.groups))


def leading_settings(plan: Plan) -> list[str]:
    """The settings in the first columns.

    The learning rates, then the sharpness settings of all methods.
    """
    return [name for role in ("learning rate", "sharpness") for name in settings_of(plan, role)]


def settings_of(plan: Plan, role: Role) -> list[str]:
    """The settings of a plan with this role."""
    return [name for name, label in plan.labels.items() if label.role == role]


def _key(only: str | None) -> str:
    return "trials" if only is None else f"trials-{only}"


def _best_key(scenario: str) -> str:
    return f"best-{scenario}"


def _is_validated(plan: Plan) -> bool:
    config = plan.trial_config(plan.groups[0], {})
    return bool(config.tasks.settings.get("validation_fraction"))


def _filter(only: str | None) -> str:
    return "tags.role = 'trial'" + (f" and tags.{SCENARIO} = '{only}'" if only else "")


def _compared(plan: Plan, scenario: str) -> str:
    """Which trials of a scenario are compared side by side.

    The finished ones; in a race only those of the best configurations, for the others have fewer seeds.
    """
    which = f"tags.{BEST} LIKE '%'" if plan.is_race else "attributes.status = 'FINISHED'"
    return f"{_filter(scenario)} and {which}"


def _query(key: str) -> str:
    """The query that opens a view.

    It has no filter or order, since the page would then ignore the view.
    """
    return urlencode({"viewStateShareKey": key, **TRAINING}, quote_via=quote)


def _state(plan: Plan, only: str | None) -> dict[str, Any]:
    """A view in the format of the page's script."""
    tried = dict.fromkeys(name for group in plan.groups for point in group.points for name in point)
    tried |= dict.fromkeys(name for group in plan.groups for name in group.distributions)
    first = leading_settings(plan)
    params = list(dict.fromkeys(name for name in (*first, *tried) if name in tried))
    ranked_by = ranking(plan)
    metrics = list(dict.fromkeys((ranked_by, "summary/accuracy_test", "summary/decline_test")))
    columns = [
        f"metrics.`{ranked_by}`",
        *(["tags.`rung`"] if plan.is_race else []),
        *([f"tags.`{SCENARIO}`"] if only is None and len(_parts(plan)) > 1 else []),
        f"tags.`{METHOD}`",
        *(f"params.`{name}`" for name in params if name in first),
        *(f"metrics.`{name}`" for name in metrics if name != ranked_by),
        f"tags.`{CONFIRMS if plan.confirms else BEST}`",
        *(f"params.`{name}`" for name in params if name not in first),
    ]
    return {
        "searchFilter": _filter(only),
        "orderByKey": f"metrics.`{ranked_by}`",
        "orderByAsc": _is_ascending(plan),
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "columnOrder": ["checkbox", "rowVisibility", "attributes.`Run Name`", *columns],
        "columnWidths": dict.fromkeys(columns, COLUMN_PIXELS),
        "compareRunSections": [
            {"uuid": "study", "name": "Study", "display": True, "isReordered": True, "columns": CHARTS_A_ROW}
        ],
        "compareRunCharts": [
            _bar(ranked_by),
            _parallel(first, ranked_by, every=True),
            *([_line(schema.VALIDATION_ACCURACY)] if _is_validated(plan) else []),
            _line(schema.TEST_ACCURACY),
            *(_bar(name) for name in metrics if name != ranked_by),
        ],
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
        "isAccordionReordered": True,
        "hideEmptyCharts": False,
    }


def _best_state(plan: Plan, scenario: str) -> dict[str, Any]:
    """A view of the best trials of a scenario, side by side."""
    ranked_by = ranking(plan)
    return _state(plan, scenario) | {
        "searchFilter": _compared(plan, scenario),
        "runsHiddenMode": f"FIRST_{COMPARED}_RUNS",
        "compareRunCharts": [
            _bar(ranked_by),
            _parallel(leading_settings(plan), ranked_by, every=False),
            *([_line(schema.VALIDATION_ACCURACY)] if _is_validated(plan) else []),
            _line(schema.TEST_ACCURACY),
        ],
    }


def _bar(metric: str) -> dict[str, Any]:
    return _chart("BAR", f"bar-{metric}", metricKey=metric)


def _parallel(params: Sequence[str], metric: str, *, every: bool) -> dict[str, Any]:
    """Parallel coordinates of every run, or of those shown."""
    return _chart("PARALLEL", "parallel", selectedParams=list(params), selectedMetrics=[metric], showAllRuns=every)


def _chart(kind: str, name: str, **more: Any) -> dict[str, Any]:
    place = {"uuid": f"study-{name}", "metricSectionId": "study", "deleted": False, "isGenerated": False}
    return {"type": kind, **place, "runsCountToCompare": 10, **more}


def _line(metric: str) -> dict[str, Any]:
    """A chart of a metric over the tasks, not smoothed."""
    style = {"lineSmoothness": 0, "useGlobalLineSmoothing": False, "displayPoints": True}
    return _chart("LINE", f"line-{metric}", metricKey=metric, selectedMetricKeys=[metric], xAxisKey="step", **style)


def sweep_links(client: MlflowClient, folder: SweepFolder, root: str, tracking_uri: str | None) -> list[Link]:
    """Links to everything that a store has of a sweep.

    Args:
        client: of the store.
        folder: of the sweep.
        root: address of the server.
        tracking_uri: of the store if the user has named it, for the message.

    Raises:
        StudyError: the store has nothing of the sweep.
    """
    experiment = client.get_experiment_by_name(folder.plan.name)
    number = "" if experiment is None else str(experiment.experiment_id)
    sweep_runs = find_runs(client, number, "tags.role = 'sweep'") if number else []
    if experiment is None or not sweep_runs or experiment.tags.get(SWEEP_TAG) != folder.identity:
        sync = folder.command("sync", *(["--tracking-uri", tracking_uri] if tracking_uri else []))
        raise StudyError(f"MLflow has nothing of the sweep {folder.name!r} yet; bring it up to date with `{sync}`.")
    for tag, value in views(folder.plan).items():
        if experiment.tags.get(tag) != value:
            client.set_experiment_tag(number, tag, value)
    links = experiment_links(root, number, folder.plan, sweep_runs[0].info.run_id)
    for scenario in _scenarios(folder.plan):
        finished = len(client.search_runs([number], _compared(folder.plan, scenario), max_results=COMPARED))
        if finished > 1:
            links.append((f"{scenario}: the best {finished} compared", comparison_link(root, number, scenario)))
    return links
