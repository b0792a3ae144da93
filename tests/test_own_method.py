"""A method of one's own, with a setting of its own name, is one new file: names, columns, zeros and figures follow from it."""

import json
import sys

import pytest
from mlflow import MlflowClient
from report_fixtures import play, sent
from sweep_fixtures import folder_of

from analysis import load
from analysis.figures import heat_maps, search
from analysis.report.search import section_search
from search_spaces import Method, SearchSpace
from study import optimizers, reference
from study.sweep.folder import SweepFolder
from study.sweep.search_plan import make_plan
from study.tracking.store import default_uri
from study.tracking.views import VIEW_TAG

SOURCE = '''
"""A rule that reaches uphill."""

from study.config import setting
from study.optimizers import LARGEST, BlendedRule, RuleSettings, constant_rule


class Settings(RuleSettings):
    """Settings of the rule."""

    reach: float = setting(0.5, "How far it looks uphill.", short="reach", unit="furlongs", role="sharpness", gt=0, le=LARGEST)


def build(settings: Settings, lanes: int, device: str) -> BlendedRule:
    """The rule for that many lanes."""
    return constant_rule(settings, lanes, device, blend=1.0, radius=settings.reach)
'''

POINTS = tuple({"optimizer/lr": lr, "optimizer/reach": reach} for lr in (0.01, 0.1) for reach in (0.5, 1.0))
SPACE = SearchSpace(
    name="reaching",
    description="Does a rule that reaches uphill keep plasticity?",
    scenarios={"class_pairs": {"tasks/name": "class_pairs", "tasks/count": 3}},
    methods={"sgd": Method(points=({"optimizer/lr": 0.01}, {"optimizer/lr": 0.1})), "uphill": Method(points=POINTS)},
    settings={"data/name": "mnist5k", "tasks/validation_fraction": 1 / 6},
    seeds=(0, 1),
)


@pytest.fixture(scope="module")
def uphill(tmp_path_factory):
    """The folder of a finished sweep with the new method, and its store, made while the method's file is there."""
    place = tmp_path_factory.mktemp("own")
    (place / "uphill.py").write_text(SOURCE, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optimizers, "__path__", [*optimizers.__path__, str(place)])
        folder = folder_of(place / "sweeps", make_plan(SPACE, name="reaching"))
        play(folder)
        sent(folder)
        yield SweepFolder.open(folder.directory, "reaching"), default_uri(folder.directory)
    sys.modules.pop("study.optimizers.uphill", None)


def test_the_table_of_settings_has_it(uphill):
    assert "| `optimizer/reach` | `0.5` | How far it looks uphill. (`uphill` only) |" in reference.settings_table()


def test_trials_are_called_by_its_short_name(uphill):
    folder, _ = uphill
    assert "uphill lr=0.01 reach=0.5" in {history.name for history in folder.histories()}


def test_mlflow_has_a_column_and_an_axis_for_it_and_other_methods_a_zero(uphill):
    _, uri = uphill
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("reaching")
    view = json.loads(experiment.tags[f"{VIEW_TAG}trials"])
    metrics = [place for place, name in enumerate(view["selectedColumns"]) if name.startswith("metrics.")]
    assert metrics[0] == 0, "what trials are ranked by"
    assert "params.`optimizer/reach`" in view["selectedColumns"][: metrics[1]]
    (parallel,) = [chart for chart in view["compareRunCharts"] if chart["type"] == "PARALLEL"]
    assert parallel["selectedParams"] == ["optimizer/lr", "optimizer/reach"]
    runs = client.search_runs([experiment.experiment_id], "tags.role = 'trial'")
    reaches = {(run.data.tags["method"], run.data.params["optimizer/reach"]) for run in runs}
    assert reaches == {("sgd", "0"), ("uphill", "0.5"), ("uphill", "1.0")}
    assert all("optimizer/rho" not in run.data.params for run in runs)


def test_the_report_draws_heat_maps_over_it_and_labels_axes_with_its_unit(uphill, monkeypatch):
    _, uri = uphill
    maps, scattered, spans = [], [], {}
    monkeypatch.setattr(heat_maps, "heat_maps", lambda path, title, drawn, size: maps.extend(drawn))

    def scatter(path, title, tried, label, size, searched):
        scattered.extend(tried)
        spans.update(searched)

    monkeypatch.setattr(search, "settings_scatter", scatter)
    for picture in section_search(load.sweep("reaching", uri)).blocks:
        if picture.name.startswith(("heat_maps", "settings")):
            picture.draw(None, "wide")
    assert {(one.row_label, one.column_label) for one in maps} == {("reach (furlongs)", "learning rate lr (1)")}
    assert maps[0].rows == [0.0, 0.5, 1.0]
    assert "reach (furlongs)" in {name for trial in scattered for name in trial.settings}
    assert spans["reach (furlongs)"] == [0.5, 1.0]
