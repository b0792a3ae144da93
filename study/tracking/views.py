"""Where to look in MLflow's page: a sweep's trials as a table, as charts, side by side; and what these views show.

A view is kept as a tag of the sweep's experiment, as the page's own button "Share" does (MLflow 3.8 to 3.17), in the words of the
page's script. A page that knows no such tag shows its default view instead.
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
"""Opens the experiment in the page's view for training, rather than the one for language models."""

TRAINING: Final = {"workflowType": "machine_learning"}
"""The same for one address."""

LARGEST_TAG: Final = 5000
"""Characters of an experiment's tag: MLflow's limit."""

COLUMN_PIXELS: Final = 104
"""So that the first seven columns fit a wide window beside MLflow's assistant."""

COMPARED: Final = 10
"""Trials side by side in a comparison."""

METHOD, SCENARIO, BEST = "method", "scenario", "best"
"""Tags of a trial's run; `best` says of which method and scenario it is the best by the objective."""

Link = tuple[str, str]
"""What it leads to, and the address."""


def views(plan: Plan) -> dict[str, str]:
    """The tags of an experiment that hold its views: of all trials and, where there are several scenarios, of each one's."""
    tags = {f"{VIEW_TAG}{_key(only)}": json.dumps(_state(plan, only), separators=(",", ":")) for only in _parts(plan)}
    return KIND_TAGS | {name: text for name, text in tags.items() if len(text) <= LARGEST_TAG}


def ranking(plan: Plan) -> str:
    """The metric by which trials are shown best first: the objective, or test accuracy where nothing can be selected."""
    return schema.OBJECTIVE if _is_validated(plan) and not plan.confirms else "summary/accuracy_test"


def experiment_links(root: str, experiment: str, plan: Plan, sweep_run: str) -> list[Link]:
    """The views of a sweep: its trials' table, their charts, and the sweep's own run.

    Args:
        root: the server's address.
        experiment: id of the sweep's experiment.
        plan: of the sweep.
        sweep_run: id of its own run.
    """
    found = []
    for only in _parts(plan):
        page = f"{root}/#/experiments/{experiment}/runs?{_query(only)}"
        name = only or "all trials"
        found += [(f"{name}: table", page), (f"{name}: charts", f"{page}&compareRunsMode=CHART")]
    return [*found, ("the sweep's run", run_link(root, experiment, sweep_run))]


def comparison_link(root: str, experiment: str, runs: Sequence[str]) -> str:
    """Some runs side by side, with parallel coordinates."""
    query = {"runs": json.dumps(list(runs)), "experiments": json.dumps([experiment]), **TRAINING}
    return f"{root}/#/compare-runs?{urlencode(query, quote_via=quote)}"


def run_link(root: str, experiment: str, run: str) -> str:
    """The page of a run."""
    return f"{root}/#/experiments/{experiment}/runs/{run}?{urlencode(TRAINING)}"


def artifacts_link(root: str, experiment: str, run: str) -> str:
    """The artifacts of a run."""
    return f"{root}/#/experiments/{experiment}/runs/{run}/artifacts?{urlencode(TRAINING)}"


def sweeps_link(root: str) -> str:
    """All experiments."""
    return f"{root}/#/experiments?{urlencode(TRAINING)}"


def _parts(plan: Plan) -> list[str | None]:
    """What there is a view of: all trials, and each scenario where there are several."""
    names = list(dict.fromkeys(group.scenario for group in plan.groups))
    return [None, *(names if len(names) > 1 else [])]


def leading_settings(plan: Plan) -> list[str]:
    """The learning rates, then the sharpness settings of all methods: the first columns."""
    return [name for role in ("learning rate", "sharpness") for name in settings_of(plan, role)]


def settings_of(plan: Plan, role: Role) -> list[str]:
    """The settings of a plan that have this role."""
    return [name for name, label in plan.labels.items() if label.role == role]


def _key(only: str | None) -> str:
    return "trials" if only is None else f"trials-{only}"


def _is_validated(plan: Plan) -> bool:
    config = plan.trial_config(plan.groups[0], {})
    return bool(config.tasks.settings.get("validation_fraction"))


def _filter(only: str | None) -> str:
    return "tags.role = 'trial'" + (f" and tags.{SCENARIO} = '{only}'" if only else "")


def _query(only: str | None) -> str:
    """The view alone: a filter or an order beside it would make the page leave it aside."""
    return urlencode({"viewStateShareKey": _key(only), **TRAINING}, quote_via=quote)


def _state(plan: Plan, only: str | None) -> dict[str, Any]:
    """A view in the words of the page's script."""
    tried = dict.fromkeys(name for group in plan.groups for point in group.points for name in point)
    tried |= dict.fromkeys(name for group in plan.groups for name in group.distributions)
    first = leading_settings(plan)
    params = list(dict.fromkeys(name for name in (*first, *tried) if name in tried))
    scored = ranking(plan)
    metrics = list(dict.fromkeys((scored, "summary/accuracy_test", "summary/decline_test")))
    columns = [
        *([f"tags.`{SCENARIO}`"] if only is None and len(_parts(plan)) > 1 else []),
        f"tags.`{METHOD}`",
        *(f"params.`{name}`" for name in params if name in first),
        *(f"metrics.`{name}`" for name in metrics),
        f"tags.`{BEST}`",
        *(f"params.`{name}`" for name in params if name not in first),
    ]
    return {
        "searchFilter": _filter(only),
        "orderByKey": f"metrics.`{scored}`",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "columnOrder": ["checkbox", "rowVisibility", "attributes.`Run Name`", *columns],
        "columnWidths": dict.fromkeys(columns, COLUMN_PIXELS),
        "compareRunSections": [{"uuid": "study", "name": "Study", "display": True, "isReordered": True}],
        "compareRunCharts": [
            _chart("PARALLEL", "parallel", selectedParams=first, selectedMetrics=[scored], showAllRuns=True),
            _line(schema.TEST_ACCURACY),
            *([_line(schema.VALIDATION_ACCURACY)] if _is_validated(plan) else []),
            *(_chart("BAR", f"bar-{name}", metricKey=name) for name in metrics),
        ],
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
        "isAccordionReordered": True,
        "hideEmptyCharts": False,
    }


def _chart(kind: str, name: str, **more: Any) -> dict[str, Any]:
    placed = {"uuid": f"study-{name}", "metricSectionId": "study", "deleted": False, "isGenerated": False}
    return {"type": kind, **placed, "runsCountToCompare": 10, **more}


def _line(metric: str) -> dict[str, Any]:
    """A metric over the tasks."""
    as_it_is = {"lineSmoothness": 0, "useGlobalLineSmoothing": False, "displayPoints": True}
    return _chart("LINE", f"line-{metric}", metricKey=metric, selectedMetricKeys=[metric], xAxisKey="step", **as_it_is)


def sweep_links(client: MlflowClient, folder: SweepFolder, root: str, tracking_uri: str | None) -> list[Link]:
    """What there is to see of a sweep. Raises StudyError when the store, perhaps one asked for by its address, has none of it."""
    experiment = client.get_experiment_by_name(folder.plan.name)
    number = "" if experiment is None else str(experiment.experiment_id)
    own = find_runs(client, number, "tags.role = 'sweep'") if number else []
    if experiment is None or not own or experiment.tags.get(SWEEP_TAG) != folder.identity:
        sync = f"study sync {folder.plan.name}{folder.option}" + (
            f" --tracking-uri {tracking_uri}" if tracking_uri else ""
        )
        raise StudyError(
            f"MLflow has nothing of the sweep {folder.plan.name!r} yet; bring it up to date with `{sync}`."
        )
    for tag, value in views(folder.plan).items():
        if experiment.tags.get(tag) != value:
            client.set_experiment_tag(number, tag, value)
    found = experiment_links(root, number, folder.plan, own[0].info.run_id)
    order = [f"metrics.`{ranking(folder.plan)}` DESC"]
    for scenario in dict.fromkeys(group.scenario for group in folder.plan.groups):
        query = f"tags.role = 'trial' and tags.scenario = '{scenario}' and attributes.status = 'FINISHED'"
        best = client.search_runs([number], query, max_results=COMPARED, order_by=order)
        if len(best) > 1:
            ids = [run.info.run_id for run in best]
            found.append((f"{scenario}: the best {len(ids)} compared", comparison_link(root, number, ids)))
    return found
